"""What a workflow comes to, worked out a second time from its graph alone, in the plainest way that there is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["Outcome", "follow"]

Outcome = tuple[set[str], set[str], bool]


def follow(graph: Mapping[str, Any], results: Mapping[str, tuple[str, list[str] | None]]) -> Outcome:
    """Return which steps must be recorded by now, which may be next, and whether the end is reached.

    `results` has for each recorded step its event and what a route chose. Steps are looked at over and over until
    nothing changes: one starts when each edge into it is decided and one of them is taken, and is dead when all of them
    are.
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
