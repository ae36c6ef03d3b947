"""`pgflow job list`: list jobs of tasks, newest first."""

from typing import get_args

import click

from pgflow.cli.connection import open_connection
from pgflow.cli.instances.rendering import truncate
from pgflow.cli.jobs.rendering import describe, elapsed, job_record
from pgflow.cli.options import result_options
from pgflow.cli.output import print_document, print_notice, table
from pgflow.cli.parameters import JSON_FORMS, TEXT, read_json_argument
from pgflow.core.engine.state import Status
from pgflow.core.models.filters import MAX_PAGE_SIZE, Order
from pgflow.core.models.query import Query, parse
from pgflow.core.models.task import MAX_JOB_ID, TaskFilters, TaskInstance
from pgflow.database.connect import Connection
from pgflow.database.statement import run
from pgflow.store import task as tasks

__all__ = ["command"]

HEADERS = ("JOB", "TASK", "STATUS", "QUEUE", "ATTEMPT", "ENQUEUED", "DURATION", "DETAILS")
DETAILS_WIDTH = 72  # characters


@click.command("list")
@click.argument("task", type=TEXT, required=False)
@click.option(
    "-s",
    "--status",
    "statuses",
    type=click.Choice(get_args(Status)),
    multiple=True,
    help="Only jobs with this status. Repeatable.",
)
@click.option("--queue", type=TEXT, help="Only jobs in this queue.")
@click.option("--tag", "tags", type=TEXT, multiple=True, help="Only jobs with this tag. Repeatable: all must match.")
@click.option("--args", "contained", metavar=JSON_FORMS, help="Only jobs whose arguments contain this JSON object.")
@click.option("--filter", "text", type=TEXT, help="Instead, jobs that a filter matches: see pgflow bulk --help.")
@click.option("-n", "--limit", type=click.IntRange(1, MAX_PAGE_SIZE), default=50, help="Maximum number of jobs.")
@click.option(
    "--before",
    type=click.IntRange(0, MAX_JOB_ID),
    metavar="JOB",
    help="Only jobs before this one. For the next page, pass the last job of this page.",
)
@click.option(
    "--after",
    type=click.IntRange(0, MAX_JOB_ID),
    metavar="JOB",
    help="Only jobs after this one: the next page with --order oldest.",
)
@click.option("--order", type=click.Choice(get_args(Order)), default="newest", help="Sort order.")
@click.option("-q", "--quiet", is_flag=True, help="Print only the jobs' ids.")
@result_options
def command(
    task: str | None,
    statuses: tuple[str, ...],
    queue: str | None,
    tags: tuple[str, ...],
    contained: str | None,
    text: str | None,
    limit: int,
    before: int | None,
    after: int | None,
    order: str,
    quiet: bool,
    dsn: str,
    schema: str,
    as_json: bool,
) -> None:
    """List jobs of TASK, or of all tasks, newest first: pending, running and waiting ones, and those that have ended.

    Jobs must match all options. "Contain" is PostgreSQL's @> operator: an object may have further keys, and an array
    further elements.

    \b
    Examples:
      pgflow job list send_receipt --status waiting
      pgflow job list --queue mail --args '{"order_id": 7}'
      pgflow job list --filter 'state:failed error:timeout age:>2h args.order_id:7'
      pgflow job list --status failed --quiet | xargs pgflow job retry
    """
    if quiet and as_json:
        raise click.UsageError("--quiet and --json are mutually exclusive.")
    filters = TaskFilters.of({
        "status": statuses or None, "queue": queue, "tags": tags, "order": order, "before": before, "after": after,
        "args": None if contained is None else read_json_argument(contained, "--args"), "limit": limit,
    })  # fmt: skip
    query = None if text is None else _query(text, task, filters)
    with open_connection(dsn, schema, role="read") as conn:
        if query is None:
            found = run(conn, tasks.list(schema, filters, task=task))
        else:
            found = _matching(conn, schema, query, filters)
    if as_json:
        print_document({"jobs": [job_record(each) for each in found]})
    elif quiet:
        for each in found:
            click.echo(each.id)
    elif found:
        click.echo(_table(found))
        if len(found) == limit:
            print_notice(f"next page: --{'after' if filters.oldest else 'before'} {found[-1].id}")
    else:
        print_notice("no jobs")


def _query(text: str, task: str | None, filters: TaskFilters) -> Query:
    """Parse --filter, which replaces the other filters."""
    page = TaskFilters(oldest=filters.oldest, before=filters.before, after=filters.after, limit=filters.limit)
    if task is not None or filters != page:
        raise click.UsageError("--filter replaces TASK and the other filters: write task:send_receipt into it.")
    return parse(text, "task")


def _matching(conn: Connection, schema: str, query: Query, page: TaskFilters) -> list[TaskInstance]:
    """Read the jobs that a filter matches, in order."""
    finding = tasks.find(
        schema, query.document(), oldest=page.oldest, before=page.before, after=page.after, limit=page.limit
    )
    found = run(conn, tasks.get(schema, run(conn, finding)))
    return sorted(found, key=lambda each: each.id, reverse=not page.oldest)


def _table(found: list[TaskInstance]) -> str:
    return table(
        HEADERS,
        [
            (
                each.id,
                each.task,
                each.status,
                each.queue,
                f"{each.attempt} of {each.max_attempts}",
                each.enqueued_at,
                elapsed(each),
                truncate(describe(each) or "-", DETAILS_WIDTH),
            )
            for each in found
        ],
    )
