"""Faults of the worker itself: it continues, or ends with the reason."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from threading import Event
from typing import Any

import psycopg
import pytest

from pgflow import Pgflow
from pgflow.database.connect import Connection
from pgflow.errors import SchemaMissing
from pgflow.store import job
from pgflow.worker import settler as settling
from pgflow.worker import supervisor
from pgflow.worker.decide import Decision, decide
from pgflow.worker.lease import heartbeat
from pgflow.worker.lease.heartbeat import Heartbeat
from pgflow.worker.listener import Listener
from pgflow.worker.outcome import Finished
from pgflow.worker.transactional.runner import TransactionalRunner
from pgflow.worker.turns.claimer import Claimer
from tests.worker.conftest import Work
from tests.worker.db_helpers import connections, cut, leftovers, one, rows, until_all_ended, until_status
from tests.worker.flows import WORKFLOWS as FLOWS
from tests.worker.flows import Books, Line
from tests.worker.gated_steps import Gate, Trio
from tests.worker.thread_worker import Inside
from tests.worker.waiting import PATIENCE, until

WORKFLOWS = (*FLOWS, Trio)
Defect = Callable[..., Any]


@pytest.fixture(autouse=True)
def gate() -> Iterator[None]:
    Gate.close()
    yield
    Gate.go.set()


def failing(times: int, then: Defect) -> Defect:
    """Fail so many times before calling `then`."""
    left = [times]

    def call(*args: Any, **options: Any) -> Any:
        if left[0] > 0:
            left[0] -= 1
            raise KeyError("a defect")
        return then(*args, **options)

    return call


def test_after_a_failed_turn_it_takes_a_new_identity_and_loses_nothing(
    app: Pgflow, conn: Connection, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = work()
    before = inside.worker.settler.worker
    monkeypatch.setattr(Claimer, "_take_over", failing(2, Claimer._take_over))
    Trio.start_many([(f"v{number}", {}) for number in range(30)])
    assert until_all_ended(conn) == {"completed": 30}
    assert inside.worker.settler.worker > before
    assert rows(conn, "select count(*), count(distinct (run, step)) from pgflow.step_results") == [(90, 90)]
    assert leftovers(conn) == {}


def test_a_worker_whose_turns_all_fail_gives_its_jobs_back_and_raises_the_error(
    app: Pgflow, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Claimer, "_take_over", failing(1000, Claimer._take_over))
    monkeypatch.setattr(supervisor, "MAX_FAILED_TURNS", 3)
    Trio.start("v", {})
    inside = Inside(app)
    with inside:
        until(lambda: not inside._thread.is_alive(), "its end")
        error, inside._error = inside._error, None
        inside.worker.held_jobs.abandon()
    assert isinstance(error, KeyError)
    monkeypatch.undo()
    with Inside(app):
        assert until_status(Trio, "v").status == "completed"
    assert leftovers(conn) == {}


def test_an_instance_on_which_nothing_can_be_decided_fails_alone(
    app: Pgflow, conn: Connection, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:

    def defective(run: Any, outcomes: Any, keep: Any) -> Decision:
        if run.id == "trio::v1" and isinstance(outcomes[0], Finished):
            raise KeyError("a defect")
        return decide(run, outcomes, keep)

    monkeypatch.setattr(settling, "decide", defective)
    Trio.start_many([(f"v{number}", {}) for number in range(5)])
    work()
    assert until_all_ended(conn) == {"completed": 4, "failed": 1}
    failed = Trio.get("v1").error
    assert failed is not None
    assert failed["reason"] == "the step's outcome does not fit the workflow: 'a defect'"


def test_failing_upkeep_does_not_delay_steps(app: Pgflow, conn: Connection, work: Work) -> None:
    conn.execute("alter table pgflow.scheduled_signals rename to elsewhere")
    try:
        inside = work()
        Trio.start_many([(f"v{number}", {}) for number in range(20)])
        assert until_all_ended(conn) == {"completed": 20}
        assert inside.worker._claimer.state.upkeep.failures > 0
    finally:
        conn.execute("alter table pgflow.elsewhere rename to scheduled_signals")
    until(lambda: inside.worker._claimer.state.upkeep.failures == 0, "its recovery")


def test_a_missing_schema_ends_the_worker(app: Pgflow, conn: Connection) -> None:
    inside = Inside(app)
    with inside:
        conn.execute("alter schema pgflow rename to gone")
        try:
            until(lambda: not inside._thread.is_alive(), "its end")
        finally:
            conn.execute("alter schema gone rename to pgflow")
        error, inside._error = inside._error, None
    assert isinstance(error, SchemaMissing)


def test_what_is_settled_one_by_one_survives_a_lost_connection(
    app: Pgflow, conn: Connection, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle = job.settle

    def refused_in_a_batch(*args: Any, **options: Any) -> Any:
        statement = settle(*args, **options)
        if len(statement.params["job_id"]) > 1:
            statement.params["result_output"][:] = ["no JSON"] * len(statement.params["result_job"])
        return statement

    cuts = [3]
    adopt = settling.Settler.adopt

    def cutting(self: settling.Settler, decisions: list[Decision], settled: Any) -> None:
        if cuts[0] and len(decisions) == 1:
            cuts[0] -= 1
            cut(conn, "worker")
        adopt(self, decisions, settled)

    monkeypatch.setattr(job, "settle", refused_in_a_batch)
    monkeypatch.setattr(settling.Settler, "adopt", cutting)
    Trio.start_many([(f"v{number}", {}) for number in range(20)])
    work({"default": 20})
    assert until_all_ended(conn) == {"completed": 20}
    assert cuts == [0]
    assert leftovers(conn) == {}


def test_a_heartbeat_stopped_while_it_waits_for_an_answer_does_not_report_a_lost_lease(
    dsn: str, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answered, lost = Event(), Event(), []

    def late(*_: Any) -> bool:
        asked.set()
        assert answered.wait(PATIENCE)
        return False

    monkeypatch.setattr(heartbeat, "run", late)
    beating = Heartbeat(dsn, "pgflow", timedelta(seconds=2), lambda: lost.append(True))
    beating.start(1, "nonce", time.monotonic())
    thread = beating._thread
    assert asked.wait(PATIENCE)
    monkeypatch.setattr(beating, "_thread", None)  # not waited for
    beating.stop()
    answered.set()
    assert thread is not None
    thread.join(PATIENCE)
    assert lost == []


def test_a_worker_that_drains_waits_for_a_database_that_is_away_for_a_moment(
    app: Pgflow, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    Trio.start_many([(f"v{number}", {}) for number in range(5)])
    drained, times = job.drained, [2]

    def severed(*args: Any) -> Any:
        if times[0]:
            times[0] -= 1
            cut(conn, "worker")
        return drained(*args)

    monkeypatch.setattr(job, "drained", severed)
    app.run_worker(drain=True, poll=timedelta(seconds=0.1), sweep=timedelta(seconds=0.2))
    assert until_all_ended(conn) == {"completed": 5}
    assert times == [0]


def test_a_listener_reconnects_after_an_unexpected_error(
    app: Pgflow, conn: Connection, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, times = Listener._open, [2]

    async def refused(self: Listener, connection: Any) -> bool:
        if times[0]:
            times[0] -= 1
            raise psycopg.errors.InsufficientPrivilege("not today")
        return await opened(self, connection)

    monkeypatch.setattr(Listener, "_open", refused)
    work(poll=timedelta(seconds=30))
    until(lambda: connections(conn, "listen") == 1 and times == [0], "the listener")
    Trio.start("v", {})
    assert until_status(Trio, "v").status == "completed"


def test_a_heartbeat_that_fails_gives_the_worker_a_new_identity(
    app: Pgflow, conn: Connection, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = work()
    before = inside.worker.settler.worker
    monkeypatch.setattr(Heartbeat, "lease_is_safe", Heartbeat.lease_is_safe)
    heartbeat = inside.worker._lease.heartbeat
    monkeypatch.setattr(heartbeat, "_confirm", failing(1, heartbeat._confirm))
    until(lambda: inside.worker.settler.worker > before, "its new id")
    Line.start("v", {})
    assert until_status(Line, "v").status == "completed"


def test_a_transaction_that_cannot_even_be_opened_is_a_failed_attempt(
    app: Pgflow, conn: Connection, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    conn.execute("create table if not exists ledger (value text, attempt integer)")
    monkeypatch.setattr(TransactionalRunner, "_open", failing(1, TransactionalRunner._open))
    Books.start("v", {})
    work()
    done = until_status(Books, "v")
    assert done.status == "completed"
    assert [error["reason"] for error in done.history[0].errors] == ["the step could not be run: 'a defect'"]
    assert one(conn, "select count(*) from ledger") == 1


def test_a_server_that_may_lose_commits_is_logged(
    app: Pgflow, conn: Connection, work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    work()
    off = ", ".join(name for name in ("fsync", "full_page_writes") if one(conn, f"show {name}") == "off")
    messages = [record.getMessage() for record in caplog.records if "in a crash" in record.getMessage()]
    assert messages == ([f"{off}: off. This server may lose committed transactions in a crash"] if off else [])
