"""Check what a workflow class declares, rule by rule in a fixed order, and return it as the parts of its graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from pgflow.core.definition.graph import DONE, Choice
from pgflow.core.definition.retry import POLICIES, Retry, most_specific
from pgflow.core.definition.route import Route
from pgflow.core.definition.rules.callables import input_problem
from pgflow.core.definition.rules.graph_rules import graph_problems
from pgflow.core.definition.rules.problems import Problems, defect_of
from pgflow.core.definition.rules.step_rules import check_step
from pgflow.core.definition.step import Step, Target, as_step
from pgflow.core.values.names import event_name, snake_case
from pgflow.errors import DefinitionError

__all__ = ["Declaration", "Transitions", "describe", "input_problems", "policy_problems", "read_declaration"]

Transitions: TypeAlias = Mapping[Target, Mapping[str, Target | Sequence[Target] | Route]]
Branches: TypeAlias = dict[Step, dict[str, tuple[tuple[Step, ...], Any]]]


@dataclass(frozen=True, slots=True)
class Declaration:
    """The valid declaration of a workflow class: its steps, and the targets of each event of each step."""

    initial: str
    steps: tuple[Step, ...]
    choices: Mapping[str, Mapping[str, Choice]] = field(default_factory=dict)


def policy_problems(workflow: str, declared: Declaration, default: Retry | None) -> Iterator[str]:
    """Yield the steps whose policy names an event that they do not declare; `default` is the workflow's policy."""
    for step in declared.steps:
        policy = most_specific(step.retry, default)
        if policy.failure_event is not None and not step.is_end and policy.failure_event not in step.emits():
            whose = "its retry" if step.retry is not None else "the workflow's retry"
            policies, events = (", ".join(map(repr, names)) for names in (POLICIES, step.emits()))
            yield (
                f"{workflow}: {describe(step)}: {whose} has on_exhausted={policy.on_exhausted!r} without the event "
                f"{policy.failure_event!r}: use one of {policies}, or one of the step's events ({events})"
            )


def read_declaration(workflow: str, initial: Any, transitions: Any) -> Declaration:
    """Return what `initial` and `transitions` declare. Raises `DefinitionError` with workflow, step and fix.

    Its `problems` are all that is wrong, except for consequences of others: the graph is checked only if it can be
    read.

    The order of the rules: the initial step; sources, events and targets as they are written; keys; the graph (no
    cycle, no unreachable step, every path ends in Done, every fan-out converges); each step (events, `execute`,
    configuration); and that steps and transitions agree on the events.
    """
    problems = Problems()
    first = problems.check(None, _initial, workflow, initial)
    branches = _branches(workflow, transitions, problems)
    steps = tuple(dict.fromkeys([*([first] if first else []), *branches, *_targets(branches)]))
    problems.add(_shared_keys(workflow, steps))
    if first is not None and not problems:
        problems.add(graph_problems(workflow, first, steps, branches))
    valid = {step for step in steps if check_step(workflow, step, describe(step), problems)}
    problems.add(_mismatches(workflow, {step: events for step, events in branches.items() if step in valid}))
    problems.raise_if_any()
    assert first is not None  # noqa: S101 -- for the type checker: without it there was a problem
    choices = {
        step.key: {
            event: Choice(tuple(target.key for target in targets), chooser)
            for event, (targets, chooser) in events.items()
        }
        for step, events in branches.items()
    }
    return Declaration(first.key, steps, choices)


def input_problems(workflow: str, declared: Declaration, kind: Any) -> Iterator[str]:
    """Yield the steps and routes whose annotation does not fit the workflow's input type `kind`."""
    for step in declared.steps:
        function = getattr(type(step), "function", step.execute)
        if (problem := input_problem(function, kind)) is not None:
            yield f"{workflow}: {describe(step)} is for another workflow: {problem}"
        for event, choice in declared.choices.get(step.key, {}).items():
            if choice.chooser is not None and (problem := input_problem(choice.chooser, kind)) is not None:
                yield f"{workflow}: {describe(step)}.{event}: the route is for another workflow: {problem}"


def describe(step: Step) -> str:
    """Return a step's name in messages: its class, and its key if that differs."""
    name = type(step).__name__
    return name if step.key in (name, snake_case(name)) else f"{name} {step.key!r}"


def _initial(workflow: str, initial: Any) -> Step:
    if initial is None:
        raise DefinitionError(f"{workflow} has no initial step: add `initial = FirstStep`")
    if isinstance(initial, list | tuple | set | frozenset | Mapping | Route):
        raise DefinitionError(
            f"{workflow}: initial must be one step, got {initial!r}: begin with a step that fans out to the others"
        )
    step = _step(initial, f"{workflow}: initial")
    if step.is_end:
        raise DefinitionError(f"{workflow}: initial is Done, so nothing would ever run: begin with another step")
    return step


def _branches(workflow: str, transitions: Any, problems: Problems) -> Branches:
    branches: Branches = {}
    if not isinstance(transitions, Mapping) or not transitions:
        fix = "add `transitions = {FirstStep: {event: NextStep}, …}`, ending in Done"
        problems.add([f"{workflow} has no transitions: {fix}"])
        return branches
    for source, events in transitions.items():
        problems.check(None, _read_source, workflow, source, events, branches, problems)
    return branches


def _read_source(workflow: str, source: Any, events: Any, branches: Branches, problems: Problems) -> None:
    """Read the entry of one step into `branches`. An invalid target becomes no target, so that it is reported once."""
    step = _step(source, f"{workflow}: a source in transitions")
    who = f"{workflow}: {describe(step)}"
    if step.is_end:
        raise DefinitionError(f"{who} ends the workflow: remove its entry from transitions")
    if step in branches:
        raise DefinitionError(f"{who} is twice in transitions: put its events into one entry")
    if not isinstance(events, Mapping):
        raise DefinitionError(f"{who} leads to {events!r}: write {{event: target}}")
    branches[step] = {}
    for event, target in events.items():
        name = event_name(event)
        if not isinstance(name, str):
            problems.add([f"{who} has a transition for {event!r}: the name of an event must be a string"])
            continue
        if name in branches[step]:
            problems.add([f"{who} has two transitions for {name!r}: keep one of them"])
            continue
        no_target: tuple[tuple[Step, ...], Any] = ((), None)
        where = f"{workflow}: {describe(step)}.{name}"
        branches[step][str(name)] = problems.check(no_target, _read_target, target, where)


def _read_target(target: Any, where: str) -> tuple[tuple[Step, ...], Any]:
    if isinstance(target, Route):
        defect = defect_of(target)
        if defect is not None:
            raise DefinitionError(f"{where}: {defect}")
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
            raise DefinitionError(f"{where}: routes and lists cannot be nested: put a step between them")
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
                'give one of them another with .named("…"), in every place where it is used'
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
