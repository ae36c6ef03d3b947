"""A worker that is frozen in a transaction holds locks; its session is terminated once its lease has expired."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

import psycopg
import pytest

from pgflow.database.connect import Connection, connect
from pgflow.database.statement import Statement, run
from pgflow.store import job, worker
from tests.conftest import Server
from tests.worker.waiting import until

LEASE = timedelta(hours=1)


def registering(backend: int) -> Statement[int]:
    return worker.register(
        "pgflow", node="n", pid=1, queues=["default"], version="0", nonce="", lease=LEASE, backend=backend
    )


@pytest.fixture
def dsn(any_server: Server, migrated_database: Callable[[Server], str]) -> str:
    """The dsn of a database with one job, for one test, on each PostgreSQL version."""
    dsn = migrated_database(any_server)
    with connect(dsn, "migrate") as conn:
        conn.execute("insert into pgflow.jobs (run, step) values (1, 's')")
    return dsn


@pytest.fixture
def frozen(dsn: str) -> Iterator[Connection]:
    """A worker's connection, in a transaction that has locked the worker's claimed job."""
    with connect(dsn, "worker") as conn:
        me = run(conn, registering(conn.info.backend_pid))
        assert len(run(conn, job.claim("pgflow", me, {"default": 1}))) == 1
        conn.execute("begin")
        conn.execute("select from pgflow.jobs for update")
        yield conn


def end_lease(conn: Connection) -> None:
    conn.execute("update pgflow.workers set lease_expires_at = pgflow.now()")
    ended = "select from pgflow.workers where lease_expires_at < pgflow.now()"
    until(lambda: conn.execute(ended).fetchall(), "its end")


def test_a_worker_with_a_valid_lease_is_left_alone(frozen: Connection, dsn: str) -> None:
    with connect(dsn, "worker") as other:
        assert run(other, worker.terminate_expired_backends("pgflow")) == 0
        frozen.execute("commit")


def test_jobs_of_a_frozen_worker_are_rescued_once_its_lease_has_expired(frozen: Connection, dsn: str) -> None:
    with connect(dsn, "worker") as other:
        end_lease(other)
        assert run(other, job.rescue("pgflow")).jobs == 0  # skips locked jobs
        assert run(other, worker.terminate_expired_backends("pgflow")) == 1
        until(lambda: run(other, job.rescue("pgflow")).jobs == 1, "the rescue")
        assert run(other, worker.terminate_expired_backends("pgflow")) == 0
    with pytest.raises(psycopg.OperationalError):
        frozen.execute("commit")


@pytest.fixture
def paused(dsn: str) -> Iterator[Connection]:
    """A connection of a transactional step whose worker's lease has expired, in the step's transaction."""
    with connect(dsn, "worker") as other, connect(dsn, "step") as conn:
        me = run(other, registering(other.info.backend_pid))
        assert len(run(other, job.claim("pgflow", me, {"default": 1}))) == 1
        conn.execute("begin")
        conn.execute("create table effects ()")
        end_lease(other)
        yield conn


def test_a_step_frozen_after_its_settle_is_rescued_too(paused: Connection, dsn: str) -> None:
    with connect(dsn, "worker") as other, connect(dsn, "step") as bystander:
        bystander.execute("begin")
        bystander.execute("create table others ()")
        paused.execute("delete from pgflow.jobs")
        assert run(other, job.rescue("pgflow")).jobs == 0  # skips locked jobs
        assert run(other, worker.terminate_expired_backends("pgflow")) == 1
        until(lambda: run(other, job.rescue("pgflow")).jobs == 1, "the rescue")
        bystander.execute("commit")
    with pytest.raises(psycopg.OperationalError):
        paused.execute("commit")


def test_a_step_that_has_not_locked_its_job_is_not_terminated(paused: Connection, dsn: str) -> None:
    with connect(dsn, "worker") as other:
        assert run(other, worker.terminate_expired_backends("pgflow")) == 0
        assert run(other, job.rescue("pgflow")).jobs == 1
        paused.execute("commit")


def test_a_session_is_terminated_only_if_it_is_surely_the_workers(frozen: Connection, dsn: str) -> None:
    with connect(dsn, "worker") as other:
        end_lease(other)
        for change in ("backend = 1", "attached_at = attached_at - interval '1 hour'", "backend = pg_backend_pid()"):
            with other.transaction(force_rollback=True):
                other.execute(f"update pgflow.workers set {change}".encode())  # noqa: S608 -- the constants above
                assert run(other, worker.terminate_expired_backends("pgflow")) == 0, change
        frozen.execute("set local application_name = 'another client of the same pooler'")
        assert run(other, worker.terminate_expired_backends("pgflow")) == 0
        frozen.execute("commit")


def test_the_backend_of_a_pooler_is_not_recorded(dsn: str) -> None:
    recorded = "select backend from pgflow.workers"
    with connect(dsn, "worker") as conn:
        mine = conn.info.backend_pid
        me = run(conn, registering(mine + 1))
        assert conn.execute(recorded).fetchone() == (None,)
        assert run(conn, worker.attach("pgflow", me, "", mine))
        assert conn.execute(recorded).fetchone() == (mine,)
        assert run(conn, worker.attach("pgflow", me, "", mine + 1))
        assert conn.execute(recorded).fetchone() == (None,)
