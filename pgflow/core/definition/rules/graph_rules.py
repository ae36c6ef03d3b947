"""Check a workflow's graph: no cycles, no unreachable steps, every path ends in Done, fan-outs converge."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeAlias

from pgflow.core.definition.step import Step

__all__ = ["graph_problems"]

Successors: TypeAlias = Mapping[Step, Sequence[Step]]


def graph_problems(
    workflow: str,
    initial: Step,
    steps: Sequence[Step],
    branches: Mapping[Step, Mapping[str, tuple[Sequence[Step], Any]]],
) -> Iterator[str]:
    """Yield what keeps the graph from running from `initial` to Done for every combination of events.

    `branches` maps each step and event to its targets and the function that chooses among them, or None.
    """
    successors = {
        step: tuple(dict.fromkeys(target for targets, _ in branches.get(step, {}).values() for target in targets))
        for step in steps
    }
    yield from islice(_cycles(workflow, successors), 1)
    reached = _reachable([initial], successors)
    unreachable = [step.key for step in steps if step not in reached]
    if unreachable:
        yield (
            f"{workflow}: no path from {initial.key} leads to {', '.join(unreachable)}, which is unreachable: "
            "add a transition to it, or remove it"
        )
    for step in steps:
        if not successors[step] and not step.is_end:
            yield (
                f"{workflow}: the path ends at {type(step).__name__} ({step.key!r}), which is not Done: "
                "add transitions for its events, to Done when it is the last step"
            )
    for step, events in branches.items():
        for event, (targets, chooser) in events.items():
            if len(targets) > 1 and chooser is None:
                yield from _diverging(f"{workflow}: {step.key}.{event}", targets, successors)


def _cycles(workflow: str, successors: Successors) -> Iterator[str]:
    """Search depth first; a step that is already on the current path closes a cycle."""
    finished: set[Step] = set()
    for start in successors:
        path: dict[Step, None] = {}
        todo: list[tuple[Step, bool]] = [(start, False)]
        while todo:
            step, is_left = todo.pop()
            if is_left:
                del path[step]
                finished.add(step)
            elif step in path:
                keys = [each.key for each in path]
                loop = [*keys[keys.index(step.key) :], step.key]
                yield (
                    f"{workflow}: cycle in the graph: {' → '.join(loop)}. A step runs once: "
                    'to repeat it use Retry, Snooze, or a second step with .named("…")'
                )
            elif step not in finished:
                path[step] = None
                todo.append((step, True))
                todo += [(target, False) for target in reversed(successors[step])]


def _reachable(starts: Iterable[Step], successors: Successors) -> set[Step]:
    reached = set(starts)
    todo = list(reached)
    while todo:
        new = set(successors[todo.pop()]) - reached
        reached |= new
        todo += new
    return reached


def _diverging(where: str, targets: Sequence[Step], successors: Successors) -> Iterator[str]:
    reached = [_reachable([target], successors) for target in targets]
    if not any(not step.is_end for step in set.intersection(*reached)):
        yield (
            f"{where} fans out to {', '.join(target.key for target in targets)}, whose branches must converge "
            "before Done: lead them to a common step, and that one to Done"
        )
