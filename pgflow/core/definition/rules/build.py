"""Check what a workflow class declares and make its graph; each rule that is broken is told, in order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from pgflow.core.definition.graph import DONE, Choice
from pgflow.core.definition.route import Route
from pgflow.core.definition.rules.callables import input_problem
from pgflow.core.definition.rules.graph_rules import check_shape
from pgflow.core.definition.rules.problems import Problems, defect_of
from pgflow.core.definition.rules.step_rules import check_step
from pgflow.core.definition.step import Step, Target, as_step
from pgflow.core.values.names import event_name, snake_case
from pgflow.errors import DefinitionError

__all__ = ["Declared", "Transitions", "check_input", "describe", "read"]

Transitions: TypeAlias = Mapping[Target, Mapping[str, Target | Sequence[Target] | Route]]
Branches: TypeAlias = dict[Step, dict[str, tuple[tuple[Step, ...], Any]]]


@dataclass(frozen=True, slots=True)
class Declared:
    """What a workflow class declares, found sound: its steps, and for each event of each step where it leads."""

    initial: str
    steps: tuple[Step, ...]
    choices: Mapping[str, Mapping[str, Choice]] = field(default_factory=dict)


def read(workflow: str, initial: Any, transitions: Any) -> Declared:
    """Return what `initial` and `transitions` declare. Raises `DefinitionError`, which names workflow, step and mend.

    Its `problems` are all that is wrong, but for what only follows from something else: the shape of a graph is looked
    at when it can be read.

    The order of the rules: the initial step; sources, events and targets as they are written; keys; the shape of the
    graph (no cycle, nothing unreachable, every path ends in Done, every fan-out meets again); each step by itself
    (events, `execute`, configuration); and that steps and transitions agree on the events.
    """
    problems = Problems()
    first = problems.check(None, _initial, workflow, initial)
    branches = _branches(workflow, transitions, problems)
    steps = tuple(dict.fromkeys([*([first] if first else []), *branches, *_targets(branches)]))
    problems.add(_shared_keys(workflow, steps))
    if first is not None and not problems:
        problems.add(check_shape(workflow, first, steps, branches))
    sound = {step for step in steps if check_step(workflow, step, describe(step), problems)}
    problems.add(_mismatches(workflow, {step: events for step, events in branches.items() if step in sound}))
    problems.refuse()
    assert first is not None  # noqa: S101 -- for the type checker: without it there was a problem
    choices = {
        step.key: {
            event: Choice(tuple(target.key for target in targets), chooser)
            for event, (targets, chooser) in events.items()
        }
        for step, events in branches.items()
    }
    return Declared(first.key, steps, choices)


def check_input(workflow: str, declared: Declared, kind: Any) -> Iterator[str]:
    """Say which steps and routes are annotated for another input than the workflow's, which is of the type `kind`."""
    for step in declared.steps:
        function = getattr(type(step), "function", step.execute)
        if (problem := input_problem(function, kind)) is not None:
            yield f"{workflow}: {describe(step)} is for another workflow: {problem}"
        for event, choice in declared.choices.get(step.key, {}).items():
            if choice.chooser is not None and (problem := input_problem(choice.chooser, kind)) is not None:
                yield f"{workflow}: {describe(step)}.{event}: the route is for another workflow: {problem}"


def describe(step: Step) -> str:
    """Return a step as messages name it: its class, and its key when that is another name."""
    name = type(step).__name__
    return name if step.key in (name, snake_case(name)) else f"{name} {step.key!r}"


def _initial(workflow: str, initial: Any) -> Step:
    if initial is None:
        raise DefinitionError(f"{workflow} has no initial step: add `initial = FirstStep`")
    if isinstance(initial, list | tuple | set | frozenset | Mapping | Route):
        raise DefinitionError(
            f"{workflow}: initial is one step, not {initial!r}: begin with a step that fans out to the others"
        )
    step = _step(initial, f"{workflow}: initial")
    if step.is_end:
        raise DefinitionError(f"{workflow}: initial is Done, so nothing would ever run: begin with another step")
    return step


def _branches(workflow: str, transitions: Any, problems: Problems) -> Branches:
    branches: Branches = {}
    if not isinstance(transitions, Mapping) or not transitions:
        mend = "add `transitions = {FirstStep: {event: NextStep}, …}`, ending in Done"
        problems.add([f"{workflow} has no transitions: {mend}"])
        return branches
    for source, events in transitions.items():
        problems.check(None, _read_source, workflow, source, events, branches, problems)
    return branches


def _read_source(workflow: str, source: Any, events: Any, branches: Branches, problems: Problems) -> None:
    """Read the entry of one step into `branches`, where a target that is none leads nowhere, to be told once."""
    step = _step(source, f"{workflow}: a source in transitions")
    who = f"{workflow}: {describe(step)}"
    if step.is_end:
        raise DefinitionError(f"{who} ends the workflow: remove its entry from transitions")
    if step in branches:
        raise DefinitionError(f"{who} stands twice in transitions: put its events into one entry")
    if not isinstance(events, Mapping):
        raise DefinitionError(f"{who} leads to {events!r}: write {{event: target}}")
    branches[step] = {}
    for event, target in events.items():
        name = event_name(event)
        if not isinstance(name, str):
            problems.add([f"{who} has a transition for {event!r}: an event is named by a string"])
            continue
        if name in branches[step]:
            problems.add([f"{who} has two transitions for {name!r}: keep one of them"])
            continue
        nowhere: tuple[tuple[Step, ...], Any] = ((), None)
        branches[step][str(name)] = problems.check(nowhere, _leads, target, f"{workflow}: {describe(step)}.{name}")


def _leads(target: Any, where: str) -> tuple[tuple[Step, ...], Any]:
    if isinstance(target, Route):
        fault = defect_of(target)
        if fault is not None:
            raise DefinitionError(f"{where}: {fault}")
        declared: Sequence[Any] = target.targets
    elif isinstance(target, list | tuple):
        declared = target
    elif target is None:
        raise DefinitionError(f"{where} leads to None: give a target, Done to end the workflow")
    else:
        declared = [target]
    if not declared:
        raise DefinitionError(f"{where} leads nowhere: give at least one target, Done to end the workflow")
    steps = []
    for each in declared:
        if isinstance(each, Route | list | tuple):
            raise DefinitionError(f"{where}: routes and lists cannot stand inside one another: put a step between them")
        step = _step(each, where)
        if step in steps:
            raise DefinitionError(
                f"{where} leads to {describe(step)} twice: name it once, or give one of the two "
                'another key with .named("…")'
            )
        steps.append(step)
    return tuple(steps), target.chooser if isinstance(target, Route) else None


def _step(target: Any, where: str) -> Step:
    try:
        return as_step(target)
    except DefinitionError as error:
        raise DefinitionError(f"{where}: {error}") from None


def _targets(branches: Branches) -> list[Step]:
    return [step for events in branches.values() for targets, _ in events.values() for step in targets]


def _shared_keys(workflow: str, steps: Sequence[Step]) -> Iterator[str]:
    owners: dict[str, Step] = {}
    for step in steps:
        if step.key == DONE and not step.is_end:
            yield (
                f"{workflow}: {type(step).__name__} has the key {DONE!r}, which is that of Done: "
                'give it another with .named("…")'
            )
            continue
        other = owners.setdefault(step.key, step)
        if other is not step:
            yield (
                f"{workflow}: {_in_full(other)} and {_in_full(step)} share the key {step.key!r}: "
                'give one of them another with .named("…"), wherever it stands'
            )


def _in_full(step: Step) -> str:
    kind = type(step)
    fields = ", ".join(f"{name}={value!r}" for name, value in step)
    return f"{kind.__module__}.{kind.__qualname__}({fields})"


def _mismatches(workflow: str, branches: Branches) -> Iterator[str]:
    for step, events in branches.items():
        declared = step.emits()
        for event in events:
            if event not in declared:
                yield (
                    f"{workflow}: {describe(step)} does not declare the event {event!r}: "
                    f"remove its transition, or add it to the step's events ({', '.join(map(repr, declared))})"
                )
        for event in declared:
            if event not in events:
                yield (
                    f"{workflow}: {describe(step)} declares the event {event!r}, which leads nowhere: "
                    f"add {{{event!r}: target}} to its transitions"
                )
