"""Decode instances from rows. A value that cannot be decoded is reported in `unreadable` and left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from pgflow.core.engine.attempt import CHECKPOINT
from pgflow.core.models.instance import Entry, Instance, PendingSignal, WaitingFor
from pgflow.core.models.job import progress_of, waiting_for
from pgflow.core.values.names import TELEMETRY
from pgflow.core.values.payload import decode
from pgflow.database.statement import Row
from pgflow.errors import InvalidPayload

__all__ = ["NO_ITEMS", "NO_OBJECT", "TIME_LIMITS", "UNREADABLE", "DecodeErrors", "decode_object", "instance"]

T = TypeVar("T")
NO_OBJECT: dict[str, Any] = {}
NO_ITEMS: tuple[Any, ...] = ()
UNREADABLE = {"reason": "it is unreadable"}  # in place of an error
# Replace times that Python cannot represent, and sort as in the database.
TIME_LIMITS = {"infinity": datetime.max.replace(tzinfo=UTC), "-infinity": datetime.min.replace(tzinfo=UTC)}


class DecodeErrors(list[str]):
    """The values of one instance that could not be decoded, each with the reason."""

    def decode(self, what: str, decoder: Callable[[], T], default: T) -> T:
        """Return the result of `decoder`, or record its error and return `default`."""
        try:
            return decoder()
        except (ValueError, TypeError, OverflowError) as error:  # an InvalidPayload is a ValueError
            self.append(f"{what}: {error}")
            return default

    def timestamp(self, what: str, text: str) -> datetime:
        """Return a time; for one that Python cannot represent, the nearest one that it can."""
        limit = TIME_LIMITS["-infinity" if text.endswith(" BC") else "infinity"]
        return self.decode(what, lambda: _timestamp(text), TIME_LIMITS.get(text, limit))

    def __str__(self) -> str:
        return "; ".join(self)


def instance(row: Row) -> Instance:
    """Decode an instance from a row of sql/queries/instance/list.sql or get.sql."""
    run, business_id, workflow, version, status, text, metadata, tags, error, created, finished, *parts = row
    jobs_json, history, signals, deadline = parts
    errors = DecodeErrors()
    entries = _entries(errors, history)
    merged = {**errors.decode("metadata", lambda: decode_object(metadata), NO_OBJECT)}
    telemetry = merged.pop(TELEMETRY, NO_OBJECT)
    for entry in entries:
        merged.update(entry.metadata)
    jobs = decode(jobs_json or "[]")
    return Instance(
        run=run,
        id=business_id,
        workflow=workflow,
        version=version,
        status=status,
        input=errors.decode("input", lambda: decode(text), None),
        steps={entry.step: entry.output for entry in entries},
        history=entries,
        waiting_for=tuple(_waiting(errors, job) for job in jobs),
        metadata=merged,
        tags=errors.decode("tags", lambda: _texts(tags), NO_ITEMS),
        error=None if error is None else errors.decode("error", lambda: _error(error), {"reason": "it is unreadable"}),
        created_at=errors.timestamp("created_at", created),
        finished_at=None if finished is None else errors.timestamp("finished_at", finished),
        signals=tuple(_signal(errors, signal) for signal in decode(signals or "[]")),
        telemetry=telemetry if isinstance(telemetry, dict) else NO_OBJECT,
        step_configs=_configs(errors, jobs),
        deadline=None if deadline is None else errors.timestamp("deadline", deadline),
        unreadable=str(errors) or None,
    )


def _timestamp(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def decode_object(text: str) -> dict[str, Any]:
    """Return a JSON object. Raises `InvalidPayload` for anything else."""
    value = decode(text)
    if not isinstance(value, dict):
        raise InvalidPayload("it is not a JSON object")
    return value


def _error(text: str) -> dict[str, Any]:
    """Return the error of an instance, without what a retry needs."""
    return {key: value for key, value in decode_object(text).items() if key != CHECKPOINT}


def _objects(text: str | None) -> tuple[dict[str, Any], ...]:
    value = [] if text is None else decode(text, extra_levels=1)
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise InvalidPayload("it is not a list of JSON objects")
    return tuple(value)


def _texts(given: Any) -> tuple[str, ...]:
    for each in given:
        if not isinstance(each, str):
            raise InvalidPayload(f"a string is needed, got {'null' if each is None else type(each).__name__}")
    return tuple(given)


def _entries(errors: DecodeErrors, history: str | None) -> tuple[Entry, ...]:
    return tuple(_entry(errors, entry) for entry in decode(history or "[]"))


def _entry(errors: DecodeErrors, entry: Mapping[str, Any]) -> Entry:
    step = entry["step"]
    output, metadata, targets = entry["output"], entry["metadata"], entry["targets"]
    started = errors.timestamp(f"start of step {step}", entry["started_at"])
    at = errors.timestamp(f"end of step {step}", entry["at"])
    return Entry(
        step=step,
        event=entry["event"],
        at=at,
        attempt=entry["attempt"],
        output={} if output is None else errors.decode(f"output of step {step}", lambda: decode(output), None),
        metadata={}
        if metadata is None
        else errors.decode(f"metadata of step {step}", lambda: decode_object(metadata), NO_OBJECT),
        duration=at - started,
        worker=entry["worker"],
        errors=errors.decode(f"errors of step {step}", lambda: _objects(entry["errors"]), NO_ITEMS),
        targets=None
        if targets is None
        else errors.decode(f"targets of step {step}", lambda: _texts(targets), NO_ITEMS),
    )


def _signal(errors: DecodeErrors, signal: Mapping[str, Any]) -> PendingSignal:
    event, payload = signal["event"], signal["payload"]
    return PendingSignal(
        event=event,
        step=signal["step"],
        payload=None if payload is None else errors.decode(f"payload of {event}", lambda: decode(payload), None),
        at=errors.timestamp(f"time of {event}", signal["at"]),
        id=signal["id"],
        has_payload=payload is not None,
    )


def _configs(errors: DecodeErrors, jobs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the configurations of the active steps; a job without a step holds those of all steps."""
    configs: dict[str, Any] = {}
    for job in jobs:
        step, text = job["step"], job["config"]
        if text is not None:
            what = f"configuration of step {step}" if step else "configurations"
            config = errors.decode(what, partial(decode_object, text), NO_OBJECT)
            configs.update({step: config} if step else config)
    return configs


def _waiting(errors: DecodeErrors, job: Mapping[str, Any]) -> WaitingFor:
    step = job["step"]
    awaits = job["awaits"]
    events = (
        () if awaits is None else tuple(errors.decode(f"job of step {step}", lambda: decode_object(awaits), NO_OBJECT))
    )
    attempts = errors.decode(f"errors of the job of step {step}", lambda: _objects(job["errors"]), NO_ITEMS)
    until = None if job["run_at"] is None else errors.timestamp(f"time of step {step}", job["run_at"])
    return waiting_for(
        step,
        job["state"],
        kind=job["kind"],
        events=events,
        until=until,
        attempt=job["attempt"],
        max_attempts=job["max_attempts"],
        errors=attempts,
        progress=errors.decode(f"progress of step {step}", lambda: progress_of(job["progress"]), None),
    )
