"""`pgflow list`: list instances, newest first."""

from datetime import UTC, datetime
from typing import Any, get_args

import click

from pgflow.cli.connection import open_connection, require_workflow
from pgflow.cli.instances.rendering import (
    describe_failure,
    describe_wait,
    format_elapsed,
    instance_record,
    truncate,
)
from pgflow.cli.options import result_options
from pgflow.cli.output import print_document, print_notice, table
from pgflow.cli.parameters import JSON_FORMS, TEXT, read_json_argument
from pgflow.core.engine.state import Status
from pgflow.core.models.filters import MAX_PAGE_SIZE, Filters, Order
from pgflow.core.models.instance import Instance
from pgflow.core.models.query import Query, parse
from pgflow.database.statement import Statement, run
from pgflow.store import definition, instance

__all__ = ["command"]

LARGEST_BIGINT = 2**63 - 1
HEADERS = ("RUN", "ID", "WORKFLOW", "VERSION", "STATUS", "STARTED", "DURATION", "DETAILS")
DETAILS_WIDTH = 72  # characters


@click.command("list")
@click.argument("workflow", type=TEXT, required=False)
@click.option(
    "-s",
    "--status",
    "statuses",
    type=click.Choice(get_args(Status)),
    multiple=True,
    help="Only instances with this status. Repeatable.",
)
@click.option("-n", "--limit", type=click.IntRange(1, MAX_PAGE_SIZE), default=50, help="Maximum number of instances.")
@click.option(
    "--before",
    type=click.IntRange(0, LARGEST_BIGINT),
    metavar="RUN",
    help="Only runs before this one. For the next page, pass the last run of this page.",
)
@click.option(
    "--after",
    type=click.IntRange(0, LARGEST_BIGINT),
    metavar="RUN",
    help="Only runs after this one: the next page with --order oldest.",
)
@click.option("--order", type=click.Choice(get_args(Order)), default="newest", help="Sort order.")
@click.option("--id", "business_id", type=TEXT, help="Only runs of this business id, such as orderid::abc123.")
@click.option("--version", type=click.IntRange(1, 2**31 - 1), help="Only instances of this workflow version.")
@click.option("--family", type=TEXT, metavar="PREFIX", help="Only workflows whose name starts with this prefix.")
@click.option(
    "--tag", "tags", type=TEXT, multiple=True, help="Only instances with this tag. Repeatable: all must match."
)
@click.option("--metadata", type=TEXT, metavar=JSON_FORMS, help="Only instances whose metadata contains this JSON.")
@click.option(
    "--input", "contained", type=TEXT, metavar=JSON_FORMS, help="Only instances whose input contains this JSON."
)
@click.option(
    "--output",
    "outputs",
    type=TEXT,
    metavar="STEP=JSON",
    multiple=True,
    help="Only instances where this step is completed and its output contains this JSON. Repeatable.",
)
@click.option("--filter", "text", type=TEXT, help="Instead, instances that a filter matches: see pgflow bulk --help.")
@click.option("-q", "--quiet", is_flag=True, help="Print only business ids.")
@result_options
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
    text: str | None,
    quiet: bool,
    dsn: str,
    schema: str,
    as_json: bool,
) -> None:
    """List instances of WORKFLOW, or of all workflows, newest first.

    Instances must match all options. "Contains" is PostgreSQL's @> operator: an object may have further keys, and an
    array further elements.

    \b
    Examples:
      pgflow list OrderFlow --status waiting
      pgflow list --status failed --limit 500 --json
      pgflow list OrderFlow --tag gift --input '{"card": "stolen"}' --output 'charge={"bank": "b-1"}'
      pgflow list --filter 'state:failed queue:mail error:timeout age:>2h'
      pgflow list OrderFlow --status failed --quiet | xargs -n 1 pgflow retry OrderFlow
    """
    if quiet and as_json:
        raise click.UsageError("--quiet and --json are mutually exclusive.")
    options = {
        "status": statuses or None, "id": business_id, "version": version, "family": family, "tags": tags,
        "metadata": None if metadata is None else read_json_argument(metadata, "--metadata"),
        "input": None if contained is None else read_json_argument(contained, "--input"),
        "steps": dict(_output(each) for each in outputs),
        "order": order, "before": before, "after": after, "limit": limit,
    }  # fmt: skip
    filters = Filters.of(options, workflow)
    query = None if text is None else _query(text, filters)
    with open_connection(dsn, schema, workflow, role="read") as conn:
        found = run(conn, instance.list(schema, filters) if query is None else _matching(schema, query, filters))
        if not found and workflow is not None:
            require_workflow(workflow, run(conn, definition.names(schema)))
    if as_json:
        print_document({"instances": [instance_record(each) for each in found]})
    elif quiet:
        for each in found:
            click.echo(each.id)
    elif found:
        click.echo(_table(found))
        if len(found) == limit:
            print_notice(f"next page: --{'after' if filters.oldest else 'before'} {found[-1].run}")
    else:
        print_notice("no instances")


def _query(text: str, filters: Filters) -> Query:
    """Parse --filter, which replaces the other filters."""
    if filters != Filters(oldest=filters.oldest, before=filters.before, after=filters.after, limit=filters.limit):
        raise click.UsageError("--filter replaces WORKFLOW and the other filters: write workflow:OrderFlow into it.")
    return parse(text, "workflow")


def _matching(schema: str, query: Query, page: Filters) -> Statement[list[Instance]]:
    return instance.find(
        schema, query.document(), oldest=page.oldest, before=page.before, after=page.after, limit=page.limit
    )


def _output(argument: str) -> tuple[str, Any]:
    """Parse `STEP=JSON`."""
    step, equals, text = argument.partition("=")
    if not (step and equals):
        raise click.UsageError(f"--output must have the form STEP=JSON, got {argument!r}.")
    return step, read_json_argument(text, f"--output {step}")


def _table(found: list[Instance]) -> str:
    # This machine's clock is good enough for display; decisions use the database's.
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
                format_elapsed((each.finished_at or now) - each.created_at),
                truncate(_details(each) or "-", DETAILS_WIDTH),
            )
            for each in found
        ],
    )


def _details(each: Instance) -> str | None:
    if each.is_active:
        details: str | None = "; ".join(describe_wait(wait) for wait in each.waiting_for)
    else:
        details = describe_failure(each.error)
    if each.unreadable is None:
        return details
    return f"unreadable: {each.unreadable}" + (f"; {details}" if details else "")
