"""A session that is lent to a step: who may end its transaction, and when it counts as lost."""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator

import psycopg
import pytest
from psycopg import pq

from pgflow.database.connect import Connection, connect
from pgflow.database.statement import Statement, run
from pgflow.store import worker
from pgflow.worker.transactional.faults import LOST
from pgflow.worker.transactional.session import StepSession
from tests.conftest import Server
from tests.worker.waiting import until

NAME = Statement("test/name", "select current_setting('application_name')", {}, lambda rows: str(rows[0][0]))


@pytest.fixture
def dsn(any_server: Server, migrated_database: Callable[[Server], str]) -> str:
    """The dsn of a database of the test's own, on each PostgreSQL."""
    return migrated_database(any_server)


@pytest.fixture
def line(dsn: str) -> Iterator[Connection]:
    """A worker's connection for steps."""
    with connect(dsn, "step") as conn:
        yield conn


def test_a_session_whose_server_has_gone_in_a_query_is_lost_although_libpq_has_not_noticed(
    line: Connection, dsn: str
) -> None:
    session = StepSession(line)
    session.begin()
    with connect(dsn, "test") as other:
        # As psycopg leaves it when it raises "connection socket closed": the query is sent, and nothing is read.
        session.conn.pgconn.send_query(b"select pg_sleep(60)")
        active = "select from pg_stat_activity where pid = %s and query like '%%pg_sleep(60)' and state = 'active'"
        until(lambda: other.execute(active, [line.info.backend_pid]).fetchall(), "the query")
        other.execute("select pg_terminate_backend(%s)", [line.info.backend_pid])
        gone = "select from pg_stat_activity where pid = %s"
        until(lambda: not other.execute(gone, [line.info.backend_pid]).fetchall(), "its end")
    hangup = select.poll()
    hangup.register(session.conn.fileno(), select.POLLRDHUP)
    until(lambda: hangup.poll(1000), "the end of the stream")  # it comes after the server has forgotten the session
    assert not session.conn.broken
    assert session.conn.info.transaction_status is pq.TransactionStatus.ACTIVE
    assert session.take_back() is LOST
    session.rollback()
    assert not session.is_clean


def test_a_query_that_still_runs_is_not_a_lost_session(line: Connection) -> None:
    session = StepSession(line)
    session.begin()
    session.conn.pgconn.send_query(b"select pg_sleep(60)")
    fault = session.take_back()
    assert fault is not None
    assert "while its connection was in use" in fault
    session.rollback()
    assert not session.is_clean
    session.dispose()
    assert line.closed


def test_a_settle_is_sent_under_the_name_by_which_evict_finds_the_session(line: Connection) -> None:
    session = StepSession(line)
    session.begin()
    session.conn.execute("set application_name = 'mine'")
    assert session.take_back() is None
    assert session.settle("pgflow", NAME) == "pgflow:step"
    assert session.settle("pgflow", NAME) == "pgflow:step", "again, as where another transaction holds the instance"
    session.commit()
    assert session.is_clean
    assert run(line, NAME) == "pgflow:step"
    assert run(line, worker.terminate_expired_backends("pgflow")) == 0


def test_neither_object_can_be_used_in_place_of_the_other(line: Connection) -> None:
    session = StepSession(line)
    session.begin()
    with pytest.raises(psycopg.ProgrammingError, match=r"commit\(\) is not for a transactional step"):
        session.conn.commit()
    session.rollback()
    assert session.is_clean
    with pytest.raises(psycopg.OperationalError, match="closed"):
        session.conn.execute("select 1")
    assert line.execute("select 1").fetchone() == (1,)
