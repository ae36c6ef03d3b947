"""Leases: their owner, when they expire, and the effect of a clock that went back."""

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
            conn.execute(f"delete from pgflow.{table}")  # noqa: S608 -- literals, one line above


def registered(conn: Connection, nonce: str = "mine") -> int:
    return run(
        conn, worker.register("pgflow", node="n", pid=1, queues=["default"], version="0", nonce=nonce, lease=LEASE)
    )


def holding(conn: Connection, me: int, jobs: int = 2) -> None:
    conn.execute("insert into pgflow.jobs (run, step) select n, 's' from generate_series(1, %s) n", [jobs])
    assert len(run(conn, job.claim("pgflow", me, {"default": jobs}))) == jobs


def move_lease(conn: Connection, by: timedelta) -> None:
    conn.execute("update pgflow.workers set lease_expires_at = lease_expires_at + %s", [by])


def crashes(conn: Connection) -> list[tuple[str, int, int]]:
    return conn.execute("select state, crashes, attempt from pgflow.jobs order by id").fetchall()


def test_a_valid_lease_is_renewed_and_keeps_its_jobs(database: Connection) -> None:
    me = registered(database)
    holding(database, me)
    assert run(database, worker.beat("pgflow", me, "mine", LEASE))
    assert run(database, worker.attach("pgflow", me, "mine"))
    rescued = run(database, job.rescue("pgflow"))
    assert rescued.jobs == 0
    assert rescued.next_expiry == pytest.approx(30, abs=5)


def test_an_expired_lease_stays_expired_and_counts_as_a_crash(database: Connection) -> None:
    me = registered(database)
    holding(database, me)
    move_lease(database, -LEASE)
    assert not run(database, worker.beat("pgflow", me, "mine", LEASE))
    assert not run(database, worker.attach("pgflow", me, "mine"))
    assert run(database, job.rescue("pgflow")).jobs == 2
    assert crashes(database) == [("ready", 1, 0)] * 2


def test_a_lease_far_in_the_future_after_the_clock_went_back_has_expired_without_a_crash(
    database: Connection,
) -> None:
    me = registered(database)
    holding(database, me)
    move_lease(database, timedelta(hours=1))
    assert not run(database, worker.beat("pgflow", me, "mine", LEASE))
    assert not run(database, worker.attach("pgflow", me, "mine"))
    rescued = run(database, job.rescue("pgflow"))
    assert (rescued.jobs, rescued.next_expiry) == (2, None)
    assert crashes(database) == [("ready", 0, 0)] * 2


def test_a_clock_that_went_back_a_little_has_no_effect(database: Connection) -> None:
    me = registered(database)
    holding(database, me)
    move_lease(database, timedelta(seconds=20))
    assert run(database, job.rescue("pgflow")).jobs == 0
    assert run(database, worker.beat("pgflow", me, "mine", LEASE))


def test_a_worker_whose_id_was_reused_by_another_is_fenced_off(database: Connection) -> None:
    # A restored server, or a promoted standby, assigns ids that were assigned before.
    me = registered(database, "another worker's")
    assert not run(database, worker.beat("pgflow", me, "mine", LEASE))
    assert not run(database, worker.attach("pgflow", me, "mine"))
    assert run(database, worker.attach("pgflow", me, "another worker's"))


def test_the_lease_of_a_worker_of_an_older_pgflow_is_accepted(database: Connection) -> None:
    database.execute(
        "insert into pgflow.workers (node, pid, queues, version, lease_expires_at)"
        " values ('n', 1, '{default}', '0', now() + interval '1 day')"
    )
    (me,) = database.execute("select id from pgflow.workers").fetchall()[0]
    holding(database, me)
    assert run(database, job.rescue("pgflow")).jobs == 0
