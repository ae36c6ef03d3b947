"""Reduce a workflow's graph to what pictures show: steps in layers, and arrows with their events."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from pgflow.core.definition.graph import DONE, Graph
from pgflow.errors import DefinitionError

__all__ = ["Arrow", "Outline", "Source", "quoted"]

Source: TypeAlias = "Graph | Mapping[str, Any] | Outline"
PLAIN_WORD = re.compile(r"[\w.:/+-]+")


@dataclass(frozen=True, slots=True)
class Arrow:
    """All transitions from one step to another: the events, and the `dynamic` ones, for which a route chooses."""

    source: str
    target: str
    events: tuple[str, ...]
    dynamic: frozenset[str] = frozenset()

    @property
    def labels(self) -> tuple[str, ...]:
        """The events as labels: with a question mark if dynamic, in quotes unless a plain word."""
        return tuple(quoted(event) + ("?" if event in self.dynamic else "") for event in self.events)

    @property
    def is_dynamic(self) -> bool:
        """Whether all events are dynamic."""
        return self.dynamic.issuperset(self.events)


@dataclass(frozen=True, slots=True)
class Outline:
    """What pictures show of a workflow.

    `layers` are the keys of the steps; a step's layer is the length of the longest path to it. So every arrow points
    down, and some skip layers. Within a layer, steps are in the order in which they are first mentioned.
    """

    name: str
    version: int
    initial: str
    layers: tuple[tuple[str, ...], ...]
    arrows: tuple[Arrow, ...]

    @classmethod
    def of(cls, source: Source) -> Outline:
        """Return the outline of a graph, or of its JSON values. Raises `DefinitionError` for invalid values.

        Outline.of(OrderFlow.graph) == Outline.of(OrderFlow.graph.spec())
        """
        if isinstance(source, Outline):
            return source
        spec = source.spec() if isinstance(source, Graph) else source
        try:
            edges = [
                (str(edge["from"]), str(edge["event"]), str(target), bool(edge["dynamic"]))
                for edge in spec["edges"]
                for target in edge["targets"]
            ]
            initial = str(spec["initial"])
            steps = [initial, *(each for start, _, end, _ in edges for each in (start, end))]
            arrows = tuple(_arrows(edges))
            return cls(str(spec["workflow"]), int(spec["version"]), initial, _layers(steps, arrows), arrows)
        except (KeyError, TypeError, ValueError) as error:
            raise DefinitionError(f"the stored graph cannot be drawn: {type(error).__name__}: {error}") from error

    @property
    def steps(self) -> tuple[str, ...]:
        """The keys of all steps, from the top down."""
        return tuple(step for layer in self.layers for step in layer)

    def framed(self, step: str) -> str:
        """Return a step as in plain text: the initial one as `[*key]`, Done as `(done)`, others as `[key]`."""
        if step == DONE:
            return f"({step})"
        return f"[*{quoted(step)}]" if step == self.initial else f"[{quoted(step)}]"


def quoted(text: str) -> str:
    """Return a plain word unchanged, other text in quotes and escaped as in JSON, so that it is printable.

    quoted("paid")     # paid
    quoted("a,b")      # "a,b"
    """
    return text if PLAIN_WORD.fullmatch(text) else json.dumps(text, ensure_ascii=not text.isprintable())


def _arrows(edges: Iterable[tuple[str, str, str, bool]]) -> Iterable[Arrow]:
    pairs: dict[tuple[str, str], dict[str, bool]] = {}
    for source, event, target, is_dynamic in edges:
        pairs.setdefault((source, target), {})[event] = is_dynamic
    for (source, target), events in pairs.items():
        yield Arrow(source, target, tuple(events), frozenset(event for event, dynamic in events.items() if dynamic))


def _layers(steps: Iterable[str], arrows: Iterable[Arrow]) -> tuple[tuple[str, ...], ...]:
    """Put each step below all of its predecessors. Raises `ValueError` for a cycle."""
    depth = dict.fromkeys(steps, 0)
    successors: dict[str, list[str]] = {step: [] for step in depth}
    open_edges = dict.fromkeys(depth, 0)
    for arrow in arrows:
        successors[arrow.source].append(arrow.target)
        open_edges[arrow.target] += 1
    order = [step for step, count in open_edges.items() if not count]
    for step in order:  # grows during the iteration
        for target in successors[step]:
            depth[target] = max(depth[target], depth[step] + 1)
            open_edges[target] -= 1
            if not open_edges[target]:
                order.append(target)
    if len(order) < len(depth):
        raise ValueError(f"cycle among {', '.join(step for step in depth if step not in order)}")
    return tuple(tuple(step for step in depth if depth[step] == layer) for layer in range(max(depth.values()) + 1))
