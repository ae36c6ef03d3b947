"""Starts: in the caller's transaction, many at once, later; and how soon a worker is notified."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row

from pgflow import Context, Done, Ok, Pgflow, Unique, Workflow, step
from pgflow.client import transport
from pgflow.database.connect import Connection
from pgflow.errors import AlreadyRunning, ConfigError, InvalidInput, StatementTimeout
from tests.worker.conftest import Work
from tests.worker.db_helpers import connections, leftovers, one, rows, until_all_ended, until_status
from tests.worker.waiting import BUSY, PATIENCE, until

Input = dict[str, Any]
NEVER = timedelta(minutes=10)  # to poll in: longer than a test takes


@step
def end(ctx: Context[Input]) -> Ok:
    return Ok("done")


class Single(Workflow[Input], unique=Unique("single")):
    initial = end
    transitions = {end: {"done": Done}}


WORKFLOWS = (Single,)


class Undone(Exception):
    """Raised to roll a transaction back."""


def count(conn: Connection) -> int:
    return int(one(conn, "select count(*) from pgflow.instances"))


# -- the caller's transaction


@pytest.mark.parametrize("row_factory", [None, dict_row], ids=["tuples", "dicts"])
def test_a_start_commits_with_the_callers_transaction(
    app: Pgflow, conn: Connection, dsn: str, work: Work, row_factory: Any
) -> None:
    work()
    options = {"row_factory": row_factory} if row_factory else {}
    with psycopg.connect(dsn, **options) as caller:
        started = Single.start("v", {}, conn=caller)
        assert count(conn) == 0
        caller.commit()
    assert until_status(Single, "v").run == started.run


def test_a_start_rolls_back_with_the_callers_transaction(app: Pgflow, conn: Connection, dsn: str) -> None:
    def start_and_undo() -> None:
        with psycopg.connect(dsn) as caller, caller.transaction():
            Single.start("v", {}, conn=caller)
            Single.start_many([("w", {}), ("x", {})], conn=caller)
            raise Undone

    with pytest.raises(Undone):
        start_and_undo()
    assert count(conn) == one(conn, "select count(*) from pgflow.jobs") == 0
    assert Single.start("v", {}).created


def test_a_refused_start_can_be_survived_in_a_savepoint(app: Pgflow, conn: Connection, dsn: str) -> None:
    Single.start("v", {})
    with psycopg.connect(dsn) as caller, caller.transaction():
        with pytest.raises(AlreadyRunning), caller.transaction():
            Single.start("v", {}, conn=caller)
        Single.start("w", {}, conn=caller)
    assert count(conn) == 2


def test_an_async_start_commits_and_rolls_back_with_the_callers_transaction(
    app: Pgflow, conn: Connection, dsn: str, work: Work
) -> None:
    work()

    async def undo(caller: psycopg.AsyncConnection[Any]) -> None:
        async with caller.transaction():
            await Single.astart("undone", {}, conn=caller)
            raise Undone

    async def play() -> None:
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as caller:
            async with caller.transaction():
                await Single.astart("v", {}, conn=caller)
                await Single.astart_many([("w", {}), ("x", {})], conn=caller)
                assert count(conn) == 0
            with pytest.raises(Undone):
                await undo(caller)
        await app.aclose()

    asyncio.run(play())
    assert until_all_ended(conn) == {"completed": 3}
    assert [value for (value,) in rows(conn, "select id from pgflow.instances order by id")] == [
        "single::v",
        "single::w",
        "single::x",
    ]


def test_signals_cancels_and_retries_are_part_of_the_callers_transaction_too(
    app: Pgflow, conn: Connection, dsn: str
) -> None:
    Single.start("v", {})

    def cancel_and_undo() -> None:
        with psycopg.connect(dsn) as caller, caller.transaction():
            Single.cancel("v", conn=caller)
            assert Single.get("v", conn=caller).status == "cancelled"
            assert Single.get("v").status == "running"
            raise Undone

    with pytest.raises(Undone):
        cancel_and_undo()
    assert Single.get("v").status == "running"


# -- many


def test_many_start_in_order_and_the_active_ones_are_left_alone(app: Pgflow, conn: Connection, work: Work) -> None:
    kept = Single.start("v7", {"kept": True})
    started = Single.start_many([(f"v{number}", {"n": number}) for number in range(1000)])
    assert [one.id for one in started] == [f"single::v{number}" for number in range(1000)]
    assert [one.id for one in started if not one.created] == ["single::v7"]
    assert started[7].run == kept.run
    new = [one.run for one in started if one.created]
    assert len(set(new)) == 999
    assert Single.get("v7").input == {"kept": True}
    work({"default": 50})
    assert until_all_ended(conn) == {"completed": 1000}
    assert leftovers(conn) == {}


def test_one_bad_input_refuses_the_whole_batch(app: Pgflow, conn: Connection) -> None:
    bad: Sequence[tuple[str, Any]] = [("v", {}), ("w", "no dictionary")]
    with pytest.raises(InvalidInput):
        Single.start_many(bad)
    assert count(conn) == 0


def test_starting_none_is_not_an_error(app: Pgflow, conn: Connection) -> None:
    assert Single.start_many([]) == []


def test_a_late_notification_opens_no_connection_after_the_app_is_closed(
    app: Pgflow, conn: Connection, dsn: str
) -> None:
    for number in range(20):  # the first wakes at once, those that follow together a moment later
        Single.start(f"v{number}", {})
    app.close()
    until(lambda: connections(conn, "client") == 0, "the end of its connections")


def test_an_app_is_closed_at_the_end_of_its_with_block(conn: Connection, dsn: str) -> None:
    with Pgflow(dsn, workflows=[Single]) as app:
        app.start(Single, "sync", {})
        assert connections(conn, "client") > 0
    until(lambda: connections(conn, "client") == 0, "the end of its connections")

    async def start() -> None:
        async with Pgflow(dsn, workflows=[Single]):
            await Single.astart("async", {})
            assert connections(conn, "client") > 0

    asyncio.run(start())
    until(lambda: connections(conn, "client") == 0, "the end of its connections")


# -- later


def test_a_delayed_start_is_pending_and_does_not_run_early(app: Pgflow, conn: Connection, work: Work) -> None:
    work()
    Single.start("delayed", {}, delay=timedelta(seconds=0.7))
    moment = datetime.now(UTC) + timedelta(seconds=0.7)
    Single.start("dated", {}, at=moment)
    assert {Single.get("delayed").status, Single.get("dated").status} == {"pending"}
    with pytest.raises(AlreadyRunning):
        Single.start("delayed", {})
    delayed, dated = until_status(Single, "delayed"), until_status(Single, "dated")
    assert delayed.history[0].at - delayed.created_at >= timedelta(seconds=0.7)
    assert dated.history[0].at >= moment
    assert delayed.history[0].at - delayed.created_at < timedelta(seconds=BUSY)


def test_a_start_in_the_past_runs_at_once_and_both_ways_together_are_refused(
    app: Pgflow, conn: Connection, work: Work
) -> None:
    work()
    Single.start("v", {}, at=datetime(2020, 1, 1, tzinfo=UTC))
    assert until_status(Single, "v").status == "completed"
    with pytest.raises(ConfigError):
        Single.start("w", {}, at=datetime(2020, 1, 1, tzinfo=UTC), delay=timedelta(seconds=1))
    with pytest.raises(ConfigError):
        Single.start("w", {}, at=datetime(2020, 1, 1))  # noqa: DTZ001 -- that is what is refused


def test_tags_metadata_and_priority_are_the_instances_own(app: Pgflow, conn: Connection) -> None:
    Single.start("v", {}, tags=["vip"], metadata={"by": "shop"}, priority=-3)
    seen = Single.get("v")
    assert (seen.tags, seen.metadata) == (("vip",), {"by": "shop"})
    assert one(conn, "select priority from pgflow.jobs") == -3


# -- how soon


def latencies(number: int) -> list[float]:
    """Start instances one after another; seconds from each start to its end."""
    found = []
    for each in range(number):
        begun = time.monotonic()
        Single.start(f"v{each}", {})
        until(lambda each=each: Single.get(f"v{each}").status == "completed", "the end", pause=0.002)  # type: ignore[misc]
        found.append(time.monotonic() - begun)
    return sorted(found)


def test_an_idle_worker_is_notified_of_a_start_at_once(app: Pgflow, conn: Connection, work: Work) -> None:
    work(poll=NEVER, sweep=NEVER)
    until(lambda: connections(conn, "listen"), "the listener")
    found = latencies(15)  # without a notification, each would take NEVER
    assert found[7] < BUSY / 10, found


def test_a_worker_that_does_not_listen_finds_a_start_by_polling_only(app: Pgflow, conn: Connection, work: Work) -> None:
    inside = work(listen=False, poll=timedelta(seconds=0.5))
    found = latencies(6)
    assert found[3] > 0.15, found  # the listener is connected then
    assert connections(conn, "listen") == 0
    until(lambda: inside.worker.stats.steps == 6, "the last answer")


def test_a_start_in_a_transaction_wakes_an_idle_worker_after_the_commit_and_not_before(
    app: Pgflow, conn: Connection, dsn: str, work: Work
) -> None:
    inside = work(poll=NEVER, sweep=NEVER)
    Single.start("warm", {})
    until_status(Single, "warm")
    until(lambda: inside.worker.stats.steps == 1, "its answer")
    with psycopg.connect(dsn, autocommit=True) as listener, psycopg.connect(dsn) as caller:
        channel = one(conn, "select pgflow.channel()")
        listener.execute(f"listen {channel}".encode())
        Single.start("v", {}, conn=caller)
        assert list(listener.notifies(timeout=0.2)) == []
        assert inside.worker.stats.steps == 1
        caller.commit()
        (note,) = listener.notifies(timeout=PATIENCE, stop_after=1)
        assert note.payload == "default"
        until(lambda: inside.worker.stats.steps == 2, "the step")
    assert until_status(Single, "v").status == "completed"


# -- a statement that takes too long


@pytest.fixture
def hurried(app: Pgflow, dsn: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Pgflow, list[str]]]:
    """An app whose statements may take 200 ms, and the names of those that were sent to start or read instances."""
    sent: list[str] = []

    def counted(function: Any) -> Any:
        def call(conn: Any, *arguments: Any) -> Any:
            sent.append(function.__name__)
            return function(conn, *arguments)

        return call

    for name in ("run_claiming", "arun_claiming", "run_once", "arun_once", "run", "arun"):
        monkeypatch.setattr(transport, name, counted(getattr(transport, name)))
    own = Pgflow(make_conninfo(dsn, options="-c statement_timeout=200"), workflows=WORKFLOWS)
    own.register()
    sent.clear()
    yield own, sent
    own.close()


def test_a_start_over_the_statement_timeout_is_not_sent_again_and_gives_advice(
    hurried: tuple[Pgflow, list[str]], conn: Connection, dsn: str
) -> None:
    app, sent = hurried
    items: list[tuple[str, Input]] = [(f"v{number}", {}) for number in range(10)]

    async def astart_many() -> None:
        try:
            await app.astart_many(Single, items)
        finally:
            await app.aclose()

    with psycopg.connect(dsn) as other:
        other.execute("lock table pgflow.instances in exclusive mode")
        with pytest.raises(StatementTimeout, match="PostgreSQL ended start Single, nothing of it was written") as error:
            app.start_many(Single, items)
        assert "Start fewer at a time" in (error.value.hint or "")
        assert isinstance(error.value.__cause__, psycopg.errors.QueryCanceled)
        assert sent == ["run_claiming"]
        with pytest.raises(StatementTimeout, match="start Single"):
            asyncio.run(astart_many())
        assert sent == ["run_claiming", "arun_claiming"]
    assert count(conn) == 0
    assert len(app.start_many(Single, items)) == 10


def test_a_list_over_the_statement_timeout_is_not_sent_again(hurried: tuple[Pgflow, list[str]], dsn: str) -> None:
    app, sent = hurried
    with psycopg.connect(dsn) as other:
        other.execute("lock table pgflow.instances")
        with pytest.raises(StatementTimeout, match="PostgreSQL ended a query") as error:
            app.list()
    assert "Ask for less" in (error.value.hint or "")
    assert sent == ["run"]
