"""The engine: `advance(state, event)` gives the new state and what to do next. It does nothing itself.

The join rule is dead-path elimination. When a step completes, the edges that its event takes are *taken*, its others
are *dead*. A step becomes active once every edge into it is resolved and one of them is taken; it is *skipped*, and its
own edges die in turn, when all of them are dead. So each join runs exactly once, whatever way the branches before it
went. The idea is that of BPEL's links (OASIS WS-BPEL 2.0, section 11.6).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import chain
from typing import assert_never

from pgflow.core.definition.graph import DONE, Graph, Node
from pgflow.core.engine.state import (
    ACTIVE,
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
    ScheduleResume,
    State,
    Status,
)
from pgflow.core.values.append_map import AppendMap
from pgflow.errors import GraphChanged, RouteError

__all__ = [
    "ACTIVE",
    "Begun",
    "CancelTimer",
    "Cancelled",
    "Command",
    "Complete",
    "Completed",
    "Completion",
    "Event",
    "Execute",
    "Fail",
    "Failed",
    "Failure",
    "Parked",
    "ScheduleResume",
    "State",
    "Status",
    "advance",
    "completion",
    "new",
    "replay",
]

COMPLETE = (Complete(),)
NO_PATH = Failure(None, "no path to Done is left")  # no workflow class allows it: see `shape`


def new(graph: Graph) -> State:
    """Return the state of an instance that has not begun."""
    return State(graph, "pending", AppendMap())


def advance(state: State, event: Event) -> tuple[State, tuple[Command, ...]]:
    """Return the state after `event`, and the commands that follow from it, in the order in which steps were declared.

    An event that comes late or again, or after the end, changes nothing and commands nothing. Raises `UndeclaredEvent`,
    `RouteError` or `UnknownStep` for one that cannot be; the state, being immutable, stays as it was.

        state, commands = advance(new(OrderFlow.graph), Begun())
        # commands == (Execute("validate_order", None),)
    """
    if state.status not in ACTIVE:
        return state, ()
    match event:
        case Completed():
            return _complete(state, event)
        case Parked():
            return _park(state, event)
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
    """Return the state of an instance that has begun and whose steps came to `completions`, in any order.

    Each is (step, event, a route's choice or None). Which steps wait is not in them: add it with `Parked`. Raises
    `GraphChanged` for a completion of a step that could not have run, `UndeclaredEvent` and `RouteError` as `advance`
    does.

        replay(OrderFlow.graph, [("validate_order", "valid", None)]).active    # frozenset({"charge"})
    """
    results: dict[str, tuple[str, tuple[str, ...] | None]] = {}
    for step, event, targets in completions:
        results.setdefault(step, (event, targets))  # a step completes once; the first counts
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
        only = graph.nodes[step].only
        frontier += (only,) if only is not None else _spread(graph, step, done, skipped, pointers)
    if results:
        raise GraphChanged(
            f"{graph.name} version {graph.version} has a result of {', '.join(sorted(results))}, which its other "
            "results do not lead to: was the workflow changed without a new version?"
        )
    if not active:
        return State(graph, "failed", AppendMap(done), skipped=frozenset(skipped), error=NO_PATH)
    if active == [DONE]:
        done[DONE] = Completion(DONE, ())
        return State(graph, "completed", AppendMap(done), skipped=frozenset(skipped))
    return State(graph, "running", AppendMap(done), frozenset(active), skipped=frozenset(skipped))


def _begin(state: State) -> tuple[State, tuple[Command, ...]]:
    first = state.graph.initial
    begun = State(state.graph, "running", AppendMap(), frozenset((first,)))
    return begun, (Execute(first, state.graph.nodes[first].config),)


def _complete(state: State, event: Completed) -> tuple[State, tuple[Command, ...]]:
    graph, step = state.graph, event.step
    if step not in state.active:
        return _ignore(state, step)
    done = state.done.adding(step, completion(graph, step, event.event, event.targets))
    only = graph.nodes[step].only
    if only is not None:
        started, skipped = [only], state.skipped
    else:
        dead = Dead(state.skipped)
        started = _spread(graph, step, done, dead, state.pointers)
        skipped = dead.all()
    timer: tuple[Command, ...] = (CancelTimer(step),) if step in state.timers and not event.by_timer else ()
    if started and started[0] == DONE:  # all else is resolved by then, Done being behind every step
        return State(graph, "completed", done.adding(DONE, Completion(DONE, ())), skipped=skipped), timer + COMPLETE
    active = state.active.difference((step,)).union(started)
    if not active:
        return State(graph, "failed", done, skipped=skipped, error=NO_PATH), (*timer, Fail(NO_PATH))
    waiting, timers = state.waiting.difference((step,)), state.timers.difference((step,))
    after = State(graph, _status(active, waiting), done, active, waiting, skipped, timers, pointers=state.pointers)
    return after, timer + tuple([Execute(key, graph.nodes[key].config) for key in started])


def completion(graph: Graph, step: str, event: str, targets: tuple[str, ...] | None) -> Completion:
    """Return a step's completion with an event; `targets` are a route's choice. Raises as `advance` does."""
    choice = graph.choice(step, event)
    if targets is None:
        if choice.chooser is not None:
            raise RouteError(f"{graph.name}: {step}.{event} is a route: say which targets it chose")
        return Completion(event, choice.targets)
    chosen = set(targets)
    taken = tuple([target for target in choice.targets if target in chosen])
    if not taken or len(taken) < len(chosen) or (choice.chooser is None and taken != choice.targets):
        declared = ", ".join(choice.targets)
        raise RouteError(f"{graph.name}: {step}.{event} leads to {declared}, not to {', '.join(targets) or 'nothing'}")
    return Completion(event, taken)


class Dead:
    """The skipped steps while one event is applied: those of before, which are shared, and the new ones."""

    def __init__(self, before: frozenset[str]) -> None:
        self._before = before
        self._new: set[str] = set()

    def __contains__(self, step: object) -> bool:
        return step in self._before or step in self._new

    def add(self, step: str) -> None:
        self._new.add(step)

    def all(self) -> frozenset[str]:
        return self._before | self._new if self._new else self._before


def _spread(
    graph: Graph, step: str, done: Mapping[str, Completion], skipped: Dead | set[str], pointers: dict[str, int]
) -> list[str]:
    """Resolve what follows from a completion: return the steps that start, add those that never will to `skipped`."""
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
            match _fate(nodes[key], done, skipped, pointers) if is_join else source == step and key in taken:
                case True:
                    started[key] = None
                case False:
                    skipped.add(key)
                    resolved.append(key)
    return list(started)


def _fate(
    node: Node, done: Mapping[str, Completion], skipped: Dead | set[str], pointers: dict[str, int]
) -> bool | None:
    """Return whether a join starts (True) or never will (False); None while an edge into it is open.

    `pointers` remembers for each join a predecessor that was open when it was last looked at, and the search begins
    there: a join of n branches costs n looks over all n completions, not n each time. It is a hint that any lineage of
    states may share, because what it points at is looked up.
    """
    sources = node.predecessors
    first = pointers.get(node.key, 0)
    for place in chain(range(first, len(sources)), range(first)):
        if sources[place] not in done and sources[place] not in skipped:
            pointers[node.key] = place
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


def _status(active: frozenset[str], waiting: frozenset[str]) -> Status:
    return "waiting" if len(waiting) == len(active) else "running"


def _end(state: State, status: Status, error: Failure | None) -> State:
    return State(state.graph, status, state.done, skipped=state.skipped, error=error)


def _no_timers(state: State) -> tuple[Command, ...]:
    return tuple(CancelTimer(step) for step in sorted(state.timers))


def _ignore(state: State, step: str) -> tuple[State, tuple[Command, ...]]:
    state.graph.node(step)  # a step that does not exist is a mistake, not a late event
    return state, ()
