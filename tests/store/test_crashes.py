"""Which crashes count for which jobs, and how a quarantined job runs alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from pgflow import Pgflow
from pgflow.database.connect import Connection, connect
from pgflow.database.statement import run
from pgflow.store import job, worker
from pgflow.worker.admission import claim_capacity
from tests.conftest import Server
from tests.store.driver import Driver
from tests.store.test_interleavings import WORKFLOWS, Line, start

CRASHES = "select crashes from pgflow.jobs order by run, id"


@pytest.fixture
def conn(server: Server, migrated_database: Callable[[Server], str]) -> Iterator[Connection]:
    """A connection to a separate database with the workflows registered."""
    dsn = migrated_database(server)
    app = Pgflow(dsn, workflows=WORKFLOWS)
    app.register()
    app.close()
    with connect(dsn, "test") as conn:
        yield conn


def kill_worker(driver: Driver) -> None:
    """End a worker's lease, and rescue its jobs."""
    run(driver.conn, worker.leave("pgflow", driver.settler.worker))
    run(driver.conn, job.rescue("pgflow"))


def crashes(conn: Connection) -> list[int]:
    return [row[0] for row in conn.execute(CRASHES).fetchall()]


def worker_with_jobs(conn: Connection, *seen: int) -> Driver:
    """Return a worker, with one job for each of these numbers of crashes."""
    driver = Driver(conn, WORKFLOWS)
    for number, count in enumerate(seen):
        start(driver, Line, f"v{number}")
        newest = "update pgflow.jobs set crashes = %s where id = (select max(id) from pgflow.jobs)"
        conn.execute(newest, [count])
    return driver


def test_each_job_of_a_lost_worker_counts_a_crash_and_no_attempt(conn: Connection) -> None:
    driver = worker_with_jobs(conn, 0, 1, 0)
    assert driver.claim() == 3
    kill_worker(driver)
    assert crashes(conn) == [1, 2, 1]
    assert conn.execute("select distinct state, attempt from pgflow.jobs").fetchall() == [("ready", 0)]
    errors = conn.execute("select errors from pgflow.jobs order by id").fetchall()
    assert [(error["attempt"], error["crashes"]) for ((error,),) in errors] == [(1, 1), (1, 2), (1, 1)]


def test_the_last_crash_counts_only_for_a_job_that_its_worker_held_alone(conn: Connection) -> None:
    driver = worker_with_jobs(conn, 4, 0)
    assert driver.claim() == 2
    kill_worker(driver)
    assert crashes(conn) == [4, 1]
    conn.execute("update pgflow.jobs set state = 'scheduled' where crashes = 1")
    alone = Driver(conn, WORKFLOWS)
    assert alone.claim() == 1
    kill_worker(alone)
    assert conn.execute("select crashes, kind, attempt from pgflow.jobs order by id limit 1").fetchall() == [
        (5, "advance", 1)
    ]


def test_a_quarantined_job_runs_alone_more_than_once_before_it_fails(conn: Connection) -> None:
    driver = worker_with_jobs(conn, 2)
    assert driver.claim() == 1
    kill_worker(driver)
    assert conn.execute("select crashes, kind, attempt from pgflow.jobs").fetchall() == [(3, "execute", 0)]


def test_a_rescue_in_small_batches_makes_no_job_look_alone(conn: Connection) -> None:
    driver = worker_with_jobs(conn, 0, 0, 2)
    assert driver.claim() == 3
    run(conn, worker.leave("pgflow", driver.settler.worker))
    for _ in range(3):
        assert run(conn, job.rescue("pgflow", limit=1)).jobs == 1
    assert crashes(conn) == [1, 1, 2]


def test_a_worker_claims_one_quarantined_job_and_then_nothing_until_it_has_run_alone(conn: Connection) -> None:
    driver = worker_with_jobs(conn, 0, 2, 2)
    driver.settler.is_draining = True  # what it makes ready it leaves
    assert driver.claim() == 2
    assert claim_capacity(driver.held_jobs, 0.0) == {}
    driver.held_jobs.run_waiting()
    assert [each.crashes for each in driver.ready] == [0], "it waits until nothing else is held"
    driver.run_steps()
    assert driver.ready == []
    driver.settle()
    driver.held_jobs.run_waiting()
    assert [each.crashes for each in driver.ready] == [2]
    driver.run_steps()
    assert claim_capacity(driver.held_jobs, 0.0) == {}
    driver.settle()
    assert claim_capacity(driver.held_jobs, 0.0) != {}
    assert crashes(conn) == [0, 0, 2]


def test_a_completed_step_clears_the_crashes_of_its_job(conn: Connection) -> None:
    driver = worker_with_jobs(conn, 2)
    driver.claim()
    driver.run_steps()
    driver.settle()
    assert crashes(conn) == [0]


def test_a_quarantined_job_that_has_not_started_is_released_when_the_worker_stops(conn: Connection) -> None:
    driver = worker_with_jobs(conn, 0, 2)
    driver.claim()
    driver.settler.is_draining = True
    driver.settler.release(driver.held_jobs.not_started())
    driver.settle()
    assert driver.held_jobs.jobs == {}
    assert crashes(conn) == [0, 2]
    assert conn.execute("select distinct state, attempt from pgflow.jobs").fetchall() == [("ready", 0)]
