"""`pgflow job show`: show a job of a task."""

from collections.abc import Sequence

import click

from pgflow.cli.connection import open_connection
from pgflow.cli.instances.rendering import compact_json
from pgflow.cli.jobs.rendering import describe, elapsed, job_record
from pgflow.cli.options import result_options
from pgflow.cli.output import format_time, print_document, printable, table
from pgflow.cli.overview.why import reason_record
from pgflow.client.commands import GetTask
from pgflow.client.task_statements import TaskStatements
from pgflow.core.models.overview import Reason
from pgflow.core.models.task import MAX_JOB_ID, TaskInstance
from pgflow.database.statement import run
from pgflow.store import overview

__all__ = ["command"]

VALUE_WIDTH = 200  # characters


@click.command("show")
@click.argument("job", type=click.IntRange(0, MAX_JOB_ID))
@result_options
def command(job: int, dsn: str, schema: str, as_json: bool) -> None:
    """Show JOB: its arguments, its attempts, what it waits for, its output or why it failed.

    --json prints all values in full, with tracebacks.

    \b
    Examples:
      pgflow job show 17
      pgflow job show 17 --json
    """
    with open_connection(dsn, schema, role="read") as conn:
        found = run(conn, TaskStatements(schema).get(GetTask(None, job)))
        reasons = run(conn, overview.why_job(schema, job)) if found.finished_at is None else []
    if as_json:
        print_document({"job": {**job_record(found), "reasons": [reason_record(each) for each in reasons]}})
    else:
        click.echo("\n\n".join(_paragraphs(found, reasons)))


def _paragraphs(job: TaskInstance, reasons: Sequence[Reason]) -> list[str]:
    paragraphs = ["\n".join(printable(line) for line in _header(job))]
    if job.errors:
        rows = [(each.get("attempt"), each.get("type"), each.get("reason")) for each in job.errors]
        paragraphs.append(table(("ATTEMPT", "ERROR", "REASON"), rows))
    match job.status:
        case "completed":
            paragraphs.append(printable(f"output    {compact_json(job.output, VALUE_WIDTH)}"))
        case "failed":
            paragraphs.append(f"failed on attempt {job.attempt}: {describe(job)}")
            paragraphs.append(f"retry with: pgflow job retry {job.id}")
        case "cancelled":
            paragraphs.append(f"cancelled: {describe(job) or 'no reason given'}")
        case _:
            paragraphs += [printable(each.reason) for each in reasons]
            if job.is_paused:
                ways = (f"retry {job.id}", f"complete {job.id} --output JSON", f"fail {job.id}")
                paragraphs.append("\n".join(f"pgflow job {way}" for way in ways))
    return paragraphs


def _header(job: TaskInstance) -> list[str]:
    lines = [
        f"job {job.id}, {job.task}: {job.status}",
        f"queue     {job.queue}, priority {job.priority}",
        f"enqueued  {format_time(job.enqueued_at)}",
        f"attempts  {job.attempt} of {job.max_attempts}",
    ]
    if job.finished_at is not None:
        lines.append(f"finished  {format_time(job.finished_at)}, after {elapsed(job)}")
    if job.tags:
        lines.append(f"tags      {', '.join(job.tags)}")
    if job.metadata:
        lines.append(f"metadata  {compact_json(dict(job.metadata), VALUE_WIDTH)}")
    return [*lines, f"args      {compact_json(dict(job.args), VALUE_WIDTH)}"]
