"""Run claimers and producers against each other and against faults, and judge the audit."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg

from pgflow.database.arrays import Bigints, Integers, Texts
from pgflow.database.connect import Connection, connect
from pgflow.database.statement import run, run_all
from pgflow.errors import PgflowError
from pgflow.store import job, limit, worker
from pgflow.store.job import ClaimedRow
from pgflow.store.job_updates import Effect, End, JobUpdate, Retry, Snooze
from tests.torture.limits.overlaps import overfull_windows

__all__ = ["Figures", "Proof"]

AUDIT = Path(__file__).with_name("audit.sql")
QUEUE = "q"
LEASE = timedelta(milliseconds=500)  # the shortest that the registration takes
BEAT_SECONDS = 0.1
DRAIN_SECONDS = 60.0
FAULTS = (psycopg.Error, PgflowError, OSError)
ENDS: tuple[Effect, ...] = (
    *(End(),) * 8,
    Retry("[]", "constant", 0.01, 0.01, 0.0),
    Snooze(),
)
PUT = """
insert into pgflow.jobs (run, step, queue, key, cost)
select nextval('pgflow.instances_run_seq'), 's', 'q', nullif(k.key, ''), k.cost
from unnest(%(keys)b::text[], %(costs)b::integer[]) as k (key, cost)
returning id
"""
LEFT = "select from pgflow.jobs limit 1"
VICTIMS = """
select pg_terminate_backend(a.pid) from (
    select pid from pg_stat_activity
    where datname = current_database() and application_name = 'pgflow:claimer' and pid <> pg_backend_pid()
    order by random() limit 1
) a
"""


@dataclass(slots=True)
class Figures:
    """What happened: counts of work and faults, and what was wrong."""

    claims: int = 0
    kills: int = 0
    changes: int = 0
    places: int = 0
    jobs: int = 0
    starts: int = 0
    drained: float = 0.0
    violations: list[str] = field(default_factory=list)


class Proof:
    """One run on the database at `dsn`, which has pgflow's schema and nothing in it."""

    def __init__(self, dsn: str, *, claimers: int = 8, producers: int = 2, seed: int = 1) -> None:
        self.figures = Figures()
        self._dsn = dsn
        self._seed = seed
        self._claimers, self._producers = claimers, producers
        self._stop, self._over = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._committed: set[int] = set()
        self._errors: list[BaseException] = []

    def install(self) -> None:
        """Create the triggers that watch."""
        with connect(self._dsn, "test") as conn:
            conn.execute(AUDIT.read_text().encode(), prepare=False)

    def limits(self, seconds: float) -> Figures:
        """Check limits of concurrency while everything changes."""
        with connect(self._dsn, "test") as conn:
            set_limits(conn, concurrency=12, key_concurrency=3)
            conn.execute(
                "insert into pgflow.limits (queue, key, concurrency) values ('q', 'tenant-1', 5), ('q', 'tenant-2', 1)"
            )
            self._run(conn, seconds, self._disturb)
        return self.figures

    def rates(self, seconds: float) -> Figures:
        """Check rates in every window, with the same faults; the limits stay as they are."""
        with connect(self._dsn, "test") as conn:
            conn.execute(
                "select pgflow.set_limit('q', is_new => true, rate => 400, burst => 30, key_rate => 60, key_burst => 6)"
            )
            self._run(conn, seconds, self._kill)
            starts = conn.execute(
                "select key, cost, extract(epoch from at)::float8 from audit.starts order by at"
            ).fetchall()
        found = self.figures.violations
        found += overfull_windows("the queue", [(at, cost) for _, cost, at in starts], 400.0, 30)
        for key in {key for key, *_ in starts} - {"*"}:
            found += overfull_windows(f"key {key}", [(at, cost) for each, cost, at in starts if each == key], 60.0, 6)
        return self.figures

    def _run(self, conn: Connection, seconds: float, disturb: Callable[[Connection, random.Random], None]) -> None:
        threads = [
            *(self._thread(self._claim_and_settle, number) for number in range(self._claimers)),
            *(self._thread(self._produce, 100 + number) for number in range(self._producers)),
            self._thread(self._take_places, 200),
        ]
        rng, end = self._random(0), time.monotonic() + seconds
        with connect(self._dsn, "test") as pinned, pinned.transaction():
            pinned.execute("set local idle_in_transaction_session_timeout = 0")
            pinned.execute("select pg_current_xact_id()")  # vacuum removes nothing while this is open
            for each in threads:
                each.start()
            while time.monotonic() < end and not self._errors:
                time.sleep(0.03)
                disturb(conn, rng)
            if disturb == self._disturb:
                set_limits(conn, concurrency=60, key_concurrency=20)  # the last change: the remaining jobs end soon
                set_limits(conn, key="tenant-1", concurrency=20)
            self._stop.set()
            for each in threads[self._claimers :]:
                each.join()
            self._drain(conn)
        self._over.set()
        for each in threads:
            each.join()
        self._judge(conn)

    def _random(self, number: int) -> random.Random:
        return random.Random(self._seed * 1000 + number)  # noqa: S311 -- repeatable, not secret

    def _thread(self, what: Callable[[int], None], number: int) -> threading.Thread:
        def guarded() -> None:
            try:
                what(number)
            except BaseException as error:
                self._errors.append(error)

        return threading.Thread(target=guarded, daemon=True)

    # -- faults

    def _disturb(self, conn: Connection, rng: random.Random) -> None:
        self._kill(conn, rng)
        if rng.random() < 0.2:
            set_limits(conn, concurrency=rng.choice((3, 12, 30)), key_concurrency=rng.choice((1, 2, 3)))
            self.figures.changes += 1
        if rng.random() < 0.1:
            set_limits(conn, key="tenant-1", concurrency=rng.randint(1, 6))
            self.figures.changes += 1
        if rng.random() < 0.05:
            conn.execute("select pgflow.pause_queue('q')")
            time.sleep(0.05)
            conn.execute("select pgflow.resume_queue('q')")
            self.figures.changes += 1

    def _kill(self, conn: Connection, rng: random.Random) -> None:
        if rng.random() < 0.3 and conn.execute(VICTIMS).fetchone() is not None:
            self.figures.kills += 1

    # -- those who work

    def _claim_and_settle(self, number: int) -> None:
        rng = self._random(number)
        while not self._over.is_set():
            with suppress(*FAULTS), connect(self._dsn, "claimer") as conn:
                self._work(conn, rng)

    def _work(self, conn: Connection, rng: random.Random) -> None:
        """Work under one identity, until the lease or the session is lost, or it stops with jobs in its hands."""
        registered = worker.register("pgflow", node="n", pid=1, queues=[QUEUE], version="0", nonce="n", lease=LEASE)
        held: dict[int, ClaimedRow] = {}
        me, beat_at = run(conn, registered), 0.0
        lives_until = time.monotonic() + rng.expovariate(0.3)
        while not self._over.is_set() and time.monotonic() < lives_until:
            if time.monotonic() >= beat_at:
                beat_at = time.monotonic() + BEAT_SECONDS
                if not run(conn, worker.beat("pgflow", me, "n", LEASE)):
                    return
                run_all(conn, [job.stage("pgflow"), job.rescue("pgflow")])
            hints = {QUEUE: [row.key for row in held.values() if row.key][:20]}
            room = {QUEUE: rng.choice((1, 5, 20))}
            (given,), rows = run_all(
                conn, [job.claim_limited("pgflow", me, room, hints), job.claim("pgflow", me, {QUEUE: 5})]
            )
            self.figures.claims += 1
            held.update({row.id: row for row in rows})
            time.sleep(rng.random() * (0.004 if given.answer == "busy" or rows else 0.02))  # as a worker waits
            some = [row for row in held.values() if rng.random() < 0.7]
            if some:
                updates = [_update(row, rng.choice(ENDS)) for row in some]
                for done in run(conn, job.settle("pgflow", me, updates)):
                    if done.status != "busy":
                        held.pop(done.id, None)

    def _produce(self, number: int) -> None:
        rng, ids = self._random(number), list[int]()
        with connect(self._dsn, "test") as conn:
            while not self._stop.is_set():
                keys = [rng.choice(("", *_tenants(rng))) for _ in range(rng.choice((1, 1, 1, 30)))]
                costs = [rng.choice((1, 1, 1, 2, 3)) for _ in keys]
                new: list[int] = []
                with suppress(psycopg.Rollback), conn.transaction():
                    params = {"keys": Texts(keys), "costs": Integers(costs)}
                    made = [row[0] for row in conn.execute(PUT, params).fetchall()]
                    if rng.random() < 0.1:
                        time.sleep(0.05)  # a caller's transaction that stays open
                    if rng.random() < 0.1:
                        raise psycopg.Rollback
                    new = made
                ids += new
                with self._lock:
                    self._committed.update(new)
                if rng.random() < 0.1 and ids:  # cancel
                    some = rng.sample(ids, min(3, len(ids)))
                    conn.execute("delete from pgflow.jobs where id = any (%b)", [Bigints(some)])
                time.sleep(rng.random() * 0.03)

    def _take_places(self, number: int) -> None:
        rng = self._random(number)
        with connect(self._dsn, "test") as conn:
            while not self._stop.is_set():
                time.sleep(rng.random() * 0.02)
                lease = timedelta(milliseconds=rng.choice((20, 5000)))
                given = run(conn, limit.take("pgflow", QUEUE, key=_tenants(rng)[0], cost=1, lease=lease))
                if given.place is not None:
                    self.figures.places += 1
                    time.sleep(rng.random() * 0.02)
                    run(conn, limit.release("pgflow", given.place))

    # -- the verdict

    def _drain(self, conn: Connection) -> None:
        began = time.monotonic()
        while conn.execute(LEFT).fetchone() is not None and time.monotonic() - began < DRAIN_SECONDS:
            time.sleep(0.05)
        self.figures.drained = time.monotonic() - began

    def _judge(self, conn: Connection) -> None:
        figures = self.figures
        figures.jobs = len(self._committed)
        ended = [row[0] for row in conn.execute("select id from audit.ended").fetchall()]
        figures.starts = len(conn.execute("select from audit.starts").fetchall())
        found: list[tuple[Any, ...]] = conn.execute("select what from audit.violations").fetchall()
        figures.violations += [row[0] for row in found]
        left = conn.execute("select state, key, count(*) from pgflow.jobs group by 1, 2").fetchall()
        figures.violations += [f"stranded: {each}" for each in left]
        figures.violations += [f"lost: job {each}" for each in sorted(self._committed - set(ended))[:10]]
        figures.violations += [f"ended twice: {len(ended) - len(set(ended))}"] * (len(ended) != len(set(ended)))
        figures.violations += [f"{type(error).__name__}: {error}" for error in self._errors]


def set_limits(conn: Connection, **limits: Any) -> None:
    """Change limits of the queue."""
    run(conn, limit.set("pgflow", QUEUE, is_new=True, **limits))


def _update(row: ClaimedRow, effect: Effect) -> JobUpdate:
    return JobUpdate(row.id, row.run, row.attempt, row.step, row.kind, effect)


def _tenants(rng: random.Random) -> tuple[str, ...]:
    """Return some keys, of which a few are frequent."""
    return tuple(f"tenant-{1 if rng.random() < 0.2 else rng.randint(2, 40)}" for _ in range(5))
