"""Validate what an operator does with a step that waits for one, for every backend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pgflow.core.definition.graph import Graph, Node
from pgflow.core.definition.step import Target, as_step
from pgflow.core.values.names import event_name
from pgflow.errors import UndeclaredEvent

__all__ = ["completed_event", "steps_of"]


def steps_of(graphs: Sequence[Graph], step: str | Target) -> tuple[str, tuple[Node, ...]]:
    """Return the key of a step, and the step in each version that has it. Raises `UnknownStep`.

    key, nodes = steps_of([OrderFlow.graph], charge)
    """
    key = step if isinstance(step, str) else as_step(step).key
    nodes = tuple(graph.nodes[key] for graph in graphs if key in graph.nodes)
    if not nodes:
        graphs[-1].node(key)
    return key, nodes


def completed_event(nodes: Sequence[Node], event: Any) -> str:
    """Return the event with which an operator completes a step: the given one, or the only one that it declares.

    Raises `UndeclaredEvent`.
    """
    declared = tuple(dict.fromkeys(name for node in nodes for name in node.step.emits()))
    key, named = nodes[0].key, None if event is None else event_name(event)
    if named is None and len(declared) == 1:
        return declared[0]
    if named not in declared:
        what = "has several events" if named is None else f"has no event {named!r}"
        raise UndeclaredEvent(f"step {key!r} {what}", hint=f"Name one of them: {', '.join(declared)}.")
    return str(named)
