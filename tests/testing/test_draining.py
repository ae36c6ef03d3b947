"""`drain` runs due work, and no other; `run_inline` does so within each call."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import psycopg
import pytest

from pgflow import Pgflow
from pgflow.errors import BadQueue, ConfigError
from pgflow.local import Local
from pgflow.testing import Drained, StepFailed, adrain, drain, run_inline
from tests.testing.shop import CHARGES, PARCELS, WORKFLOWS, Declined, OrderFlow, Reminder


def test_a_drain_runs_an_instance_through_all_its_queues_to_the_end(pgflow_app: Pgflow) -> None:
    OrderFlow.start_many([("a", {}), ("b", {"item_count": 0})])
    assert drain(pgflow_app) == Drained(completed=4)
    assert [OrderFlow.get(value).status for value in "ab"] == ["completed", "completed"]
    assert (CHARGES, PARCELS) == (["a"], ["a"])
    assert drain(pgflow_app) == Drained()


def test_a_drain_of_one_queue_leaves_the_others(pgflow_app: Pgflow) -> None:
    OrderFlow.start("a", {})
    assert drain(pgflow_app, "default") == Drained(completed=1)
    assert drain(pgflow_app, "default") == Drained()
    assert OrderFlow.get("a").completed_steps == ("validate",)
    assert drain(pgflow_app, ["payments", "default"]) == Drained(completed=2)


def test_work_that_is_due_later_stays(pgflow_app: Pgflow) -> None:
    Reminder.start("timer")
    OrderFlow.start("delayed", {}, delay=timedelta(minutes=1))
    OrderFlow.start("refused", {"card": "refused"})
    OrderFlow.start("expired", {"card": "expired"})
    OrderFlow.start("later", {"card": "later"})
    assert drain(pgflow_app) == Drained(completed=3, failed=1, retried=1, snoozed=1, waiting=1)
    statuses = {value: OrderFlow.get(value).status for value in ("delayed", "refused", "expired")}
    assert statuses == {"delayed": "pending", "refused": "running", "expired": "failed"}
    assert Reminder.get("timer").status == "waiting"


def test_a_paused_queue_does_not_hold_up_a_drain(pgflow_app: Pgflow) -> None:
    OrderFlow.start("a", {})
    with psycopg.connect(pgflow_app.dsn, autocommit=True) as conn:
        conn.execute("insert into pgflow.queues (name, paused_at) values ('payments', pgflow.now())")
    assert drain(pgflow_app) == Drained(completed=1)


def test_a_due_job_that_another_session_has_locked_does_not_hold_up_a_drain(pgflow_app: Pgflow) -> None:
    Reminder.start("locked")
    drain(pgflow_app)
    with psycopg.connect(pgflow_app.dsn) as conn:
        conn.execute("update pgflow.jobs set run_at = pgflow.now() - interval '1 minute'")
        conn.commit()
        conn.execute("select from pgflow.jobs for update")
        OrderFlow.start("a", {})
        assert drain(pgflow_app, timeout=20) == Drained(completed=3)
    assert drain(pgflow_app).completed == 1


def test_a_drain_raises_the_exception_of_the_step_when_asked(pgflow_app: Pgflow) -> None:
    OrderFlow.start("a", {"card": "refused"})
    with pytest.raises(Declined, match="a is refused") as caught:
        drain(pgflow_app, raises=True)
    assert caught.value.__notes__ == ["in step charge of OrderFlow orderid::a, attempt 1"]
    assert caught.traceback[-1].name == "charge"
    OrderFlow.start("b", {"card": "expired"})
    with pytest.raises(StepFailed, match="step charge of OrderFlow orderid::b failed: the card has expired"):
        drain(pgflow_app, raises=True)


def test_a_drain_in_a_coroutine_runs_async_steps_in_its_loop(pgflow_app: Pgflow) -> None:
    async def main() -> Drained:
        await OrderFlow.astart("a", {})
        first = await adrain(pgflow_app)
        await OrderFlow.astart("b", {})
        second = await asyncio.to_thread(drain, pgflow_app)
        await OrderFlow.astart("c", {})
        third = drain(pgflow_app)  # in a thread, as this one runs a loop
        assert first == second == third
        return third

    assert asyncio.run(main()) == Drained(completed=3)
    assert CHARGES == ["a", "b", "c"]


def test_a_drain_that_takes_too_long_gives_back_what_runs(pgflow_app: Pgflow) -> None:
    from pgflow.testing import mocked

    async def hang(ctx: object) -> None:
        await asyncio.Event().wait()

    OrderFlow.start("a", {})
    with mocked(OrderFlow, "charge", calls=hang), pytest.raises(TimeoutError) as caught:
        drain(pgflow_app, timeout=1)
    assert "OrderFlow orderid::a charge (ready)" in str(caught.value)
    assert drain(pgflow_app) == Drained(completed=2)


def test_bad_arguments_are_refused(pgflow_app: Pgflow) -> None:
    with pytest.raises(BadQueue, match="concurrency must be between 1 and"):
        drain(pgflow_app, concurrency=0)
    with pytest.raises(BadQueue, match="not a valid queue name"):
        drain(pgflow_app, "no queue")
    with Local(workflows=WORKFLOWS) as local:
        with pytest.raises(ConfigError, match="nothing to drain") as caught:
            drain(local)
        assert "app.settle()" in str(caught.value.hint)


def test_inline_a_start_runs_to_its_end_and_a_resume_continues(pgflow_app: Pgflow) -> None:
    with run_inline(pgflow_app) as ran:
        OrderFlow.start("a", {})
        assert OrderFlow.get("a").status == "completed"
        assert ran == Drained(completed=3)
        with pytest.raises(Declined):
            OrderFlow.start("b", {"card": "refused"})
        assert OrderFlow.get("b").waiting_for[0].kind == "retry"
    OrderFlow.start("c", {})
    assert OrderFlow.get("c").completed_steps == ()


def test_inline_runs_in_memory_too() -> None:
    with Local(workflows=WORKFLOWS) as local:
        with run_inline(local) as ran:
            OrderFlow.start("a", {})
            assert OrderFlow.get("a").status == "completed"
            assert ran == Drained(completed=3)
            with pytest.raises(Declined, match="b is refused"):
                OrderFlow.start("b", {"card": "refused"})

        async def main() -> None:
            async with run_inline(local):
                await OrderFlow.astart("c", {})
                assert (await OrderFlow.aget("c")).status == "completed"

        asyncio.run(main())
        assert local.middleware == []


def test_inline_async_calls_run_in_the_callers_loop(pgflow_app: Pgflow) -> None:
    async def main() -> None:
        async with run_inline(pgflow_app) as ran:
            await OrderFlow.astart("a", {})
            assert (await OrderFlow.aget("a")).status == "completed"
            with pytest.raises(Declined):
                await OrderFlow.astart("b", {"card": "refused"})
            assert ran.completed == 4

    asyncio.run(main())


def test_inline_a_start_in_a_transaction_runs_once_that_has_committed(pgflow_app: Pgflow) -> None:
    with run_inline(pgflow_app) as ran:
        with psycopg.connect(pgflow_app.dsn) as conn:
            OrderFlow.start("a", {}, conn=conn)
            assert ran == Drained()
        assert ran == Drained()
    assert ran == Drained(completed=3)


def test_inline_a_start_by_a_step_runs_after_the_step(pgflow_app: Pgflow) -> None:
    from pgflow import Context, Ok
    from pgflow.testing import mocked

    def ship(ctx: Context[object]) -> Ok:
        Reminder.start(ctx.value)
        return Ok("shipped")

    with run_inline(pgflow_app) as ran, mocked(OrderFlow, "ship", calls=ship):
        OrderFlow.start("a", {})
    assert ran == Drained(completed=3, waiting=1)
    with Local(workflows=WORKFLOWS) as local, run_inline(local) as ran, mocked(OrderFlow, "ship", calls=ship):
        OrderFlow.start("a", {})
    assert ran == Drained(completed=3, waiting=1)
