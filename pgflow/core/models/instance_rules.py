"""Validate an instance before it is put into a storage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

from pgflow.core.definition.graph import Graph
from pgflow.core.definition.unique import check_id, extract_value
from pgflow.core.engine.machine import completion, new, replay
from pgflow.core.engine.state import ACTIVE, State, Status
from pgflow.core.models.instance import Entry, Instance, PendingSignal, WaitingFor
from pgflow.core.values.codec import is_encrypted
from pgflow.core.values.names import TELEMETRY, check_tags, is_event, is_key
from pgflow.core.values.payload import INPUT_LIMIT, METADATA_LIMIT, OUTPUT_LIMIT, decode, encode
from pgflow.core.values.query_args import is_integer
from pgflow.errors import AmbiguousId, DefinitionError, InvalidPayload, InvalidValue, UndeclaredEvent

__all__ = ["check_against", "check_single_workflow", "checked", "overlaps", "restore_state", "unique_key"]

FIRST_MOMENT = datetime.min.replace(tzinfo=UTC)

MAX_RUN_ID = 2**63 - 1
MAX_INTEGER = 2**31 - 1  # of PostgreSQL's type integer


def checked(instance: Instance, limit: int = INPUT_LIMIT) -> Instance:
    """Return an instance as it will be read back: values as JSON, and `steps` from its history.

    Its values may have `limit` bytes. Checks everything except the rules of its workflow, which `check_against` checks.
    Raises `InvalidValue` for an instance that cannot exist, and `InvalidPayload` with the path of a value that cannot
    be stored.
    """
    if not isinstance(instance, Instance):
        raise InvalidValue(f"put takes an Instance, got {type(instance).__name__}")
    if instance.unreadable is not None:
        raise InvalidValue(
            f"{instance.id!r} could not be read completely ({instance.unreadable})",
            hint="Putting it would lose the unreadable values: repair them first.",
        )
    is_unsaved = instance.run == 0 and instance.status == "pending"
    if not is_integer(instance.run, 0 if is_unsaved else 1, MAX_RUN_ID):
        raise InvalidValue(
            f"run={instance.run!r} is refused: a run id is a whole number from 1",
            hint="Only a pending instance may have run 0: storing it assigns a new run id.",
        )
    if not is_integer(instance.version, 1, MAX_INTEGER):
        raise InvalidValue(
            f"version={instance.version!r} is refused: a version is a whole number from 1 to {MAX_INTEGER:,}"
        )
    _text("id", instance.id)
    extract_value(instance.id)
    _text("workflow", instance.workflow)
    if instance.status not in get_args(Status):
        raise InvalidValue(f"the status {instance.status!r} is unknown", hint=f"Known: {', '.join(get_args(Status))}.")
    _check_times(instance)
    _check_items("history", instance.history, Entry)
    _check_items("signals", instance.signals, PendingSignal)
    _check_items("waiting_for", instance.waiting_for, WaitingFor)
    _check_items("tags", instance.tags, object)
    for wait in instance.waiting_for:
        _check_moment(f"waiting_for {wait.step}: until", wait.until)
    if not isinstance(instance.steps, Mapping):
        raise InvalidValue(f"steps must be a mapping, got {type(instance.steps).__name__}")
    known = {entry.step for entry in instance.history}
    if len(known) < len(instance.history) or known != set(instance.steps):
        raise InvalidValue(f"the history of {instance.id!r} does not have each of its steps once")
    if instance.status == "pending" and known:
        raise InvalidValue(f"{instance.id!r} is pending and has a history: once started it is running or waiting")
    error = None if instance.error is None else _object("error", instance.error, OUTPUT_LIMIT)
    if error is not None and instance.status not in ("failed", "cancelled"):
        raise InvalidValue(
            f"{instance.id!r} is {instance.status} and has an error: only failed and cancelled instances have one"
        )
    if not isinstance(instance.step_configs, Mapping):
        raise InvalidValue(f"step_configs must be a mapping, got {type(instance.step_configs).__name__}")
    history = tuple(_entry(entry, limit) for entry in instance.history)
    return replace(
        instance,
        input=_json("input", instance.input, limit),
        steps={entry.step: entry.output for entry in history},
        history=history,
        metadata=_object("metadata", instance.metadata, OUTPUT_LIMIT),  # includes the metadata of all steps
        tags=check_tags([_text("tags", tag) for tag in instance.tags]),
        error=error,
        signals=tuple(_signal(signal, limit) for signal in instance.signals),
        telemetry=_object("telemetry", instance.telemetry),
        step_configs={
            _key("step_configs", step): _object(f"step_configs.{step}", config)
            for step, config in instance.step_configs.items()
        },
    )


def check_against(instance: Instance, graph: Graph) -> None:
    """Raise an error unless a checked instance is possible for its workflow.

    Raises `InvalidValue` for a business id or a configuration that does not fit the workflow, `UnknownStep`,
    `UndeclaredEvent` and `RouteError` for a history or signals with steps and events that it does not have, and
    `GraphChanged` for an active instance with a history that the workflow cannot have.
    """
    check_id(graph.unique, graph.name, instance.id)
    for entry in instance.history:
        # A result whose route failed has no targets yet; only a completed instance cannot have one.
        if instance.status == "completed" or not graph.is_route_pending(entry.step, entry.event, entry.targets):
            completion(graph, entry.step, entry.event, entry.targets)
    for signal in instance.signals:
        nodes = graph.nodes.values() if signal.step is None else (graph.node(signal.step),)
        if not any(signal.event in node.step.signals() for node in nodes):
            raise UndeclaredEvent(
                f"{graph.name}{f' step {signal.step!r}' if signal.step else ''} takes no signal {signal.event!r}"
            )
    active: frozenset[str] = frozenset()
    if instance.is_active:
        active = frozenset((graph.initial,)) if instance.status == "pending" else restore_state(instance, graph).active
    for step, config in instance.step_configs.items():
        if step not in active:
            graph.node(step)
            raise InvalidValue(
                f"step_configs has the step {step!r}, which is not active",
                hint=f"Active are: {', '.join(sorted(active)) or 'none'}.",
            )
        try:
            graph.node(step).step.with_config(config)
        except DefinitionError as error:
            raise InvalidValue(f"step_configs.{step} is refused: {error}") from error


def restore_state(instance: Instance, graph: Graph) -> State:
    """Return the state of an active instance, in which waits start again. A step whose route failed is still active.

    Raises `GraphChanged`, `UndeclaredEvent` or `RouteError` for a history that this workflow cannot have.
    """
    if instance.status == "pending":
        return new(graph)
    results = [(entry.step, entry.event, entry.targets) for entry in instance.history]
    return replay(graph, [result for result in results if not graph.is_route_pending(*result)])


def unique_key(graph: Graph, id: str) -> str | None:  # noqa: A002 -- "id" is the name for it in the whole API
    """Return the key that at most one active instance may have; None if any number may be active."""
    match graph.unique.scope if graph.unique else "none":
        case "workflow":
            return f"w {graph.name} {id}"
        case "version":
            return f"v {graph.name} {graph.version} {id}"
        case "global":
            return f"g {id}"
    return None


def overlaps(a: str | None, b: str | None, *, is_same_workflow: bool) -> bool:
    """Whether two active instances with the same business id and these unique keys exclude each other.

    The wider scope applies: global over workflow over version. The same rule as `pgflow.excluding_run` in SQL.
    """
    if a is None or b is None:
        return False
    return a == b or "g" in (a[0], b[0]) or (is_same_workflow and "w" in (a[0], b[0]))


def check_single_workflow(id: str, workflows: Sequence[str]) -> None:  # noqa: A002 -- as in unique_key
    """Raise `AmbiguousId` when several workflows have instances with a business id."""
    if len(workflows) > 1:
        raise AmbiguousId(
            f"{id!r} has runs of several workflows",  # as in sql/functions/delete_id.sql
            hint=f"Name one of them, workflow=…: {', '.join(workflows)}.",
        )


def _check_times(instance: Instance) -> None:
    # finished_at may be before created_at: an instance stored with a future created_at may already have ended.
    _check_moment("created_at", instance.created_at)
    _check_moment("finished_at", instance.finished_at)
    _check_moment("deadline", instance.deadline)
    if instance.created_at is None:
        raise InvalidValue("created_at=None is refused: it must be an aware datetime")
    if (instance.finished_at is None) != (instance.status in ACTIVE):
        raise InvalidValue(f"{instance.id!r} is {instance.status}, and its finished_at is {instance.finished_at}")


def _check_items(what: str, items: Any, kind: type[Any]) -> None:
    if (
        not isinstance(items, Sequence)
        or isinstance(items, str | bytes)
        or not all(isinstance(each, kind) for each in items)
    ):
        raise InvalidValue(f"{what} is refused: it must be a tuple of {kind.__name__} values")


def _entry(entry: Entry, limit: int) -> Entry:
    where = f"history of {_key('step', entry.step)}"
    _event(where, entry.event)
    _check_moment(f"{where}: at", entry.at)
    if not isinstance(entry.duration, timedelta) or entry.duration < timedelta(0):
        raise InvalidValue(f"{where}: duration={entry.duration!r} is refused: it must be a timedelta of zero or more")
    if entry.at is None or entry.at.astimezone(UTC) - FIRST_MOMENT < entry.duration:
        raise InvalidValue(f"{where}: at={entry.at!r} and duration={entry.duration!r} are refused")
    if not is_integer(entry.attempt, 0, MAX_INTEGER):
        raise InvalidValue(f"{where}: attempt={entry.attempt!r} is refused: it must be a whole number from 0")
    if entry.worker is not None and not is_integer(entry.worker, 0, MAX_RUN_ID):
        raise InvalidValue(f"{where}: worker={entry.worker!r} is refused: it must be a whole number from 0, or None")
    if entry.targets is not None:
        _check_items(f"{where}: targets", entry.targets, str)
    _check_items(f"{where}: errors", entry.errors, Mapping)
    return replace(
        entry,
        output=_json(f"{entry.step}.output", entry.output, limit),
        metadata=_object(f"{entry.step}.metadata", entry.metadata),
        errors=tuple(_object(f"{entry.step}.errors", error, OUTPUT_LIMIT) for error in entry.errors),
        targets=None if entry.targets is None else tuple(entry.targets),
    )


def _signal(signal: PendingSignal, limit: int) -> PendingSignal:
    where = f"signal {_event('signals', signal.event)}"
    if signal.step is not None:
        _key(where, signal.step)
    _check_moment(f"{where}: at", signal.at)
    if signal.at is None:
        raise InvalidValue(f"{where}: at=None is refused: it must be an aware datetime")
    if signal.id is not None and (signal.step is None or not is_integer(signal.id, 1, MAX_RUN_ID)):
        raise InvalidValue(f"{where}: id={signal.id!r} is refused: a scheduled signal has a whole number and a step")
    return replace(
        signal, payload=None if signal.payload is None else _json(f"{where}: payload", signal.payload, limit)
    )


def _key(what: str, step: Any) -> str:
    if not is_key(step):
        raise InvalidValue(f"{what}: {step!r} is not the key of a step")
    return str(step)


def _event(what: str, event: Any) -> str:
    if not is_event(event):
        raise InvalidValue(f"{what}: {event!r} is not the name of an event")
    return str(event)


def _check_moment(what: str, moment: Any) -> None:
    if moment is not None and (not isinstance(moment, datetime) or moment.tzinfo is None):
        raise InvalidValue(f"{what}={moment!r} is refused: it must be an aware datetime")


def _text(what: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidValue(f"{what}={value!r} is refused: it must be a string with text")
    encode(value, what=what, limit=METADATA_LIMIT)
    return value


def _json(what: str, value: Any, limit: int) -> Any:
    if is_encrypted(value):  # read by an app without the codec: stored again unchanged
        return value
    return decode(encode(value, what=what, limit=limit))


def _object(what: str, value: Any, limit: int = METADATA_LIMIT) -> Any:
    if not isinstance(value, Mapping):
        raise InvalidPayload(f"{what} must be a mapping, got {type(value).__name__}")
    if TELEMETRY in value:
        raise InvalidPayload(f"the key {TELEMETRY!r} of {what} is reserved for pgflow")
    return _json(what, dict(value), limit)
