"""Check what a caller asks for before anything is stored or sent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from itertools import chain
from typing import Any

from pgflow.core.definition.graph import Graph, Node
from pgflow.core.definition.step import Target, as_step
from pgflow.core.definition.workflow import Workflow
from pgflow.core.models.instance import Started
from pgflow.core.values.absent import ABSENT
from pgflow.core.values.duration import MAX_DURATION, is_duration
from pgflow.core.values.names import event_name
from pgflow.core.values.payload import INPUT_LIMIT, decode
from pgflow.core.values.query_args import check_text, refuse
from pgflow.errors import AlreadyRunning, ConfigError, InvalidPayload, InvalidValue, UndeclaredEvent

__all__ = ["about", "addressed", "check_moment", "checked_key", "consumers", "later", "payload_text", "sole"]

MAX_KEY_LENGTH = 200  # characters
LONGEST_ABOUT = 300


def addressed(workflow: type[Workflow[Any]], value: str) -> str:
    """Return a value that names one instance.

    Raises `InvalidValue` for what is no text, and for a bare value where any number may have it.
    """
    if check_text("value", value) is None:
        refuse("value", value, "a string is needed")
    if workflow.unique.scope == "none" and "::" not in value:
        raise InvalidValue(
            f"{workflow.name} may have many instances of {value!r}: its key has the scope 'none'",
            hint=f"Give the whole id, which start returned: '{workflow.unique.key}::{value}::…'.",
        )
    return value


def check_moment(at: datetime | None, delay: timedelta | None) -> None:
    """Refuse a start at a time and after a delay at once, a time without a zone, and a delay that cannot be.

    Raises `ConfigError`, `InvalidValue`.
    """
    if at is not None and delay is not None:
        raise ConfigError("an instance starts at a time or after a delay, not both", hint="Pass either at= or delay=.")
    if at is not None and not isinstance(at, datetime):
        raise InvalidValue(f"an instance cannot start at {at!r}", hint="Give an aware datetime.")
    if at is not None and at.tzinfo is None:
        hint = "Use an aware datetime, such as datetime.now(timezone.utc)."
        raise ConfigError(f"at={at.isoformat()} has no time zone", hint=hint)
    if delay is not None and not (isinstance(delay, timedelta) and abs(delay) <= MAX_DURATION):
        raise InvalidValue(f"an instance cannot start after {delay!r}", hint="Give a timedelta, of 100 years at most.")


def about(call: str, workflow: type[Workflow[Any]], *names: str) -> str:
    """Say what is called, as an idempotency key is kept with: of very much only so much that it is told from others.

    about("resume", OrderFlow, "abc123", "paid")    # "resume OrderFlow abc123 paid"
    """
    said = " ".join((call, workflow.name, *names))
    return said if len(said) <= LONGEST_ABOUT else f"{said[:LONGEST_ABOUT]}… {sha256(said.encode()).hexdigest()}"


def checked_key(key: Any) -> str | None:
    """Return an idempotency key, None for none. Raises `InvalidValue` for what is no string of 1 to 200 characters."""
    if key is not None and not (isinstance(key, str) and 1 <= len(key) <= MAX_KEY_LENGTH and key.isprintable()):
        hint = f"Give a string of 1 to {MAX_KEY_LENGTH} characters, without control characters."
        raise InvalidValue(f"{key!r} is not a valid idempotency key", hint=hint)
    return key


def consumers(
    graphs: Sequence[Graph], event: Any, step: str | Target | None
) -> tuple[str, str | None, tuple[Node, ...]]:
    """Return a signal's name, the key of the step it is addressed to, and the steps of any version that may take it.

    `graphs` are those of a workflow's versions. Raises `UndeclaredEvent` when no step takes it, `UnknownStep`.

        name, key, nodes = consumers([OrderFlow.graph], "payment_confirmed", None)
    """
    name, key = event_name(event), None
    if step is not None:
        key = step if isinstance(step, str) else as_step(step).key
        graphs = [graph for graph in graphs if key in graph.nodes] or graphs[-1:]
        graphs[0].node(key)
    if key is None:
        nodes = tuple(chain.from_iterable(graph.consumers(name) for graph in graphs))
    else:
        found = [graph.nodes[key] for graph in graphs if key in graph.nodes]
        nodes = tuple(node for node in found if name in node.step.signals())
    if not nodes:
        steps = [node for graph in graphs for node in graph.nodes.values()]
        workflow = graphs[0].name
        taken = sorted({f"{each} ({node.key})" for node in steps for each in node.step.signals()})
        where = f"step {key!r} of {workflow}" if key else workflow
        raise UndeclaredEvent(f"{where} takes no signal {name!r}", hint=f"{workflow} takes: {', '.join(taken)}.")
    return name, key, nodes


def payload_text(payload: Any, nodes: Sequence[Node], *, reveal: bool = False) -> str | None:
    """Return a signal's payload as JSON text, None when it was left out. With `reveal` it may hold secrets.

    Raises `InvalidPayload` when no step that may take it declares its type, `UnencryptedSecret`.
    """
    if payload is ABSENT:
        return None
    refusals = []
    for node in nodes:
        text = node.step.encode_output(payload, "payload", INPUT_LIMIT, reveal=reveal)
        try:
            node.step.check_output(payload, decode(text), "payload")
        except InvalidPayload as error:
            refusals.append(error)
        else:
            return text
    raise InvalidPayload(f"the payload is refused: {refusals[0]}", hint="Send what the step declares as its output.")


def later(
    graphs: Sequence[Graph], event: Any, step: str | Target, delay: timedelta
) -> tuple[str, str, tuple[Node, ...]]:
    """Return what `consumers` does for a signal that a step is to be sent later.

    Without an event it is the only one that the step takes, or "timeout". Raises `InvalidValue` for a delay that is
    none, too.
    """
    if not is_duration(delay):
        hint = "Give a positive one, of 100 years at most: timedelta(minutes=10)."
        raise InvalidValue(f"a delay of {delay!r} is refused", hint=hint)
    key = step if isinstance(step, str) else as_step(step).key
    if event is None:
        known = [graph.nodes[key].step.signals() for graph in graphs if key in graph.nodes]
        taken = dict.fromkeys(name for signals in known for name in signals)
        event = next(iter(taken)) if len(taken) == 1 else "timeout"
    name, _, nodes = consumers(graphs, event, key)
    return name, key, nodes


def sole(workflow: type[Workflow[Any]], started: Iterable[Started]) -> Started:
    """Return the one instance that was started. Raises `AlreadyRunning` when its key was active already."""
    (one,) = started
    if not one.created:
        hint = "Wait until it has ended, cancel it, or use another value."
        where = f"in run {one.run}" + (", of this workflow or another" if workflow.unique.scope == "global" else "")
        raise AlreadyRunning(f"{workflow.name} {one.id!r} is already running, {where}", hint=hint)
    return one
