"""`pgflow task list`: the tasks that apps have registered."""

import click

from pgflow.cli.connection import open_connection
from pgflow.cli.options import result_options
from pgflow.cli.output import print_document, print_notice, table
from pgflow.database.statement import run
from pgflow.store import overview

__all__ = ["command"]

HEADERS = ("TASK", "QUEUE", "PRIORITY", "ATTEMPTS", "REGISTERED")


@click.command("list")
@result_options
def command(dsn: str, schema: str, as_json: bool) -> None:
    """List the tasks that apps have registered, with their defaults. Their executions: pgflow job list.

    \b
    Example:
      pgflow task list
    """
    with open_connection(dsn, schema, role="read") as conn:
        found = run(conn, overview.tasks(schema))
    if as_json:
        records = [
            {
                "name": each.name,
                "queue": each.queue,
                "priority": each.priority,
                "max_attempts": each.max_attempts,
                "registered_at": each.registered_at,
            }
            for each in found
        ]
        print_document({"tasks": records})
    elif found:
        rows = [(each.name, each.queue, each.priority, each.max_attempts, each.registered_at) for each in found]
        click.echo(table(HEADERS, rows))
    else:
        print_notice("no tasks are registered. Start a worker with the app that defines them")
