"""`pgflow list`: the instances, newest first."""

from datetime import UTC, datetime
from typing import get_args

import click

from pgflow.cli.database import opened, require_workflow
from pgflow.cli.given import TEXT
from pgflow.cli.instance import failure, record, shorten, took, wait
from pgflow.cli.options import reading_options
from pgflow.cli.output import document, say, table
from pgflow.core.engine import Status
from pgflow.core.instance import Instance
from pgflow.store import definition, instance
from pgflow.store.statement import run

__all__ = ["command"]

LARGEST_BIGINT = 2**63 - 1
HEADERS = ("RUN", "ID", "WORKFLOW", "VERSION", "STATUS", "STARTED", "DURATION", "WHERE")
WIDEST = 72  # characters of the last column


@click.command("list")
@click.argument("workflow", type=TEXT, required=False)
@click.option(
    "-s",
    "--status",
    "statuses",
    type=click.Choice(get_args(Status)),
    multiple=True,
    help="Only these. May be given several times.",
)
@click.option("-n", "--limit", type=click.IntRange(1, 10_000), default=50, help="How many.")
@click.option(
    "--before",
    type=click.IntRange(0, LARGEST_BIGINT),
    metavar="RUN",
    help="The next page: those before this run, the last one of the page before.",
)
@click.option("-q", "--quiet", is_flag=True, help="Print business ids only.")
@reading_options
def command(
    workflow: str | None,
    statuses: tuple[str, ...],
    limit: int,
    before: int | None,
    quiet: bool,
    dsn: str,
    schema: str,
    as_json: bool,
) -> None:
    """List instances, of one WORKFLOW or of all, newest first.

    \b
    Examples:
      pgflow list OrderFlow --status waiting
      pgflow list --status failed --limit 500 --json
      pgflow list OrderFlow --status failed --quiet | xargs -n 1 pgflow retry OrderFlow
    """
    if quiet and as_json:
        raise click.UsageError("--quiet and --json exclude one another.")
    with opened(dsn, schema, workflow, role="read") as conn:
        found = run(
            conn,
            instance.list(schema, workflow=workflow, statuses=statuses or None, before=before, limit=limit),
        )
        if not found and workflow is not None:
            require_workflow(workflow, run(conn, definition.names(schema)))
    if as_json:
        click.echo(document({"instances": [record(each) for each in found]}))
    elif quiet:
        for each in found:
            click.echo(each.id)
    elif found:
        click.echo(_table(found))
        if len(found) == limit:
            say(f"older ones: --before {found[-1].run}")
    else:
        say("no instances")


def _table(found: list[Instance]) -> str:
    # For the eye only: no decision rests on this machine's clock.
    now = datetime.now(UTC)
    return table(
        HEADERS,
        [
            (
                each.run,
                each.id,
                each.workflow,
                each.version,
                each.status,
                each.created_at,
                took((each.finished_at or now) - each.created_at),
                shorten(_where(each) or "-", WIDEST),
            )
            for each in found
        ],
    )


def _where(each: Instance) -> str | None:
    return "; ".join(wait(one) for one in each.waiting_for) if each.is_active else failure(each.error)
