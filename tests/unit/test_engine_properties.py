"""For any graph and any order in which its steps end, the engine reaches the same state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pgflow import Context, Done, Ok, Step
from pgflow.core.definition.graph import DONE, Choice, Graph
from pgflow.core.engine.machine import advance, new, replay
from pgflow.core.engine.state import (
    SKIPPED,
    Begun,
    Cancelled,
    Command,
    Complete,
    Completed,
    Execute,
    Fail,
    Failed,
    Parked,
    Paused,
    Retried,
    Skipped,
    State,
)

# Enough examples to find a broken rule each time; no deadline, because a busy machine does not break a rule.
some = settings(max_examples=40, deadline=None)


class Stub(Step):
    """A step with the given events."""

    outcomes: tuple[str, ...]

    def execute(self, ctx: Context[Any]) -> Ok:
        return Ok(self.outcomes[0])

    def emits(self) -> tuple[str, ...]:
        return self.outcomes


def never_asked(ctx: Context[Any]) -> type[Step]:
    raise AssertionError("the engine gets the choice of a route; it does not call it")


@dataclass(frozen=True)
class Case:
    """A graph, the result of each step, and a random order of arrival."""

    graph: Graph
    outcomes: Mapping[str, tuple[str, tuple[str, ...] | None]]
    dice: Any

    def completed(self, step: str) -> Completed:
        """Return the completion event of a step in this case."""
        return Completed(step, *self.outcomes[step])


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw a DAG of up to nine reachable steps with branches, fan-outs, joins and routes, and their results."""
    size = draw(st.integers(1, 9))
    names = [*(f"s{number}" for number in range(size)), DONE]
    targets: dict[str, dict[str, list[str]]] = {}
    for place, name in enumerate(names[:-1]):
        later = names[place + 1 :]
        events = [f"e{number}" for number in range(draw(st.integers(1, 3)))]
        targets[name] = {
            event: draw(st.lists(st.sampled_from(later), min_size=1, max_size=3, unique=True)) for event in events
        }
    for place, name in enumerate(names[1:], 1):
        if not any(name in leads for branches in targets.values() for leads in branches.values()):
            source = draw(st.sampled_from(names[:place]))
            targets[source][draw(st.sampled_from(sorted(targets[source])))].append(name)
    choices = {
        name: {
            event: Choice(tuple(leads), never_asked if draw(st.booleans()) else None)
            for event, leads in branches.items()
        }
        for name, branches in targets.items()
    }
    outcomes: dict[str, tuple[str, tuple[str, ...] | None]] = {}
    for name, by_event in choices.items():
        event = draw(st.sampled_from(sorted(by_event)))
        choice = by_event[event]
        some_of_them = st.lists(st.sampled_from(choice.targets), min_size=1, unique=True)
        chosen = draw(some_of_them) if choice.chooser else None
        outcomes[name] = (event, tuple(chosen) if chosen is not None else None)
    steps = [*(Stub(outcomes=tuple(choices[name])).named(name) for name in names[:-1]), Done()]
    return Case(Graph.build("Random", "s0", steps, choices), outcomes, draw(st.randoms(use_true_random=False)))


def expected(case: Case) -> set[str]:
    """Return the steps that must complete, computed independently: in topological order, by any taken edge."""
    runs = {case.graph.initial}
    for name in case.graph.nodes:
        if name in runs and name != DONE:
            event, chosen = case.outcomes[name]
            runs |= set(chosen or case.graph.targets(name, event))
    return runs


def begin(graph: Graph) -> tuple[State, list[Command]]:
    state, commands = advance(new(graph), Begun())
    return state, list(commands)


def run(case: Case) -> tuple[State, list[Command], list[str]]:
    """Complete active steps in some order until the end; return the state, all commands and the order."""
    state, commands = begin(case.graph)
    order = []
    while state.active:
        step = case.dice.choice(sorted(state.active))
        order.append(step)
        state, more = advance(state, case.completed(step))
        commands += more
    return state, commands, order


@some
@given(cases())
def test_each_instance_reaches_done_and_accounts_for_every_step(case: Case) -> None:
    state, commands, _ = run(case)
    assert state.status == "completed"
    assert DONE in state.done
    assert commands[-1] == Complete()
    assert set(state.done) | state.skipped == set(case.graph.nodes)
    assert not set(state.done) & state.skipped


@some
@given(cases())
def test_each_step_that_a_branch_reaches_runs_exactly_once(case: Case) -> None:
    state, commands, _ = run(case)
    executed = Counter(command.step for command in commands if isinstance(command, Execute))
    assert set(executed.values()) == {1}
    assert set(executed) == set(state.done) - {DONE}
    assert set(state.done) == expected(case)
    assert commands.count(Complete()) == 1


@some
@given(cases())
def test_the_order_of_arrival_does_not_matter(case: Case) -> None:
    first, _, _ = run(case)
    second, _, _ = run(case)
    assert first == second


@some
@given(cases())
def test_late_and_repeated_events_change_nothing(case: Case) -> None:
    plain, _, _ = run(case)
    state, _ = begin(case.graph)
    seen: list[str] = []
    while state.active:
        step = case.dice.choice(sorted(state.active))
        state, _ = advance(state, case.completed(step))
        seen.append(step)
        for noise in (
            Begun(),
            case.completed(case.dice.choice(seen)),
            Parked(case.dice.choice(seen), timedelta(1), case.outcomes[step][0]),
            Failed(case.dice.choice(seen), "late"),
        ):
            assert advance(state, noise) == (state, ())
    assert state == plain


@some
@given(cases())
def test_steps_that_are_not_active_cannot_complete(case: Case) -> None:
    state, _ = begin(case.graph)
    while state.active:
        for step in case.outcomes:
            if step not in state.active:
                assert advance(state, case.completed(step)) == (state, ())
        state, _ = advance(state, case.completed(case.dice.choice(sorted(state.active))))


@some
@given(cases())
def test_a_replay_gives_the_incremental_state_at_every_point(case: Case) -> None:
    state, _ = begin(case.graph)
    results: list[tuple[str, str, tuple[str, ...] | None]] = []
    while True:
        shuffled = case.dice.sample(results, len(results))
        assert replay(case.graph, shuffled) == state
        if not state.active:
            break
        step = case.dice.choice(sorted(state.active))
        results.append((step, *case.outcomes[step]))
        state, _ = advance(state, case.completed(step))


@some
@given(cases())
def test_a_result_without_a_choice_leaves_its_step_active_until_the_route_has_chosen(case: Case) -> None:
    plain, _, _ = run(case)
    state, _ = begin(case.graph)
    results: dict[str, tuple[str, tuple[str, ...] | None]] = {}
    undecided: set[str] = set()
    while state.active:
        step = case.dice.choice(sorted(state.active))
        event, targets = case.outcomes[step]
        if targets is not None and step not in undecided and case.dice.random() < 0.5:
            results[step] = (event, None)  # the route failed
            undecided.add(step)
        else:
            results[step] = (event, targets)
            undecided.discard(step)
            state, _ = advance(state, case.completed(step))
        recorded = [(key, *result) for key, result in results.items()]
        decided = [result for result in recorded if not case.graph.is_route_pending(*result)]
        assert {result[0] for result in recorded} - {result[0] for result in decided} == undecided
        assert replay(case.graph, decided) == state
    assert state == plain


@some
@given(cases())
def test_a_failed_step_fails_the_instance_finally(case: Case) -> None:
    _, _, order = run(case)
    victim = case.dice.choice(order)
    state, _ = begin(case.graph)
    while victim not in state.active:
        state, _ = advance(state, case.completed(case.dice.choice(sorted(state.active))))
    failed, commands = advance(state, Failed(victim, "out of paper"))
    assert failed.status == "failed"
    assert failed.error is not None
    assert (failed.error.step, failed.error.reason) == (victim, "out of paper")
    assert commands == (Fail(failed.error),)
    for step in case.outcomes:
        assert advance(failed, case.completed(step)) == (failed, ())
    assert advance(failed, Cancelled()) == (failed, ())


@some
@given(cases())
def test_an_instance_waits_exactly_when_all_its_active_steps_wait(case: Case) -> None:
    state, _ = begin(case.graph)
    while state.active:
        for step in case.dice.sample(sorted(state.active), len(state.active)):
            if case.dice.random() < 0.5:
                state, _ = advance(state, Parked(step))
            assert state.waiting <= state.active
            assert (state.status == "waiting") == (state.waiting == state.active)
        state, _ = advance(state, case.completed(case.dice.choice(sorted(state.active))))
    assert state.status == "completed"
    assert not state.waiting


@some
@given(cases())
def test_the_digest_does_not_depend_on_the_order_of_declaration(case: Case) -> None:
    graph = case.graph
    names = case.dice.sample(list(graph.nodes), len(graph.nodes))
    again = Graph.build(
        "Random",
        "s0",
        [graph.nodes[name].step for name in names],
        {name: dict(reversed(list(graph.nodes[name].choices.items()))) for name in names},
    )
    assert again.digest() == graph.digest()


@some
@given(cases())
def test_nodes_are_in_topological_order(case: Case) -> None:
    place = {name: number for number, name in enumerate(case.graph.nodes)}
    assert all(place[edge.source] < place[target] for edge in case.graph.edges() for target in edge.targets)


@some
@given(cases())
def test_cancelling_ends_an_instance_at_any_point(case: Case) -> None:
    _, _, order = run(case)
    state, _ = begin(case.graph)
    for _ in range(case.dice.randrange(len(order))):
        state, _ = advance(state, case.completed(case.dice.choice(sorted(state.active))))
    cancelled, commands = advance(state, Cancelled())
    assert (cancelled.status, cancelled.active, commands) == ("cancelled", frozenset(), ())
    assert cancelled.done == state.done


# -- steps without attempts left


def ends(case: Case, policies: Mapping[str, str]) -> tuple[State, list[Command]]:
    """Run a case in which each step of `policies` fails for the last time, in a random order, to its end.

    "skip" skips it, "complete" and "retry" are what an operator does once it has paused, some time later.
    """
    state, commands = begin(case.graph)
    paused: set[str] = set()
    while state.active:
        step = case.dice.choice(sorted(state.active))
        policy = policies.get(step)
        event: Any = case.completed(step)
        if policy == "skip":
            event = Skipped(step)
        elif policy in ("complete", "retry") and step not in paused:
            paused.add(step)
            event = Paused(step)
        elif policy == "retry" and step in state.waiting:
            event = Retried(step)
        state, more = advance(state, event)
        if not isinstance(event, Retried):
            commands += more
        else:
            assert more == (Execute(step, case.graph.nodes[step].config),)
    return state, commands


def policies_of(case: Case) -> dict[str, str]:
    choice = ("skip", "complete", "retry", "", "")
    return {step: policy for step in case.graph.nodes if step != DONE and (policy := case.dice.choice(choice))}


@some
@given(cases())
def test_failed_steps_lead_to_the_same_end_in_any_order(case: Case) -> None:
    policies = policies_of(case)
    first, commands = ends(case, policies)
    for _ in range(3):
        again, others = ends(case, policies)
        assert again == first
        assert sorted(map(repr, others)) == sorted(map(repr, commands))
    executed = Counter(command.step for command in commands if isinstance(command, Execute))
    assert set(executed.values()) <= {1}
    assert set(first.done) | first.skipped == set(case.graph.nodes)


@some
@given(cases())
def test_only_branches_of_skipped_steps_do_not_run(case: Case) -> None:
    policies = policies_of(case)
    state, _ = ends(case, policies)
    runs = {case.graph.initial}
    for name in case.graph.nodes:
        if name in runs and name != DONE and policies.get(name) != "skip":
            event, chosen = case.outcomes[name]
            runs |= set(chosen or case.graph.targets(name, event))
    assert set(state.done) == runs
    assert state.status == ("completed" if DONE in runs else "failed")
    if state.error is not None:
        assert set(state.error.reason.split(": ")[-1].split(", ")) <= {each for each in policies if each in runs}


@some
@given(cases())
def test_a_replay_reaches_the_state_of_an_instance_with_skipped_steps(case: Case) -> None:
    policies = policies_of(case)
    state, _ = begin(case.graph)
    results: list[tuple[str, str, tuple[str, ...] | None]] = []
    while state.active:
        assert replay(case.graph, case.dice.sample(results, len(results))) == state
        step = case.dice.choice(sorted(state.active))
        is_skipped = policies.get(step) == "skip"
        results.append((step, SKIPPED, ()) if is_skipped else (step, *case.outcomes[step]))
        state, _ = advance(state, Skipped(step) if is_skipped else case.completed(step))
    assert replay(case.graph, results) == state


@some
@given(cases())
def test_a_pause_and_a_retry_change_nothing_but_the_wait(case: Case) -> None:
    state, _ = begin(case.graph)
    while state.active:
        step = case.dice.choice(sorted(state.active))
        paused, commands = advance(state, Paused(step))
        assert (paused.waiting, commands) == (state.waiting | {step}, ())
        assert advance(paused, Paused(step)) == (paused, ())
        again, commands = advance(paused, Retried(step))
        assert again == state
        assert commands == (Execute(step, case.graph.nodes[step].config),)
        assert advance(again, Retried(step)) == (again, ())
        state, _ = advance(paused if case.dice.random() < 0.5 else again, case.completed(step))
        assert step not in state.waiting
    assert state.status == "completed"
