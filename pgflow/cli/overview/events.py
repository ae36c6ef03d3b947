"""`pgflow events`: print what happens, as the database has it: starts, steps, ends, and what operators do."""

import time
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import click

from pgflow.cli.connection import open_connection
from pgflow.cli.error_reporting import GlobalOptions
from pgflow.cli.instances.rendering import describe_failure
from pgflow.cli.nearest import nearest
from pgflow.cli.options import result_options
from pgflow.cli.output import format_time, print_document, print_notice, printable
from pgflow.cli.parameters import TEXT, Duration
from pgflow.core.models.instance import Instance
from pgflow.core.models.overview import Happening
from pgflow.database.connect import Connection
from pgflow.database.statement import run
from pgflow.errors import NotFound
from pgflow.store import definition, instance, overview

__all__ = ["command"]

# Read again with each look: what a transaction writes has the time of its statement, and is visible after its commit.
OVERLAP = timedelta(seconds=30)
PAGE = 1000
POLL_SECONDS = 1.0
Key = tuple[str, str, str, int]


@click.command("events")
@click.argument("name", type=TEXT, required=False)
@click.argument("value", type=TEXT, required=False)
@click.option("-f", "--follow", is_flag=True, show_default=False, help="Go on, and print what happens from now on.")
@click.option(
    "--since",
    type=Duration(timedelta(seconds=1), timedelta(days=365)),
    default="1h",
    metavar="DURATION",
    help="How far back to begin.",
)
@click.option("-n", "--limit", type=click.IntRange(1, PAGE), default=50, help="At most so many events from before.")
@result_options
def command(
    name: str | None,
    value: str | None,
    follow: bool,
    since: timedelta,
    limit: int,
    dsn: str,
    schema: str,
    as_json: bool,
) -> None:
    """Print the starts and ends of instances, the ends of tasks and what operators did, oldest first.

    NAME is a workflow or a task. With VALUE, the steps of the newest run of this instance are printed; --follow then
    ends with the instance. Everything is read from the database, at most a second late; with --follow, use --jsonl
    instead of --json.

    \b
    Examples:
      pgflow events --follow
      pgflow events OrderFlow --since 1d
      pgflow events OrderFlow abc123 --follow --jsonl
    """
    if follow and as_json and not click.get_current_context().ensure_object(GlobalOptions).json_lines:
        raise click.UsageError("--follow has no end, so it has no document: use --jsonl instead of --json.")
    with open_connection(dsn, schema, role="read") as conn:
        if value is not None:
            assert name is not None  # noqa: S101 -- for the type checker: the first of two arguments
            _print_instance(conn, schema, name, value, follow=follow, as_json=as_json)
            return
        found = run(conn, overview.events(schema, since, name=name, limit=limit))[::-1]
        if not found and name is not None:
            _require_name(conn, schema, name)
        _print(found, as_json)
        if not found and not follow and not as_json:
            print_notice("no events. Look further back: --since 1d")
        if follow:
            _follow(conn, schema, name, found, as_json=as_json)


def _require_name(conn: Connection, schema: str, name: str) -> None:
    """Raise `NotFound` unless a workflow or a task has the name."""
    known = [*run(conn, definition.names(schema)), *(each.name for each in run(conn, overview.tasks(schema)))]
    if name not in known:
        near = nearest(name, known)
        hint = f"Did you mean {' or '.join(near)}?" if near else "List tasks: pgflow task list"
        raise NotFound(f"no workflow or task named {name!r} is registered here", hint=hint)


def _follow(conn: Connection, schema: str, name: str | None, printed: Iterable[Happening], *, as_json: bool) -> None:
    """Print new events until Ctrl-C."""
    newest = run(conn, overview.events(schema, OVERLAP, name=name, limit=PAGE))
    seen = {*map(_key, printed), *map(_key, newest)}
    while True:
        time.sleep(POLL_SECONDS)
        newest = run(conn, overview.events(schema, OVERLAP, name=name, limit=PAGE))
        fresh = [each for each in reversed(newest) if _key(each) not in seen]
        if len(fresh) == PAGE:
            print_notice(f"more than {PAGE} events in a second: some are not shown")
        _print(fresh, as_json)
        seen = {*map(_key, newest)}


def _print_instance(conn: Connection, schema: str, name: str, value: str, *, follow: bool, as_json: bool) -> None:
    """Print the events of one instance; follow it to its end."""
    first = run(conn, instance.get(schema, workflow=name, value=value))
    printed = 0
    while True:
        found = run(conn, instance.get(schema, workflow=name, value=first.id))
        events = _happenings(found)
        _print(events[printed:], as_json)
        printed = len(events)
        if not follow or not found.is_active or found.run != first.run:
            return
        time.sleep(POLL_SECONDS)


def _happenings(found: Instance) -> list[Happening]:
    events = [Happening(found.created_at, "workflow", found.workflow, "started", found.id, found.run, None)]
    for each in found.history:
        attempt = f"attempt {each.attempt}" if each.attempt > 1 else None
        events.append(Happening(each.at, "step", each.step, each.event, found.id, found.run, attempt))
    if found.finished_at is not None:
        failure = describe_failure(found.error)
        events.append(
            Happening(found.finished_at, "workflow", found.workflow, found.status, found.id, found.run, failure)
        )
    return events


def _key(each: Happening) -> Key:
    return each.subject, each.name, each.event, each.number


def _print(events: list[Happening], as_json: bool) -> None:
    if as_json:
        if events or not click.get_current_context().ensure_object(GlobalOptions).json_lines:
            print_document({"events": [_record(each) for each in events]})
        return
    for each in events:
        subject = f"{each.subject} {each.name}"
        target = each.id if each.subject == "audit" else f"{each.id or 'job'} {each.number}"
        detail = "" if each.detail is None else f": {each.detail}"
        click.echo(printable(f"{format_time(each.at)}  {subject}  {each.event}  {target}{detail}"))


def _record(each: Happening) -> dict[str, Any]:
    return {
        "at": each.at,
        "subject": each.subject,
        "name": each.name,
        "event": each.event,
        "id": each.id,
        "number": str(each.number),
        "detail": each.detail,
    }
