"""`pgflow top`: a live view of queues, workers and rates in the terminal."""

import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import click
import psycopg

from pgflow.cli.connection import open_connection
from pgflow.cli.instances.rendering import format_elapsed
from pgflow.cli.operations.queue import COUNT_LIMIT, limits_text, queue_record
from pgflow.cli.options import result_options
from pgflow.cli.output import document, format_time, table
from pgflow.cli.overview.workers import worker_record
from pgflow.cli.parameters import Duration, format_duration
from pgflow.core.models.overview import Throughput, WorkerInfo
from pgflow.core.models.queue import Queue
from pgflow.database.connect import Connection
from pgflow.database.dsn import place
from pgflow.database.statement import run
from pgflow.errors import DatabaseError
from pgflow.store import overview, queue, worker

__all__ = ["command"]

HOME_AND_CLEAR = "\x1b[H\x1b[J"
HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
MANY_WORKERS = 15  # lines of a frame


@dataclass(frozen=True, slots=True)
class Frame:
    """What one frame shows."""

    queues: Sequence[Queue]
    workers: Sequence[WorkerInfo]
    ended: Sequence[Throughput]
    period: timedelta


@click.command("top")
@click.option("--once", is_flag=True, show_default=False, help="Print one frame and exit; the same without a terminal.")
@click.option(
    "--interval",
    type=Duration(timedelta(milliseconds=200), timedelta(hours=1), bare=True),
    default="2s",
    metavar="DURATION",
    help="Time between two frames.",
)
@click.option(
    "--period",
    type=Duration(timedelta(seconds=1), timedelta(days=30), bare=True),
    default="1m",
    metavar="DURATION",
    help="Over which time the rates are computed.",
)
@result_options
def command(once: bool, interval: timedelta, period: timedelta, dsn: str, schema: str, as_json: bool) -> None:
    """Watch queues, workers and rates. Ctrl-C ends it.

    It needs the rights of a dashboard (pgflow roles), and reads few rows whatever the size of the database.

    \b
    Examples:
      pgflow top
      pgflow top --once
      pgflow top --once --json
    """
    title = f"pgflow  {place(dsn)}, schema {schema}"
    if once or as_json or not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
        with open_connection(dsn, schema, role="read") as conn:
            frame = _read(conn, schema, period)
        click.echo(document(_record(frame)) if as_json else "\n".join(_lines(frame, title)))
        return
    _control(HIDE_CURSOR)
    try:
        _watch(dsn, schema, period, interval, title)
    except KeyboardInterrupt:
        pass
    finally:
        _control(f"{SHOW_CURSOR}\n")


def _watch(dsn: str, schema: str, period: timedelta, interval: timedelta, title: str) -> None:
    """Draw frames until Ctrl-C. Once it has drawn one, it waits for a database that does not answer."""
    has_drawn = False
    while True:
        try:
            with open_connection(dsn, schema, role="read") as conn:
                while True:
                    lines = _lines(_read(conn, schema, period), title)
                    size = shutil.get_terminal_size()
                    shown = [line[: size.columns] for line in lines[: size.lines - 1]]
                    shown[0] = click.style(shown[0], bold=True)
                    _control(HOME_AND_CLEAR)
                    click.echo("\n".join(shown), nl=False)
                    has_drawn = True
                    time.sleep(interval.total_seconds())
        except (DatabaseError, psycopg.OperationalError) as error:
            if not has_drawn:
                raise
            _control(HOME_AND_CLEAR)
            click.echo(f"{title}\n\n{' '.join(str(error).split())}\nTrying again ...", nl=False)
            time.sleep(interval.total_seconds())


def _control(codes: str) -> None:
    """Move the cursor or clear the screen: not through click, which without colors would remove the codes."""
    sys.stdout.write(codes)
    sys.stdout.flush()


def _read(conn: Connection, schema: str, period: timedelta) -> Frame:
    return Frame(
        run(conn, queue.list(schema)),
        run(conn, worker.list(schema)),
        run(conn, overview.throughput(schema, period)),
        period,
    )


def _record(frame: Frame) -> dict[str, Any]:
    return {
        "queues": [queue_record(each) for each in frame.queues],
        "workers": [worker_record(each) for each in frame.workers],
        "throughput": [asdict(each) for each in frame.ended],
        "period": frame.period,
    }


def _lines(frame: Frame, title: str) -> list[str]:
    """Return the lines of a frame; the first one is its title."""
    now = datetime.now(UTC)  # this machine's clock is good enough for display
    busy = [each for each in frame.ended if each.completed or each.failed or each.cancelled]
    period = format_duration(frame.period)
    ready = sum(each.ready for each in frame.queues)
    more = "+" if any(each.ready > COUNT_LIMIT for each in frame.queues) else ""
    running = sum(each.running for each in frame.queues)
    completed, failed = sum(each.completed for each in busy), sum(each.failed for each in busy)
    rate = f"{sum(each.per_second for each in busy):.1f} per second"
    lines = [
        f"{title}  {format_time(now)}",
        f"{len(frame.workers)} workers, {running} jobs running, {ready}{more} ready",
        f"in the last {period}: {completed} completed, {failed} failed, {rate}",
        "",
    ]
    headers = ("QUEUE", "STATE", "WORKERS", "READY", "RUNNING", "OLDEST", "LIMITS")
    lines += table(headers, [_queue_row(each, now) for each in frame.queues]).splitlines()
    if frame.workers:
        rows = [
            (each.id, each.node, each.pid, each.running, format_elapsed(now - each.started_at), " ".join(each.queues))
            for each in frame.workers[:MANY_WORKERS]
        ]
        lines += ["", *table(("WORKER", "NODE", "PID", "RUNNING", "UP", "QUEUES"), rows).splitlines()]
        if len(frame.workers) > MANY_WORKERS:
            lines.append(f"... {len(frame.workers) - MANY_WORKERS} more: pgflow worker list")
    else:
        lines += ["", "no workers run. Start one: pgflow worker --app module:name"]
    if busy:
        ended = [
            (each.name, each.kind, each.completed, each.failed, each.cancelled, f"{each.per_second:.2f}")
            for each in sorted(busy, key=lambda each: -each.per_second)
        ]
        titles = (f"ENDED IN {period}", "KIND", "COMPLETED", "FAILED", "CANCELLED", "PER SECOND")
        lines += ["", *table(titles, ended).splitlines()]
    return lines


def _queue_row(each: Queue, now: datetime) -> tuple[object, ...]:
    state = f"paused by {each.paused_by}" if each.paused_at else "active" if each.workers else "no worker"
    ready = f"{COUNT_LIMIT}+" if each.ready > COUNT_LIMIT else each.ready
    oldest = None if each.oldest_ready_at is None else format_elapsed(now - each.oldest_ready_at)
    return each.name, state, each.workers, ready, each.running, oldest, limits_text(each.limits)
