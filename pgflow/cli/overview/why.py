"""`pgflow instance why` and `pgflow job why`: explain why something waits."""

from collections.abc import Sequence
from typing import Any

import click

from pgflow.cli.connection import open_connection
from pgflow.cli.options import result_options
from pgflow.cli.output import print_document, printable
from pgflow.cli.parameters import TEXT
from pgflow.core.models.overview import Reason
from pgflow.core.models.task import MAX_JOB_ID
from pgflow.database.statement import run
from pgflow.store import overview

__all__ = ["command", "describe_reason", "job_command", "reason_record"]


@click.command("why")
@click.argument("workflow", type=TEXT, required=False)
@click.argument("value", type=TEXT, required=False)
@click.option("--run", "run_id", type=click.IntRange(0, MAX_JOB_ID), metavar="RUN", help="Instead, the run id.")
@click.option("--job", type=click.IntRange(0, MAX_JOB_ID), metavar="JOB", help="Instead, the id of a job.")
@result_options
def command(
    workflow: str | None,
    value: str | None,
    run_id: int | None,
    job: int | None,
    dsn: str,
    schema: str,
    as_json: bool,
) -> None:
    """Explain why the newest run of VALUE waits: a line for each branch, and for each join that waits for one.

    It names what is missing: a signal, a timer, an operator, a worker for the queue, room under a limit or a rate, or
    who paused the queue and when. In SQL it is pgflow.why(run) and pgflow.why_job(job).

    \b
    Examples:
      pgflow why OrderFlow abc123
      pgflow why --run 17 --json
      pgflow why --job 42
    """
    given = [workflow is not None, run_id is not None, job is not None]
    if sum(given) != 1 or (value is None) != (workflow is None):
        raise click.UsageError("Pass WORKFLOW and VALUE, or --run, or --job.")
    with open_connection(dsn, schema, workflow, role="read") as conn:
        if job is not None:
            reasons = run(conn, overview.why_job(schema, job))
        else:
            reasons = run(conn, overview.why(schema, run_id, workflow=workflow, value=value))
    _print(reasons, as_json)


@click.command("why")
@click.argument("job", type=click.IntRange(0, MAX_JOB_ID))
@result_options
def job_command(job: int, dsn: str, schema: str, as_json: bool) -> None:
    """Explain why JOB waits: for its turn, a worker, a retry, room under a limit, or the end of a pause.

    \b
    Example:
      pgflow job why 42
    """
    with open_connection(dsn, schema, role="read") as conn:
        reasons = run(conn, overview.why_job(schema, job))
    _print(reasons, as_json)


def describe_reason(each: Reason) -> str:
    """Return a reason as a line.

    describe_reason(found)    # "ship: no worker serves queue mail: start one with --queue mail"
    """
    return printable(f"{each.step or 'instance'}: {each.reason}")


def reason_record(each: Reason) -> dict[str, Any]:
    """Return a reason as an object of a JSON document."""
    return {
        "step": each.step,
        "job": None if each.job is None else str(each.job),
        "kind": each.kind,
        "reason": each.reason,
        "since": each.since,
        "until": each.until,
        "queue": each.queue,
    }


def _print(reasons: Sequence[Reason], as_json: bool) -> None:
    if as_json:
        print_document({"reasons": [reason_record(each) for each in reasons]})
    else:
        click.echo("\n".join(map(describe_reason, reasons)))
