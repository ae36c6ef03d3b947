"""Check the shape of a workflow's graph: no cycle, nothing out of reach, all paths to Done, fan-outs meet again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeAlias

from pgflow.core.definition.step import Step

__all__ = ["check_shape"]

Follows: TypeAlias = Mapping[Step, Sequence[Step]]


def check_shape(
    workflow: str,
    initial: Step,
    steps: Sequence[Step],
    branches: Mapping[Step, Mapping[str, tuple[Sequence[Step], Any]]],
) -> Iterator[str]:
    """Say what keeps the graph from running from `initial` to Done, whatever its steps come to.

    `branches` holds the targets of each event of each step, and the function that chooses among them or None.
    """
    follows = {
        step: tuple(dict.fromkeys(target for targets, _ in branches.get(step, {}).values() for target in targets))
        for step in steps
    }
    yield from islice(_cycles(workflow, follows), 1)
    reached = _reachable([initial], follows)
    lost = [step.key for step in steps if step not in reached]
    if lost:
        yield (
            f"{workflow}: no path from {initial.key} leads to {', '.join(lost)}, which is unreachable: "
            "add a transition to it, or remove it"
        )
    for step in steps:
        if not follows[step] and not step.is_end:
            yield (
                f"{workflow}: the path ends at {type(step).__name__} ({step.key!r}), which is not Done: "
                "add transitions for its events, to Done when it is the last step"
            )
    for step, events in branches.items():
        for event, (targets, chooser) in events.items():
            if len(targets) > 1 and chooser is None:
                yield from _apart(f"{workflow}: {step.key}.{event}", targets, follows)


def _cycles(workflow: str, follows: Follows) -> Iterator[str]:
    finished: set[Step] = set()
    for start in follows:
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
                    'to try again use Retry, Snooze, or a second step with .named("…")'
                )
            elif step not in finished:
                path[step] = None
                todo.append((step, True))
                todo += [(target, False) for target in reversed(follows[step])]


def _reachable(starts: Iterable[Step], follows: Follows) -> set[Step]:
    reached = set(starts)
    todo = list(reached)
    while todo:
        new = set(follows[todo.pop()]) - reached
        reached |= new
        todo += new
    return reached


def _apart(where: str, targets: Sequence[Step], follows: Follows) -> Iterator[str]:
    reached = [_reachable([target], follows) for target in targets]
    if not any(not step.is_end for step in set.intersection(*reached)):
        yield (
            f"{where} fans out to {', '.join(target.key for target in targets)}, whose branches must converge "
            "before Done: let them lead to a common step, and that to Done"
        )
