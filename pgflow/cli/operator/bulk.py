"""`pgflow bulk`: change all instances that a filter matches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from pgflow.cli.connection import open_connection, os_user
from pgflow.cli.operations.progress_bar import ProgressBar
from pgflow.cli.options import result_options
from pgflow.cli.output import print_document, print_notice, printable
from pgflow.cli.parameters import DURATION, TEXT, parse_timestamp
from pgflow.client.bulk import Plan, bulk_command, working_off, working_off_rest
from pgflow.client.commands import ResumeBulk
from pgflow.client.statements import Write
from pgflow.core.models.bulk import Action, BulkResult, Skipped
from pgflow.database.connect import Connection
from pgflow.database.statement import run

__all__ = ["command"]

SHOWN = 20  # skipped instances that are printed; --json has them all

Command = Callable[..., Any]


@click.group("bulk")
def command() -> None:
    """Change all instances that a filter matches: retry, cancel, move, reprioritise, reschedule or delete them.

    Without --yes nothing is changed: the command counts what the filter matches. With --yes it works in batches, each
    in its own transaction, and records the operation in the audit. An instance that cannot be changed is skipped and
    reported. Requires the part --operator of `pgflow roles`, or the role that owns the schema.

    \b
    A filter has terms KEY:VALUE, all of which must match; "-" before a term negates it, commas separate alternatives:
      state:failed queue:mail workflow:OrderFlow step:charge tag:gift -tag:vip id:abc123,abc124
      error:"timed out" age:>2h attempt:>=3 priority:<0 version:2 worker:7 input.tenant:7 metadata.source:import

    \b
    Examples:
      pgflow bulk retry --filter 'state:failed queue:mail error:timeout'
      pgflow bulk retry --filter 'state:failed queue:mail error:timeout' --yes
      pgflow bulk move --filter 'workflow:OrderFlow step:charge' --queue slow --yes
      pgflow bulk resume 17
    """


def bulk_options(function: Command) -> Command:
    """Add the options that all actions have."""
    options = (
        click.option("--filter", "text", type=TEXT, required=True, help="Which instances: see `pgflow bulk --help`."),
        click.option("-y", "--yes", is_flag=True, show_default=False, help="Change them; without it they are counted."),
        click.option("--by", type=TEXT, metavar="NAME", help="Name for the audit; by default that of the system user."),
        batch_option,
    )
    for option in reversed((*options, result_options)):
        function = option(function)
    return function


batch_option = click.option(
    "--batch", type=click.IntRange(1, 5000), default=500, help="How many instances one transaction changes."
)


@command.command("retry")
@bulk_options
def retry(**options: Any) -> None:
    """Retry failed instances from the failed step; of each business id only the newest run."""
    _operate("retry", {}, **options)


@command.command("cancel")
@click.option("--reason", type=TEXT, metavar="TEXT", help="Reason, shown by `pgflow show`.")
@bulk_options
def cancel(reason: str | None, **options: Any) -> None:
    """Cancel active instances."""
    _operate("cancel", {"reason": reason}, **options)


@command.command("move")
@click.option("--queue", type=TEXT, required=True, help="Queue in which the waiting steps are to run.")
@bulk_options
def move(queue: str, **options: Any) -> None:
    """Move steps that wait for a worker to another queue; the steps after them run in their own queues."""
    _operate("move", {"queue": queue}, **options)


@command.command("reprioritise")
@click.option("--priority", type=click.IntRange(-32768, 32767), required=True, help="The lowest goes first.")
@bulk_options
def reprioritise(priority: int, **options: Any) -> None:
    """Set the priority of active instances; steps that run keep theirs."""
    _operate("reprioritise", {"priority": priority}, **options)


@command.command("reschedule")
@click.option("--at", "at_text", metavar="TIME", help="When, in ISO 8601 with a time zone: 2030-01-31T12:00:00Z.")
@click.option("--in", "delay", type=DURATION, metavar="DURATION", help="Instead, how long from now: 0s, 10m, 2h.")
@bulk_options
def reschedule(at_text: str | None, delay: timedelta | None, **options: Any) -> None:
    """Run steps that wait for a worker, or for their next attempt, at another time; `--in 0s` is now."""
    if (at_text is None) == (delay is None):
        raise click.UsageError("Pass either --at or --in.")
    at = datetime.now(UTC) + delay if delay is not None else parse_timestamp(str(at_text))
    _operate("reschedule", {"at": at}, **options)


@command.command("delete")
@bulk_options
def delete(**options: Any) -> None:
    """Delete instances that have ended, with their histories."""
    _operate("delete", {}, **options)


@command.command("resume")
@click.argument("operation", type=click.IntRange(1, 2**63 - 1))
@batch_option
@result_options
def resume(operation: int, batch: int, dsn: str, schema: str, as_json: bool) -> None:
    """Continue OPERATION, the number that an interrupted operation has in `pgflow audit list`."""
    with open_connection(dsn, schema) as conn:
        result = _work_off(conn, working_off_rest(schema, ResumeBulk(operation, batch)))
    _report(result, as_json)


def _operate(
    action: Action,
    given: dict[str, Any],
    *,
    text: str,
    yes: bool,
    by: str | None,
    batch: int,
    dsn: str,
    schema: str,
    as_json: bool,
) -> None:
    progress = ProgressBar()
    done = 0

    def advance(matched: int, total: int) -> None:
        nonlocal done
        if not done:
            progress.begin(action, total)
        progress.advance(matched - done)
        done = matched

    shown = advance if progress.is_shown else None
    chosen = bulk_command(
        action,
        text,
        given,
        {
            "dry_run": not yes,
            "by": by or os_user(),
            "batch": batch,
            "on_progress": shown,
        },
    )
    with open_connection(dsn, schema) as conn:
        try:
            result = _work_off(conn, working_off(schema, chosen))
        finally:
            progress.end()
    _report(result, as_json)


def _work_off(conn: Connection, plan: Plan) -> BulkResult:
    """Run the statements of a plan, each in a transaction of its own."""
    try:
        step = next(plan)
        while True:
            step = plan.send(run(conn, step.statement(True) if isinstance(step, Write) else step))
    except StopIteration as end:
        result: BulkResult = end.value
        return result


def _report(result: BulkResult, as_json: bool) -> None:
    if as_json:
        print_document(_record(result))
        return
    if result.is_dry_run:
        states = ", ".join(f"{count:,} {state}" for state, count in sorted(result.states.items()))
        click.echo(f"{result.matched:,} match" + (f": {states}" if states else ""))
        print_notice(f"{result.action} would apply to {result.changed:,} of them; run it with --yes")
        return
    click.echo(f"{PAST[result.action]} {result.changed:,} of {result.matched:,}")
    for reason, count in Counter(each.reason for each in result.skipped).most_common(SHOWN):
        examples = [_name(each) for each in result.skipped if each.reason == reason]
        shown = ", ".join(examples[:3]) + (", …" if count > 3 else "")
        print_notice(printable(f"skipped {count:,}: {reason} ({shown})"))
    print_notice(f"operation {result.operation}: see pgflow audit list")


PAST = {
    "retry": "retrying",
    "cancel": "cancelled",
    "move": "moved",
    "reprioritise": "reprioritised",
    "reschedule": "rescheduled",
    "delete": "deleted",
}


def _name(each: Skipped) -> str:
    if each.job is not None:
        return f"job {each.job}"
    return each.id or f"run {each.run}"


def _record(result: BulkResult) -> dict[str, Any]:
    return {
        "action": result.action,
        "dry_run": result.is_dry_run,
        "matched": result.matched,
        "changed": result.changed,
        "skipped_count": result.skipped_count,
        "skipped": [
            {
                "run": None if each.run is None else str(each.run),
                "job": None if each.job is None else str(each.job),
                "id": each.id,
                "reason": each.reason,
            }
            for each in result.skipped
        ],
        "states": result.states,
        "operation": None if result.operation is None else str(result.operation),
    }
