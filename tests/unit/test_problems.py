"""All problems of a definition are reported: in one error, or for a whole module inside `collecting()`."""

from __future__ import annotations

from typing import Any

import pytest

from pgflow import Context, Done, Ok, Retry, Step, Unique, Wait, WaitForEvent, Workflow, route, step
from pgflow.core.definition.registry import Registry
from pgflow.core.definition.rules.problems import Problems, collect_or_raise, collecting, defect_of
from pgflow.errors import DefinitionError


@step(events=("yes", "no"))
def ask(ctx: Context[Any]) -> Ok:
    return Ok("yes")


@step
def do(ctx: Context[Any]) -> Ok:
    return Ok("done")


def define(initial: Any, transitions: Any, name: str = "Flow", **options: Any) -> type[Workflow[Any]]:
    body = {"initial": initial, "transitions": transitions}
    flow: type[Workflow[Any]] = type(name, (Workflow,), body, **{"unique": Unique("k"), **options})
    return flow


def problems(initial: Any, transitions: Any, **options: Any) -> tuple[str, ...]:
    with pytest.raises(DefinitionError) as refused:
        define(initial, transitions, **options)
    assert str(refused.value) == refused.value.problems[0]
    return refused.value.problems


def test_one_error_has_every_problem_the_options_first() -> None:
    first, second, third, fourth = problems(
        ask, {ask: {"yes": 7, "maybe": Done}}, tags="x", metadata={"at": object()}, retry=3
    )[:4]
    assert first.startswith("Flow: tags must be a list of strings")
    assert second.startswith("Flow: metadata['at'] is <object")
    assert third.startswith("Flow: retry is 3")
    assert fourth.startswith("Flow: ask.yes: 7 is not a step")


def test_all_problems_of_a_graph_are_reported() -> None:
    lost = do.named("lost")
    told = problems(
        ask,
        {
            ask: {"yes": [do, do.named("other")], "no": Done},
            do: {"done": Done},
            do.named("other"): {"done": do.named("end")},
            lost: {"done": Done},
        },
    )
    assert [message.split(":")[1].split(" ")[1] for message in told] == ["no", "the", "ask.yes"]
    assert "lost, which is unreachable" in told[0]
    assert "ends at do ('end')" in told[1]
    assert "must converge" in told[2]


def test_a_graph_that_cannot_be_read_is_not_checked_further() -> None:
    (only,) = problems(ask, {ask: {"yes": None, "no": Done}, do: {"done": Done}})
    assert only.startswith("Flow: ask.yes leads to None")


def test_an_error_without_a_list_has_its_message() -> None:
    assert DefinitionError("a").problems == ("a",)
    gathered = Problems()
    gathered.raise_if_any()
    assert gathered.check(5, int, "7") == 7


def test_inside_collecting_an_invalid_class_stays_and_is_recorded() -> None:
    with collecting() as collected:
        broken = define(ask, {ask: {"yes": Done}}, "Broken")
        sound = define(do, {do: {"done": Done}}, "Sound")
        registry = Registry([broken, sound, 7])  # type: ignore[list-item]  # recorded as a problem
        again = define(do, {do: {"done": Done}}, "Sound")
        registry.add(again)
    assert not broken.is_valid
    assert registry.workflows == (sound,)
    assert [message.split(":")[0] for message in collected.problems] == [
        "Broken",
        "7 is not a workflow class",
        "two workflows are named Sound",
    ]
    with pytest.raises(DefinitionError):
        define(ask, {ask: {"yes": Done}})


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: Unique("A"), "the unique key 'A'"),
        (lambda: Retry(jitter=2), "Retry(jitter=2)"),
        (lambda: Wait(seconds=-1), "Wait cannot wait"),
        (lambda: WaitForEvent("a b"), "WaitForEvent cannot wait for 'a b'"),
        (lambda: do.named("a b"), "step do cannot be named 'a b'"),
        (lambda: do.named("a b").named("c"), "step do cannot be named 'a b'"),
        (lambda: route(do, do), "route("),  # type: ignore[arg-type]
        (lambda: step(7), "@step is for functions"),  # type: ignore[call-overload]
    ],
)
def test_a_part_that_no_workflow_uses_is_recorded_too(make: Any, expected: str) -> None:
    with pytest.raises(DefinitionError):
        make()
    with collecting() as collected:
        part = make()
    assert len(collected.problems) == 1
    assert collected.problems[0].startswith(expected)
    assert defect_of(part) is None  # outside collecting


def test_a_defect_of_a_used_part_is_reported_once_with_its_workflow() -> None:
    with collecting() as collected:
        define(Wait(seconds=-1), {Wait(seconds=-1): {"timeout": Done}}, unique=Unique("A"))
        pause = Wait(seconds=-2).named("pause")
        define(pause, {pause: {"timeout": Done}}, "Other")
    assert [message.partition(":")[0] for message in collected.problems[:3]] == ["Flow", "Flow", "Other"]
    assert collected.problems[2].startswith("Other: Wait 'pause': Wait cannot wait for")


def test_a_class_that_is_not_a_step_does_not_hide_other_problems() -> None:
    body = {"__module__": __name__, "__annotations__": {"events": Any, "size": int}}  # fields, and required
    metaclass: Any = type(Step)
    with collecting() as collected:
        with pytest.warns(UserWarning, match="shadows"):
            Odd = metaclass("Odd", (Step,), body)
        define(Odd, {Odd: {"done": do}, do: {"late": Done, "done": Done}})
    told = [message.partition(": ")[2] for message in collected.problems]
    assert told[0].startswith("Odd: step Odd: 'events' is an attribute of every step")
    assert told[1].startswith("do does not declare the event 'late'")
    assert len(told) == 2


def test_outside_collecting_a_defect_raises() -> None:
    with pytest.raises(DefinitionError, match="wrong"):
        collect_or_raise(object(), DefinitionError("wrong"))
