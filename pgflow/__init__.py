"""Durable, validated workflows and background jobs on nothing but PostgreSQL: import all you need from here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pgflow.core.context import Context
from pgflow.core.function import step
from pgflow.core.instance import Instance, Started
from pgflow.core.results import Async, Error, Ok, Snooze
from pgflow.core.retry import Retry
from pgflow.core.route import route
from pgflow.core.step import Step
from pgflow.core.unique import Unique
from pgflow.core.workflow import Workflow
from pgflow.errors import PgflowError
from pgflow.steps import Debug, Done, Wait, WaitForEvent

if TYPE_CHECKING:
    from pgflow.app import Pgflow

__all__ = [
    "Async",
    "Context",
    "Debug",
    "Done",
    "Error",
    "Instance",
    "Ok",
    "Pgflow",
    "PgflowError",
    "Retry",
    "Snooze",
    "Started",
    "Step",
    "Unique",
    "Wait",
    "WaitForEvent",
    "Workflow",
    "route",
    "step",
]


def __getattr__(name: str) -> Any:
    # The app brings psycopg and the worker: defining and unit-testing workflows shall not wait for them.
    if name == "Pgflow":
        from pgflow.app import Pgflow

        return Pgflow
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
