"""`pgflow schedule remove`: remove a schedule."""

import click

from pgflow.cli.connection import open_connection
from pgflow.cli.options import idempotency_option, result_options
from pgflow.cli.output import document
from pgflow.cli.parameters import TEXT
from pgflow.cli.schedules.stored import read_schedule
from pgflow.database.statement import run
from pgflow.store import request, schedule

__all__ = ["command"]


@click.command("remove")
@click.argument("name", type=TEXT)
@click.option(
    "--force", is_flag=True, show_default=False, help="Also if an app declares it, which adds it again when it starts."
)
@idempotency_option
@result_options
def command(name: str, force: bool, idempotency_key: str | None, dsn: str, schema: str, as_json: bool) -> None:
    """Remove schedule NAME. Runs that have started go on.

    A schedule that an app declares in its code is removed there. Then pgflow schedule list shows it as undeclared, and
    this command removes it for good.

    \b
    Example:
      pgflow schedule remove weekly
    """
    with open_connection(dsn, schema) as conn:
        statement = schedule.remove(schema, name, force=force)
        if idempotency_key is None:
            read_schedule(conn, schema, name)
            run(conn, statement)
        else:  # removed by an earlier call, it does not exist
            call = f"remove schedule {name}"
            request.run_once(conn, schema, idempotency_key, call, statement, lambda answer: None)
    click.echo(document({"name": name, "state": "removed"}) if as_json else f"removed {name}")
