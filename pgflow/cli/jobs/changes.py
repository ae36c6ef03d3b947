"""`pgflow job retry`, `cancel`, `run-now`, `move` and `delete`: each changes some jobs, one after the other."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import click

from pgflow.cli.connection import open_connection
from pgflow.cli.options import Decorator, result_options
from pgflow.cli.output import print_document
from pgflow.cli.parameters import JSON_FORMS, TEXT, read_json_argument
from pgflow.client.commands import CancelTask, CompleteTask, DeleteTask, FailTask, RetryTask, UpdateTask
from pgflow.client.statements import Write
from pgflow.client.task_statements import TaskStatements
from pgflow.core.models.task import MAX_JOB_ID
from pgflow.database.statement import run

__all__ = ["cancel", "complete", "delete", "fail", "move", "retry", "run_now"]

LARGEST_SMALLINT = 2**15 - 1

jobs_argument: Decorator[Any] = click.argument(
    "jobs", type=click.IntRange(0, MAX_JOB_ID), nargs=-1, required=True, metavar="JOB..."
)


@click.command("retry")
@jobs_argument
@result_options
def retry(jobs: tuple[int, ...], dsn: str, schema: str, as_json: bool) -> None:
    """Run failed or cancelled jobs once more, under the same ids and with all their attempts.

    A job that waits for its next attempt runs now, and one that waits for an operator with as many attempts more as
    its task has.

    \b
    Examples:
      pgflow job retry 17
      pgflow job list --status failed --quiet | xargs pgflow job retry
    """
    sql = TaskStatements(schema)
    _change(jobs, lambda job: sql.retry(RetryTask(None, job)), "retrying", dsn, schema, as_json=as_json)


@click.command("cancel")
@jobs_argument
@click.option("--reason", type=TEXT, metavar="TEXT", help="Reason, shown by `pgflow job show`.")
@result_options
def cancel(jobs: tuple[int, ...], reason: str | None, dsn: str, schema: str, as_json: bool) -> None:
    """Cancel jobs that have not ended. The result of one that runs is discarded; an async task is interrupted.

    \b
    Example:
      pgflow job cancel 17 --reason "sent twice"
    """
    sql = TaskStatements(schema)
    _change(jobs, lambda job: sql.cancel(CancelTask(None, job, reason)), "cancelled", dsn, schema, as_json=as_json)


@click.command("run-now")
@jobs_argument
@result_options
def run_now(jobs: tuple[int, ...], dsn: str, schema: str, as_json: bool) -> None:
    """Run jobs now that are scheduled for later, or wait for their next attempt.

    \b
    Example:
      pgflow job run-now 17
    """
    sql = TaskStatements(schema)

    def update(job: int) -> Write[None]:
        return sql.update(UpdateTask(None, job, delay=timedelta(0)))

    _change(jobs, update, "running now", dsn, schema, as_json=as_json)


@click.command("move")
@jobs_argument
@click.option("--queue", type=TEXT, help="Queue to move the jobs to.")
@click.option(
    "--priority",
    type=click.IntRange(-LARGEST_SMALLINT - 1, LARGEST_SMALLINT),
    help="New priority of the jobs: lower runs first.",
)
@result_options
def move(jobs: tuple[int, ...], queue: str | None, priority: int | None, dsn: str, schema: str, as_json: bool) -> None:
    """Move jobs that do not run to another queue, another priority, or both.

    \b
    Example:
      pgflow job move 17 18 --queue slow --priority 10
    """
    if queue is None and priority is None:
        raise click.UsageError("Pass --queue, --priority or both.")
    sql = TaskStatements(schema)

    def update(job: int) -> Write[None]:
        return sql.update(UpdateTask(None, job, queue=queue, priority=priority))

    _change(jobs, update, "moved", dsn, schema, as_json=as_json)


@click.command("complete")
@click.argument("job", type=click.IntRange(0, MAX_JOB_ID))
@click.option("-o", "--output", "argument", metavar=JSON_FORMS, help="Output of the task; by default null.")
@result_options
def complete(job: int, argument: str | None, dsn: str, schema: str, as_json: bool) -> None:
    """Complete JOB, which waits for an operator, with an output, as if it had run to its end.

    A job waits for an operator when its attempts are used up and its task has Retry(on_exhausted="pause"). The output
    is not checked against the task's type: `send_receipt.job(17).complete(…)` does that.

    \b
    Example:
      pgflow job complete 17 --output '{"number": "r-1"}'
    """
    output = None if argument is None else read_json_argument(argument, "--output")
    sql = TaskStatements(schema)
    _change(
        [job], lambda each: sql.complete(CompleteTask(None, each, output)), "completed", dsn, schema, as_json=as_json
    )


@click.command("fail")
@jobs_argument
@click.option("--reason", type=TEXT, metavar="TEXT", help="Reason; by default that of the last attempt.")
@result_options
def fail(jobs: tuple[int, ...], reason: str | None, dsn: str, schema: str, as_json: bool) -> None:
    """Fail jobs that wait for an operator. They can still be retried.

    \b
    Example:
      pgflow job fail 17 --reason "the customer is gone"
    """
    sql = TaskStatements(schema)
    _change(jobs, lambda job: sql.fail(FailTask(None, job, reason)), "failed", dsn, schema, as_json=as_json)


@click.command("delete")
@jobs_argument
@result_options
def delete(jobs: tuple[int, ...], dsn: str, schema: str, as_json: bool) -> None:
    """Delete jobs that do not run, also those that have ended, with their results.

    \b
    Example:
      pgflow job delete 17
    """
    sql = TaskStatements(schema)
    _change(jobs, lambda job: sql.delete(DeleteTask(None, job)), "deleted", dsn, schema, as_json=as_json)


def _change(
    jobs: Sequence[int], write: Callable[[int], Write[None]], done: str, dsn: str, schema: str, *, as_json: bool
) -> None:
    """Change the jobs in order, each in a transaction of its own; the first error ends it."""
    changed: list[str] = []
    try:
        with open_connection(dsn, schema) as conn:
            for job in dict.fromkeys(jobs):
                run(conn, write(job).statement(True))
                changed.append(str(job))
                if not as_json:
                    click.echo(f"{done}: job {job}")
    finally:
        if as_json and changed:
            print_document({"jobs": changed, "status": done})
