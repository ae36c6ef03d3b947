"""Validate and complete schedules before anything is stored, for every backend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import islice
from typing import Any

from pgflow.core.definition.registry import Registry
from pgflow.core.definition.schedule import Schedule, check_schedules
from pgflow.core.definition.schedule_runs import ScheduleTarget, encrypted_schedule_input, written_input
from pgflow.core.definition.task import TaskDefinition
from pgflow.core.definition.timing import instants
from pgflow.core.models.schedule import ScheduleSpec
from pgflow.core.values.codec import Codec
from pgflow.core.values.query_args import is_integer, refuse
from pgflow.errors import DefinitionError, PgflowError, UnknownWorkflow

__all__ = ["MAX_BACKFILL", "backfill_instants", "check_count", "declared_specs", "known_target", "spec_of"]

MAX_BACKFILL = 1_000  # runs that one call starts
MAX_NEXT = 1_000


def spec_of(given: Schedule, registry: Registry, codec: Codec | None) -> ScheduleSpec:
    """Return what is stored of a schedule whose target the app knows.

    Raises `UnknownWorkflow`, and `InvalidInput`, `InvalidPayload` or `UnencryptedSecret` for its `args`.
    """
    target = _target(given, registry)
    kind = "task" if isinstance(target, TaskDefinition) else "workflow"
    text = written_input(target, given.args, reveal=codec is not None)
    return given.spec(kind, encrypted_schedule_input(given.spec(kind, None), text, codec))


def declared_specs(given: Iterable[Any], registry: Registry, codec: Codec | None) -> tuple[ScheduleSpec, ...]:
    """Return the schedules that an app declares. Raises `DefinitionError` with the name of the schedule."""
    found = []
    for each in check_schedules(given):
        try:
            found.append(spec_of(each, registry, codec))
        except PgflowError as error:
            raise DefinitionError(f"schedule {each.name!r}: {error}", hint=error.hint) from error
    return tuple(found)


def backfill_instants(spec: ScheduleSpec, start: Any, end: Any) -> Sequence[datetime]:
    """Return the instants of a schedule from `start`, inclusive, to `end`, exclusive. Raises `InvalidValue`."""
    for name, moment in (("start", start), ("end", end)):
        if not isinstance(moment, datetime) or moment.tzinfo is None:
            refuse(name, moment, "it must be an aware datetime", "Write datetime(2030, 1, 31, tzinfo=timezone.utc).")
    if end <= start:
        refuse("end", end, "it must be after start")
    found = list(islice(instants(spec.timing, start - start.resolution, end - end.resolution), MAX_BACKFILL + 1))
    if len(found) > MAX_BACKFILL:
        refuse("end", end, f"more than {MAX_BACKFILL:,} instants lie before it", f"The last that fits: {found[-2]}.")
    return found


def check_count(given: Any) -> int:
    """Return how many instants to compute. Raises `InvalidValue`."""
    if not is_integer(given, 1, MAX_NEXT):
        refuse("count", given, f"it must be a whole number from 1 to {MAX_NEXT:,}")
    return int(given)


def _target(given: Schedule, registry: Registry) -> ScheduleTarget:
    name = given.target_name
    known = known_target(name, registry)
    if known is None:
        names = [*registry.names, *registry.tasks_by_name]
        near = difflib.get_close_matches(name, names, 1)
        hint = f"Did you mean {near[0]!r}?" if near else f"It has: {', '.join(names) or 'none'}."
        raise UnknownWorkflow(f"target: this app has no workflow or task named {name!r}", hint=hint)
    if not isinstance(given.target, str) and given.target not in (
        registry.by_name.get(name),
        registry.tasks_by_name.get(name),
    ):
        raise DefinitionError(
            f"target: {given.target!r} is not the one of this app that is named {name!r}",
            hint="Give the object that the app has in its workflows or tasks.",
        )
    return known


def known_target(name: str, registry: Registry) -> ScheduleTarget | None:
    """Return the workflow or task of an app that has this name, None without one."""
    if name in registry.by_name:
        return registry.definitions(name)
    return registry.task_definition(name) if name in registry.tasks_by_name else None
