"""`put` stores and refuses the same in memory and on PostgreSQL; `Instance.new` makes instances for it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from threading import Event
from typing import Any

import psycopg
import pytest
from pydantic import BaseModel

from pgflow import Async, Context, Done, Instance, Ok, Pgflow, Step, Unique, Workflow, step, telemetry
from pgflow.core.models.instance import UNSAVED, Entry, PendingSignal, WaitingFor
from pgflow.errors import (
    AlreadyRunning,
    GraphChanged,
    InvalidInput,
    InvalidPayload,
    InvalidValue,
    RouteError,
    UndeclaredEvent,
    UnknownStep,
    UnknownWorkflow,
)
from pgflow.local import Local, Storage
from tests.worker.waiting import until

NUMBERS = count(1)
RUNS = count(5000)
AT = datetime(2030, 1, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
SEEN: dict[str, list[Any]] = {}
GO: dict[str, Event] = {}


class Order(BaseModel):
    """The input."""

    item_count: int = 1


class Ask(Step):
    """Waits for an answer to its question."""

    events = ("answered",)
    question: str = "why?"

    def execute(self, ctx: Context[Any]) -> Async:
        SEEN.setdefault(ctx.value, []).append(self.question)
        return Async()


@step
def first(ctx: Context[Order]) -> Ok:
    SEEN.setdefault(ctx.value, []).append(ctx.initial.item_count)
    return Ok("done", {"n": ctx.initial.item_count}, metadata={"by": "first"})


@step
def last(ctx: Context[Order]) -> Ok:
    return Ok("done")


class Asking(Workflow[Order], unique=Unique("asking"), tags=["questions"], metadata={"team": "a"}):
    """Two configured waits, one after the other."""

    initial = first
    transitions = {
        first: {"done": Ask(question="what?").named("ask")},
        Ask(question="what?").named("ask"): {"answered": last},
        last: {"done": Done},
    }


class Configured(Workflow[Order], unique=Unique("configured")):
    """Begins with a configured wait."""

    initial = Ask(question="who?").named("ask")
    transitions = {Ask(question="who?").named("ask"): {"answered": Done}}


class Any1(Workflow[Order], unique=Unique("any", scope="none")):
    """Any number may be active."""

    initial = last
    transitions = {last: {"done": Done}}


WORKFLOWS = (Asking, Configured, Any1)
EMPTY = {"item_count": 1}


@pytest.fixture
def value() -> str:
    return f"p{next(NUMBERS)}"


def reaches(workflow: Any, value: str, *statuses: str) -> Instance:
    def look() -> Instance | None:
        found: Instance = workflow.get(value)
        return found if found.status in statuses else None

    found = until(look, f"{value} is {statuses}")
    assert found is not None
    return found


def waiting(value: str, question: str = "what?") -> Instance:
    """Wait until the step has asked and its instance waits."""
    until(lambda: question in SEEN.get(value, ()), "it asks")
    return reaches(Asking, value, "waiting")


# -- stored fields


def test_an_instance_can_be_read_and_put_without_a_change(app: Any, value: str) -> None:
    Asking.start(value, Order(item_count=2), telemetry={"tenant": "t1"}, tags=["gift"], metadata={"to": "x"})
    waiting(value)
    Asking.schedule_resume(value, "ask", DAY, "answered", {"later": True})
    before = Asking.get(value)
    assert (before.telemetry, before.step_configs) == ({"tenant": "t1"}, {"ask": {"question": "what?"}})
    assert app.storage.put(before) == before.run
    until(lambda: SEEN[value].count("what?") == 2, "it asks again")
    after = reaches(Asking, value, "waiting")
    changed = {each.name for each in fields(Instance) if getattr(before, each.name) != getattr(after, each.name)}
    assert changed == set(), "no field changes, the wait itself included"
    assert [(each.event, each.payload) for each in after.signals] == [("answered", {"later": True})]


def test_an_instance_can_be_put_after_it_was_deleted(app: Any, value: str) -> None:
    Asking.start(value, Order(item_count=2), telemetry={"tenant": "t1"})
    waiting(value)
    Asking.schedule_resume(value, "ask", DAY, "answered", {"later": True})
    before = Asking.get(value)
    app.storage.delete(before.id)
    app.storage.put(before)
    until(lambda: SEEN[value].count("what?") == 2, "it asks again")
    after = reaches(Asking, value, "waiting")
    (signal,) = after.signals
    assert (signal.event, signal.step, signal.payload, signal.at) == (
        "answered", "ask", {"later": True}, before.signals[0].at,
    )  # fmt: skip
    assert signal.id is not None, "it gets a new id where it is new"
    assert replace(after, signals=()) == replace(before, signals=())


def test_an_instance_moves_to_the_other_stack_without_a_change(local: Local, postgres: Pgflow, value: str) -> None:
    pairs: list[tuple[Any, Any]] = [(local, postgres), (postgres, local)]
    for source, goal in pairs:
        name = f"{value}-{source.storage.name}"
        for workflow in WORKFLOWS:
            workflow.bind(source)
        Asking.start(name, Order(), telemetry={"tenant": "t2"})
        before = waiting(name)
        kept = replace(before, signals=(PendingSignal("answered", None, {"yes": 1}, AT),))
        for workflow in WORKFLOWS:
            workflow.bind(goal)
        goal.storage.put(replace(kept, run=next(RUNS) + 100_000))
        ended = reaches(Asking, name, "completed")
        assert (ended.telemetry, ended.steps["ask"]) == ({"tenant": "t2"}, {"yes": 1})


def test_telemetry_can_be_changed_and_removed_and_events_have_it(app: Any, value: str) -> None:
    seen: list[Any] = []
    telemetry.attach(f"put {value}", [telemetry.WORKFLOW_STOP], lambda event, _: seen.append(dict(event.metadata)))
    try:
        Asking.start(value, Order(), telemetry={"tenant": "old", "more": 1})
        before = waiting(value)
        app.storage.put(replace(before, telemetry={"tenant": "new"}))
        assert Asking.get(value).telemetry == {"tenant": "new"}
        until(lambda: SEEN[value].count("what?") == 2, "it asks again")
        Asking.resume(value, "answered")
        reaches(Asking, value, "completed")
        (stopped,) = until(lambda: [each for each in seen if each["instance_id"] == before.id], "its stop event")
        assert (stopped["tenant"], "more" in stopped) == ("new", False)
        app.storage.put(replace(Asking.get(value), telemetry={}))
        assert Asking.get(value).telemetry in ({}, {"tenant": "new"}), value
    finally:
        telemetry.detach(f"put {value}")


def test_a_signal_that_comes_between_reading_and_putting_is_not_lost(app: Any, value: str) -> None:
    Asking.start(value, Order())
    before = waiting(value)
    later = Asking.schedule_resume(value, "ask", DAY, "answered")
    app.storage.put(replace(before, tags=("late",)))
    assert [each.id for each in Asking.get(value).signals] == [later.id]
    assert later.cancel()


def test_the_metadata_of_many_steps_can_be_put_again(app: Any, value: str) -> None:
    large = {"large": "x" * 40_000}
    history = (
        Entry("first", "done", AT, output={"n": 1}, metadata={"a": large}),
        Entry("ask", "answered", AT, output={}, metadata={"b": large}),
    )
    given = instance(value, history=history, steps={"first": {"n": 1}, "ask": {}}, metadata={"a": large, "b": large})
    app.storage.put(given)
    assert app.storage.get(given.id) == given
    app.storage.put(app.storage.get(given.id))


# -- configurations


def test_a_stored_configuration_is_the_one_that_a_step_runs_with(app: Any, value: str) -> None:
    Asking.start(value, Order())
    before = waiting(value)
    app.storage.put(replace(before, step_configs={"ask": {"question": "which?"}}))
    assert waiting(value, "which?").step_configs == {"ask": {"question": "which?"}}
    app.storage.put(replace(Asking.get(value), step_configs={}))
    until(lambda: SEEN[value].count("what?") == 2, "without one it runs with its own")
    assert waiting(value).step_configs == {"ask": {"question": "what?"}}


def test_a_pending_instance_begins_with_the_configuration_that_was_put(app: Any, value: str) -> None:
    new = replace(
        Instance.new(Configured, 1, Order(), f"configured::{value}"), step_configs={"ask": {"question": "me?"}}
    )
    app.storage.put(new)
    until(lambda: SEEN.get(value) == ["me?"], "it asks")
    found = reaches(Configured, value, "waiting")
    assert found.step_configs == {"ask": {"question": "me?"}}
    Configured.resume(value, "answered")
    assert reaches(Configured, value, "completed").step_configs == {}, "it is that of active steps"


# -- new instances


def test_a_new_instance_begins_when_it_is_stored(app: Any, value: str) -> None:
    new = Instance.new(Asking, 1, Order(item_count=7), f"asking::{value}")
    assert (new.run, new.is_saved, new.status, new.created_at) == (0, False, "pending", UNSAVED)
    assert (new.input, new.tags, new.metadata) == ({"item_count": 7}, ("questions",), {"team": "a"})
    run = app.storage.put(new)
    found = waiting(value)
    assert (found.run, found.is_saved, found.id) == (run, True, new.id)
    assert found.created_at > datetime(2020, 1, 1, tzinfo=UTC)
    assert SEEN[value] == [7, "what?"]
    with pytest.raises(AlreadyRunning):
        app.storage.put(new)
    Asking.cancel(value)
    assert app.storage.put(new) > run


def test_new_instances_may_be_delayed_and_have_their_own_options(app: Any, value: str) -> None:
    later = datetime.now(UTC) + DAY
    new = replace(
        Instance.new(Asking, 1, {"item_count": 3}, f"asking::{value}"),
        waiting_for=(WaitingFor("first", "queue", until=later),),
        telemetry={"tenant": "t3"},
    )
    app.storage.put(new)
    found = Asking.get(value)
    assert (found.status, found.waiting_for[0].until, found.telemetry) == ("pending", later, {"tenant": "t3"})
    assert SEEN.get(value) is None


def test_the_async_twin_returns_the_run_too(app: Any, value: str) -> None:
    async def put() -> int:
        client = Pgflow(app.dsn, workflows=WORKFLOWS) if isinstance(app, Pgflow) else app
        run: int = await client.storage.aput(Instance.new(Asking, 1, Order(), f"asking::{value}"))
        if isinstance(client, Pgflow):
            await client.aclose()
        return run

    run = asyncio.run(put())
    Asking.bind(app)
    assert waiting(value).run == run


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ((Asking, 2, {}, "asking::a"), InvalidValue, "only supports version 1, not 2"),
        ((Asking, 0, {}, "asking::a"), InvalidValue, "only supports version 1, not 0"),
        ((Asking, 1, {"item_count": "many"}, "asking::a"), InvalidInput, "item_count"),
        ((Asking, 1, {}, "other::a"), InvalidValue, "'other::a' is not a business id of Asking"),
        ((Asking, 1, {}, "a"), InvalidValue, "'a' is not a business id of Asking"),
        ((Asking, 1, {}, "asking::a b"), InvalidValue, "is not a business id of Asking"),
        ((Asking, 1, {}, None), InvalidValue, "None is not a business id of Asking"),
        ((Any1, 1, {}, "any::a"), InvalidValue, "any::abc123::0a1b2c3d"),
        ((Asking, 1, {}, "asking::a::0a1b2c3d"), InvalidValue, "is not a business id"),
    ],
)
def test_an_invalid_new_instance_is_refused(given: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error) as caught:
        Instance.new(*given)
    assert said in f"{caught.value} {getattr(caught.value, 'hint', None)}"


def test_a_storage_without_an_app_keeps_new_instances_for_the_next_one(value: str) -> None:
    storage = Storage()
    run = storage.put(Instance.new(Asking, 1, Order(item_count=9), f"asking::{value}"))
    assert storage.get(f"asking::{value}").run == run
    with Local(workflows=[Asking], storage=storage):
        assert waiting(value).run == run
    assert SEEN[value] == [9, "what?"]


# -- refusals


def instance(value: str, **more: Any) -> Instance:
    """A completed instance of Asking, with changes."""
    known: dict[str, Any] = {
        "run": next(RUNS), "workflow": "Asking", "version": 1, "status": "completed", "input": EMPTY, "steps": {},
        "history": (), "waiting_for": (), "metadata": {}, "tags": (), "error": None, "created_at": AT,
        "finished_at": AT,
    }  # fmt: skip
    return Instance(id=more.pop("id", f"asking::{value}"), **{**known, **more})


RUNNING = {"status": "running", "finished_at": None}
PENDING = {"status": "pending", "finished_at": None}
FIRST = Entry("first", "done", AT, output={})
DONE = {"history": (FIRST,), "steps": {"first": {}}}
NAIVE = datetime(2030, 1, 1)  # noqa: DTZ001 -- the point
SIGNAL = PendingSignal("answered", "ask", None, AT)
DEEP: Any = []
for _ in range(70):
    DEEP = [DEEP]


def having(**more: Any) -> dict[str, Any]:
    """An entry of the first step that differs."""
    return {"history": (replace(FIRST, **more),), "steps": {"first": {}}}


REFUSED: list[tuple[dict[str, Any], type[Exception]]] = [
    ({"workflow": "Other"}, UnknownWorkflow),
    ({"workflow": ""}, InvalidValue),
    ({"workflow": None}, InvalidValue),
    ({"version": 2}, InvalidValue),
    ({"version": 0}, InvalidValue),
    ({"version": 2**31}, InvalidValue),
    ({"version": True}, InvalidValue),
    ({"version": "1"}, InvalidValue),
    ({"run": 0}, InvalidValue),
    ({"run": -1}, InvalidValue),
    ({"run": 2**63}, InvalidValue),
    ({"run": 1.5}, InvalidValue),
    ({"run": True}, InvalidValue),
    ({"run": 0, **RUNNING}, InvalidValue),
    ({"id": "asking"}, InvalidValue),
    ({"id": "other::a"}, InvalidValue),
    ({"id": "asking::a b"}, InvalidValue),
    ({"id": "asking::"}, InvalidValue),
    ({"id": "asking::a::b"}, InvalidValue),
    ({"id": "asking::a::0a1b2c3d"}, InvalidValue),
    ({"id": f"asking::{'a' * 201}"}, InvalidValue),
    ({"id": "asking::\x07"}, InvalidValue),
    ({"id": 7}, InvalidValue),
    ({"status": "done"}, InvalidValue),
    ({"status": None}, InvalidValue),
    ({"status": "running"}, InvalidValue),
    ({"status": "failed", "finished_at": None}, InvalidValue),
    ({"created_at": NAIVE}, InvalidValue),
    ({"created_at": None}, InvalidValue),
    ({"created_at": "2030-01-01"}, InvalidValue),
    ({"finished_at": NAIVE}, InvalidValue),
    ({"input": float("nan")}, InvalidPayload),
    ({"input": {"a": "\0"}}, InvalidPayload),
    ({"input": {"a": "x" * 1_100_000}}, InvalidPayload),
    ({"input": DEEP}, InvalidPayload),
    ({"input": object()}, InvalidPayload),
    ({"metadata": None}, InvalidPayload),
    ({"metadata": {"pgflow:telemetry": 1}}, InvalidPayload),
    ({"metadata": {"a": "x" * 1_100_000}}, InvalidPayload),
    ({"telemetry": [1]}, InvalidPayload),
    ({"telemetry": {"a": "x" * 70_000}}, InvalidPayload),
    ({"tags": None}, InvalidValue),
    ({"tags": "red"}, InvalidValue),
    ({"tags": ("",)}, InvalidValue),
    ({"tags": ("x" * 65,)}, InvalidValue),
    ({"tags": ("a\nb",)}, InvalidValue),
    ({"tags": tuple(f"t{each}" for each in range(33))}, InvalidValue),
    ({"error": {"reason": "x"}}, InvalidValue),
    ({"error": {"reason": "x"}, **RUNNING}, InvalidValue),
    ({"status": "failed", "error": ["x"]}, InvalidPayload),
    ({"steps": {"first": {}}}, InvalidValue),
    ({"steps": None}, InvalidValue),
    ({"history": None}, InvalidValue),
    ({"history": ("first",)}, InvalidValue),
    ({"history": (FIRST, FIRST), "steps": {"first": {}}}, InvalidValue),
    ({**DONE, **PENDING}, InvalidValue),
    ({"history": (replace(FIRST, step="none"),), "steps": {"none": {}}}, UnknownStep),
    ({"history": (replace(FIRST, step="a b"),), "steps": {"a b": {}}}, InvalidValue),
    (having(event="lost"), UndeclaredEvent),
    (having(event=""), InvalidValue),
    (having(targets=("last",)), RouteError),
    (having(targets="ask"), InvalidValue),
    (having(at=NAIVE), InvalidValue),
    (having(at=None), InvalidValue),
    (having(duration=timedelta(seconds=-1)), InvalidValue),
    (having(duration=timedelta.max), InvalidValue),
    (having(duration=3), InvalidValue),
    (having(attempt=2**31), InvalidValue),
    (having(attempt=-1), InvalidValue),
    (having(attempt=True), InvalidValue),
    (having(worker=2**63), InvalidValue),
    (having(worker="w"), InvalidValue),
    (having(errors=("no",)), InvalidValue),
    (having(errors=None), InvalidValue),
    (having(metadata=[]), InvalidPayload),
    (having(output=float("inf")), InvalidPayload),
    ({"history": (replace(FIRST, step="ask", event="answered"),), "steps": {"ask": {}}, **RUNNING}, GraphChanged),
    ({"waiting_for": (WaitingFor("first", "queue", until=NAIVE),), **PENDING}, InvalidValue),
    ({"waiting_for": ("first",), **PENDING}, InvalidValue),
    ({"signals": (replace(SIGNAL, event="lost"),), **RUNNING}, UndeclaredEvent),
    ({"signals": (replace(SIGNAL, step="none"),), **RUNNING}, UnknownStep),
    ({"signals": (replace(SIGNAL, step="first"),), **RUNNING}, UndeclaredEvent),
    ({"signals": (replace(SIGNAL, at=NAIVE),), **RUNNING}, InvalidValue),
    ({"signals": (replace(SIGNAL, id=0),), **RUNNING}, InvalidValue),
    ({"signals": (replace(SIGNAL, step=None, id=1),), **RUNNING}, InvalidValue),
    ({"signals": (replace(SIGNAL, payload="x" * 1_100_000),), **RUNNING}, InvalidPayload),
    ({"signals": ("answered",), **RUNNING}, InvalidValue),
    ({"step_configs": {"ask": {"question": "q"}}, **RUNNING}, InvalidValue),
    ({"step_configs": {"ask": {"question": "q"}}}, InvalidValue),
    ({"step_configs": {"none": {}}, **RUNNING}, UnknownStep),
    ({"step_configs": {"ask": {"question": 7}}, **DONE, **RUNNING}, InvalidValue),
    ({"step_configs": {"ask": "q"}, **DONE, **RUNNING}, InvalidPayload),
    ({"step_configs": {"a b": {}}, **RUNNING}, InvalidValue),
    ({"step_configs": None}, InvalidValue),
    ({"unreadable": "input: too deep"}, InvalidValue),
]


@pytest.mark.parametrize(
    ("change", "error"), REFUSED, ids=[f"{number} {' '.join(change)}" for number, (change, _) in enumerate(REFUSED)]
)
def test_both_stacks_refuse_a_put_with_the_same_error(
    local: Local, postgres: Pgflow, value: str, change: dict[str, Any], error: type[Exception]
) -> None:
    bad = replace(instance(value), **change)
    said = []
    for storage in (local.storage, postgres.storage):
        with pytest.raises(error) as caught:
            storage.put(bad)
        assert type(caught.value) is error
        said.append(str(caught.value))
        assert storage.query(id=f"asking::{value}") == []
    assert said[0] == said[1]


@pytest.mark.parametrize("given", [None, {"run": 1}, "asking::a"])
def test_an_object_that_is_not_an_instance_is_refused(app: Any, given: Any) -> None:
    with pytest.raises(InvalidValue, match="put takes an Instance, got"):
        app.storage.put(given)


SQL_REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"workflow": "Other"}, "PF001"),
    ({"version": 9}, "PF001"),
    ({"run": 0}, "PF008"),
    ({"id": "other::a"}, "PF008"),
    ({"id": "asking::a b"}, "PF008"),
    ({"id": "asking::a::b"}, "PF008"),
    ({"id": f"asking::{'a' * 201}"}, "PF008"),
    ({"id": None}, "PF008"),
    ({"status": "done"}, "PF008"),
    ({"status": None}, "PF008"),
    ({"status": "running"}, "PF008"),
    ({"finished_at": None}, "PF008"),
    ({"error": "{}"}, "PF008"),
    ({"tags": [""]}, "PF008"),
    ({"tags": ["x"] * 33}, "PF008"),
    ({"history": '{"step": "first"}'}, "PF008"),
    ({"history": '[{"step": "first"}, {"step": "first"}]'}, "PF008"),
    ({"history": '[{"event": "done"}]'}, "PF008"),
    ({"history": '[{"step": "none", "event": "done"}]'}, "PF010"),
    ({"status": "pending", "finished_at": None, "history": '[{"step": "first"}]'}, "PF008"),
    ({"input": None}, "PF006"),
    ({"input": json.dumps("x" * 17_000_000)}, "PF006"),
    ({"input": json.dumps(DEEP)}, "PF006"),
    ({"metadata": "[]"}, "PF006"),
    ({"status": "failed", "error": "[]"}, "PF006"),
    ({"step_configs": '{"none": {}}'}, "PF010"),
    ({"signals": '[{"step": "none", "event": "answered"}]'}, "PF010"),
]


@pytest.mark.parametrize(
    ("change", "code"),
    SQL_REFUSED,
    ids=[f"{number} {' '.join(change)}" for number, (change, _) in enumerate(SQL_REFUSED)],
)
def test_the_sql_function_checks_by_itself(postgres: Pgflow, value: str, change: dict[str, Any], code: str) -> None:
    given = {
        "run": next(RUNS) + 200_000, "id": f"asking::{value}", "workflow": "Asking", "version": 1,
        "status": "completed", "unique_key": None, "input": "{}", "tags": [], "metadata": "{}", "error": None,
        "created_at": AT, "finished_at": AT, "history": "[]", "signals": "[]", "step_configs": "{}", **change,
    }  # fmt: skip
    call = (
        "select pgflow.put(%(run)s, %(id)s, %(workflow)s, %(version)s, %(status)s, %(unique_key)s, %(input)s, %(tags)s,"
        " %(metadata)s, %(error)s, %(created_at)s, %(finished_at)s, %(history)s, signals => %(signals)s,"
        " step_configs => %(step_configs)s)"
    )
    with psycopg.connect(postgres.dsn) as conn:
        with pytest.raises(psycopg.Error) as caught:
            conn.execute(call, given)
        assert caught.value.sqlstate == code
        conn.rollback()
        assert conn.execute("select count(*) from pgflow.instances where run = %(run)s", given).fetchone() == (0,)


def test_an_older_release_can_still_put(postgres: Pgflow, value: str, new_database: Callable[..., str]) -> None:
    """Its statement names no signals and no configurations, and does not read the metadata for telemetry."""
    Asking.bind(postgres)
    Asking.start(value, Order(), telemetry={"tenant": "t1"})
    found = waiting(value)
    with psycopg.connect(postgres.dsn, autocommit=True) as conn:
        conn.execute(
            "select pgflow.put(%s::bigint, %s::text, 'Asking'::text, 1::integer, 'completed'::text, null::text,"
            " '{}'::jsonb, '{}'::text[], '{\"a\": 1}'::jsonb, null::jsonb, now(), now(), '[]'::jsonb,"
            " null::timestamptz, 'default'::text, notify => false)",
            [found.run, found.id],
        )
    after = Asking.get(value)
    assert (after.status, after.metadata, after.telemetry) == ("completed", {"a": 1}, {"tenant": "t1"})
