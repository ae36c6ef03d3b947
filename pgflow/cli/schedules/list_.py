"""`pgflow schedule list`: list schedules."""

from typing import Any

import click

from pgflow.cli.connection import open_connection
from pgflow.cli.options import result_options
from pgflow.cli.output import format_time, print_document, print_notice, printable, table
from pgflow.core.models.schedule import ScheduleInfo
from pgflow.database.statement import run
from pgflow.store import schedule

__all__ = ["command"]

HEADERS = ("NAME", "TARGET", "WHEN", "STATE", "NEXT", "LAST", "FIRED", "SKIPPED", "MISSED", "DECLARED BY")


@click.command("list")
@result_options
def command(dsn: str, schema: str, as_json: bool) -> None:
    """List the schedules of all apps, and those that were added at run time.

    \b
    STATE is one of
      active      it fires
      paused      with the time and the person; pgflow schedule resume
      overdue     no worker runs that knows the target and, if an app declares it, declares the schedule
      undeclared  removed from the code of its app; workers of the release before still fire it, if any run
      ended       no instant follows

    SKIPPED instants came while an earlier run was active, MISSED ones while no worker ran.
    """
    with open_connection(dsn, schema, role="read") as conn:
        found = run(conn, schedule.list(schema))
    if as_json:
        print_document({"schedules": [_record(each) for each in found]})
        return
    if not found:
        print_notice("no schedules")
        return
    click.echo(table(HEADERS, [_row(each) for each in found]))
    for each in found:
        if each.last_error is not None:
            print_notice(f"{printable(each.name)}: the last start was refused: {printable(each.last_error['reason'])}")


def _row(each: ScheduleInfo) -> tuple[object, ...]:
    counts = (each.fired, each.skipped, each.missed)
    return (each.name, each.target, each.timing, _state(each), each.next_at, each.last_at, *counts, each.declared_by)


def _state(each: ScheduleInfo) -> str:
    match each.state:
        case "paused":
            return f"paused {format_time(each.paused_at)} by {each.paused_by}"
        case "undeclared":
            return f"undeclared {format_time(each.undeclared_at)}"
        case state:
            return state


def _record(each: ScheduleInfo) -> dict[str, Any]:
    return {
        "name": each.name,
        "target": each.target,
        "kind": each.kind,
        "when": str(each.timing),
        "input": each.input,
        "value": each.value,
        "overlap": each.overlap,
        "catch_up": each.catch_up,
        "jitter": each.jitter,
        "state": each.state,
        "next_at": each.next_at,
        "last_at": each.last_at,
        "last_run": None if each.last_run is None else str(each.last_run),
        "last_error": each.last_error,
        "fired": each.fired,
        "skipped": each.skipped,
        "missed": each.missed,
        "paused_at": each.paused_at,
        "paused_by": each.paused_by,
        "declared_by": each.declared_by,
        "last_declared_at": each.last_declared_at,
        "undeclared_at": each.undeclared_at,
        "created_at": each.created_at,
    }
