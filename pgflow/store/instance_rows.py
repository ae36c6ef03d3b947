"""Make instances out of rows, whatever somebody has written into them: what cannot be read is named and left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from pgflow.core.models.instance import Entry, Instance, PendingSignal, WaitingFor
from pgflow.core.models.job import waiting_for
from pgflow.core.values.names import TELEMETRY
from pgflow.core.values.payload import decode
from pgflow.database.statement import Row
from pgflow.errors import InvalidPayload

__all__ = ["instance"]

T = TypeVar("T")
NOTHING: dict[str, Any] = {}
NOBODY: tuple[Any, ...] = ()
# Where a stored time is none that Python knows. Before and after all others, as it is in the database.
ENDS = {"infinity": datetime.max.replace(tzinfo=UTC), "-infinity": datetime.min.replace(tzinfo=UTC)}


class Faults(list[str]):
    """What could not be read of one instance, and why."""

    def read(self, what: str, read: Callable[[], T], otherwise: T) -> T:
        """Return what `read` reads, or note why it cannot and return `otherwise`."""
        try:
            return read()
        except (ValueError, TypeError, OverflowError) as error:  # an InvalidPayload is a ValueError
            self.append(f"{what}: {error}")
            return otherwise

    def moment(self, what: str, text: str) -> datetime:
        """Return a time; where it is none, the nearest end of all times."""
        end = ENDS["-infinity" if text.endswith(" BC") else "infinity"]
        return self.read(what, lambda: _moment(text), ENDS.get(text, end))

    def __str__(self) -> str:
        return "; ".join(self)


def instance(row: Row) -> Instance:
    """Make an instance of a row of sql/queries/instance/list.sql or get.sql."""
    run, business_id, workflow, version, status, text, metadata, tags, error, created, finished, *parts = row
    tokens, history, signals = parts
    faults = Faults()
    entries = _entries(faults, history)
    known = {**faults.read("metadata", lambda: _object(metadata), NOTHING)}
    told = known.pop(TELEMETRY, NOTHING)
    for entry in entries:
        known.update(entry.metadata)
    live = decode(tokens or "[]")
    return Instance(
        run=run,
        id=business_id,
        workflow=workflow,
        version=version,
        status=status,
        input=faults.read("input", lambda: decode(text), None),
        steps={entry.step: entry.output for entry in entries},
        history=entries,
        waiting_for=tuple(_waiting(faults, token) for token in live),
        metadata=known,
        tags=faults.read("tags", lambda: _texts(tags), NOBODY),
        error=None if error is None else faults.read("error", lambda: _object(error), {"reason": "it cannot be read"}),
        created_at=faults.moment("created_at", created),
        finished_at=None if finished is None else faults.moment("finished_at", finished),
        signals=tuple(_signal(faults, signal) for signal in decode(signals or "[]")),
        telemetry=told if isinstance(told, dict) else NOTHING,
        step_configs=_configs(faults, live),
        unreadable=str(faults) or None,
    )


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def _object(text: str) -> dict[str, Any]:
    value = decode(text)
    if not isinstance(value, dict):
        raise InvalidPayload("it is no JSON object")
    return value


def _objects(text: str | None) -> tuple[dict[str, Any], ...]:
    value = [] if text is None else decode(text, around=1)
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise InvalidPayload("it is no list of JSON objects")
    return tuple(value)


def _texts(given: Any) -> tuple[str, ...]:
    for each in given:
        if not isinstance(each, str):
            raise InvalidPayload("None is no string" if each is None else f"a {type(each).__name__} is no string")
    return tuple(given)


def _entries(faults: Faults, history: str | None) -> tuple[Entry, ...]:
    return tuple(_entry(faults, entry) for entry in decode(history or "[]"))


def _entry(faults: Faults, entry: Mapping[str, Any]) -> Entry:
    step = entry["step"]
    output, metadata, targets = entry["output"], entry["metadata"], entry["targets"]
    begun = faults.moment(f"start of step {step}", entry["started_at"])
    at = faults.moment(f"end of step {step}", entry["at"])
    return Entry(
        step=step,
        event=entry["event"],
        at=at,
        attempt=entry["attempt"],
        output={} if output is None else faults.read(f"output of step {step}", lambda: decode(output), None),
        metadata={}
        if metadata is None
        else faults.read(f"metadata of step {step}", lambda: _object(metadata), NOTHING),
        duration=at - begun,
        worker=entry["worker"],
        errors=faults.read(f"errors of step {step}", lambda: _objects(entry["errors"]), NOBODY),
        targets=None if targets is None else faults.read(f"targets of step {step}", lambda: _texts(targets), NOBODY),
    )


def _signal(faults: Faults, signal: Mapping[str, Any]) -> PendingSignal:
    event, payload = signal["event"], signal["payload"]
    return PendingSignal(
        event=event,
        step=signal["step"],
        payload=None if payload is None else faults.read(f"payload of {event}", lambda: decode(payload), None),
        at=faults.moment(f"time of {event}", signal["at"]),
        id=signal["id"],
        has_payload=payload is not None,
    )


def _configs(faults: Faults, tokens: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the configurations of the active steps, which a token without a step holds for all of them."""
    configs: dict[str, Any] = {}
    for token in tokens:
        step, text = token["step"], token["config"]
        if text is not None:
            config = faults.read(f"configuration of step {step}" if step else "configurations", _reads(text), NOTHING)
            configs.update({step: config} if step else config)
    return configs


def _reads(text: str) -> Callable[[], dict[str, Any]]:
    return lambda: _object(text)


def _waiting(faults: Faults, token: Mapping[str, Any]) -> WaitingFor:
    step = token["step"]
    awaits = token["awaits"]
    events = () if awaits is None else tuple(faults.read(f"token of step {step}", lambda: _object(awaits), NOTHING))
    errors = faults.read(f"errors of the token of step {step}", lambda: _objects(token["errors"]), NOBODY)
    until = None if token["run_at"] is None else faults.moment(f"time of step {step}", token["run_at"])
    return waiting_for(
        step,
        token["state"],
        events=events,
        until=until,
        attempt=token["attempt"],
        max_attempts=token["max_attempts"],
        errors=errors,
    )
