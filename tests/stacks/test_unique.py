"""Which active instances exclude one another, and which run a business id names, on both stacks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from pgflow import Async, Context, Done, Ok, Pgflow, Retry, Unique, WaitForEvent, Workflow, step
from pgflow.core.definition.unique import Scope
from pgflow.errors import AlreadyRunning, AmbiguousId, InstanceNotFound, InvalidValue, NotActive
from tests.stacks.conftest import Stack

Input = dict[str, Any]


@step(events=("go",))
def gate(ctx: Context[Input]) -> Async:
    return Async()


@step(events=("ok",), retry=Retry(max_attempts=1))
def fragile(ctx: Context[Input]) -> Ok:
    if ctx.initial.get("fails"):
        raise RuntimeError("fails on request")
    return Ok("ok")


def guarded(name: str, scope: Scope, key: str = "order") -> type[Workflow[Input]]:
    """A workflow that waits at a gate unless its first step fails."""

    class Guarded(Workflow[Input], unique=Unique(key, scope=scope), name=name):
        initial = fragile
        transitions = {fragile: {"ok": gate}, gate: {"go": Done}}

    return Guarded


Mine, Yours = guarded("Mine", "workflow"), guarded("Yours", "workflow")
World, Planet = guarded("World", "global"), guarded("Planet", "global")
Release, Loose = guarded("Release", "version"), guarded("Loose", "none")
PlainA, PlainB = guarded("PlainA", "workflow", "plain"), guarded("PlainB", "workflow", "plain")


class Twice(Workflow[Input], unique=Unique("twice")):
    """Two waits for signals of one name, one after the other."""

    initial = WaitForEvent("answered").named("again")
    transitions = {
        WaitForEvent("answered").named("again"): {"received": WaitForEvent("answered").named("last")},
        WaitForEvent("answered").named("last"): {"received": Done},
    }


WORKFLOWS = (Mine, Yours, World, Planet, Release, Loose, PlainA, PlainB, Twice)
SCOPED: dict[str, type[Workflow[Input]]] = {"workflow": Mine, "version": Release, "global": Planet}


@pytest.fixture
def value(stack: Stack) -> Iterator[str]:
    yield stack.value
    for workflow in WORKFLOWS[:-1]:
        for each in workflow.list(limit=1000):
            if each.is_active and stack.value in each.id:
                with suppress(NotActive):  # it may have completed
                    workflow.cancel(each.id)


@pytest.mark.parametrize("scope", SCOPED)
def test_an_active_instance_of_scope_global_excludes_every_other_scope_of_its_key(scope: str, value: str) -> None:
    active = World.start(value)
    with pytest.raises(AlreadyRunning, match=rf"in run {active.run}\b"):
        SCOPED[scope].start(value)
    (refused,) = SCOPED[scope].start_many([(value, {})])
    assert (refused.created, refused.run, refused.id) == (False, active.run, active.id)
    World.cancel(value)
    assert SCOPED[scope].start(value).created


def test_a_start_raises_with_the_active_run_or_returns_it(value: str) -> None:
    active = Mine.start(value)
    with pytest.raises(AlreadyRunning) as raised:
        Mine.start(value)
    assert raised.value.run == active.run
    again = Mine.start(value, on_conflict="existing")
    assert (again.created, again.run, again.id) == (False, active.run, active.id)
    assert asyncio.run(Mine.astart(value, on_conflict="existing")) == again
    with pytest.raises(InvalidValue, match='on_conflict=\'skip\' is refused: use "raise" or "existing"'):
        Mine.start(value, on_conflict="skip")  # type: ignore[arg-type]
    Mine.cancel(value)
    assert Mine.start(value, on_conflict="existing").created


@pytest.mark.parametrize("scope", SCOPED)
def test_an_active_instance_of_any_scope_excludes_one_of_scope_global(scope: str, value: str) -> None:
    active = SCOPED[scope].start(value)
    with pytest.raises(AlreadyRunning, match=rf"in run {active.run}\b"):
        World.start(value)
    SCOPED[scope].cancel(value)
    assert World.start(value).created


def test_scope_none_excludes_nothing(value: str) -> None:
    assert World.start(value).created
    assert Loose.start(value).id != Loose.start(value).id


def test_a_workflow_of_scope_global_does_not_make_others_exclude_one_another(value: str) -> None:
    assert Mine.start(value).id == Yours.start(value).id == Release.start(value).id


def test_a_failed_instance_is_not_retried_beside_one_that_excludes_it(stack: Stack, value: str) -> None:
    World.start(value, {"fails": True}, metadata={})
    stack.until(World, "failed", value=value)
    active = Mine.start(value)
    with pytest.raises(AlreadyRunning, match="already running"):
        World.retry(value)
    assert World.get(value).status == "failed"
    Mine.cancel(value)
    World.retry(value)
    assert active.run > World.get(value).run


def test_an_instance_is_not_put_beside_one_that_excludes_it(app: Any, stack: Stack, value: str) -> None:
    World.start(value)
    stack.until(World, "waiting", value=value)
    stored = app.storage.get(f"order::{value}")
    World.cancel(value)
    Mine.start(value)
    with pytest.raises(AlreadyRunning, match="another run"):
        app.storage.put(stored)
    Mine.cancel(value)
    app.storage.put(stored)
    assert World.get(value).is_active


def test_an_id_of_two_workflows_needs_the_workflow(app: Any, value: str) -> None:
    ours, theirs = PlainA.start(value), PlainB.start(value)
    storage, shared = app.storage, ours.id
    for ambiguous in (storage.get, storage.delete):
        with pytest.raises(AmbiguousId, match="has runs of several workflows") as caught:
            ambiguous(shared)
        assert "PlainA, PlainB" in (caught.value.hint or "")
    assert storage.get(shared, workflow=PlainA).run == ours.run
    assert storage.get(shared, workflow="PlainB", version=1).run == theirs.run
    with pytest.raises(InstanceNotFound, match="of PlainB, version 2"):
        storage.get(shared, workflow="PlainB", version=2)
    storage.delete(shared, workflow="PlainB", version=2)
    storage.delete(shared, workflow="Nothing")
    storage.delete(shared, workflow="PlainB")
    assert storage.get(shared).run == ours.run
    with pytest.raises(InstanceNotFound):
        PlainB.get(value)
    assert PlainB.start(value).created
    storage.delete(shared, workflow=PlainA)
    assert PlainA.start(value).created
    storage.delete(shared, workflow=PlainA)
    storage.delete(shared)
    with pytest.raises(InstanceNotFound):
        storage.get(shared)
    with pytest.raises(InvalidValue):
        storage.get(None)


def test_the_async_twins_take_the_workflow(app: Any, value: str) -> None:
    asyncio.run(_take_the_workflow(app, value))


async def _take_the_workflow(app: Any, value: str) -> None:
    ours, theirs = await PlainA.astart(value), await PlainB.astart(value)
    with pytest.raises(AmbiguousId):
        await app.storage.aget(ours.id)
    with pytest.raises(AmbiguousId):
        await app.storage.adelete(ours.id)
    assert (await app.storage.aget(ours.id, workflow=PlainB)).run == theirs.run
    await app.storage.adelete(ours.id, workflow=PlainB)
    assert (await app.storage.aget(ours.id)).run == ours.run
    await app.storage.adelete(ours.id)
    if isinstance(app, Pgflow):
        await app.aclose()


def test_runs_are_numbered_in_the_order_in_which_they_are_given(value: str) -> None:
    names = [f"{value}-{letter}" for letter in "qzamby"]
    for workflow in (Mine, Loose):
        started = workflow.start_many([(name, {}) for name in names])
        assert [each.id.split("::")[1] for each in started] == names
        assert [each.run for each in started] == sorted(each.run for each in started)
    first, again, other = PlainA.start_many([(f"{value}-z", {"n": 1}), (f"{value}-z", {"n": 2}), (f"{value}-a", {})])
    assert (first.created, again.created, again.run) == (True, False, first.run)
    assert PlainA.get(f"{value}-z").input == {"n": 1}
    assert first.run < other.run


def test_a_whole_business_id_starts_what_its_value_starts(value: str) -> None:
    started = Mine.start(f"order::{value}")
    assert (started.id, Mine.get(value).run) == (f"order::{value}", started.run)
    with pytest.raises(AlreadyRunning):
        Mine.start(value)
    (again,) = Mine.start_many([(f"order::{value}", {})])
    assert again == replace(started, created=False)
    with pytest.raises(AlreadyRunning):
        Mine.start(f"order::{value}")
    assert Loose.start(f"order::{value}").id.startswith(f"order::{value}::")


@pytest.mark.parametrize("given", ["plain::{}", "order::{}::0a1b2c3d", "order::", "::{}", "order::order::{}"])
def test_an_id_of_another_key_or_with_a_suffix_cannot_be_started(given: str, value: str) -> None:
    for workflow in (Mine, Loose):
        with pytest.raises(InvalidValue, match="business value"):
            workflow.start(given.format(value))


def test_signals_are_taken_in_the_order_in_which_they_were_sent(app: Any, stack: Stack, value: str) -> None:
    Twice.start(value)
    Twice.resume(value, "answered", {"n": 1})
    Twice.resume(value, "answered", {"n": 2})
    assert stack.until(Twice, value=value).steps == {"again": {"n": 1}, "last": {"n": 2}}


def test_a_repeated_signal_with_an_idempotency_key_ends_one_wait(postgres: Pgflow, value: str) -> None:
    Twice.bind(postgres)
    stack = Stack("postgres")
    Twice.start(value)
    stack.until(Twice, "waiting", value=value)
    for _ in range(2):
        answer = Twice.resume(value, "answered", {"n": 1}, idempotency_key=f"click-{value}")
        assert answer == "delivered"
    assert Twice.resume(value, "answered", {"n": 2}) in ("delivered", "kept")
    assert stack.until(Twice, value=value).steps == {"again": {"n": 1}, "last": {"n": 2}}


def test_a_second_signal_for_a_wait_that_has_one_is_refused(app: Any, stack: Stack, value: str) -> None:
    Mine.start(value)
    stack.until(Mine, "waiting", value=value)
    assert Mine.resume(value, "go") == "delivered"
    with pytest.raises(NotActive):
        Mine.resume(value, "go")
