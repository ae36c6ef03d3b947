"""Test code that uses pgflow: run what is enqueued, assert what is, replace steps, move the clock, kill workers.

    from pgflow.testing import assert_enqueued, drain

    def test_an_order_is_charged(pgflow_app):
        place_order("abc123")
        assert_enqueued(OrderFlow, "abc123", item_count=3)
        assert drain(pgflow_app).failed == 0
        assert OrderFlow.get("abc123").status == "completed"

draining        `drain`: run all due work in this process, and count the outcomes
inline          `run_inline`: run it within each call
recorder        what happened during a drain: outcomes, and the errors to raise
enqueued        `assert_enqueued`, `refute_enqueued`: what is stored and waits for a worker
mocks           `mocked`: other results for a step or a task, in memory and on PostgreSQL
clock           `Clock`: a database clock that a test moves; its SQL is in `sql/`
crashes         `crash_mode`: workers that die at each commit point
server          databases for tests, cloned from a template
plugin          the fixtures, for pytest

Decisions, and why.

*A drain is a worker.* It claims, runs and settles as in production, with the same code; only its end differs: it does
not wait for work that is due later. So a test passes through codec, retries, fencing and limits.

*The clock is a function.* All statements read the time from `pgflow.now()`. A test's clock replaces that function in
the test's schema, in one transaction, for all sessions. Nothing in the package can move it otherwise.

*A worker dies by cancellation.* What it holds in memory is lost, its jobs are given back without a count of crashes,
and the next worker claims them: a redelivery as after a kill, in milliseconds. Real kills are tested by pgflow itself.

*Nothing is imported before it is used.* pytest loads the plugin of every installed package.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pgflow.testing.clock import Clock
    from pgflow.testing.crashes import CrashReport, Delivery, crash_mode
    from pgflow.testing.draining import adrain, drain
    from pgflow.testing.enqueued import aassert_enqueued, arefute_enqueued, assert_enqueued, refute_enqueued
    from pgflow.testing.inline import run_inline
    from pgflow.testing.mocks import Mock, mocked
    from pgflow.testing.recorder import Drained, StepFailed

__all__ = [
    "Clock",
    "CrashReport",
    "Delivery",
    "Drained",
    "Mock",
    "StepFailed",
    "aassert_enqueued",
    "adrain",
    "arefute_enqueued",
    "assert_enqueued",
    "crash_mode",
    "drain",
    "mocked",
    "refute_enqueued",
    "run_inline",
]

MODULES = {
    "Clock": "clock",
    "CrashReport": "crashes",
    "Delivery": "crashes",
    "Drained": "recorder",
    "Mock": "mocks",
    "StepFailed": "recorder",
    "aassert_enqueued": "enqueued",
    "adrain": "draining",
    "arefute_enqueued": "enqueued",
    "assert_enqueued": "enqueued",
    "crash_mode": "crashes",
    "drain": "draining",
    "mocked": "mocks",
    "refute_enqueued": "enqueued",
    "run_inline": "inline",
}


def __getattr__(name: str) -> Any:
    module = MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{module}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
