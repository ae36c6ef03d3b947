"""Durable, validated workflows and background jobs on nothing but PostgreSQL: import all you need from here."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pgflow.app import Pgflow
    from pgflow.core.codec import Codec
    from pgflow.core.connector import Connector
    from pgflow.core.context import Context
    from pgflow.core.function import step
    from pgflow.core.instance import Instance, Scheduled, Started
    from pgflow.core.job import Job
    from pgflow.core.results import Async, Error, Ok, Snooze
    from pgflow.core.retry import Retry
    from pgflow.core.route import route
    from pgflow.core.step import Step
    from pgflow.core.unique import Unique
    from pgflow.core.workflow import Workflow
    from pgflow.errors import PgflowError
    from pgflow.steps import Debug, Done, Wait, WaitForEvent

__all__ = [
    "Async",
    "Codec",
    "Connector",
    "Context",
    "Debug",
    "Done",
    "Error",
    "Instance",
    "Job",
    "Ok",
    "Pgflow",
    "PgflowError",
    "Retry",
    "Scheduled",
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

# Where each name lives. It is imported when it is asked for: `pgflow --help` shall not wait for pydantic, nor the unit
# test of a workflow for psycopg.
HOMES = {
    "Async": "pgflow.core.results",
    "Codec": "pgflow.core.codec",
    "Connector": "pgflow.core.connector",
    "Context": "pgflow.core.context",
    "Debug": "pgflow.steps",
    "Done": "pgflow.steps",
    "Error": "pgflow.core.results",
    "Instance": "pgflow.core.instance",
    "Job": "pgflow.core.job",
    "Ok": "pgflow.core.results",
    "Pgflow": "pgflow.app",
    "PgflowError": "pgflow.errors",
    "Retry": "pgflow.core.retry",
    "Scheduled": "pgflow.core.instance",
    "Snooze": "pgflow.core.results",
    "Started": "pgflow.core.instance",
    "Step": "pgflow.core.step",
    "Unique": "pgflow.core.unique",
    "Wait": "pgflow.steps",
    "WaitForEvent": "pgflow.steps",
    "Workflow": "pgflow.core.workflow",
    "route": "pgflow.core.route",
    "step": "pgflow.core.function",
}


def __getattr__(name: str) -> Any:
    home = HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(home), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
