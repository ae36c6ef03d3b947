"""`pgflow unschedule`: cancel a scheduled signal."""

import click

from pgflow.cli.connection import open_connection
from pgflow.cli.options import result_options
from pgflow.cli.output import print_document
from pgflow.database.statement import run
from pgflow.errors import NotFound
from pgflow.store import signal

__all__ = ["command"]

LARGEST_BIGINT = 2**63 - 1


@click.command("unschedule")
@click.argument("number", type=click.IntRange(1, LARGEST_BIGINT))
@result_options
def command(number: int, dsn: str, schema: str, as_json: bool) -> None:
    """Cancel the scheduled signal NUMBER, as printed by `pgflow resume --delay` or returned by schedule_resume.

    Exits with 5 if the signal was already sent or does not exist.

    \b
    Examples:
      pgflow unschedule 12
    """
    with open_connection(dsn, schema) as conn:
        if not run(conn, signal.unschedule(schema, number)):
            raise NotFound(
                f"scheduled signal {number} was already sent or does not exist",
                hint="List an instance's scheduled signals: pgflow show WORKFLOW VALUE",
            )
    if as_json:
        print_document({"id": number, "signal": "unscheduled"})
    else:
        click.echo("unscheduled")
