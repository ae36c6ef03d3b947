"""The engine: `advance(state, event)` returns the next state and the commands to carry out. It has no side effects.

Joins follow dead-path elimination, as the links of BPEL do (OASIS WS-BPEL 2.0, section 11.6). When a step completes,
the edges of its event are *taken* and its other edges are *dead*. A step becomes active once all edges into it are
resolved and at least one is taken. If all are dead it is *skipped*, and its own edges become dead. So each join runs
exactly once, whichever branches before it ran. A step that failed and whose policy is "skip" has only dead edges.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import chain
from typing import assert_never

from pgflow.core.definition.graph import DONE, Graph, Node
from pgflow.core.engine.state import (
    ACTIVE,
    SKIPPED,
    Begun,
    Cancelled,
    CancelTimer,
    Command,
    Complete,
    Completed,
    Completion,
    Event,
    Execute,
    Fail,
    Failed,
    Failure,
    Parked,
    Paused,
    Retried,
    ScheduleResume,
    Skipped,
    State,
    Status,
)
from pgflow.core.values.append_map import AppendMap
from pgflow.errors import GraphChanged, RouteError

__all__ = ["advance", "completion", "new", "replay"]

COMPLETE = (Complete(),)
WITHOUT_TARGETS = Completion(SKIPPED, ())


def new(graph: Graph) -> State:
    """Return the state of an instance that has not started."""
    return State(graph, "pending", AppendMap())


def advance(state: State, event: Event) -> tuple[State, tuple[Command, ...]]:
    """Return the state after `event`, and the commands that follow, in the order in which the steps are declared.

    A late or repeated event, or one after the end, changes nothing and returns no commands. Raises `UndeclaredEvent`,
    `RouteError` or `UnknownStep` for an event that the graph does not allow.

        state, commands = advance(new(OrderFlow.graph), Begun())
        # commands == (Execute("validate_order", None),)
    """
    if state.status not in ACTIVE:
        return state, ()
    match event:
        case Completed(step, name, targets, by_timer):
            if step not in state.active:
                return _ignore(state, step)
            return _complete(state, step, completion(state.graph, step, name, targets), by_timer=by_timer)
        case Skipped(step):
            return _complete(state, step, WITHOUT_TARGETS) if step in state.active else _ignore(state, step)
        case Parked():
            return _park(state, event)
        case Paused(step):
            return _park(state, Parked(step))
        case Retried(step):
            return _run_again(state, step)
        case Begun():
            if state.status != "pending":
                return state, ()
            return _begin(state)
        case Failed():
            if event.step is not None and event.step not in state.active:
                return _ignore(state, event.step)
            error = Failure(event.step, event.reason)
            return _end(state, "failed", error), (*_no_timers(state), Fail(error))
        case Cancelled():
            return _end(state, "cancelled", None), _no_timers(state)
    assert_never(event)


def replay(graph: Graph, completions: Iterable[tuple[str, str, tuple[str, ...] | None]]) -> State:
    """Return the state of a started instance from the results of its steps, given in any order.

    Each completion is (step, event, the targets that a route chose or None); a step that failed and was skipped has no
    targets, `()`. They do not include which steps wait: apply `Parked` for those. Raises `GraphChanged` for a step that
    cannot have run, and `UndeclaredEvent` and `RouteError` as `advance` does.

        replay(OrderFlow.graph, [("validate_order", "valid", None)]).active    # frozenset({"charge"})
    """
    results: dict[str, tuple[str, tuple[str, ...] | None]] = {}
    for step, event, targets in completions:
        results.setdefault(step, (event, targets))  # a step completes once; the first result counts
    results.pop(DONE, None)
    done: dict[str, Completion] = {}
    skipped: set[str] = set()
    active: list[str] = []
    frontier = [graph.initial]
    pointers: dict[str, int] = {}
    while frontier:
        step = frontier.pop()
        result = results.pop(step, None)
        if result is None:
            active.append(step)
            continue
        done[step] = completion(graph, step, *result)
        successor = graph.nodes[step].sole_successor if done[step].targets else None
        frontier += (successor,) if successor is not None else _resolve(graph, step, done, skipped, pointers)
    if results:
        raise GraphChanged(
            f"{graph.name} version {graph.version} has a result of {', '.join(sorted(results))}, which its other "
            "results do not lead to: was the workflow changed without a new version?"
        )
    if not active:
        return State(graph, "failed", AppendMap(done), skipped=frozenset(skipped), error=_no_path(done))
    if active == [DONE]:
        done[DONE] = Completion(DONE, ())
        return State(graph, "completed", AppendMap(done), skipped=frozenset(skipped))
    return State(graph, "running", AppendMap(done), frozenset(active), skipped=frozenset(skipped))


def _begin(state: State) -> tuple[State, tuple[Command, ...]]:
    first = state.graph.initial
    begun = State(state.graph, "running", AppendMap(), frozenset((first,)))
    return begun, (Execute(first, state.graph.nodes[first].config),)


def _complete(state: State, step: str, how: Completion, *, by_timer: bool = False) -> tuple[State, tuple[Command, ...]]:
    graph = state.graph
    done = state.done.adding(step, how)
    successor = graph.nodes[step].sole_successor if how.targets else None
    if successor is not None:
        started, skipped = [successor], state.skipped
    else:
        collected = SkippedSteps(state.skipped)
        started = _resolve(graph, step, done, collected, state.pointers)
        skipped = collected.all()
    timer: tuple[Command, ...] = (CancelTimer(step),) if step in state.timers and not by_timer else ()
    if started and started[0] == DONE:  # Done comes after every step, so all others are resolved
        return State(graph, "completed", done.adding(DONE, Completion(DONE, ())), skipped=skipped), timer + COMPLETE
    active = state.active.difference((step,)).union(started)
    if not active:
        error = _no_path(done)
        return State(graph, "failed", done, skipped=skipped, error=error), (*timer, Fail(error))
    waiting, timers = state.waiting.difference((step,)), state.timers.difference((step,))
    after = State(graph, _status(active, waiting), done, active, waiting, skipped, timers, pointers=state.pointers)
    return after, timer + tuple([Execute(key, graph.nodes[key].config) for key in started])


def completion(graph: Graph, step: str, event: str, targets: tuple[str, ...] | None) -> Completion:
    """Return a step's completion with an event; `targets` are those that a route chose. Raises as `advance` does.

    A step that failed and was skipped has the event `SKIPPED` and no targets.
    """
    if targets == () and event == SKIPPED:
        graph.node(step)
        return WITHOUT_TARGETS
    choice = graph.choice(step, event)
    if targets is None:
        if choice.chooser is not None:
            raise RouteError(f"{graph.name}: {step}.{event} is a route: pass the targets that it chose")
        return Completion(event, choice.targets)
    chosen = set(targets)
    taken = tuple([target for target in choice.targets if target in chosen])
    if not taken or len(taken) < len(chosen) or (choice.chooser is None and taken != choice.targets):
        declared = ", ".join(choice.targets)
        raise RouteError(f"{graph.name}: {step}.{event} leads to {declared}, not to {', '.join(targets) or 'nothing'}")
    return Completion(event, taken)


class SkippedSteps:
    """The skipped steps while an event is applied: the previous ones, shared and immutable, and the new ones."""

    def __init__(self, before: frozenset[str]) -> None:
        self._before = before
        self._new: set[str] = set()

    def __contains__(self, step: object) -> bool:
        return step in self._before or step in self._new

    def add(self, step: str) -> None:
        self._new.add(step)

    def all(self) -> frozenset[str]:
        return self._before | self._new if self._new else self._before


def _resolve(
    graph: Graph, step: str, done: Mapping[str, Completion], skipped: SkippedSteps | set[str], pointers: dict[str, int]
) -> list[str]:
    """Resolve the edges of a completed step: return the steps that start, add those that never will to `skipped`."""
    nodes = graph.nodes
    taken = frozenset(done[step].targets)
    started: dict[str, None] = {}  # an ordered set
    resolved = [step]
    while resolved:
        source = resolved.pop()
        for key in nodes[source].successors:
            if key in skipped or key in started:
                continue
            is_join = len(nodes[key].predecessors) > 1
            match _join_starts(nodes[key], done, skipped, pointers) if is_join else source == step and key in taken:
                case True:
                    started[key] = None
                case False:
                    skipped.add(key)
                    resolved.append(key)
    return list(started)


def _join_starts(
    node: Node, done: Mapping[str, Completion], skipped: SkippedSteps | set[str], pointers: dict[str, int]
) -> bool | None:
    """Return whether a join starts (True) or never will (False); None while an edge into it is open.

    `pointers` caches for each join the index of a predecessor that was open at the last check. The search begins there,
    so a join of n branches costs n lookups over all n completions instead of n for each. It is only a hint: the
    predecessor is checked again, so states of different histories may share it.
    """
    sources = node.predecessors
    first = pointers.get(node.key, 0)
    for index in chain(range(first, len(sources)), range(first)):
        if sources[index] not in done and sources[index] not in skipped:
            pointers[node.key] = index
            return None
    return any((completion := done.get(source)) is not None and node.key in completion.targets for source in sources)


def _park(state: State, event: Parked) -> tuple[State, tuple[Command, ...]]:
    step = event.step
    if step not in state.active or step in state.waiting:
        return _ignore(state, step)
    waiting = state.waiting | {step}
    status = _status(state.active, waiting)
    if event.delay is None or event.timeout_event is None:
        return replace(state, status=status, waiting=waiting), ()
    state.graph.choice(step, event.timeout_event)
    parked = replace(state, status=status, waiting=waiting, timers=state.timers | {step})
    return parked, (ScheduleResume(step, event.delay, event.timeout_event),)


def _run_again(state: State, step: str) -> tuple[State, tuple[Command, ...]]:
    if step not in state.waiting:
        return _ignore(state, step)
    waiting = state.waiting.difference((step,))
    again = replace(state, status=_status(state.active, waiting), waiting=waiting)
    return again, (Execute(step, state.graph.nodes[step].config),)


def _no_path(done: Mapping[str, Completion]) -> Failure:
    """Return why nothing is left to run: every branch ended in a step that failed and was skipped.

    A validated workflow without such a step never gets here, see rules.graph_rules.
    """
    failed = ", ".join(sorted(step for step, how in done.items() if how == WITHOUT_TARGETS))
    return Failure(None, "no path to Done is left" + (f": skipped after the last attempt: {failed}" if failed else ""))


def _status(active: frozenset[str], waiting: frozenset[str]) -> Status:
    return "waiting" if len(waiting) == len(active) else "running"


def _end(state: State, status: Status, error: Failure | None) -> State:
    return State(state.graph, status, state.done, skipped=state.skipped, error=error)


def _no_timers(state: State) -> tuple[Command, ...]:
    return tuple(CancelTimer(step) for step in sorted(state.timers))


def _ignore(state: State, step: str) -> tuple[State, tuple[Command, ...]]:
    state.graph.node(step)  # an unknown step is an error, not a late event
    return state, ()
