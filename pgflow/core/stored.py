"""Check and complete an instance that somebody wants to put into a storage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, get_args

from pgflow.core.codec import is_sealed
from pgflow.core.engine import ACTIVE, State, Status, new, replay
from pgflow.core.graph import Graph
from pgflow.core.instance import Entry, Instance
from pgflow.core.names import TELEMETRY, check_tags
from pgflow.core.payload import INPUT_LIMIT, OUTPUT_LIMIT, decode, encode
from pgflow.errors import InvalidPayload, InvalidValue

__all__ = ["checked", "state_of", "unique_key"]

LARGEST_RUN = 2**63 - 1


def checked(instance: Instance) -> Instance:
    """Return an instance as it will be read: its values as JSON, its outputs those of its history.

    Raises `InvalidValue` for one that cannot be, `InvalidPayload` with the path for a value that cannot be stored.
    """
    if not isinstance(instance, Instance):
        raise InvalidValue(f"{instance!r} is no Instance")
    if instance.unreadable is not None:
        raise InvalidValue(
            f"{instance.id!r} could not be read as a whole ({instance.unreadable})",
            hint="Putting it would lose the rest: mend what is stored first.",
        )
    if not isinstance(instance.run, int) or not 0 < instance.run <= LARGEST_RUN:
        raise InvalidValue(f"run={instance.run!r} cannot be: a run is a whole number from 1 up")
    if not isinstance(instance.version, int) or instance.version < 1:
        raise InvalidValue(f"version={instance.version!r} cannot be: a version is a whole number from 1 up")
    if instance.status not in get_args(Status):
        raise InvalidValue(f"the status {instance.status!r} is unknown", hint=f"Known: {', '.join(get_args(Status))}.")
    if (instance.finished_at is None) != (instance.status in ACTIVE):
        raise InvalidValue(f"{instance.id!r} is {instance.status}, and its finished_at is {instance.finished_at}")
    for what, moment in (("created_at", instance.created_at), ("finished_at", instance.finished_at)):
        _check_moment(what, moment)
    known = {entry.step for entry in instance.history}
    if len(known) < len(instance.history) or known != set(instance.steps):
        raise InvalidValue(f"the history of {instance.id!r} does not have each of its steps once")
    history = tuple(_entry(entry) for entry in instance.history)
    return replace(
        instance,
        id=_text("id", instance.id),
        workflow=_text("workflow", instance.workflow),
        input=_json("input", instance.input),
        steps={entry.step: entry.output for entry in history},
        history=history,
        metadata=_object("metadata", instance.metadata),
        tags=check_tags([_text("tags", tag) for tag in instance.tags]),
        error=None if instance.error is None else _object("error", instance.error, OUTPUT_LIMIT),
    )


def state_of(instance: Instance, graph: Graph) -> State:
    """Return the state of an active instance, with its waits started again. A step whose route failed is still active.

    Raises `GraphChanged`, `UndeclaredEvent` or `RouteError` when its history is none that this workflow could have had.
    """
    if instance.status == "pending":
        return new(graph)
    results = [(entry.step, entry.event, entry.targets) for entry in instance.history]
    return replay(graph, [result for result in results if not graph.is_undecided(*result)])


def unique_key(graph: Graph, id: str) -> str | None:  # noqa: A002 -- "id" is the word for it in all of the API
    """Return what at most one active instance may have; None: any number may be active."""
    match graph.unique.scope if graph.unique else "none":
        case "workflow":
            return f"w {graph.name} {id}"
        case "version":
            return f"v {graph.name} {graph.version} {id}"
        case "global":
            return f"g {id}"
    return None


def _entry(entry: Entry) -> Entry:
    where = f"history of {entry.step}"
    _check_moment(f"{where}: at", entry.at)
    if not isinstance(entry.duration, timedelta):
        raise InvalidValue(f"{where}: duration={entry.duration!r} is no timedelta")
    if not isinstance(entry.attempt, int):
        raise InvalidValue(f"{where}: attempt={entry.attempt!r} is no whole number")
    return replace(
        entry,
        step=_text("step", entry.step),
        event=_text("event", entry.event),
        output={} if entry.output is None else _json(f"{entry.step}.output", entry.output, OUTPUT_LIMIT),
        metadata=_object(f"{entry.step}.metadata", entry.metadata),
        errors=tuple(_object(f"{entry.step}.errors", error, OUTPUT_LIMIT) for error in entry.errors),
    )


def _check_moment(what: str, moment: Any) -> None:
    if moment is not None and (not isinstance(moment, datetime) or moment.tzinfo is None):
        raise InvalidValue(f"{what}={moment!r} cannot be: an aware datetime is needed")


def _text(what: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidValue(f"{what}={value!r} cannot be: text is needed")
    encode(value, what=what, limit=INPUT_LIMIT)
    return value


def _json(what: str, value: Any, limit: int = INPUT_LIMIT) -> Any:
    if is_sealed(value):  # by an app with a codec, and read without it: it stays as it is
        return value
    return decode(encode(value, what=what, limit=limit))


def _object(what: str, value: Any, limit: int = INPUT_LIMIT) -> Any:
    if not isinstance(value, Mapping):
        raise InvalidPayload(f"{what} is {type(value).__name__}, and a mapping is needed")
    if TELEMETRY in value:
        raise InvalidPayload(f"the key {TELEMETRY!r} of {what} is pgflow's own")
    return _json(what, dict(value), limit)
