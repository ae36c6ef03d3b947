"""How large the tables stay while tasks come and go: `python -m tests.bench.churn --minutes 30`.

One worker runs tasks as fast as it can and prunes what ended some seconds ago, on a durable server of its own with the
default settings of autovacuum. So many rows come and go in minutes as an app with a moderate load has in a day; the
retention is shorter in proportion. A part of the tasks fails once, and a part starts later, so every index has its
share. The sizes of the tables and of each index are printed as a Markdown table while it runs. The exit code is 1 when
they still grow in the second half.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import psycopg

from pgflow import Error, Pgflow, Retain, Retry, TaskContext, task
from pgflow.bench.environment import sigterm_as_interrupt
from pgflow.bench.worker_processes import WorkerProcesses
from pgflow.database.connect import connect
from pgflow.embedded import EmbeddedPostgres
from pgflow.migrations import migrate

__all__ = ["Sample", "app", "command", "growth", "note"]

KEPT = timedelta(seconds=30)
BATCH = 500
BACKLOG = 5_000  # live tasks
FAILS, WAITS = 20, 50  # one of so many fails once, starts later
ROWS = 20  # of the table, about
GROWTH = 1.25  # of the second half, which is noise: vacuum comes once a minute
SIZES = """
    select c.relname, pg_total_relation_size(c.oid) - pg_indexes_size(c.oid), pg_indexes_size(c.oid)
    from pg_class c where c.oid in ('pgflow.jobs'::regclass, 'pgflow.task_results'::regclass) order by 1
"""
INDEXES = """
    select i.indexrelid::regclass::text, pg_relation_size(i.indexrelid)
    from pg_index i
    where i.indrelid in ('pgflow.jobs'::regclass, 'pgflow.task_results'::regclass)
    order by 2 desc
"""
ROWS_NOW = "select (select count(*) from pgflow.jobs), (select count(*) from pgflow.task_results)"


@task(retry=Retry(max_attempts=3, base=timedelta(milliseconds=100)), tags=["churn"])
async def note(ctx: TaskContext, number: int, text: str) -> dict[str, Any] | Error:
    """Do nothing, or fail once."""
    if number % FAILS == 0 and ctx.attempt == 1:
        return Error("as planned")
    return {"number": number, "text": text}


app = Pgflow(tasks=[note], retention=Retain(completed=KEPT, failed=KEPT))


@dataclass(frozen=True, slots=True)
class Sample:
    """What was stored `seconds` after the start, when `ended` tasks had ended; sizes in bytes by table."""

    seconds: float
    ended: int
    live: int
    kept: int
    tables: dict[str, int]
    indexes: dict[str, int]

    @property
    def size(self) -> int:
        """The bytes of both tables and their indexes."""
        return sum(self.tables.values()) + sum(self.indexes.values())


def growth(samples: list[Sample]) -> float:
    """Return how many times as large it is in the last quarter as in the second quarter, by the largest size."""
    quarter = max(1, len(samples) // 4)
    early, late = samples[quarter : 2 * quarter] or samples[:1], samples[-quarter:]
    return max(each.size for each in late) / max(each.size for each in early)


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option("--minutes", type=click.FloatRange(min=0.1), default=10.0, help="How long tasks come and go.")
@click.option("--naptime", default="1min", help="autovacuum_naptime of the server.")
def command(minutes: float, naptime: str) -> None:
    """Let tasks come and go, and see how large their tables stay."""
    settings = {"autovacuum_naptime": naptime}
    with (
        sigterm_as_interrupt(),
        EmbeddedPostgres(settings=settings) as server,
        tempfile.TemporaryDirectory() as logs,
    ):
        with connect(server.dsn, "migrate") as conn:
            migrate.up(conn)
        options = ["--queue", "default=200"]
        worker = WorkerProcesses(server.dsn, Path(logs), app="tests.bench.churn:app", count=1, options=options)
        with worker:
            worker.wait_until_ready()
            samples = list(_measured(server.dsn, worker, 60 * minutes))
        grown = growth(samples)
        with psycopg.connect(server.dsn) as conn:
            sizes = ", ".join(f"{name} {_mb(size)}" for name, size in conn.execute(INDEXES))
    click.echo(f"\nindexes at the end, MB: {sizes}")
    click.echo(f"{samples[-1].ended:,} tasks; the last quarter is {grown:.2f} times as large as the second")
    sys.exit(grown > GROWTH)


def _measured(dsn: str, worker: WorkerProcesses, seconds: float) -> Iterator[Sample]:
    click.echo("| after | ended | live | kept | `jobs` + its indexes, MB | `task_results` + its indexes, MB |")
    click.echo("|--:|--:|--:|--:|--:|--:|")
    began, enqueued, printed = time.monotonic(), 0, 0
    client = Pgflow(dsn, tasks=[note])
    with closing(client), psycopg.connect(dsn, autocommit=True) as conn:
        while (passed := time.monotonic() - began) < seconds:
            worker.check()
            (live,) = conn.execute("select count(*) from pgflow.jobs").fetchone() or (0,)
            if live < BACKLOG:
                calls = [note.call(number, "x" * 200) for number in range(enqueued, enqueued + BATCH)]
                later = BATCH // WAITS
                note.options(delay=timedelta(seconds=1)).enqueue_many(calls[:later])
                note.enqueue_many(calls[later:])
                enqueued += BATCH
            else:
                time.sleep(0.05)
            if passed >= printed * seconds / (4 * ROWS):
                sample = _sample(conn, passed, enqueued)
                if printed % 4 == 0:
                    _print(sample)
                printed += 1
                yield sample
        sample = _sample(conn, passed, enqueued)
        _print(sample)
        yield sample


def _sample(conn: psycopg.Connection[Any], passed: float, enqueued: int) -> Sample:
    live, kept = conn.execute(ROWS_NOW).fetchone() or (0, 0)
    sizes = conn.execute(SIZES).fetchall()
    tables, indexes = {name: size for name, size, _ in sizes}, {name: size for name, _, size in sizes}
    return Sample(passed, enqueued - live, live, kept, tables, indexes)


def _print(sample: Sample) -> None:
    sizes = [f"{_mb(sample.tables[name])} + {_mb(sample.indexes[name])}" for name in ("jobs", "task_results")]
    cells = [f"{sample.seconds:.0f} s", *(f"{n:,}" for n in (sample.ended, sample.live, sample.kept)), *sizes]
    click.echo("| " + " | ".join(cells) + " |")
    sys.stdout.flush()


def _mb(size: int) -> str:
    return f"{size / 2**20:.1f}"


if __name__ == "__main__":
    command(prog_name="python -m tests.bench.churn")
