"""Each commit and each answer to one may be lost: nothing is lost with it, and nothing happens twice.

A sample, with another seed each time; `python -m tests.torture.sweep` loses them all. When the answer to a client's
call never arrives, the call reports an unknown outcome, and repeating it with its key has a definite one.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from queue import SimpleQueue
from typing import Any

import psycopg
import pytest

from pgflow import Pgflow, Started, task
from pgflow.client import transport
from pgflow.database.connect import Connection, connect
from pgflow.database.pooling import pool
from pgflow.errors import OutcomeUnknown
from tests.conftest import Server
from tests.torture.acts import ACTS, WORKFLOWS, Asked, Chain, word
from tests.torture.sweep import KINDS, LANES, Lane, lanes, losses, sample, sweep
from tests.torture.wire.rule import Kind, Rule
from tests.worker.db_helpers import one

SAMPLE = 8  # of the losses of each act
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def free(server: Server, new_database: Callable[..., str], template: str) -> Iterator[SimpleQueue[Lane]]:
    with lanes([new_database(server, template) for _ in range(LANES)]) as free:
        yield free


@pytest.fixture(scope="module")
def pooled(server: Server, new_database: Callable[..., str], template: str) -> Iterator[SimpleQueue[Lane]]:
    """Lanes whose client and worker behave as behind a connection pooler."""
    with lanes([new_database(server, template) for _ in range(LANES)], pooler=True) as free:
        yield free


def failures(act: str, free: SimpleQueue[Lane], size: int) -> dict[str, BaseException]:
    """Play an act with some of its losses; returns the failures, by the arguments that repeat them."""
    lane = free.get()
    points = lane.play(act).points
    free.put(lane)
    chosen = sample(losses(act, points), size, random.getrandbits(32))
    return {str(loss): came for loss, came in sweep(free, chosen) if isinstance(came, BaseException)}


@pytest.mark.chaos
@pytest.mark.parametrize("act", ACTS)
def test_whichever_commit_or_answer_is_lost_everything_happens_once_and_in_time(
    act: str, free: SimpleQueue[Lane]
) -> None:
    assert failures(act, free, SAMPLE) == {}


@pytest.mark.chaos
@pytest.mark.parametrize("act", ACTS)
def test_so_it_does_behind_a_pooler(act: str, pooled: SimpleQueue[Lane]) -> None:
    assert failures(act, pooled, SAMPLE // 2) == {}


# -- when the database stays away


@dataclass(frozen=True, slots=True)
class Called:
    """A call of a client on an instance that has been started, sync and async, and how often it has had its effect."""

    call: Callable[[Pgflow, Started, str | None], Any]
    acall: Callable[[Pgflow, Started, str | None], Any]
    effects: str


@task
def mail(run: int) -> None:
    """A task that no worker runs before the test has ended."""


async def _aenqueued(app: Pgflow, at: Started, key: str | None) -> int:
    return (await app.aenqueue(mail, {"run": at.run}, delay=HOUR, idempotency_key=key)).id or 0


async def _aenqueued_many(app: Pgflow, at: Started, key: str | None) -> list[int | None]:
    enqueued = await app.aenqueue_many(mail, [{"run": at.run}] * 3, delay=HOUR, idempotency_key=key)
    return [each.id for each in enqueued]


CALLS = {
    "enqueue": Called(
        lambda app, at, key: app.enqueue(mail, {"run": at.run}, delay=HOUR, idempotency_key=key).id,
        _aenqueued,
        "select count(*) from pgflow.jobs where args = jsonb_build_object('run', %s)",
    ),
    "enqueue_many": Called(
        lambda app, at, key: [
            each.id for each in app.enqueue_many(mail, [{"run": at.run}] * 3, delay=HOUR, idempotency_key=key)
        ],
        _aenqueued_many,
        "select count(*) / 3.0 from pgflow.jobs where args = jsonb_build_object('run', %s)",
    ),
    "start": Called(
        lambda app, at, key: app.start(Chain, f"{at.run}", delay=HOUR, idempotency_key=key),
        lambda app, at, key: app.astart(Chain, f"{at.run}", delay=HOUR, idempotency_key=key),
        "select count(*) from pgflow.instances where id like 'chain::' || %s || '::%%'",
    ),
    "start_many": Called(
        lambda app, at, key: app.start_many(Chain, [(f"{at.run}",)] * 3, delay=HOUR, idempotency_key=key),
        lambda app, at, key: app.astart_many(Chain, [(f"{at.run}",)] * 3, delay=HOUR, idempotency_key=key),
        "select count(*) / 3.0 from pgflow.instances where id like 'chain::' || %s || '::%%'",
    ),
    "resume": Called(
        lambda app, at, key: app.resume(Asked, at.id, "word", idempotency_key=key),
        lambda app, at, key: app.aresume(Asked, at.id, "word", idempotency_key=key),
        "select count(*) from pgflow.signals where run = %s",
    ),
    "schedule_resume": Called(
        lambda app, at, key: app.schedule_resume(Asked, at.id, word, HOUR, idempotency_key=key),
        lambda app, at, key: app.aschedule_resume(Asked, at.id, word, HOUR, idempotency_key=key),
        "select count(*) from pgflow.scheduled_signals where run = %s",
    ),
    "cancel": Called(
        lambda app, at, key: app.cancel(Asked, at.id, idempotency_key=key),
        lambda app, at, key: app.acancel(Asked, at.id, idempotency_key=key),
        "select count(*) from pgflow.instances where run = %s and status = 'cancelled'",
    ),
    "retry": Called(
        lambda app, at, key: app.retry(Asked, at.id, idempotency_key=key),
        lambda app, at, key: app.aretry(Asked, at.id, idempotency_key=key),
        "select count(*) from pgflow.jobs where run = %s and state = 'ready'",
    ),
}
FAIL = "update pgflow.instances set status = 'failed', finished_at = now() where run = %s"


class Away:
    """A client that gives up soon, and a line to the database that can go for good."""

    def __init__(self, lane: Lane, conn: Connection) -> None:
        self.lane = lane
        self.conn = conn

    def started(self, call: str) -> Started:
        """Start an instance for a call to be about."""
        at = self.lane.past.start(Asked, "v", delay=HOUR)
        if call == "retry":
            self.conn.execute(FAIL, [at.run])
            self.conn.execute("delete from pgflow.jobs where run = %s", [at.run])
        return at

    def app(self) -> Pgflow:
        """Make an app that goes through the proxy, and has been there."""
        app = Pgflow(self.lane.through, workflows=WORKFLOWS, tasks=[mail])
        app.register()
        return app

    def lose(self, kind: Kind) -> None:
        """Lose each commit of the client or its answer, and refuse new sessions."""
        self.lane.proxy.inject(Rule(kind, role="pgflow:client"))
        self.lane.proxy.inject(Rule("refuse", role="pgflow:client"))


@pytest.fixture
def away(free: SimpleQueue[Lane], monkeypatch: pytest.MonkeyPatch) -> Iterator[Away]:
    monkeypatch.setattr(transport, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(pool, "ACQUIRE_TIMEOUT", 0.2)
    lane = free.get()
    with connect(lane.dsn, "test") as conn:
        yield Away(lane, conn)
        lane.proxy.heal()
        for table in ("instances", "jobs", "signals", "scheduled_signals"):
            conn.execute(f"delete from pgflow.{table}".encode())  # noqa: S608 -- the names stand above
    free.put(lane)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CALLS)
def test_a_call_whose_answer_stays_away_is_made_again_with_its_key(name: str, kind: Kind, away: Away) -> None:
    called, at = CALLS[name], away.started(name)
    app = away.app()
    away.lose(kind)
    with pytest.raises(OutcomeUnknown) as unknown:
        called.call(app, at, None)
    app.close()
    assert one(away.conn, called.effects, at.run) == (kind != "commit lost")
    away.lane.proxy.heal()
    app, key = away.app(), unknown.value.idempotency_key
    told = [called.call(app, at, key), asyncio.run(called.acall(app, at, key))]
    app.close()
    assert told[0] == told[1]
    assert one(away.conn, called.effects, at.run) == 1


@pytest.mark.parametrize("name", CALLS)
def test_so_is_an_asynchronous_one(name: str, away: Away) -> None:
    called, at = CALLS[name], away.started(name)

    async def call() -> Any:
        app = away.app()
        await app.aget(Asked, at.id)  # it has been there
        away.lose("reply lost")
        with pytest.raises(OutcomeUnknown) as unknown:
            await called.acall(app, at, None)
        away.lane.proxy.heal()
        told = await called.acall(app, at, unknown.value.idempotency_key)
        await app.aclose()
        return told

    told = asyncio.run(call())
    assert one(away.conn, called.effects, at.run) == 1
    if name == "start":
        assert told.created


def test_in_a_transaction_of_ones_own_it_is_for_the_caller_to_ask(away: Away) -> None:
    app = away.app()

    def place(number: int) -> None:
        with psycopg.connect(away.lane.through, application_name="shop") as conn:
            if conn.execute("select pgflow.once(%s)", [f"order {number}"]).fetchone() == (True,):
                conn.execute("insert into ledger values (%s, 'own')", [-number])
                app.start(Chain, f"own{number}", conn=conn)

    effects = """select (select count(*) from ledger where run = -%(n)s),
        (select count(*) from pgflow.instances where id like 'chain::own' || %(n)s || '::%%')"""
    for number, kind in enumerate(KINDS, 1):
        away.lane.proxy.inject(Rule(kind, role="shop", nth=1))
        with pytest.raises(psycopg.OperationalError):
            place(number)
        place(number)
        assert away.conn.execute(effects, {"n": number}).fetchone() == (1, 1)
        away.lane.proxy.heal()
    app.close()
