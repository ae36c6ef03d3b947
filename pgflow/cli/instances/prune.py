"""`pgflow prune`: delete old finished instances."""

from datetime import timedelta

import click

from pgflow.cli.connection import open_connection
from pgflow.cli.options import result_options
from pgflow.cli.output import document
from pgflow.cli.parameters import DURATION
from pgflow.client.commands import ENDED
from pgflow.client.pruning import pruning, pruning_orphans
from pgflow.database.statement import run

__all__ = ["command"]


@click.command("prune")
@click.option(
    "--older-than", "age", type=DURATION, metavar="DURATION", help="Minimum time since the end: 12h, 30d, 8w."
)
@click.option(
    "--status",
    "statuses",
    type=click.Choice(ENDED),
    multiple=True,
    default=ENDED,
    help="Delete only instances with this status. Repeatable.",
)
@click.option(
    "--orphans",
    is_flag=True,
    show_default=False,
    help="Instead, delete results, jobs and signals whose instance was deleted with SQL.",
)
@result_options
def command(
    age: timedelta | None, statuses: tuple[str, ...], orphans: bool, dsn: str, schema: str, as_json: bool
) -> None:
    """Delete finished instances and their history.

    Active instances are never deleted, however old. Deletes in batches and does not block workers. Workers do it by
    themselves, see the guide on retention; this command is for doing it now. Requires the part --operator of
    `pgflow roles`, or the role that owns the schema; --orphans requires the owner.

    \b
    Examples:
      pgflow prune --older-than 30d
      pgflow prune --older-than 12h --status completed
      pgflow prune --orphans
    """
    if orphans == (age is not None):
        raise click.UsageError("Pass either --older-than or --orphans.")
    pages = pruning_orphans(schema) if age is None else pruning(schema, age, statuses)
    with open_connection(dsn, schema, role="migrate" if age is None else "client") as conn:
        deleted = sum(pages.took(run(conn, page)) for page in pages)
    click.echo(document({"deleted": deleted}) if as_json else f"deleted {deleted:,}")
