"""A second, simplest possible model of how a workflow advances, computed from its graph alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["Outcome", "follow"]

Outcome = tuple[set[str], set[str], bool]


def follow(graph: Mapping[str, Any], results: Mapping[str, tuple[str, list[str] | None]]) -> Outcome:
    """Return the recorded steps that are reachable, the steps that may be next, and whether the end is reached.

    `results` has the event of each recorded step and the choice of its route. Iterates until nothing changes: a step
    starts when each edge into it is decided and at least one is taken; it is dead when all of them are dead.
    """
    edges: dict[str, list[tuple[str, str]]] = {}
    for edge in graph["edges"]:
        for target in edge["targets"]:
            edges.setdefault(target, []).append((edge["from"], edge["event"]))
    reached, dead = {graph["initial"]}, set[str]()

    def is_taken(source: str, event: str, target: str) -> bool:
        came, chosen = results[source]
        return came == event and (chosen is None or target in chosen)

    is_moving = True
    while is_moving:
        is_moving = False
        for target, sources in edges.items():
            if target in reached or target in dead:
                continue
            if any(source not in dead and not (source in reached and source in results) for source, _ in sources):
                continue
            if any(source in reached and is_taken(source, event, target) for source, event in sources):
                reached.add(target)
            else:
                dead.add(target)
            is_moving = True
    done = {step for step in reached if step in results}
    return done, reached - done - {"done"}, "done" in reached
