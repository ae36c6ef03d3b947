"""Durable, validated workflows and background jobs on PostgreSQL alone: the public names."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pgflow.app import Pgflow
    from pgflow.client.job_handle import JobHandle
    from pgflow.client.task import Task, task
    from pgflow.client.workflow import Workflow
    from pgflow.core.definition.connector import Connector
    from pgflow.core.definition.context import Context
    from pgflow.core.definition.function import step
    from pgflow.core.definition.hooks import Ended
    from pgflow.core.definition.middleware import Middleware, Proceed, StepCall
    from pgflow.core.definition.queue_config import QueueConfig
    from pgflow.core.definition.results import Async, Error, Ok, Result, Snooze
    from pgflow.core.definition.retain import Retain
    from pgflow.core.definition.retry import Retry
    from pgflow.core.definition.route import route
    from pgflow.core.definition.schedule import Schedule, schedule
    from pgflow.core.definition.step import Step
    from pgflow.core.definition.task_context import TaskContext, current_job
    from pgflow.core.definition.timing import every
    from pgflow.core.definition.unique import Unique
    from pgflow.core.definition.unique_task import UniqueTask
    from pgflow.core.models.instance import Instance, Scheduled, Started
    from pgflow.core.models.job import Job
    from pgflow.core.models.queue import Limit, Queue, Rate
    from pgflow.core.models.schedule import ScheduledRun, ScheduleInfo
    from pgflow.core.models.task import TaskInstance
    from pgflow.core.values.codec import Codec
    from pgflow.errors import PgflowError
    from pgflow.payloads.folder import FolderStore
    from pgflow.payloads.store import PayloadStore
    from pgflow.steps import Debug, Done, Wait, WaitForEvent

__all__ = [
    "Async",
    "Codec",
    "Connector",
    "Context",
    "Debug",
    "Done",
    "Ended",
    "Error",
    "FolderStore",
    "Instance",
    "Job",
    "JobHandle",
    "Limit",
    "Middleware",
    "Ok",
    "PayloadStore",
    "Pgflow",
    "PgflowError",
    "Proceed",
    "Queue",
    "QueueConfig",
    "Rate",
    "Result",
    "Retain",
    "Retry",
    "Schedule",
    "ScheduleInfo",
    "Scheduled",
    "ScheduledRun",
    "Snooze",
    "Started",
    "Step",
    "StepCall",
    "Task",
    "TaskContext",
    "TaskInstance",
    "Unique",
    "UniqueTask",
    "Wait",
    "WaitForEvent",
    "Workflow",
    "current_job",
    "every",
    "route",
    "schedule",
    "step",
    "task",
]

# The module of each name, imported at its first use: `pgflow --help` must not import pydantic, nor a unit test of a
# workflow psycopg.
MODULES = {
    "Async": "pgflow.core.definition.results",
    "Codec": "pgflow.core.values.codec",
    "Connector": "pgflow.core.definition.connector",
    "Context": "pgflow.core.definition.context",
    "Debug": "pgflow.steps",
    "Done": "pgflow.steps",
    "Ended": "pgflow.core.definition.hooks",
    "Error": "pgflow.core.definition.results",
    "FolderStore": "pgflow.payloads.folder",
    "Instance": "pgflow.core.models.instance",
    "Job": "pgflow.core.models.job",
    "JobHandle": "pgflow.client.job_handle",
    "Limit": "pgflow.core.models.queue",
    "Middleware": "pgflow.core.definition.middleware",
    "Ok": "pgflow.core.definition.results",
    "PayloadStore": "pgflow.payloads.store",
    "Pgflow": "pgflow.app",
    "PgflowError": "pgflow.errors",
    "Proceed": "pgflow.core.definition.middleware",
    "Queue": "pgflow.core.models.queue",
    "QueueConfig": "pgflow.core.definition.queue_config",
    "Rate": "pgflow.core.models.queue",
    "Result": "pgflow.core.definition.results",
    "Retain": "pgflow.core.definition.retain",
    "Retry": "pgflow.core.definition.retry",
    "Schedule": "pgflow.core.definition.schedule",
    "ScheduleInfo": "pgflow.core.models.schedule",
    "Scheduled": "pgflow.core.models.instance",
    "ScheduledRun": "pgflow.core.models.schedule",
    "Snooze": "pgflow.core.definition.results",
    "Started": "pgflow.core.models.instance",
    "Step": "pgflow.core.definition.step",
    "StepCall": "pgflow.core.definition.middleware",
    "Task": "pgflow.client.task",
    "TaskContext": "pgflow.core.definition.task_context",
    "TaskInstance": "pgflow.core.models.task",
    "Unique": "pgflow.core.definition.unique",
    "UniqueTask": "pgflow.core.definition.unique_task",
    "Wait": "pgflow.steps",
    "WaitForEvent": "pgflow.steps",
    "Workflow": "pgflow.client.workflow",
    "current_job": "pgflow.core.definition.task_context",
    "every": "pgflow.core.definition.timing",
    "route": "pgflow.core.definition.route",
    "schedule": "pgflow.core.definition.schedule",
    "step": "pgflow.core.definition.function",
    "task": "pgflow.client.task",
}


def __getattr__(name: str) -> Any:
    module = MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(module), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
