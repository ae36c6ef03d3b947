"""`pgflow schedule pause`: pause a schedule."""

import getpass

import click

from pgflow.cli.connection import open_connection
from pgflow.cli.options import idempotency_option, result_options
from pgflow.cli.output import document
from pgflow.cli.parameters import TEXT
from pgflow.cli.schedules.stored import read_schedule
from pgflow.store import request, schedule

__all__ = ["command"]


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run as a user without a name; then the database role is stored
        return None


@click.command("pause")
@click.argument("name", type=TEXT)
@click.option("--by", type=TEXT, default=_user, show_default="your user name", help="Who pauses it, for the list.")
@idempotency_option
@result_options
def command(name: str, by: str | None, idempotency_key: str | None, dsn: str, schema: str, as_json: bool) -> None:
    """Pause schedule NAME: no instant fires until it is resumed. Runs that have started go on.

    \b
    Example:
      pgflow schedule pause weekly
    """
    with open_connection(dsn, schema) as conn:
        read_schedule(conn, schema, name)
        statement = schedule.pause(schema, name, by)
        request.run_once(conn, schema, idempotency_key, f"pause schedule {name}", statement, lambda answer: None)
    click.echo(document({"name": name, "state": "paused"}) if as_json else f"paused {name}")
