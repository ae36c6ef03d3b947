"""The movable clock: timers, delays, retries and leases follow it, on PostgreSQL and with workers that run."""

from __future__ import annotations

import asyncio
from contextlib import closing
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from pgflow import Pgflow, schedule
from pgflow.database.connect import connect
from pgflow.database.statement import run
from pgflow.doctor.checks import examine
from pgflow.errors import ConfigError, InvalidValue
from pgflow.local import Local
from pgflow.migrations.migrate import status, up
from pgflow.store.worker import terminate_expired_backends
from pgflow.testing import Clock, Drained, drain, mocked
from tests.testing.shop import CHARGES, PARCELS, WORKFLOWS, OrderFlow, Reminder
from tests.worker.thread_worker import Inside
from tests.worker.waiting import until

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def test_timers_delays_and_retries_come_due_when_the_clock_has_moved(pgflow_app: Pgflow, pgflow_clock: Clock) -> None:
    Reminder.start("timer")
    OrderFlow.start("delayed", {}, delay=HOUR)
    OrderFlow.start("refused", {"card": "refused"})
    assert drain(pgflow_app) == Drained(completed=1, retried=1, waiting=1)
    pgflow_clock.advance(HOUR - timedelta(minutes=1))
    assert drain(pgflow_app) == Drained()
    pgflow_clock.advance(timedelta(minutes=1))
    assert drain(pgflow_app) == Drained(completed=4, retried=1, waiting=1)
    pgflow_clock.advance(DAY)
    drain(pgflow_app)
    assert (PARCELS, CHARGES) == (["delayed", "reminder timer"], ["refused", "refused", "delayed", "refused"])
    assert {OrderFlow.get("refused").status, Reminder.get("timer").status} == {"failed", "completed"}


def test_schedules_fire_at_their_instants(pgflow_dsn: str) -> None:
    nine = datetime(2031, 2, 3, 9, tzinfo=UTC)
    daily = schedule("0 9 * * *", OrderFlow, name="daily", args={"item_count": 2}, tz="UTC")
    hourly = schedule("30 * * * *", Reminder, name="hourly", tz="UTC", overlap="allow", catch_up="all")
    app = Pgflow(pgflow_dsn, workflows=WORKFLOWS, schedules=[daily, hourly])
    with closing(app), Clock(app) as clock:
        clock.freeze(nine - timedelta(minutes=20))
        assert drain(app) == Drained()  # it declares them
        clock.advance(timedelta(minutes=19))
        assert drain(app) == Drained()
        clock.move_to(nine)
        assert drain(app) == Drained(completed=3)
        assert [each.id for each in OrderFlow.list()] == ["orderid::daily@2031-02-03T09:00:00Z"]
        clock.advance(5 * HOUR)
        drain(app)
        assert len(Reminder.list()) == 5
        clock.advance(3 * DAY)
        drain(app)
        assert len(OrderFlow.list()) == 2  # the last one of those that were missed
        assert {each.created_at for each in OrderFlow.list()} == {nine, nine + 5 * HOUR + 3 * DAY}


def test_the_time_that_is_stored_is_that_of_the_clock(pgflow_app: Pgflow, pgflow_clock: Clock) -> None:
    moment = datetime(2031, 2, 3, 4, 5, 6, 789, tzinfo=UTC)
    assert pgflow_clock.freeze(moment) == pgflow_clock.now() == moment
    OrderFlow.start("a", {})
    drain(pgflow_app)
    seen = OrderFlow.get("a")
    assert (seen.status, seen.created_at, seen.finished_at) == ("completed", moment, moment)
    pgflow_clock.advance(HOUR)
    assert pgflow_clock.now() == moment + HOUR
    pgflow_clock.move_to(moment)
    assert pgflow_clock.now() == moment
    pgflow_clock.resume()
    assert not pgflow_clock.is_frozen
    assert moment < pgflow_clock.now() < moment + HOUR
    pgflow_clock.move_to(moment - DAY)
    assert moment - DAY < pgflow_clock.now() < moment


def test_a_worker_that_runs_sees_a_move_at_once_and_keeps_its_lease(pgflow_app: Pgflow, pgflow_clock: Clock) -> None:
    # Its own polls and sweeps come too late for the test.
    rare = {"poll": HOUR, "sweep": HOUR, "lease": timedelta(seconds=30)}
    with Inside(pgflow_app, {"default": 2, "payments": 2}, **rare) as inside:
        Reminder.start("timer")
        until(lambda: Reminder.get("timer").status == "waiting")
        me = inside.worker.settler.worker
        pgflow_clock.advance(HOUR)
        until(lambda: Reminder.get("timer").completed_steps == ("hour",))
        pgflow_clock.advance(DAY)
        until(lambda: Reminder.get("timer").status == "completed")
        pgflow_clock.restore()
        OrderFlow.start("a", {})
        until(lambda: OrderFlow.get("a").status == "completed")
        assert inside.worker.settler.worker == me
        assert inside.worker.stats.rescued == 0


def test_the_lease_of_a_worker_that_died_expires(pgflow_app: Pgflow, pgflow_clock: Clock) -> None:
    OrderFlow.start("a", {})
    with psycopg.connect(pgflow_app.dsn, autocommit=True) as conn:
        conn.execute("""
            with gone as (
                insert into pgflow.workers (node, pid, queues, version, nonce, lease, lease_expires_at)
                values ('n', 1, '{default}', '1', 'x', '30 s', pgflow.now() + interval '30 s') returning id
            )
            update pgflow.jobs set state = 'running', attempt = 1, worker = (select id from gone)
        """)
    assert drain(pgflow_app) == Drained()
    pgflow_clock.advance(timedelta(seconds=31))
    assert drain(pgflow_app) == Drained(completed=3)


def test_a_transaction_begun_after_the_lease_ended_is_not_terminated_while_the_clock_is_ahead(
    pgflow_app: Pgflow, pgflow_clock: Clock
) -> None:
    # A worker that took a new identity works on in the session that its old row names.
    pgflow_clock.advance(DAY)
    with connect(pgflow_app.dsn, "worker") as worker, connect(pgflow_app.dsn) as conn:
        conn.execute(
            """insert into pgflow.workers
                (node, pid, queues, version, nonce, lease, lease_expires_at, backend, attached_at)
            values ('n', 1, '{}', '1', 'x', '30 s', pgflow.now() - interval '1 minute', %s, clock_timestamp())""",
            [worker.info.backend_pid],
        )
        with worker.transaction():
            worker.execute("select 1")
            assert run(conn, terminate_expired_backends("pgflow")) == 0


def test_after_the_test_the_function_is_that_of_the_migration(pgflow_app: Pgflow) -> None:
    source = "select prosrc from pg_proc where oid = 'pgflow.now()'::regprocedure"
    with psycopg.connect(pgflow_app.dsn, autocommit=True) as conn:
        before = conn.execute(source).fetchone()
        with Clock(pgflow_app) as clock:
            clock.advance(HOUR)
            clock.freeze()
            assert conn.execute(source).fetchone() != before
        assert conn.execute(source).fetchone() == before


def test_migrations_do_not_reset_it_and_the_doctor_reports_it(pgflow_app: Pgflow, pgflow_clock: Clock) -> None:
    pgflow_clock.advance(2 * HOUR)
    with connect(pgflow_app.dsn, "migrate") as conn:
        assert status(conn).up_to_date
        up(conn)
    assert pgflow_clock.now() - datetime.now(UTC) > HOUR
    findings = {each.check: each for each in examine(pgflow_app.dsn, "pgflow", pgflow_app)}
    assert findings["clock"].what == "pgflow.now() is 7200 s ahead of the server's clock: a test has moved it"
    pgflow_clock.restore()
    findings = {each.check: each for each in examine(pgflow_app.dsn, "pgflow", pgflow_app)}
    assert "agrees" in findings["clock"].what


def test_another_schema_has_a_clock_of_its_own(pgflow_app: Pgflow, pgflow_dsn: str, pgflow_clock: Clock) -> None:
    other = Pgflow(pgflow_dsn, workflows=WORKFLOWS, schema="other")
    other.migrate()
    with Clock(other) as clock:
        clock.advance(DAY)
        assert clock.now() - pgflow_clock.now() > HOUR
        OrderFlow.start("a", {})
        assert drain(other) == Drained(completed=3)
    other.close()


def test_a_local_has_a_clock_that_advances() -> None:
    with Local(workflows=WORKFLOWS) as app, Clock(app) as clock:
        before = clock.now()
        OrderFlow.start("a", {}, delay=HOUR)
        clock.advance(HOUR)
        assert OrderFlow.get("a").status == "completed"
        assert clock.now() - before >= HOUR
        with pytest.raises(ConfigError, match="can only advance"):
            clock.freeze()


def test_wrong_times_are_refused(pgflow_clock: Clock) -> None:
    with pytest.raises(InvalidValue, match="not negative"):
        pgflow_clock.advance(-HOUR)
    with pytest.raises(InvalidValue, match="aware datetime"):
        pgflow_clock.move_to(datetime(2030, 1, 1))  # noqa: DTZ001 -- the wrong value
    with pytest.raises(InvalidValue, match="aware datetime, got str"):
        pgflow_clock.freeze("tomorrow")  # type: ignore[arg-type]
    assert abs(pgflow_clock.now() - datetime.now(UTC)) < timedelta(minutes=1)


def test_a_frozen_clock_serves_a_coroutine_too(pgflow_app: Pgflow, pgflow_clock: Clock) -> None:
    async def main() -> str:
        pgflow_clock.freeze()
        with mocked(OrderFlow, "charge", raises=RuntimeError):
            await OrderFlow.astart("a", {})
            from pgflow.testing import adrain

            assert await adrain(pgflow_app) == Drained(completed=1, retried=1)
        pgflow_clock.advance(HOUR)
        assert await adrain(pgflow_app) == Drained(completed=2)
        return (await OrderFlow.aget("a")).status

    assert asyncio.run(main()) == "completed"
