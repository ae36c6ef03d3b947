"""`pgflow resume`: send a signal to an instance."""

import click

from pgflow.cli.database import opened
from pgflow.cli.given import JSON_FORMS, TEXT, payload
from pgflow.cli.options import reading_options
from pgflow.cli.output import document, say
from pgflow.store import signal
from pgflow.store.statement import run

__all__ = ["command"]


@click.command("resume")
@click.argument("workflow", type=TEXT)
@click.argument("value", type=TEXT)
@click.argument("event", type=TEXT)
@click.option("-p", "--payload", "given", metavar=JSON_FORMS, help="What the signal carries; - is standard input.")
@click.option("--step", type=TEXT, metavar="KEY", help="Which step it is for, when several may take it.")
@reading_options
def command(
    workflow: str, value: str, event: str, given: str | None, step: str | None, dsn: str, schema: str, as_json: bool
) -> None:
    """Send the signal EVENT to the newest run of VALUE.

    Prints "delivered" when a step waited for it, "kept" when it is to wait for the step. VALUE may be a whole business
    id, such as orderid::abc123.

    \b
    Examples:
      pgflow resume OrderFlow abc123 payment_confirmed --payload '{"amount": 3}'
      pgflow resume OrderFlow abc123 approved --step manager_review
    """
    text = payload(given, "payload")
    with opened(dsn, schema, workflow) as conn:
        became = run(
            conn,
            signal.send(schema, workflow=workflow, value=value, event=event, payload=text, step=step, notify=True),
        )
    if as_json:
        click.echo(document({"workflow": workflow, "value": value, "event": event, "signal": became}))
        return
    click.echo(became)
    if became == "kept":
        say(f"nothing waits for {event} yet: it is kept until a step does")
