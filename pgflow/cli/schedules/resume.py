"""`pgflow schedule resume`: resume a paused schedule."""

import click

from pgflow.cli.connection import open_connection
from pgflow.cli.options import idempotency_option, result_options
from pgflow.cli.output import document
from pgflow.cli.parameters import TEXT
from pgflow.cli.schedules.stored import read_schedule
from pgflow.store import request, schedule

__all__ = ["command"]


@click.command("resume")
@click.argument("name", type=TEXT)
@idempotency_option
@result_options
def command(name: str, idempotency_key: str | None, dsn: str, schema: str, as_json: bool) -> None:
    """Resume schedule NAME from the first instant after now. Start those in between with pgflow schedule backfill.

    A schedule whose last instant lies in the future, because the clock of the database was set back, is resumed, too.

    \b
    Example:
      pgflow schedule resume weekly
    """
    with open_connection(dsn, schema) as conn:
        read_schedule(conn, schema, name)
        statement = schedule.resume(schema, name)
        request.run_once(conn, schema, idempotency_key, f"resume schedule {name}", statement, lambda answer: None)
    click.echo(document({"name": name, "state": "active"}) if as_json else f"resumed {name}")
