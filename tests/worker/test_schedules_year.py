"""A year of schedules in six time zones: three workers compete, are paused and restarted, and the clock goes back."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pgflow import Context, Done, Ok, Pgflow, Unique, Workflow, schedule, step
from pgflow.core.models.schedule import instant_text
from pgflow.database.connect import Connection, connect
from pgflow.database.statement import run
from pgflow.worker import Worker
from pgflow.worker.chores.fire_schedules import FireSchedules
from pgflow.worker.turns.turn import Turn
from tests.cron_search import search_all

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
END = datetime(2027, 1, 1, tzinfo=UTC)
ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago", "Asia/Kolkata", "UTC")
EXPRESSIONS = {
    "nightly": "30 2 * * 5-7",  # in the hour that many zones skip and repeat
    "midnight": "0 0 * * 6-7",
    "twice": "15,45 1,2 * * sun",
    "half": "*/30 1-2 * * 0",  # not in the hour that is skipped, twice in the one that is repeated
    "monthly": "5 9 1,15 * *",
    "weekly": "0 9 * * mon",
}
END_RUNS = """
    update pgflow.instances set status = 'completed', finished_at = pgflow.now()
    where run > %s and status in ('pending', 'running', 'waiting')
"""
MOVE = "update public.clock set at = %s"


@step
def only(ctx: Context[Any]) -> Ok:
    return Ok("done")


class Yearly(Workflow[dict[str, Any]], unique=Unique("yearly")):
    initial = only
    transitions = {only: {"done": Done}}


WORKFLOWS = (Yearly,)
SCHEDULES = [
    schedule(text, Yearly, name=f"{name} {tz}".replace(" ", "/"), tz=tz, overlap="allow", catch_up="all")
    for tz in ZONES
    for name, text in EXPRESSIONS.items()
]


class Rival:
    """One of the competing workers: its chore, which reads and fires on a connection of its own."""

    def __init__(self, app: Pgflow, conn: Connection) -> None:
        self.conn = conn
        self._worker: Worker = app.worker()
        self.restart()

    def restart(self) -> None:
        """Restart: a decision that was not sent yet is lost."""
        self.chore = FireSchedules(self._worker._claimer.state)

    def read(self) -> None:
        """Read the due schedules, and decide."""
        self._send(self.chore)

    def fire(self) -> None:
        """Send the decision, if there is one."""
        if self.chore._firings:
            self._send(self.chore)

    def visit(self) -> None:
        """Read and fire."""
        self.read()
        self.fire()

    def _send(self, chore: FireSchedules) -> None:
        turn = Turn(time.monotonic())
        chore.on_answer(run(self.conn, chore.statement(turn)), turn)


@pytest.fixture
def clock(dsn: str, conn: Connection) -> Iterator[Connection]:
    """A connection to a database whose `pgflow.now()` is a table's row."""
    source = conn.execute("select pg_get_functiondef('pgflow.now()'::regprocedure)").fetchone()
    conn.execute("create table public.clock as select timestamptz '2026-01-01 00:00Z' as at")
    conn.execute(
        "create or replace function pgflow.now() returns timestamptz language sql stable"
        " as 'select c.at from public.clock c'"
    )
    yield conn
    assert source is not None
    conn.execute(source[0].encode())
    conn.execute("drop table public.clock")


def expected() -> set[tuple[str, str]]:
    """Return (schedule, instant) for each instant of the year, found minute by minute."""
    return {
        (f"{name}/{tz}", instant_text(instant))
        for tz in ZONES
        for name, found in search_all(EXPRESSIONS, tz, BEGIN, END).items()
        for instant in found
    }


@pytest.mark.slow
def test_a_year_of_schedules_fires_exactly_the_expected_instants(dsn: str, clock: Connection) -> None:
    rng = random.Random(12)  # noqa: S311 -- which worker is paused when
    app = Pgflow(dsn, workflows=WORKFLOWS, schedules=SCHEDULES)
    app.register()
    with ExitStack() as stack:
        stack.callback(app.close)
        pool = stack.enter_context(ThreadPoolExecutor(3))
        rivals = [Rival(app, stack.enter_context(connect(dsn, "worker"))) for _ in range(3)]
        paused: dict[int, int] = {}  # for how many steps yet; at least one of the three works
        steps = ended = 0
        moment: datetime | None = BEGIN
        while moment is not None and moment <= END:
            steps += 1
            if steps % 100 == 0:  # two of them stop between reading and firing, for days or weeks
                for number in rng.sample(range(3), 2):
                    paused.setdefault(number, rng.randint(5, 90))
                    if len(paused) > 2:
                        paused.popitem()
            if steps % 37 == 0:  # the clock is set back: nothing is due
                clock.execute(MOVE, [moment - timedelta(hours=rng.randint(1, 60))])
                rivals[rng.randrange(3)].visit()
            if steps % 41 == 0:
                rivals[rng.randrange(3)].restart()
            clock.execute(MOVE, [moment])
            working = [each for number, each in enumerate(rivals) if number not in paused]
            for number in [number for number, left in paused.items() if left > 0 and not rivals[number].chore._firings]:
                rivals[number].read()
            list(pool.map(Rival.visit, working))
            # Its run has ended, so that uniqueness cannot hide a second one.
            clock.execute(END_RUNS, [ended])
            (ended,) = clock.execute("select coalesce(max(run), 0) from pgflow.instances").fetchall()[0]
            for number in list(paused):
                paused[number] -= 1
                if paused[number] < 0:
                    del paused[number]
                    rivals[number].fire()  # a decision of long ago
            row = clock.execute("select min(next_at) from pgflow.schedules").fetchone()
            moment = row[0] if row else None
        fired = clock.execute(
            "select i.metadata ->> 'schedule', i.metadata ->> 'scheduled_for', i.created_at, i.id"
            " from pgflow.instances i"
        ).fetchall()
    wanted = expected()
    assert len(wanted) > 3000
    assert sorted((name, instant) for name, instant, _, _ in fired) == sorted(wanted)
    late = [name for name, instant, at, _ in fired if datetime.fromisoformat(instant) != at]
    assert late == []  # a worker that lived has taken each at its time
    assert all(business_id == f"yearly::{name}@{instant}" for name, instant, _, business_id in fired)
