"""Reduce a workflow's graph to what a picture shows of it: steps in layers, and arrows with their events."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from pgflow.core.definition.graph import DONE, Graph
from pgflow.errors import DefinitionError

__all__ = ["Arrow", "Outline", "Source", "word"]

Source: TypeAlias = "Graph | Mapping[str, Any] | Outline"
WORD = re.compile(r"[\w.:/+-]+")


@dataclass(frozen=True, slots=True)
class Arrow:
    """All that leads from one step to another: the events, and those of them for which a route decides."""

    source: str
    target: str
    events: tuple[str, ...]
    dynamic: frozenset[str] = frozenset()

    @property
    def labels(self) -> tuple[str, ...]:
        """The events as pictures name them: with a question mark when dynamic, in quotes when no plain word."""
        return tuple(word(event) + ("?" if event in self.dynamic else "") for event in self.events)

    @property
    def is_dynamic(self) -> bool:
        """Whether no event is sure to lead there."""
        return self.dynamic.issuperset(self.events)


@dataclass(frozen=True, slots=True)
class Outline:
    """What pictures show of a workflow.

    `layers` hold the keys of the steps: how far down a step stands is the length of the longest path to it. So every
    arrow points down, and some pass over layers. Within a layer steps stand as they are first named.
    """

    name: str
    version: int
    initial: str
    layers: tuple[tuple[str, ...], ...]
    arrows: tuple[Arrow, ...]

    @classmethod
    def of(cls, source: Source) -> Outline:
        """Return the outline of a graph, or of its JSON values. Raises `DefinitionError` when those make no sense.

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
        """Return a step as plain text shows it: the initial one is `[*key]`, Done is `(done)`, another is `[key]`."""
        if step == DONE:
            return f"({step})"
        return f"[*{word(step)}]" if step == self.initial else f"[{word(step)}]"


def word(text: str) -> str:
    """Return text as it is when it is one plain word, else in quotes, as JSON has them, and always printable.

    word("paid")     # paid
    word("a,b")      # "a,b"
    """
    return text if WORD.fullmatch(text) else json.dumps(text, ensure_ascii=not text.isprintable())


def _arrows(edges: Iterable[tuple[str, str, str, bool]]) -> Iterable[Arrow]:
    pairs: dict[tuple[str, str], dict[str, bool]] = {}
    for source, event, target, is_dynamic in edges:
        pairs.setdefault((source, target), {})[event] = is_dynamic
    for (source, target), events in pairs.items():
        yield Arrow(source, target, tuple(events), frozenset(event for event, dynamic in events.items() if dynamic))


def _layers(steps: Iterable[str], arrows: Iterable[Arrow]) -> tuple[tuple[str, ...], ...]:
    """Put each step below all that lead to it. Raises `ValueError` when there is a cycle."""
    depth = dict.fromkeys(steps, 0)
    follows: dict[str, list[str]] = {step: [] for step in depth}
    waits = dict.fromkeys(depth, 0)
    for arrow in arrows:
        follows[arrow.source].append(arrow.target)
        waits[arrow.target] += 1
    free = [step for step, count in waits.items() if not count]
    for step in free:  # grows while it is read
        for target in follows[step]:
            depth[target] = max(depth[target], depth[step] + 1)
            waits[target] -= 1
            if not waits[target]:
                free.append(target)
    if len(free) < len(depth):
        raise ValueError(f"cycle among {', '.join(step for step in depth if step not in free)}")
    return tuple(tuple(step for step in depth if depth[step] == layer) for layer in range(max(depth.values()) + 1))
