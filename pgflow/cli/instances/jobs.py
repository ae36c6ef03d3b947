"""`pgflow jobs`: list live jobs, oldest first."""

from collections.abc import Mapping
from typing import Any, get_args

import click

from pgflow.cli.connection import open_connection, require_workflow
from pgflow.cli.instances.rendering import format_progress, progress_record
from pgflow.cli.options import result_options
from pgflow.cli.output import print_document, print_notice, table
from pgflow.cli.parameters import JSON_FORMS, TEXT, read_json_argument
from pgflow.core.models.job import Job, JobFilters, JobState
from pgflow.database.statement import run
from pgflow.errors import InvalidPayload
from pgflow.store import definition, job

__all__ = ["command"]

LARGEST_BIGINT = 2**63 - 1
HEADERS = (
    "JOB",
    "INSTANCE",
    "WORKFLOW",
    "STEP",
    "KIND",
    "STATE",
    "QUEUE",
    "ATTEMPT",
    "RUN AT",
    "WORKER",
    "PROGRESS",
    "TAGS",
)


@click.command("jobs")
@click.argument("workflow", type=TEXT, required=False)
@click.option("--queue", type=TEXT, help="Only jobs in this queue.")
@click.option("--state", type=click.Choice(get_args(JobState)), help="Only jobs in this state.")
@click.option("--tag", "tags", type=TEXT, multiple=True, help="Only jobs with this tag. Repeatable: all must match.")
@click.option("--meta", metavar=JSON_FORMS, help="Only jobs whose metadata contains this JSON object.")
@click.option("-n", "--limit", type=click.IntRange(1, 10_000), default=50, help="Maximum number of jobs.")
@click.option(
    "--after",
    type=click.IntRange(0, LARGEST_BIGINT),
    metavar="JOB",
    help="Only jobs after this one. For the next page, pass the last job of this page.",
)
@result_options
def command(
    workflow: str | None,
    queue: str | None,
    state: str | None,
    tags: tuple[str, ...],
    meta: str | None,
    limit: int,
    after: int | None,
    dsn: str,
    schema: str,
    as_json: bool,
) -> None:
    """List live jobs of WORKFLOW, or of all workflows, oldest first.

    A job is live while it is ready, running, scheduled or parked (waiting for a signal or a timer). It carries the tags
    and metadata of its workflow, its instance and the completed steps; --json shows them.

    \b
    Examples:
      pgflow jobs OrderFlow --state parked
      pgflow jobs --queue mail --tag gift
      pgflow jobs --meta '{"tenant": "a"}' --json
    """
    options = {"queue": queue, "state": state, "tags": tags, "meta": _object(meta), "after": after, "limit": limit}
    filters = JobFilters.of(options)
    with open_connection(dsn, schema, workflow, role="read") as conn:
        found = run(conn, job.list(schema, filters, workflow=workflow))
        if not found and workflow is not None:
            require_workflow(workflow, run(conn, definition.names(schema)))
    if as_json:
        print_document({"jobs": [_record(each) for each in found]})
    elif found:
        click.echo(table(HEADERS, [_row(each) for each in found]))
        if len(found) == limit:
            print_notice(f"next page: --after {found[-1].id}")
    else:
        print_notice("no jobs")


def _object(meta: str | None) -> Mapping[str, Any] | None:
    if meta is None:
        return None
    value = read_json_argument(meta, "--meta")
    if not isinstance(value, dict):
        raise InvalidPayload("--meta must be a JSON object", hint='Example: {"tenant": "a"}.')
    return value


def _row(each: Job) -> tuple[object, ...]:
    step, attempt = each.step or None, f"{each.attempt} of {each.max_attempts}"
    columns = (each.id, each.instance_id, each.workflow, step, each.kind, each.state, each.queue)
    return (*columns, attempt, each.run_at, each.worker, format_progress(each.progress), " ".join(each.tags))


def _record(each: Job) -> dict[str, Any]:
    """Return a job as an object of a JSON document; numbers that identify are strings."""
    return {
        "id": str(each.id),
        "run": str(each.run),
        "instance_id": each.instance_id,
        "workflow": each.workflow,
        "version": each.version,
        "step": each.step,
        "kind": each.kind,
        "state": each.state,
        "queue": each.queue,
        "priority": each.priority,
        "attempt": each.attempt,
        "max_attempts": each.max_attempts,
        "run_at": each.run_at,
        "worker": None if each.worker is None else str(each.worker),
        "tags": each.tags,
        "meta": each.meta,
        "errors": each.errors,
        "progress": progress_record(each.progress),
    }
