"""A session that is lent to a step: who may end its transaction, and when it counts as lost."""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator

import psycopg
import pytest
from psycopg import pq

from pgflow.database.connect import Connection, connect
from pgflow.database.statement import Statement, run
from pgflow.migrations.migrate import up
from pgflow.store import worker
from pgflow.worker.step_session import LOST, StepSession
from tests.conftest import Server
from tests.worker.patience import until

NAME = Statement("test/name", "select current_setting('application_name')", {}, lambda rows: str(rows[0][0]))


@pytest.fixture
def dsn(any_server: Server, new_database: Callable[..., str]) -> str:
    """The dsn of a database of the test's own, on each PostgreSQL."""
    dsn: str = new_database(any_server)
    with connect(dsn, "migrate") as conn:
        up(conn)
    return dsn


@pytest.fixture
def line(dsn: str) -> Iterator[Connection]:
    """A worker's connection for steps."""
    with connect(dsn, "step") as conn:
        yield conn


def test_a_session_whose_server_has_gone_in_a_query_is_lost_although_libpq_has_not_noticed(
    line: Connection, dsn: str
) -> None:
    loan = StepSession(line)
    loan.begin()
    with connect(dsn, "test") as other:
        # As psycopg leaves it when it raises "connection socket closed": the query is sent, and nothing is read.
        loan.conn.pgconn.send_query(b"select pg_sleep(60)")
        active = "select from pg_stat_activity where pid = %s and query like '%%pg_sleep(60)' and state = 'active'"
        until(lambda: other.execute(active, [line.info.backend_pid]).fetchall(), "the query")
        other.execute("select pg_terminate_backend(%s)", [line.info.backend_pid])
        gone = "select from pg_stat_activity where pid = %s"
        until(lambda: not other.execute(gone, [line.info.backend_pid]).fetchall(), "its end")
    hangup = select.poll()
    hangup.register(loan.conn.fileno(), select.POLLRDHUP)
    until(lambda: hangup.poll(1000), "the end of the stream")  # it comes after the server has forgotten the session
    assert not loan.conn.broken
    assert loan.conn.info.transaction_status is pq.TransactionStatus.ACTIVE
    assert loan.take_back() is LOST
    loan.rollback()
    assert not loan.is_clean


def test_a_query_that_still_runs_is_not_a_lost_session(line: Connection) -> None:
    loan = StepSession(line)
    loan.begin()
    loan.conn.pgconn.send_query(b"select pg_sleep(60)")
    fault = loan.take_back()
    assert fault is not None
    assert "while its connection was in use" in fault
    loan.rollback()
    assert not loan.is_clean
    loan.dispose()
    assert line.closed


def test_a_settle_is_sent_under_the_name_by_which_evict_finds_the_session(line: Connection) -> None:
    loan = StepSession(line)
    loan.begin()
    loan.conn.execute("set application_name = 'mine'")
    assert loan.take_back() is None
    assert loan.settle("pgflow", NAME) == "pgflow:step"
    assert loan.settle("pgflow", NAME) == "pgflow:step", "again, as where another transaction holds the instance"
    loan.commit()
    assert loan.is_clean
    assert run(line, NAME) == "pgflow:step"
    assert run(line, worker.evict("pgflow")) == 0


def test_neither_object_can_be_used_in_place_of_the_other(line: Connection) -> None:
    loan = StepSession(line)
    loan.begin()
    with pytest.raises(psycopg.ProgrammingError, match=r"commit\(\) is not for a transactional step"):
        loan.conn.commit()
    loan.rollback()
    assert loan.is_clean
    with pytest.raises(psycopg.OperationalError, match="closed"):
        loan.conn.execute("select 1")
    assert line.execute("select 1").fetchone() == (1,)
