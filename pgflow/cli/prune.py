"""`pgflow prune`: delete instances that ended long ago."""

import click

from pgflow.cli.database import opened
from pgflow.cli.given import read_duration
from pgflow.cli.options import reading_options
from pgflow.cli.output import document
from pgflow.pruning import ENDED, pruning
from pgflow.store.statement import run

__all__ = ["command"]


@click.command("prune")
@click.option("--older-than", "age", required=True, metavar="DURATION", help="How long ago they ended: 12h, 30d, 8w.")
@click.option(
    "--status", "statuses", type=click.Choice(ENDED), multiple=True, default=ENDED, help="Only what ended so."
)
@reading_options
def command(age: str, statuses: tuple[str, ...], dsn: str, schema: str, as_json: bool) -> None:
    """Delete instances that ended long ago, with their histories.

    Instances that are active stay, however old they are. It goes a thousand at a time and stands in nobody's way: let a
    timer of your system call it. The role has to be the owner of the schema.

    \b
    Examples:
      pgflow prune --older-than 30d
      pgflow prune --older-than 12h --status completed
    """
    pages = pruning(schema, read_duration(age), statuses)
    with opened(dsn, schema, role="migrate") as conn:
        deleted = sum(pages.took(run(conn, page)) for page in pages)
    click.echo(document({"deleted": deleted}) if as_json else f"deleted {deleted:,}")
