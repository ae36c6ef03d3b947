"""The linear stretches of a graph as a table: most steps lead to one step, which nothing else leads to.

`follow` is `advance` for the completion of such a step while nothing else of the instance runs: the next state and what
a backend writes for the next job are looked up, and the rest of the graph is not consulted. Everything else returns
None, and is for `advance`.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from pgflow.core.definition.graph import DONE, Graph
from pgflow.core.engine.state import NONE, Completion, Execute, State

__all__ = ["Link", "follow"]


class Link(NamedTuple):
    """A transition to one step: the completion, the `step` that begins, its commands and its job.

    `config` is its configuration as JSON text.
    """

    completion: Completion
    step: str
    active: frozenset[str]
    commands: tuple[Execute, ...]
    config: str | None
    queue: str
    max_attempts: int


def follow(state: State, step: str, event: str) -> tuple[State, Link] | None:
    """Return the state after `step` completed with `event`, and its link; None where `advance` has to decide.

    It does for a route, for the last step before Done, and where branches or waits are involved.
    """
    graph = state.graph
    try:
        link = graph.links[step, event]
    except KeyError:
        link = graph.links[step, event] = _link(graph, step, event)
    if link is None or len(state.active) != 1 or step not in state.active or state.waiting or state.timers:
        return None
    done = state.done.adding(step, link.completion)
    return State(graph, "running", done, link.active, NONE, state.skipped, NONE, None, state.pointers), link


def _link(graph: Graph, step: str, event: str) -> Link | None:
    node = graph.nodes.get(step)
    choice = None if node is None else node.choices.get(event)
    if node is None or choice is None or choice.chooser is not None:
        return None
    successor = node.sole_successor
    if successor is None or successor == DONE or not choice.targets:
        return None
    after = graph.nodes[successor]
    return Link(
        Completion(event, choice.targets),
        successor,
        frozenset((successor,)),
        (Execute(successor, after.config),),
        None if after.config is None else json.dumps(after.config),
        after.queue,
        after.retry.max_attempts,
    )
