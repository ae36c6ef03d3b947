"""Leases: whose they are, when they have ended, and what a clock that went back makes of them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from pgflow.database.connect import Connection, connect
from pgflow.database.statement import run
from pgflow.store import job, worker

LEASE = timedelta(seconds=30)


@pytest.fixture
def database(migrated: str) -> Iterator[Connection]:
    with connect(migrated, "worker") as conn:
        yield conn
        for table in ("workers", "jobs"):
            conn.execute(f"delete from pgflow.{table}")  # noqa: S608 -- the names stand one line above


def registered(conn: Connection, nonce: str = "mine") -> int:
    return run(
        conn, worker.register("pgflow", node="n", pid=1, queues=["default"], version="0", nonce=nonce, lease=LEASE)
    )


def holding(conn: Connection, me: int, tokens: int = 2) -> None:
    conn.execute("insert into pgflow.jobs (run, step) select n, 's' from generate_series(1, %s) n", [tokens])
    assert len(run(conn, job.claim("pgflow", me, {"default": tokens}))) == tokens


def move_lease(conn: Connection, by: timedelta) -> None:
    conn.execute("update pgflow.workers set lease_expires_at = lease_expires_at + %s", [by])


def crashes(conn: Connection) -> list[tuple[str, int, int]]:
    return conn.execute("select state, crashes, attempt from pgflow.jobs order by id").fetchall()


def test_a_lease_that_runs_is_renewed_and_keeps_its_tokens(database: Connection) -> None:
    me = registered(database)
    holding(database, me)
    assert run(database, worker.beat("pgflow", me, "mine", LEASE))
    assert run(database, worker.attach("pgflow", me, "mine"))
    freed = run(database, job.rescue("pgflow"))
    assert freed.tokens == 0
    assert freed.next_expiry == pytest.approx(30, abs=5)


def test_a_lease_that_has_ended_stays_ended_and_costs_a_crash(database: Connection) -> None:
    me = registered(database)
    holding(database, me)
    move_lease(database, -LEASE)
    assert not run(database, worker.beat("pgflow", me, "mine", LEASE))
    assert not run(database, worker.attach("pgflow", me, "mine"))
    assert run(database, job.rescue("pgflow")).tokens == 2
    assert crashes(database) == [("ready", 1, 0)] * 2


def test_a_lease_that_a_clock_which_went_back_has_left_far_ahead_has_ended_and_costs_no_crash(
    database: Connection,
) -> None:
    me = registered(database)
    holding(database, me)
    move_lease(database, timedelta(hours=1))
    assert not run(database, worker.beat("pgflow", me, "mine", LEASE))
    assert not run(database, worker.attach("pgflow", me, "mine"))
    freed = run(database, job.rescue("pgflow"))
    assert (freed.tokens, freed.next_expiry) == (2, None)
    assert crashes(database) == [("ready", 0, 0)] * 2


def test_a_clock_that_went_back_a_little_does_not_matter(database: Connection) -> None:
    me = registered(database)
    holding(database, me)
    move_lease(database, timedelta(seconds=20))
    assert run(database, job.rescue("pgflow")).tokens == 0
    assert run(database, worker.beat("pgflow", me, "mine", LEASE))


def test_a_process_that_another_has_the_id_of_by_now_gets_no_say(database: Connection) -> None:
    # A server that was restored, or took the place of another, gives numbers that were given before.
    me = registered(database, "somebody else's")
    assert not run(database, worker.beat("pgflow", me, "mine", LEASE))
    assert not run(database, worker.attach("pgflow", me, "mine"))
    assert run(database, worker.attach("pgflow", me, "somebody else's"))


def test_an_older_workers_lease_is_taken_as_it_stands(database: Connection) -> None:
    database.execute(
        "insert into pgflow.workers (node, pid, queues, version, lease_expires_at)"
        " values ('n', 1, '{default}', '0', now() + interval '1 day')"
    )
    (me,) = database.execute("select id from pgflow.workers").fetchall()[0]
    holding(database, me)
    assert run(database, job.rescue("pgflow")).tokens == 0
