"""The runs of a schedule: for each instant, which version of the target starts, with which value and input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from pgflow.core.definition.definition import Definition, VersionSet
from pgflow.core.definition.partition import partition_key
from pgflow.core.definition.task import TaskDefinition
from pgflow.core.definition.unique import build_id
from pgflow.core.models.schedule import ScheduleSpec
from pgflow.core.models.task_codec import args_location
from pgflow.core.values.absent import ABSENT
from pgflow.core.values.codec import Codec, Location, decrypt_text, encrypt
from pgflow.core.values.payload import decode
from pgflow.core.values.query_args import refuse
from pgflow.errors import InvalidPayload

__all__ = [
    "InstantStart",
    "ScheduleTarget",
    "decrypted_input",
    "encrypted_schedule_input",
    "instant_starts",
    "plain_starts",
    "written_input",
]

ScheduleTarget: TypeAlias = VersionSet | TaskDefinition

INPUT_LIMIT = 65_536  # bytes of JSON text: it is copied into every run


@dataclass(frozen=True, slots=True)
class InstantStart:
    """The run to start for an instant: `input` is JSON text, None for none; not before `at`.

    `key` is its partition key and `unique` the unique key of a task, computed here because SQL cannot read an encrypted
    input; None leaves them to SQL.
    """

    instant: datetime
    value: str
    input: str | None
    version: int | None = None
    at: datetime | None = None
    key: str | None = None
    unique: str | None = None


def written_input(target: ScheduleTarget, args: Any, *, reveal: bool) -> str:
    """Return the `args` of a schedule, validated, as JSON text: the input of a workflow, the arguments of a task.

    Raises `InvalidInput`, `InvalidPayload`, `UnencryptedSecret`.
    """
    if isinstance(target, VersionSet):
        return target.resolve().write_input(args, reveal=reveal, limit=INPUT_LIMIT)
    given = {} if args is ABSENT else args
    if isinstance(given, list | tuple):
        text = target.arguments.write(tuple(given), {}, reveal=reveal)
    elif isinstance(given, Mapping):
        text = target.arguments.write_named(given, reveal=reveal)
    else:
        refuse("args", given, f"the arguments of the task {target.name} are a dict by name, or a list")
    if len(text.encode()) > INPUT_LIMIT:
        raise InvalidPayload(
            f"args is {len(text.encode()):,} bytes of JSON, more than the {INPUT_LIMIT:,} allowed in a schedule: "
            "keep large data elsewhere and pass a reference to it"
        )
    return text


def instant_starts(
    target: ScheduleTarget, spec: ScheduleSpec, instants: Sequence[datetime], codec: Codec | None
) -> list[InstantStart]:
    """Return the runs to start for these instants.

    With a codec, the input of a schedule is encrypted for the schedule, and that of a run for the run. Raises
    `DecryptionUnavailable`, `InvalidPayload`, `InvalidInput`, and whatever the workflow's `version_for` raises.
    """
    text = decrypted_input(spec, codec)
    if isinstance(target, VersionSet):
        return [_instance(target, spec, instant, text, codec) for instant in instants]
    written = "{}" if text is None else text
    if codec is None:
        return [InstantStart(each, "", written, at=_start_at(spec, each)) for each in instants]
    args = encrypt(codec, written, args_location(target.name))
    (key,), unique = target.partition_keys([written]) or (None,), target.unique_keys([written])
    own = None if unique is None else unique.keys[0]
    return [InstantStart(each, "", args, at=_start_at(spec, each), key=key, unique=own) for each in instants]


def plain_starts(spec: ScheduleSpec, instants: Sequence[datetime]) -> list[InstantStart]:
    """Return the runs to start in the current version of the target, without the app that defines it.

    Raises `DecryptionUnavailable` for an encrypted input, which only the app can encrypt for the runs.
    """
    text = decrypted_input(spec, None)
    return [InstantStart(each, spec.value_at(each), text, at=_start_at(spec, each)) for each in instants]


def encrypted_schedule_input(spec: ScheduleSpec, text: str, codec: Codec | None) -> str:
    """Return the input of a schedule as it is stored."""
    return text if codec is None else encrypt(codec, text, _location(spec))


def decrypted_input(spec: ScheduleSpec, codec: Codec | None) -> str | None:
    """Return the stored input of a schedule as JSON text. Raises `DecryptionUnavailable`, `InvalidPayload`."""
    return None if spec.input is None else decrypt_text(codec, spec.input, _location(spec))


def _location(spec: ScheduleSpec) -> Location:
    return Location(spec.target, f"schedule::{spec.name}", "input")


def _instance(
    workflow: VersionSet, spec: ScheduleSpec, instant: datetime, text: str | None, codec: Codec | None
) -> InstantStart:
    value = spec.value_at(instant)
    definition = _definition(workflow, spec, value, text, instant)
    at = _start_at(spec, instant)
    if codec is None:
        return InstantStart(instant, value, text, definition.version, at)
    written = definition.write_input(ABSENT) if text is None else text
    sealed = encrypt(codec, written, Location(workflow.name, build_id(workflow.unique.key, value), "input"))
    path = definition.options.partition_by
    return InstantStart(instant, value, sealed, definition.version, at, partition_key(written, path) if path else None)


def _definition(
    workflow: VersionSet, spec: ScheduleSpec, value: str, text: str | None, instant: datetime
) -> Definition:
    if not workflow.is_versioned:
        return workflow.resolve()
    given: Mapping[str, Any] = {} if text is None else {"input": decode(text)}
    return workflow.choose_for({"value": value, "metadata": spec.metadata_at(instant), **given})


def _start_at(spec: ScheduleSpec, instant: datetime) -> datetime | None:
    return spec.start_at(instant) if spec.jitter else None
