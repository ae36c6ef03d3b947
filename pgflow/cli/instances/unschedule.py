"""`pgflow unschedule`: call off a signal that is to be sent later."""

import click

from pgflow.cli.connection import open_connection
from pgflow.cli.options import reading_options
from pgflow.cli.output import document
from pgflow.database.statement import run
from pgflow.errors import NotFound
from pgflow.store import signal

__all__ = ["command"]

LARGEST_BIGINT = 2**63 - 1


@click.command("unschedule")
@click.argument("number", type=click.IntRange(1, LARGEST_BIGINT))
@reading_options
def command(number: int, dsn: str, schema: str, as_json: bool) -> None:
    """Call off the signal NUMBER, which `pgflow resume --delay` or schedule_resume is to send later.

    The exit code is 5 when it was sent already, or never was to be.

    \b
    Examples:
      pgflow unschedule 12
    """
    with open_connection(dsn, schema) as conn:
        if not run(conn, signal.unschedule(schema, number)):
            raise NotFound(f"no signal {number} is still to be sent", hint="See what is: pgflow show WORKFLOW VALUE")
    if as_json:
        click.echo(document({"id": number, "signal": "unscheduled"}))
    else:
        click.echo("unscheduled")
