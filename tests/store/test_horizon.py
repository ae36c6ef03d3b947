"""An old transaction keeps dead tuples, and a claim that starts at the watermark does not scan them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from pgflow.database.connect import Connection, connect
from pgflow.database.statement import run
from pgflow.store import job, worker
from pgflow.store.job import ClaimedRow
from pgflow.store.job_updates import Advance, End, InstanceUpdate, JobUpdate, Result
from pgflow.worker.turns.watermark import Watermark
from tests.conftest import Server

BATCH = 50
DRAINED = 3000
FILL = """
    with born as (
        insert into pgflow.instances (id, workflow, version, input, unique_key)
        select 'k::' || g, 'W', 1, '{}', 'k::' || g from generate_series(1, 4000) g
        returning run
    )
    insert into pgflow.jobs (run, step, run_at) select run, 'b', now() - interval '1 hour' * random() from born
"""
BLOCKS = """
    select pg_stat_get_xact_blocks_fetched('pgflow.jobs_ready'::regclass)
        + pg_stat_get_xact_blocks_fetched('pgflow.jobs'::regclass)
"""


class CountingWorker:
    """Claims and settles like a worker, and counts the blocks that its claims visit."""

    def __init__(self, conn: Connection) -> None:
        self.conn = conn
        self.mark = Watermark()
        self.now = 0.0
        lease = timedelta(hours=1)
        self.id = run(
            conn, worker.register("pgflow", node="n", pid=0, queues=["default"], version="0", nonce="", lease=lease)
        )

    def claim(self, *, took: float = 0.0) -> tuple[list[ClaimedRow], int]:
        """Claim a batch as if it took `took` seconds; returns it, and how many blocks were visited."""
        rooms, floors = {"default": BATCH}, self.mark.positions(self.now)
        with self.conn.transaction():
            before = self.conn.execute(BLOCKS).fetchone()
            rows = run(self.conn, job.claim("pgflow", self.id, rooms, floors))
            after = self.conn.execute(BLOCKS).fetchone()
        assert before is not None
        assert after is not None
        self.now += took
        self.mark.learn(self.now, rooms, floors, [row._replace(took=took) for row in rows])
        return rows, after[0] - before[0]

    def settle(self, rows: list[ClaimedRow]) -> None:
        """Complete the instances of these jobs."""
        updates = [
            JobUpdate(row.id, row.run, row.attempt, row.step, row.kind, End(), Result("ok"), Advance(keeps_result=True))
            for row in rows
        ]
        instances = [InstanceUpdate(row.run or 0, row.revision, "completed") for row in rows]
        settled = run(self.conn, job.settle("pgflow", self.id, updates, instances))
        assert {each.status for each in settled} == {"done"}


@pytest.fixture
def counting_worker(any_server: Server, migrated_database: Callable[[Server], str]) -> Iterator[CountingWorker]:
    """A worker next to a transaction that began before the jobs were deleted."""
    dsn = migrated_database(any_server)
    with connect(dsn, "migrate") as conn:
        conn.execute(FILL)
        conn.execute("vacuum analyze")
    with connect(dsn, "old") as old, connect(dsn, "worker") as conn:
        old.execute("begin isolation level repeatable read")
        old.execute("select from pgflow.jobs limit 1")
        counting_worker = CountingWorker(conn)
        for _ in range(DRAINED // BATCH):
            rows, _ = counting_worker.claim()
            counting_worker.settle(rows)
        yield counting_worker


def test_a_claim_from_the_watermark_visits_as_few_blocks_as_the_first_one(counting_worker: CountingWorker) -> None:
    rows, below = counting_worker.claim(took=0.1)
    assert len(rows) == BATCH
    assert below > DRAINED / 2  # the dead tuples, each in another block
    for _ in range(5):
        rows, visited = counting_worker.claim()
        assert len(rows) == BATCH
        assert visited < 12 * BATCH < below
        counting_worker.settle(rows)


def test_urgent_or_late_jobs_are_claimed_by_a_scan_from_the_start(counting_worker: CountingWorker) -> None:
    counting_worker.claim(took=0.1)
    runs = counting_worker.conn.execute(
        """
        with born as (
            insert into pgflow.instances (id, workflow, version, input, unique_key)
            select 'late::' || g, 'W', 1, '{}', 'late::' || g from generate_series(1, 2) g
            returning run
        )
        insert into pgflow.jobs (run, step, run_at, priority)
        select run, 'b', now() - interval '2 hours', -(row_number() over ()) % 2 from born
        returning run
        """
    ).fetchall()
    late = {run for (run,) in runs}
    assert late.isdisjoint(row.run for row in counting_worker.claim()[0])
    counting_worker.now += 2.0
    assert late <= {row.run for row in counting_worker.claim(took=0.1)[0]}
    assert counting_worker.mark.is_in_use


def test_the_watermark_ends_when_the_old_transaction_has_ended(counting_worker: CountingWorker) -> None:
    counting_worker.claim(took=0.1)
    counting_worker.now += 2.0
    counting_worker.claim(took=0.001)
    assert not counting_worker.mark.is_in_use
