"""The runs of a schedule: for each instant, which version of the target starts, with which value and input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pgflow.core.definition.definition import Definition, VersionSet
from pgflow.core.definition.unique import build_id
from pgflow.core.models.schedule import ScheduleSpec
from pgflow.core.values.absent import ABSENT
from pgflow.core.values.codec import Codec, Location, decrypt_text, encrypt
from pgflow.core.values.payload import decode

__all__ = ["InstantStart", "decrypted_input", "encrypted_schedule_input", "instant_starts", "plain_starts"]


@dataclass(frozen=True, slots=True)
class InstantStart:
    """The run to start for an instant: `input` is JSON text, None for none; not before `at`."""

    instant: datetime
    value: str
    input: str | None
    version: int | None
    at: datetime | None = None


def instant_starts(
    workflow: VersionSet, spec: ScheduleSpec, instants: Sequence[datetime], codec: Codec | None
) -> list[InstantStart]:
    """Return the runs of a workflow to start for these instants.

    With a codec, the input of a schedule is encrypted for the schedule, and that of a run for the run. Raises
    `DecryptionUnavailable`, `InvalidPayload`, `InvalidInput`, and whatever the workflow's `version_for` raises.
    """
    text = decrypted_input(spec, codec)
    found = []
    for instant in instants:
        value = spec.value_at(instant)
        definition = _definition(workflow, spec, value, text, instant)
        sealed = text
        if codec is not None:
            written = definition.write_input(ABSENT) if text is None else text
            sealed = encrypt(codec, written, Location(workflow.name, build_id(workflow.unique.key, value), "input"))
        at = spec.start_at(instant) if spec.jitter else None
        found.append(InstantStart(instant, value, sealed, definition.version, at))
    return found


def plain_starts(spec: ScheduleSpec, instants: Sequence[datetime]) -> list[InstantStart]:
    """Return the runs to start in the current version of the target, without the app that defines it.

    Raises `DecryptionUnavailable` for an encrypted input, which only the app can encrypt for the runs.
    """
    text = decrypted_input(spec, None)
    return [
        InstantStart(each, spec.value_at(each), text, None, spec.start_at(each) if spec.jitter else None)
        for each in instants
    ]


def encrypted_schedule_input(spec: ScheduleSpec, text: str, codec: Codec | None) -> str:
    """Return the input of a schedule as it is stored."""
    return text if codec is None else encrypt(codec, text, _location(spec))


def decrypted_input(spec: ScheduleSpec, codec: Codec | None) -> str | None:
    """Return the stored input of a schedule as JSON text. Raises `DecryptionUnavailable`, `InvalidPayload`."""
    return None if spec.input is None else decrypt_text(codec, spec.input, _location(spec))


def _location(spec: ScheduleSpec) -> Location:
    return Location(spec.target, f"schedule::{spec.name}", "input")


def _definition(
    workflow: VersionSet, spec: ScheduleSpec, value: str, text: str | None, instant: datetime
) -> Definition:
    if not workflow.is_versioned:
        return workflow.resolve()
    given: Mapping[str, Any] = {} if text is None else {"input": decode(text)}
    return workflow.choose_for({"value": value, "metadata": spec.metadata_at(instant), **given})
