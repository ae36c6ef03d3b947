"""The table of linear stretches gives what the engine decides, for any graph and any history."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given

from pgflow import Done
from pgflow.bench.flows import Chain
from pgflow.core.definition.definition import Definition
from pgflow.core.definition.graph import Choice, Graph
from pgflow.core.engine.machine import advance, new
from pgflow.core.engine.state import Begun, Completed, Execute, Parked, State
from pgflow.core.engine.stretch import follow
from pgflow.worker import decide as deciding
from pgflow.worker.claimed_job import CachedInstance, ClaimedJob, Signal
from pgflow.worker.decide import Decision, decide
from pgflow.worker.outcome import Finished
from tests.unit.test_engine_properties import Case, Stub, begin, cases, some


@some
@given(cases())
def test_what_the_table_has_is_what_the_engine_decides(case: Case) -> None:
    state, _ = begin(case.graph)
    while state.active:
        for step, (event, _) in case.outcomes.items():
            _check(state, step, event)
        step = case.dice.choice(sorted(state.active))
        waiting, _ = advance(state, Parked(step, timedelta(1), case.outcomes[step][0]))
        assert follow(waiting, step, case.outcomes[step][0]) is None
        state, _ = advance(state, case.completed(step))
    assert all(follow(state, step, event) is None for step, (event, _) in case.outcomes.items())


def _check(state: State, step: str, event: str) -> None:
    followed = follow(state, step, event)
    if followed is None:
        return
    after, link = followed
    assert (after, link.commands) == advance(state, Completed(step, event))
    (command,) = link.commands
    assert isinstance(command, Execute)
    node = state.graph.nodes[command.step]
    assert after.active == {command.step} == {link.step}
    assert (link.queue, link.max_attempts) == (node.queue, node.retry.max_attempts)
    assert (None if link.config is None else json.loads(link.config)) == node.config


def test_a_chain_is_one_stretch_up_to_its_last_step() -> None:
    state, _ = advance(new(Chain.graph), Begun())
    seen = []
    while (followed := follow(state, next(iter(state.active)), "done")) is not None:
        state, link = followed
        seen.append(link.step)
    assert seen == ["second", "third", "fourth", "fifth"]
    assert follow(state, "fifth", "undeclared") is None


@some
@given(cases())
def test_a_decision_is_the_same_with_and_without_the_table(case: Case) -> None:
    with pytest.MonkeyPatch.context() as patch:
        general = _decisions(case)
        patch.setattr(deciding, "follow", lambda state, step, event: None)
        assert _decisions(case) == general


SIGNAL = Signal(9, None, "go", None, has_payload=False)


def _decisions(case: Case) -> list[Sequence[Any]]:
    """Complete the steps in order of their names, one decision each, and return what is written and adopted."""
    state, _ = begin(case.graph)
    seen: list[Sequence[Any]] = []
    while state.active:
        step = min(state.active)
        job = _job(state, step)
        event, targets = case.outcomes[step]
        signal = SIGNAL if len(seen) % 2 else None
        finished = Finished(job, event, '{"a":1}', {"a": 1}, targets=targets, signal=signal, awaits={"go": event})
        made = decide(job.instance, [finished], lambda queue, needs_slot: not needs_slot)
        seen.append(_written(made))
        state = made.state
    return seen


def _written(made: Decision) -> Sequence[Any]:
    return (
        made.state,
        made.updates,
        list(made.branches),
        made.instance_update,
        made.is_guarded,
        made.schedules_jobs,
        made.commands,
        made.outputs,
        list(made.consumed),
    )


def _job(state: State, step: str) -> ClaimedJob:
    definition: Any = Definition.__new__(Definition)
    instance = CachedInstance(1, "a::b", definition, 1, state.status, 3, state, "{}", {}, {}, {}, [], {}, 0.0)
    solo = len(state.active) == 1
    return ClaimedJob(7, instance, "execute", step, None, state.graph.nodes[step].queue, 0, 1, 3, solo)


def test_a_configured_step_begins_with_its_configuration() -> None:
    ends, goes_on = Stub(outcomes=("b",)).named("second"), Stub(outcomes=("a",)).named("first")
    choices = {"first": {"a": Choice(("second",))}, "second": {"b": Choice(("done",))}}
    graph = Graph.build("Two", "first", [goes_on, ends, Done()], choices, queue="mail")
    state, _ = advance(new(graph), Begun())
    followed = follow(state, "first", "a")
    assert followed is not None
    assert followed[1].queue == "mail"
    assert json.loads(followed[1].config or "") == {"outcomes": ["b"]}
