"""Run a worker's statements without a worker, on a connection like its own, and time each."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import timedelta
from typing import Any

from pgflow.database.connect import Connection, connect
from pgflow.database.statement import run
from pgflow.store import job, worker
from pgflow.store.job import ClaimedRow
from pgflow.store.job_updates import Advance, End, InstanceUpdate, JobUpdate, Result
from pgflow.worker.turns.watermark import Watermark

__all__ = ["BATCH", "Hand", "median_ms", "opened"]

BATCH = 100
SCHEMA = "pgflow"


class Hand:
    """A registered worker without a worker loop; it holds the jobs that it claims."""

    def __init__(self, conn: Connection) -> None:
        self.conn = conn
        self._watermark = Watermark()
        self.id = run(
            conn,
            worker.register(
                SCHEMA, node="hand", pid=0, queues=["default"], version="0", nonce="", lease=timedelta(hours=2)
            ),
        )

    def claim(self, rooms: Mapping[str, int] | None = None) -> list[ClaimedRow]:
        """Claim a hundred jobs, or as many as each queue has capacity for, from a worker's watermark."""
        wanted = rooms or {"default": BATCH}
        floors = self._watermark.positions(time.monotonic())
        rows = run(self.conn, job.claim(SCHEMA, self.id, wanted, floors))
        if self._watermark.learn(time.monotonic(), wanted, floors, rows):
            run(self.conn, job.replan(SCHEMA))
        return rows

    def settle(self, rows: Sequence[ClaimedRow]) -> None:
        """Settle each as the last step of its instance, in one statement like a worker."""
        result, otherwise = Result("done", output='{"n": 0}'), Advance(keeps_result=True)
        updates = [
            JobUpdate(row.id, row.run, row.attempt, row.step, row.kind, End(), result, otherwise) for row in rows
        ]
        instances = [InstanceUpdate(row.run or 0, row.revision, "completed") for row in rows]
        settled = run(self.conn, job.settle(SCHEMA, self.id, updates, instances))
        assert {each.status for each in settled} == {"done"}

    def put_back(self) -> None:
        """Release all jobs."""
        self.conn.execute("set statement_timeout = 0")
        run(self.conn, job.reconcile(SCHEMA, self.id, ()))

    def time(self, act: Callable[[], Any], times: int, *, warm: int = 10) -> list[float]:
        """Repeat an action; return how many milliseconds each took, without the first ones."""
        took = []
        for _ in range(warm + times):
            began = time.perf_counter()
            act()
            took.append(1000 * (time.perf_counter() - began))
        return took[warm:]


@contextmanager
def opened(dsn: str) -> Iterator[Hand]:
    """Yield a `Hand` with its own connection."""
    with closing(connect(dsn, "worker")) as conn:
        yield Hand(conn)


def median_ms(took: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(took)
