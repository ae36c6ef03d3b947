"""Validate a signal before anything is stored or sent, for every backend."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from itertools import chain
from typing import Any

from pgflow.core.definition.graph import Graph, Node
from pgflow.core.definition.step import Target, as_step
from pgflow.core.values.absent import ABSENT
from pgflow.core.values.duration import is_duration
from pgflow.core.values.names import event_name
from pgflow.core.values.payload import INPUT_LIMIT, decode
from pgflow.errors import InvalidPayload, InvalidValue, UndeclaredEvent

__all__ = ["consumers", "payload_text", "scheduled_consumers"]


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


def payload_text(
    payload: Any,
    nodes: Sequence[Node],
    *,
    reveal: bool = False,
    limit: int = INPUT_LIMIT,
    what: str = "payload",
) -> str | None:
    """Return a signal's payload (`what`) as JSON text, None when it was left out. With `reveal` it may hold secrets.

    `limit` is its largest size in bytes.

    Raises `InvalidPayload` when no step that may take it declares its type, `UnencryptedSecret`.
    """
    if payload is ABSENT:
        return None
    refusals = []
    for node in nodes:
        text = node.step.encode_output(payload, what, limit, reveal=reveal)
        try:
            node.step.check_output(payload, decode(text), what)
        except InvalidPayload as error:
            refusals.append(error)
        else:
            return text
    raise InvalidPayload(f"the {what} is refused: {refusals[0]}", hint="Send what the step declares as its output.")


def scheduled_consumers(
    graphs: Sequence[Graph], event: Any, step: str | Target, delay: timedelta
) -> tuple[str, str, tuple[Node, ...]]:
    """Return what `consumers` does, for a signal that is sent to a step later.

    Without an event it is the only one that the step takes, or "timeout". Raises `InvalidValue` for an invalid delay,
    too.
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
