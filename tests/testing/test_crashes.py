"""Crash mode: each job is delivered again at each commit point, and its effects show whether its step is idempotent."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest

from pgflow import Context, Done, Ok, Pgflow, Unique, Workflow, step
from pgflow.errors import ConfigError
from pgflow.local import Local
from pgflow.testing import CrashReport, Drained, adrain, crash_mode, drain, run_inline
from pgflow.worker import points
from tests.testing.shop import CHARGES, PARCELS, WORKFLOWS, OrderFlow, Reminder

DEATHS = ["before it began", "after it ran, before the commit", "after the commit"]


@step(transactional=True)
def book(ctx: Context[dict[str, Any]]) -> Ok:
    assert ctx.conn is not None
    ctx.conn.execute("insert into bookings values (%s)", [ctx.value])
    return Ok("done")


@step(transactional=True)
async def confirm(ctx: Context[dict[str, Any]]) -> Ok:
    await ctx.conn.execute("insert into bookings values (%s)", [f"{ctx.value} confirmed"])
    return Ok("done")


class Booking(Workflow[dict[str, Any]], unique=Unique("booking")):
    """Steps whose writes commit with their results, and a fan-out."""

    initial = book
    transitions = {book: {"done": confirm}, confirm: {"done": Done}}


def test_each_job_is_delivered_again_at_each_commit_point(pgflow_app: Pgflow) -> None:
    OrderFlow.start("a", {})
    with crash_mode(pgflow_app) as crashes:
        assert drain(pgflow_app) == Drained(completed=3)
    assert OrderFlow.get("a").status == "completed"
    assert [(each.step, each.runs, each.died) for each in crashes.deliveries] == [
        ("validate", 2, DEATHS),
        ("charge", 2, DEATHS),
        ("ship", 2, DEATHS),
    ]
    assert (CHARGES, PARCELS) == (["a", "a"], ["a", "a"])
    assert [entry.attempt for entry in OrderFlow.get("a").history] == [1, 1, 1]
    assert "OrderFlow orderid::a charge: ran 2 times; died before it began; after it ran" in str(crashes)
    assert len(crashes.repeated) == 3
    OrderFlow.start("b", {})
    drain(pgflow_app)
    assert CHARGES == ["a", "a", "b"]


def test_the_writes_of_a_transactional_step_happen_once(pgflow_app: Pgflow) -> None:
    pgflow_app.adopt(Booking)
    with psycopg.connect(pgflow_app.dsn, autocommit=True) as conn:
        conn.execute("create table bookings (value text)")
        Booking.start("a", {})
        with crash_mode(pgflow_app) as crashes:
            drain(pgflow_app)
        assert conn.execute("select value from bookings").fetchall() == [("a",), ("a confirmed",)]
    assert Booking.get("a").status == "completed"
    assert [(each.step, each.runs, each.died) for each in crashes.deliveries] == [
        ("book", 2, DEATHS),
        ("confirm", 2, DEATHS),
    ]


def test_failed_attempts_waits_and_signals_survive(pgflow_app: Pgflow, pgflow_crashes: CrashReport) -> None:
    OrderFlow.start("refused", {"card": "refused"})
    OrderFlow.start("expired", {"card": "expired"})
    Reminder.start("a")
    assert drain(pgflow_app) == Drained(completed=2, failed=1, retried=1, waiting=1)
    assert OrderFlow.get("refused").waiting_for[0].attempt == 1
    assert OrderFlow.get("expired").status == "failed"
    assert CHARGES.count("refused") == 2
    assert {each.died[0] for each in pgflow_crashes.deliveries} == {"before it began"}


def test_inline_and_async_drains_crash_too_and_leave_no_hook(pgflow_app: Pgflow) -> None:
    async def main() -> None:
        await OrderFlow.astart("b", {})
        assert await adrain(pgflow_app) == Drained(completed=3)

    with crash_mode(pgflow_app) as crashes:
        with run_inline(pgflow_app) as ran:
            OrderFlow.start("a", {})
        assert ran == Drained(completed=3)
        asyncio.run(main())
    assert len(crashes.deliveries) == 6
    assert points.install(None) is None


def test_a_local_has_no_workers_that_could_die() -> None:
    with (
        Local(workflows=WORKFLOWS) as app,
        pytest.raises(ConfigError, match="no workers that could die"),
        crash_mode(app),
    ):
        raise AssertionError
