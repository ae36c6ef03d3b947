"""`pgflow resume`: send a signal to an instance, now or later."""

from datetime import timedelta
from typing import Any

import click

from pgflow.cli.connection import open_connection
from pgflow.cli.options import idempotency_option, result_options
from pgflow.cli.output import format_time, print_document, print_notice
from pgflow.cli.parameters import DURATION, JSON_FORMS, TEXT, payload
from pgflow.store import request, signal

__all__ = ["command"]


@click.command("resume")
@click.argument("workflow", type=TEXT)
@click.argument("value", type=TEXT)
@click.argument("event", type=TEXT)
@click.option("-p", "--payload", "argument", metavar=JSON_FORMS, help="Payload of the signal; - reads stdin.")
@click.option("--step", type=TEXT, metavar="KEY", help="Step to signal, when several steps wait for this event.")
@click.option(
    "--delay", type=DURATION, metavar="DURATION", help="Send the signal to --step after this time: 90s, 1h30m, 2d."
)
@idempotency_option
@result_options
def command(
    workflow: str,
    value: str,
    event: str,
    argument: str | None,
    step: str | None,
    delay: timedelta | None,
    idempotency_key: str | None,
    dsn: str,
    schema: str,
    as_json: bool,
) -> None:
    """Send the signal EVENT to the newest run of VALUE.

    Prints "delivered" if a step was waiting for the signal, "kept" if it is stored until a step waits for it. Signals
    of the same name are consumed in the order they were sent, one per wait. With --delay, prints the number of the
    scheduled signal, for `pgflow unschedule`. With --idempotency-key, sending it twice is the same as sending it once.
    VALUE may be a whole business id, such as orderid::abc123.

    \b
    Examples:
      pgflow resume OrderFlow abc123 payment_confirmed --payload '{"amount": 3}'
      pgflow resume OrderFlow abc123 approved --step manager_review
      pgflow resume OrderFlow abc123 rejected --step manager_review --delay 2d
    """
    text = payload(argument, "payload")
    sent: dict[str, Any] = {"workflow": workflow, "value": value, "event": event}
    if delay is not None:
        if step is None:
            raise click.UsageError("--delay requires --step: a scheduled signal is sent to one step.")
        schedule = signal.schedule(
            schema,
            workflow=workflow,
            version=None,
            value=value,
            step=step,
            delay=delay,
            event=event,
            payload=text,
        )
        about = f"schedule_resume {workflow} {value} {step} {event}"
        with open_connection(dsn, schema, workflow) as conn:
            _, number, due = request.run_once(conn, schema, idempotency_key, about, schedule, signal.decode_scheduled)
        if as_json:
            print_document({**sent, "signal": "scheduled", "id": number, "at": due})
        else:
            click.echo(number)
            print_notice(
                f"{event} is scheduled for {step} at {format_time(due)}; cancel it: pgflow unschedule {number}"
            )
        return
    with open_connection(dsn, schema, workflow) as conn:
        send = signal.send(schema, workflow=workflow, value=value, event=event, payload=text, step=step, notify=True)
        about = f"resume {workflow} {value} {event} {step or ''}"
        result = request.run_once(conn, schema, idempotency_key, about, send, str)
    if as_json:
        print_document({**sent, "signal": result})
        return
    click.echo(result)
    if result == "kept":
        print_notice(f"no step is waiting for {event}: the signal is kept until one does")
