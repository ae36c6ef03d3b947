"""The SQL of commands on the schema `pgflow`, for tests that send it themselves."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from pgflow import Instance, Scheduled, Started, Workflow
from pgflow.client.commands import Cancel, Get, List, Retry, Runs, ScheduleSignal, Signal, Start
from pgflow.client.statements import Statements, Write
from pgflow.core.models.filters import Filters
from pgflow.core.models.instance import Unscheduler
from pgflow.core.values.absent import ABSENT
from pgflow.database.statement import Statement

__all__ = ["cancel", "get", "list_page", "retry", "runs", "schedule", "signal", "start"]

Kind = type[Workflow[Any]]
SQL = Statements("pgflow")


def start(workflow: Kind, items: Sequence[tuple[str, Any] | tuple[str]], **options: Any) -> Write[list[Started]]:
    """`OrderFlow.start_many`."""
    return SQL.start(Start(workflow.definitions, tuple(items), **options))


def signal(workflow: Kind, value: str, event: str, payload: Any = ABSENT, step: str | None = None) -> Write[str]:
    """`OrderFlow.resume`."""
    return SQL.signal(Signal(workflow.definitions, value, event, payload, step))


def schedule(
    workflow: Kind, value: str, step: Any, delay: timedelta, event: str, payload: Any, app: Unscheduler
) -> Write[Scheduled]:
    """`OrderFlow.schedule_resume`."""
    return SQL.schedule_signal(ScheduleSignal(workflow.definitions, value, step, delay, app, event, payload))


def cancel(workflow: Kind, value: str, reason: str | None) -> Write[None]:
    """`OrderFlow.cancel`."""
    return SQL.cancel(Cancel(workflow.definitions, value, reason))


def retry(workflow: Kind, value: str) -> Write[None]:
    """`OrderFlow.retry`."""
    return SQL.retry(Retry(workflow.definitions, value))


def get(workflow: Kind, value: str) -> Statement[Instance]:
    """`OrderFlow.get`."""
    return SQL.get(Get(workflow.definitions, value))


def list_page(workflow: Kind | None, **options: Any) -> Statement[list[Instance]]:
    """`app.list`."""
    return SQL.instances(List(Filters.of(options, workflow)))


def runs(workflow: Kind, value: str, limit: int) -> Statement[list[Instance]]:
    """`OrderFlow.runs`."""
    return SQL.runs(Runs(workflow.definitions, value, None, limit))
