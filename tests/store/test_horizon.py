"""An old transaction keeps what is dead, and a claim that begins at the floor does not step over it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from pgflow.database.connect import Connection, connect
from pgflow.database.statement import run
from pgflow.migrations.migrate import up
from pgflow.store import job, worker
from pgflow.store.job import Change, ClaimedRow, Verdict
from pgflow.worker.watermark import Watermark
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


class Hand:
    """Claims and settles as a worker does, and counts the blocks that its claims visit."""

    def __init__(self, conn: Connection) -> None:
        self.conn = conn
        self.mark = Watermark()
        self.now = 0.0
        lease = timedelta(hours=1)
        self.id = run(
            conn, worker.register("pgflow", node="n", pid=0, queues=["default"], version="0", nonce="", lease=lease)
        )

    def claim(self, *, took: float = 0.0) -> tuple[list[ClaimedRow], int]:
        """Claim a batch, which takes as long as is said; returns it, and how many blocks were visited."""
        rooms, floors = {"default": BATCH}, self.mark.floors(self.now)
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
        """End the instances of these tokens."""
        verdicts = [
            Verdict(row.id, row.run, row.attempt, row.step, row.kind, "end", guarded=True, event="ok") for row in rows
        ]
        changes = [Change(row.run, row.revision, "completed") for row in rows]
        assert {each.status for each in run(self.conn, job.settle("pgflow", self.id, verdicts, changes))} == {"done"}


@pytest.fixture
def hand(any_server: Server, new_database: Callable[..., str]) -> Iterator[Hand]:
    """A worker's place beside a transaction that began before all the tokens went."""
    dsn = new_database(any_server)
    with connect(dsn, "migrate") as conn:
        up(conn)
        conn.execute(FILL)
        conn.execute("vacuum analyze")
    with connect(dsn, "old") as old, connect(dsn, "worker") as conn:
        old.execute("begin isolation level repeatable read")
        old.execute("select from pgflow.jobs limit 1")
        hand = Hand(conn)
        for _ in range(DRAINED // BATCH):
            rows, _ = hand.claim()
            hand.settle(rows)
        yield hand


def test_a_claim_from_the_floor_visits_as_little_as_the_first_one(hand: Hand) -> None:
    rows, below = hand.claim(took=0.1)
    assert len(rows) == BATCH
    assert below > DRAINED / 2  # the dead ones, each a visit of a block, for they lie at random
    for _ in range(5):
        rows, visited = hand.claim()
        assert len(rows) == BATCH
        assert visited < 12 * BATCH < below
        hand.settle(rows)


def test_what_is_more_urgent_or_came_late_is_taken_by_the_look_below(hand: Hand) -> None:
    hand.claim(took=0.1)
    runs = hand.conn.execute(
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
    assert late.isdisjoint(row.run for row in hand.claim()[0])
    hand.now += 2.0
    assert late <= {row.run for row in hand.claim(took=0.1)[0]}
    assert hand.mark.is_in_use


def test_when_the_old_transaction_is_over_the_next_look_ends_it(hand: Hand) -> None:
    hand.claim(took=0.1)
    hand.now += 2.0
    hand.claim(took=0.001)
    assert not hand.mark.is_in_use
