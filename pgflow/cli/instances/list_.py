"""`pgflow list`: the instances, newest first."""

from datetime import UTC, datetime
from typing import Any, get_args

import click

from pgflow.cli.connection import open_connection, require_workflow
from pgflow.cli.instances.rendering import failure, record, shorten, took, wait
from pgflow.cli.options import reading_options
from pgflow.cli.output import document, print_notice, table
from pgflow.cli.parameters import JSON_FORMS, TEXT, read_json_argument
from pgflow.core.engine.state import Status
from pgflow.core.models.filters import MAX_PAGE_SIZE, Filters, Order
from pgflow.core.models.instance import Instance
from pgflow.database.statement import run
from pgflow.store import definition, instance

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
@click.option("-n", "--limit", type=click.IntRange(1, MAX_PAGE_SIZE), default=50, help="How many.")
@click.option(
    "--before",
    type=click.IntRange(0, LARGEST_BIGINT),
    metavar="RUN",
    help="The next page: those before this run, the last one of the page before.",
)
@click.option(
    "--after",
    type=click.IntRange(0, LARGEST_BIGINT),
    metavar="RUN",
    help="Those after this run: the next page with --order oldest.",
)
@click.option("--order", type=click.Choice(get_args(Order)), default="newest", help="Which ones come first.")
@click.option("--id", "business_id", type=TEXT, help="The runs of this whole business id.")
@click.option("--version", type=click.IntRange(1, 2**31 - 1), help="Only of this version.")
@click.option("--family", type=TEXT, metavar="PREFIX", help="Only of workflows whose names begin so.")
@click.option("--tag", "tags", type=TEXT, multiple=True, help="Only with this tag. May be given several times.")
@click.option("--metadata", type=TEXT, metavar=JSON_FORMS, help="Only where the metadata contains this JSON.")
@click.option("--input", "contained", type=TEXT, metavar=JSON_FORMS, help="Only where the input contains this JSON.")
@click.option(
    "--output",
    "outputs",
    type=TEXT,
    metavar="STEP=JSON",
    multiple=True,
    help="Only where this step is completed and its output contains this JSON. May be given several times.",
)
@click.option("-q", "--quiet", is_flag=True, help="Print business ids only.")
@reading_options
def command(
    workflow: str | None,
    statuses: tuple[str, ...],
    limit: int,
    before: int | None,
    after: int | None,
    order: str,
    business_id: str | None,
    version: int | None,
    family: str | None,
    tags: tuple[str, ...],
    metadata: str | None,
    contained: str | None,
    outputs: tuple[str, ...],
    quiet: bool,
    dsn: str,
    schema: str,
    as_json: bool,
) -> None:
    """List instances, of one WORKFLOW or of all, newest first.

    All the given options have to hold. JSON is contained as PostgreSQL's @> means it: objects in objects that have more
    keys, arrays in arrays that have more elements.

    \b
    Examples:
      pgflow list OrderFlow --status waiting
      pgflow list --status failed --limit 500 --json
      pgflow list OrderFlow --tag gift --input '{"card": "stolen"}' --output 'charge={"bank": "b-1"}'
      pgflow list OrderFlow --status failed --quiet | xargs -n 1 pgflow retry OrderFlow
    """
    if quiet and as_json:
        raise click.UsageError("--quiet and --json exclude one another.")
    options = {
        "status": statuses or None, "id": business_id, "version": version, "family": family, "tags": tags,
        "metadata": None if metadata is None else read_json_argument(metadata, "--metadata"),
        "input": None if contained is None else read_json_argument(contained, "--input"),
        "steps": dict(_output(each) for each in outputs),
        "order": order, "before": before, "after": after, "limit": limit,
    }  # fmt: skip
    filters = Filters.of(options, workflow)
    with open_connection(dsn, schema, workflow, role="read") as conn:
        found = run(conn, instance.list(schema, filters))
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
            print_notice(
                f"newer ones: --after {found[-1].run}" if filters.oldest else f"older ones: --before {found[-1].run}"
            )
    else:
        print_notice("no instances")


def _output(given: str) -> tuple[str, Any]:
    """Read `STEP=JSON`."""
    step, equals, text = given.partition("=")
    if not (step and equals):
        raise click.UsageError(f"--output {given!r} is not STEP=JSON.")
    return step, read_json_argument(text, f"--output {step}")


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
    where = "; ".join(wait(one) for one in each.waiting_for) if each.is_active else failure(each.error)
    if each.unreadable is None:
        return where
    return f"unreadable: {each.unreadable}" + (f"; {where}" if where else "")
