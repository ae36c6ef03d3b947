"""Validate and complete a start before anything is stored, for every backend."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, TypeAlias, get_args

from pgflow.client.addressing import checked_key
from pgflow.client.commands import Start
from pgflow.core.definition.definition import Definition, VersionSet
from pgflow.core.definition.options import is_priority
from pgflow.core.definition.unique import start_value
from pgflow.core.models.instance import Started
from pgflow.core.values.absent import ABSENT
from pgflow.core.values.duration import MAX_DURATION, is_duration, plain
from pgflow.core.values.names import TELEMETRY, check_tags
from pgflow.core.values.payload import INPUT_LIMIT, METADATA_LIMIT, decode, encode
from pgflow.errors import AlreadyRunning, ConfigError, InvalidPayload, InvalidValue

__all__ = [
    "NewInstance",
    "OnActive",
    "StartRequest",
    "check_moment",
    "check_on_conflict",
    "check_period",
    "json_object",
    "priority_of",
    "single",
]

OnActive: TypeAlias = Literal["raise", "existing"]


@dataclass(frozen=True, slots=True)
class NewInstance:
    """One instance to start: its business value, its definition, and its input as JSON text."""

    value: str
    definition: Definition
    text: str


@dataclass(frozen=True, slots=True)
class StartRequest:
    """A `Start` that has been validated: `metadata` and `telemetry` are JSON values, inputs are JSON text."""

    instances: Sequence[NewInstance]
    at: datetime | None
    delay: timedelta | None
    tags: Sequence[str]
    metadata: dict[str, Any]
    telemetry: dict[str, Any]
    priority: int | None
    key: str | None
    expires_in: timedelta | None = None
    deadline: timedelta | None = None

    @classmethod
    def of(cls, command: Start, *, reveal: bool = False, limit: int = INPUT_LIMIT) -> StartRequest:
        """Return what to start. With `reveal`, inputs may hold secrets; `limit` is their largest size in bytes.

        Raises `ConfigError`, `InvalidValue`, `InvalidInput`, `InvalidPayload`, `UnencryptedSecret`.
        """
        workflow = command.workflow
        check_moment(command.at, command.delay)
        given: dict[str, Any] = {
            "at": command.at,
            "delay": command.delay,
            "tags": command.tags,
            "metadata": command.metadata,
            "priority": command.priority,
            "expires_in": command.expires_in,
            "deadline": command.deadline,
        }
        hook_options = {**(command.options or {}), **given}
        definition = workflow.resolve(command.version)
        has_choice = workflow.is_versioned and command.version is None
        tags = check_tags(command.tags)
        instances = []
        for given_value, *rest in command.items:
            value = start_value(workflow.unique.key, given_value)
            (entry,) = rest or (ABSENT,)
            if has_choice:
                asked = hook_options if entry is ABSENT else {**hook_options, "input": entry}
                definition = workflow.choose_for({**asked, "value": value})
            instances.append(NewInstance(value, definition, definition.write_input(entry, reveal=reveal, limit=limit)))
        for each in {definition, *(instance.definition for instance in instances)}:
            check_tags(tags, each.graph.tags)
        metadata = json_object("metadata", command.metadata)
        if TELEMETRY in metadata:
            raise InvalidPayload(f"the key {TELEMETRY!r} of metadata is pgflow's own", hint="Pass telemetry= instead.")
        telemetry = json_object("telemetry", command.telemetry)
        key = checked_key(command.idempotency_key)
        return cls(
            instances,
            command.at,
            command.delay,
            tags,
            metadata,
            telemetry,
            priority_of(command.priority),
            key,
            check_period("expires_in", command.expires_in),
            check_period("deadline", command.deadline),
        )


def check_moment(at: datetime | None, delay: timedelta | None, what: str = "an instance") -> None:
    """Refuse a start of `what` with both a time and a delay, a time without a zone, and an invalid delay.

    Raises `ConfigError`, `InvalidValue`.
    """
    if at is not None and delay is not None:
        raise ConfigError(f"{what} starts at a time or after a delay, not both", hint="Pass either at= or delay=.")
    if at is not None and not isinstance(at, datetime):
        raise InvalidValue(f"{what} cannot start at {at!r}", hint="Give an aware datetime.")
    if at is not None and at.tzinfo is None:
        hint = "Use an aware datetime, such as datetime.now(timezone.utc)."
        raise ConfigError(f"at={at.isoformat()} has no time zone", hint=hint)
    if delay is not None and not (isinstance(delay, timedelta) and abs(delay) <= MAX_DURATION):
        raise InvalidValue(f"{what} cannot start after {delay!r}", hint="Give a timedelta, of 100 years at most.")


def check_period(name: str, given: Any) -> timedelta | None:
    """Return a period that counts from the start, None for none. Raises `InvalidValue`."""
    if given is None:
        return None
    if not (is_duration(given) and given):
        hint = "It counts from the start: give a timedelta of more than zero, up to 100 years."
        raise InvalidValue(f"{name}={given!r} is refused", hint=hint)
    return plain(given)


def check_on_conflict(given: Any) -> None:
    """Refuse what cannot be the `on_conflict` of a start. Raises `InvalidValue`."""
    if given not in get_args(OnActive):
        raise InvalidValue(f'on_conflict={given!r} is refused: use "raise" or "existing"')


def single(workflow: VersionSet, started: Iterable[Started], on_conflict: OnActive = "raise") -> Started:
    """Return the one instance that was started, or with "existing" the active one that has its key.

    Raises `AlreadyRunning`, with its run, when the key was already active.
    """
    (one,) = started
    if not one.created and on_conflict == "raise":
        hint = "Wait until it has ended, cancel it, or use another value."
        where = f"in run {one.run}" + (", of this workflow or another" if workflow.unique.scope == "global" else "")
        raise AlreadyRunning(f"{workflow.name} {one.id!r} is already running, {where}", hint=hint, run=one.run)
    return one


def json_object(what: str, given: Any) -> dict[str, Any]:
    """Return a mapping as JSON values, None as an empty one. Raises `InvalidPayload`."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise InvalidPayload(f"{what} must be a mapping, got {type(given).__name__}")
    value: dict[str, Any] = decode(encode(dict(given), what=what, limit=METADATA_LIMIT))
    return value


def priority_of(given: Any) -> int | None:
    """Return a priority, None for none. Raises `InvalidValue`."""
    if given is not None and not is_priority(given):
        raise InvalidValue(f"priority must be a whole number from -32,768 to 32,767, got {given!r}")
    return None if given is None else int(given)
