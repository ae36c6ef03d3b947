"""`pgflow resume`: send a signal to an instance, now or later."""

from datetime import timedelta
from typing import Any

import click

from pgflow.cli.connection import open_connection
from pgflow.cli.options import idempotency_option, reading_options
from pgflow.cli.output import document, moment, print_notice
from pgflow.cli.parameters import DURATION, JSON_FORMS, TEXT, payload
from pgflow.store import request, signal

__all__ = ["command"]


@click.command("resume")
@click.argument("workflow", type=TEXT)
@click.argument("value", type=TEXT)
@click.argument("event", type=TEXT)
@click.option("-p", "--payload", "given", metavar=JSON_FORMS, help="What the signal carries; - is standard input.")
@click.option("--step", type=TEXT, metavar="KEY", help="Which step it is for, when several may take it.")
@click.option(
    "--delay", type=DURATION, metavar="DURATION", help="Send it so much later, to --step: 90s, 10m, 1h30m, 2d."
)
@idempotency_option
@reading_options
def command(
    workflow: str,
    value: str,
    event: str,
    given: str | None,
    step: str | None,
    delay: timedelta | None,
    idempotency_key: str | None,
    dsn: str,
    schema: str,
    as_json: bool,
) -> None:
    """Send the signal EVENT to the newest run of VALUE.

    Prints "delivered" when it ended a wait, and "kept" when it is kept for the next wait that takes it: signals of one
    name end waits in the order in which they were sent, each one wait. Of one that is sent later it prints the number,
    by which `pgflow unschedule` cancels it. With --idempotency-key a signal that is sent again ends no second wait.
    VALUE may be a whole business id, such as orderid::abc123.

    \b
    Examples:
      pgflow resume OrderFlow abc123 payment_confirmed --payload '{"amount": 3}'
      pgflow resume OrderFlow abc123 approved --step manager_review
      pgflow resume OrderFlow abc123 rejected --step manager_review --delay 2d
    """
    text = payload(given, "payload")
    told: dict[str, Any] = {"workflow": workflow, "value": value, "event": event}
    if delay is not None:
        if step is None:
            raise click.UsageError("--delay needs --step: a signal that is sent later is for one step.")
        later = signal.schedule(
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
            _, number, due = request.run_once(conn, schema, idempotency_key, about, later, signal.decode_scheduled)
        if as_json:
            click.echo(document({**told, "signal": "scheduled", "id": number, "at": due}))
        else:
            click.echo(number)
            print_notice(f"{event} is sent to {step} at {moment(due)}; to call it off: pgflow unschedule {number}")
        return
    with open_connection(dsn, schema, workflow) as conn:
        now = signal.send(schema, workflow=workflow, value=value, event=event, payload=text, step=step, notify=True)
        about = f"resume {workflow} {value} {event} {step or ''}"
        became = request.run_once(conn, schema, idempotency_key, about, now, str)
    if as_json:
        click.echo(document({**told, "signal": became}))
        return
    click.echo(became)
    if became == "kept":
        print_notice(f"no step waits for {event} now: it is kept for the next wait that takes it")
