"""`pgflow queue`: list, pause, resume, scale and drain queues while workers run."""

import getpass
import socket
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import click

from pgflow.cli.connection import open_connection
from pgflow.cli.options import result_options
from pgflow.cli.output import document, format_time, print_document, print_notice, table
from pgflow.cli.parameters import DURATION, TEXT
from pgflow.core.models.queue import MAX_WORKER_CONCURRENCY, Queue, QueueLimits, check_limit_name, check_places
from pgflow.database.statement import run
from pgflow.errors import QueueBusy
from pgflow.store import overview
from pgflow.store import queue as queues

__all__ = ["COUNT_LIMIT", "command", "limits_record", "limits_text", "queue_record"]

HEADERS = ("QUEUE", "STATE", "WORKERS", "READY", "RUNNING", "PER WORKER", "LIMITS", "NODES")
POLL_SECONDS = 0.2
COUNT_LIMIT = 1000  # ready jobs are counted up to one more

node_option = click.option("--node", type=TEXT, metavar="HOST", help="Only for workers on this host.")
by_option = click.option("--by", type=TEXT, help="Who pauses it, for people.", show_default="user@host")


@click.group("queue")
def command() -> None:
    """List, pause, resume, scale and drain queues while workers run.

    Changes are stored, and running workers follow within a second.
    """


@command.command("list")
@result_options
def list_(dsn: str, schema: str, as_json: bool) -> None:
    """List the queues in use: those with settings, a worker, a definition or jobs.

    \b
    Example:
      pgflow queue list
    """
    with open_connection(dsn, schema, role="read") as conn:
        found = run(conn, queues.list(schema))
    if as_json:
        print_document({"queues": [queue_record(each) for each in found]})
    elif found:
        click.echo(table(HEADERS, map(_row, found)))
    else:
        print_notice("no queues are in use")


@command.command("backlog")
@click.argument("names", type=TEXT, nargs=-1, required=True, metavar="QUEUE...")
@result_options
def backlog(names: tuple[str, ...], dsn: str, schema: str, as_json: bool) -> None:
    """Print how many jobs of the queues workers could work on now, those that run included: for an autoscaler.

    Each queue counts up to 10,000. A paused one counts what still runs, one with a limit no more than that, and one
    that is not in use nothing. In SQL it is pgflow.backlog(queue).

    \b
    Example:
      pgflow queue backlog default mail
    """
    with open_connection(dsn, schema, role="read") as conn:
        found = {name: run(conn, overview.backlog(schema, check_limit_name(name))) for name in names}
    if as_json:
        print_document({"backlog": sum(found.values()), "queues": found})
    else:
        click.echo(sum(found.values()))


@command.command("pause")
@click.argument("queue", type=TEXT)
@node_option
@by_option
@result_options
def pause(queue: str, node: str | None, by: str | None, dsn: str, schema: str, as_json: bool) -> None:
    """Pause QUEUE: workers claim and start no more of its jobs. What runs goes on.

    \b
    Examples:
      pgflow queue pause mail
      pgflow queue pause mail --node host-7 --by "deploy 1.4"
    """
    with open_connection(dsn, schema) as conn:
        run(conn, queues.pause(schema, check_limit_name(queue), node=node, by=by or _user()))
    _report({"queue": queue, "node": node, "paused": True}, f"{_named(queue, node)} is paused", as_json)


@command.command("resume")
@click.argument("queue", type=TEXT)
@node_option
@result_options
def resume(queue: str, node: str | None, dsn: str, schema: str, as_json: bool) -> None:
    """End the pause of QUEUE, on all hosts or on one."""
    with open_connection(dsn, schema) as conn:
        was_paused = run(conn, queues.resume(schema, check_limit_name(queue), node=node))
    text = f"{_named(queue, node)} {'is resumed' if was_paused else 'was not paused'}"
    _report({"queue": queue, "node": node, "was_paused": was_paused}, text, as_json)


@command.command("scale")
@click.argument("queue", type=TEXT)
@click.option("--per-worker", type=int, metavar="N", help="How many jobs each worker runs at once.")
@click.option(
    "--reset", is_flag=True, show_default=False, help="As many as the code declares, or as it was started with."
)
@node_option
@result_options
def scale(
    queue: str, per_worker: int | None, reset: bool, node: str | None, dsn: str, schema: str, as_json: bool
) -> None:
    """Set how many jobs of QUEUE each worker runs at once.

    For a limit over all workers together: pgflow limit set QUEUE --concurrency N

    \b
    Examples:
      pgflow queue scale mail --per-worker 20
      pgflow queue scale mail --per-worker 2 --node small-host
      pgflow queue scale mail --reset
    """
    if reset == (per_worker is not None):
        raise click.UsageError("Pass either --per-worker or --reset.")
    count = check_places("--per-worker", per_worker, most=MAX_WORKER_CONCURRENCY)
    with open_connection(dsn, schema) as conn:
        run(conn, queues.scale(schema, check_limit_name(queue), count, node=node))
    text = f"{_named(queue, node)}: {'as declared or started' if count is None else f'{count} per worker'}"
    _report({"queue": queue, "node": node, "worker_concurrency": count}, text, as_json)


@command.command("drain")
@click.argument("queue", type=TEXT)
@node_option
@click.option("--timeout", type=DURATION, metavar="DURATION", help="How long to wait at most.")
@by_option
@result_options
def drain(
    queue: str, node: str | None, timeout: timedelta | None, by: str | None, dsn: str, schema: str, as_json: bool
) -> None:
    """Pause QUEUE and wait until none of its jobs runs; it stays paused.

    What is queued is kept, and runs after pgflow queue resume. Exit code 7 if jobs still run after --timeout.

    \b
    Example:
      pgflow queue drain mail --node host-7 --timeout 5m
    """
    deadline = None if timeout is None else time.monotonic() + timeout.total_seconds()
    with open_connection(dsn, schema) as conn:
        running = run(conn, queues.drain(schema, check_limit_name(queue), node=node, by=by or _user()))
        while running:
            if deadline is not None and time.monotonic() >= deadline:
                raise QueueBusy(
                    f"{_named(queue, node)} is paused, and still runs {running} {'job' if running == 1 else 'jobs'}",
                    hint="Run the command again to wait for longer.",
                )
            time.sleep(POLL_SECONDS)
            running = run(conn, queues.running(schema, queue, node=node))
    _report({"queue": queue, "node": node, "drained": True}, f"{_named(queue, node)} is paused and drained", as_json)


def limits_text(limits: QueueLimits | None, declared: Sequence[str] = ()) -> str | None:
    """Return limits for people: "5 (code), 1 per key, 100/s burst 20"; the first one is as `declared` in code."""
    if limits is None:
        return None
    parts = {
        "concurrency": f"{limits.concurrency}" if limits.concurrency else "",
        "key_concurrency": f"{limits.key_concurrency} per key" if limits.key_concurrency else "",
        "rate": f"{_rate(limits.rate)} burst {limits.burst}" if limits.rate else "",
        "key_rate": f"{_rate(limits.key_rate)} burst {limits.key_burst} per key" if limits.key_rate else "",
    }
    return ", ".join(_with_source(name, text, declared) for name, text in parts.items() if text) or "turns of the keys"


def _with_source(name: str, text: str, declared: Sequence[str]) -> str:
    return f"{text} (code)" if name in declared else text


def _rate(per_second: float) -> str:
    """Return a rate in the shortest unit in which it is a whole number: "100/m"."""
    for unit, seconds in (("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)):
        count = per_second * seconds
        if round(count) >= 1 and abs(count - round(count)) < 1e-6 * count:
            return f"{round(count)}/{unit}"
    return f"{per_second:.6g}/s"


def _user() -> str:
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):  # a user id without a name, in a container
        return socket.gethostname()


def _named(queue: str, node: str | None) -> str:
    return f"queue {queue}" if node is None else f"queue {queue} on {node}"


def _report(record: dict[str, Any], text: str, as_json: bool) -> None:
    click.echo(document(record) if as_json else text)


def _row(each: Queue) -> tuple[object, ...]:
    ready = f"{COUNT_LIMIT}+" if each.ready > COUNT_LIMIT else each.ready
    nodes = "; ".join(
        f"{node.node}: " + ", ".join(filter(None, [
            f"paused since {format_time(node.paused_at)} by {node.paused_by}" if node.paused_at else "",
            f"{node.concurrency} per worker" if node.concurrency else "",
        ]))
        for node in each.nodes
    )  # fmt: skip
    state = f"paused since {format_time(each.paused_at)} by {each.paused_by}" if each.paused_at else "active"
    per_worker = each.worker_concurrency and _with_source(
        "worker_concurrency", f"{each.worker_concurrency}", each.declared
    )
    return (
        *(each.name, state, each.workers, ready, each.running, per_worker),
        *(limits_text(each.limits, each.declared), nodes or None),
    )


def queue_record(each: Queue) -> dict[str, Any]:
    """Return a queue as an object of a JSON document."""
    return {
        "name": each.name,
        "paused_at": each.paused_at,
        "paused_by": each.paused_by,
        "workers": each.workers,
        "ready": each.ready,
        "running": each.running,
        "oldest_ready_at": each.oldest_ready_at,
        "worker_concurrency": each.worker_concurrency,
        "limits": limits_record(each.limits),
        "declared": each.declared,
        "nodes": [
            {
                "node": node.node,
                "paused_at": node.paused_at,
                "paused_by": node.paused_by,
                "worker_concurrency": node.concurrency,
            }
            for node in each.nodes
        ],
    }


def limits_record(limits: QueueLimits | None) -> dict[str, Any] | None:
    """Return limits as an object of a JSON document; rates are starts per second."""
    if limits is None:
        return None
    return {
        "concurrency": limits.concurrency,
        "key_concurrency": limits.key_concurrency,
        "rate": limits.rate,
        "burst": limits.burst,
        "key_rate": limits.key_rate,
        "key_burst": limits.key_burst,
    }
