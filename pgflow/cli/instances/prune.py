"""`pgflow prune`: delete instances that ended long ago."""

from datetime import timedelta

import click

from pgflow.cli.connection import open_connection
from pgflow.cli.options import reading_options
from pgflow.cli.output import document
from pgflow.cli.parameters import DURATION
from pgflow.database.statement import run
from pgflow.pruning import ENDED, pruning, pruning_orphans

__all__ = ["command"]


@click.command("prune")
@click.option("--older-than", "age", type=DURATION, metavar="DURATION", help="How long ago they ended: 12h, 30d, 8w.")
@click.option(
    "--status", "statuses", type=click.Choice(ENDED), multiple=True, default=ENDED, help="Only what ended so."
)
@click.option(
    "--orphans",
    is_flag=True,
    show_default=False,
    help="Delete instead the results, jobs and signals that were left when instances were deleted in SQL.",
)
@reading_options
def command(
    age: timedelta | None, statuses: tuple[str, ...], orphans: bool, dsn: str, schema: str, as_json: bool
) -> None:
    """Delete instances that ended long ago, with their histories.

    Instances that are active stay, however old they are. It goes a thousand at a time and stands in nobody's way: let a
    timer of your system call it. The role has to be the owner of the schema.

    \b
    Examples:
      pgflow prune --older-than 30d
      pgflow prune --older-than 12h --status completed
      pgflow prune --orphans
    """
    if orphans == (age is not None):
        raise click.UsageError("Give either --older-than or --orphans.")
    pages = pruning_orphans(schema) if age is None else pruning(schema, age, statuses)
    with open_connection(dsn, schema, role="migrate") as conn:
        deleted = sum(pages.took(run(conn, page)) for page in pages)
    click.echo(document({"deleted": deleted}) if as_json else f"deleted {deleted:,}")
