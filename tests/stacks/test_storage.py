"""The storage contract in memory and on PostgreSQL: put, get, delete, query, and moving instances."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import count
from threading import Event
from typing import Any

import psycopg
import pytest

from pgflow import Async, Context, Done, Instance, Ok, Pgflow, Unique, Wait, Workflow, route, step
from pgflow.core.models.instance import Entry, WaitingFor
from pgflow.errors import (
    AlreadyRunning,
    Conflict,
    GraphChanged,
    InstanceNotFound,
    InvalidPayload,
    InvalidValue,
    UnknownWorkflow,
)
from pgflow.local import Local
from tests.worker.waiting import until

Input = dict[str, Any]
RUNS = count(1000)
AT = datetime(2030, 1, 1, 12, tzinfo=UTC)
BEGUN: dict[str, list[str]] = {}  # which steps have begun, by value
GO: dict[str, Event] = {}


@step(events=("big", "small"))
def weigh(ctx: Context[Input]) -> Ok:
    BEGUN.setdefault(ctx.value, []).append("weigh")
    return Ok("big", {"weight": 7})


def by_weight(ctx: Context[Input]) -> Any:
    return ship if ctx.output(weigh)["weight"] > 5 else mail


@step
def ship(ctx: Context[Input]) -> Ok:
    BEGUN.setdefault(ctx.value, []).append("ship")
    if ctx.value in GO:
        GO[ctx.value].wait(20)
    return Ok("done", {"from": ctx.output(weigh)["weight"]})


@step
def mail(ctx: Context[Input]) -> Ok:
    return Ok("done")


@step(events=("paid",))
def pay(ctx: Context[Input]) -> Async:
    BEGUN.setdefault(ctx.value, []).append("pay")
    return Async()


class Parcel(Workflow[Input], unique=Unique("parcel")):
    initial = weigh
    transitions = {
        weigh: {"big": route(by_weight, ship, mail), "small": mail},
        ship: {"done": Done},
        mail: {"done": Done},
    }


class Payment(Workflow[Input], unique=Unique("payment")):
    initial = pay
    transitions = {pay: {"paid": Done}}


class ParcelLater(Workflow[Input], unique=Unique("later")):
    initial = Wait(timedelta(days=1))
    transitions = {Wait(timedelta(days=1)): {"timeout": Done}}


WORKFLOWS = (Parcel, Payment, ParcelLater)


@pytest.fixture
def storage(app: Any) -> Any:
    return app.storage


@pytest.fixture
def value() -> str:
    return f"v{next(RUNS)}"


def instance(value: str, **more: Any) -> Instance:
    """A completed instance of Parcel, with changes."""
    known: dict[str, Any] = {
        "run": next(RUNS), "workflow": "Parcel", "version": 1, "status": "completed", "input": {"a": 1}, "steps": {},
        "history": (), "waiting_for": (), "metadata": {}, "tags": (), "error": None, "created_at": AT,
        "finished_at": AT + timedelta(seconds=1, microseconds=5),
    }  # fmt: skip
    return Instance(id=more.pop("id", f"parcel::{value}"), **{**known, **more})


WEIGHED = Entry("weigh", "big", AT, output={"weight": 7}, targets=("ship",), duration=timedelta(milliseconds=3))


def active(value: str, **more: Any) -> Instance:
    """An instance of Parcel that is weighed and not yet shipped."""
    given = {"status": "running", "finished_at": None, "history": (WEIGHED,), "steps": {"weigh": {"weight": 7}}}
    return instance(value, **{**given, **more})


def test_every_field_comes_back_as_it_was_put(storage: Any, value: str) -> None:
    errors = ({"reason": "no", "type": "ValueError", "attempt": 1},)
    shipped = Entry(
        "ship", "done", AT + timedelta(seconds=1), 2, {"boxes": [1, 2.5, None, "ü"]}, {"by": "bike"},
        timedelta(microseconds=1500), 7, errors,
    )  # fmt: skip
    given = instance(
        value, status="failed", input={"items": [{"sku": "a"}], "n": 10**30}, history=(WEIGHED, shipped),
        steps={"weigh": {"weight": 7}, "ship": {"boxes": [1, 2.5, None, "ü"]}}, metadata={"by": "bike", "to": {"x": 1}},
        tags=("gift", "blue"), error={"step": "mail", "reason": "lost", "attempts": []},
    )  # fmt: skip
    storage.put(given)
    assert storage.get(given.id) == given
    assert storage.query(id=given.id) == [given]


def test_values_are_stored_as_json(storage: Any, value: str) -> None:
    given = instance(value, input={"on": date(2030, 1, 1), "both": (1, 2)}, metadata={"colours": {"red", "blue"}})
    storage.put(given)
    stored = storage.get(given.id)
    assert stored.input == {"on": "2030-01-01", "both": [1, 2]}
    assert stored.metadata == {"colours": ["blue", "red"]}


def test_put_replaces_a_run_and_get_by_id_returns_the_newest(storage: Any, value: str) -> None:
    first = instance(value)
    storage.put(first)
    storage.put(replace(first, status="cancelled", tags=("new",)))
    second = instance(value)
    storage.put(second)
    assert storage.get(first.id) == second
    assert [(each.run, each.status) for each in storage.query(id=first.id)] == [
        (second.run, "completed"),
        (first.run, "cancelled"),
    ]


def test_get_of_an_unknown_id_raises_and_delete_does_not(storage: Any, value: str) -> None:
    given = instance(value)
    storage.put(given)
    storage.put(instance(value))
    storage.delete(given.id)
    storage.delete(given.id)
    assert storage.query(id=given.id) == []
    with pytest.raises(InstanceNotFound, match=rf"Storage\('\w+'\) has no instance '{given.id}'"):
        storage.get(given.id)


QUERIES: list[tuple[dict[str, Any], list[int]]] = [
    ({}, [5, 4, 3, 2, 1]),
    ({"status": "failed"}, [3, 2]),
    ({"status_in": ["failed", "cancelled"]}, [5, 3, 2]),
    ({"status_in": ()}, []),
    ({"status": "failed", "status_in": ["cancelled"]}, []),
    ({"workflow": "Parcel"}, [4, 3, 2, 1]),
    ({"workflow": Payment}, [5]),
    ({"workflow_version": 1}, [5, 4, 3, 2, 1]),
    ({"workflow_version": 2}, []),
    ({"workflow_family": "Pa"}, [5, 4, 3, 2, 1]),
    ({"workflow_family": "Par"}, [4, 3, 2, 1]),
    ({"workflow_family": "P%"}, []),
    ({"workflow_family": "_a"}, []),
    ({"workflow_family": "\\P"}, []),
    ({"workflow_family": ""}, [5, 4, 3, 2, 1]),
    ({"tags": ["red"]}, [4, 2]),
    ({"tags": ("red", "blue")}, [4]),
    ({"metadata": {"tenant": "t1"}}, [4, 2]),
    ({"metadata": {"tenant": "t1", "deep": {"a": [2]}}}, [4]),
    ({"metadata": {}}, [5, 4, 3, 2, 1]),
    ({"input": {"items": [{"sku": "b"}]}}, [3]),
    ({"input": {"items": [{"sku": "a"}, {"sku": "b"}]}}, [3]),
    ({"input": {"n": 1}}, [3, 2]),
    ({"input": {"n": True}}, [4]),
    ({"input": {"items": {}}}, []),
    ({"steps": {"weigh": {"weight": 7}}}, [2, 1]),
    ({"steps": {weigh: {"weight": 7}, "ship": {"boxes": [2]}}}, [1]),
    ({"steps": {"ship": {}}}, [3, 1]),
    ({"steps": {"mail": {}}}, []),
    ({"order": "oldest"}, [1, 2, 3, 4, 5]),
    ({"limit": 2}, [5, 4]),
    ({"limit": 2, "before": 4}, [3, 2]),
    ({"limit": 2, "after": 2, "order": "oldest"}, [3, 4]),
    ({"after": 1, "before": 4}, [3, 2]),
    ({"status": "failed", "tags": ["red"], "workflow": Parcel, "input": {"n": 1}}, [2]),
]


@pytest.mark.parametrize(("filters", "found"), QUERIES, ids=lambda each: str(each)[:50])
def test_filters_are_anded_and_pages_are_in_order(storage: Any, filters: dict[str, Any], found: list[int]) -> None:
    base = put_five(storage)
    given = {**filters}
    for name in ("before", "after"):
        if name in given:
            given[name] += base
    given.setdefault("after", base)
    given.setdefault("before", base + 6)
    assert [each.run - base for each in storage.query(**given)] == found


def put_five(storage: Any) -> int:
    """Five instances that differ, once in each storage; returns the run before the first."""
    if storage.name in KNOWN:
        return KNOWN[storage.name]
    base = next(RUNS)
    ship_it = Entry("ship", "done", AT, output={"boxes": [1, 2]})
    five = [
        instance("five-1", history=(WEIGHED, ship_it), steps={"weigh": {"weight": 7}, "ship": {"boxes": [1, 2]}}),
        instance(
            "five-2", status="failed", input={"n": 1.0}, tags=("red",), metadata={"tenant": "t1"}, history=(WEIGHED,),
            steps={"weigh": {"weight": 7}},
        ),
        instance(
            "five-3", status="failed", input={"items": [{"sku": "a", "k": 1}, {"sku": "b"}], "n": 1},
            history=(Entry("ship", "done", AT),), steps={"ship": {}},
        ),
        instance("five-4", input={"n": True}, tags=("blue", "red"), metadata={"tenant": "t1", "deep": {"a": [1, 2]}}),
        instance("five-5", id="payment::five-5", workflow="Payment", status="cancelled", input=[]),
    ]  # fmt: skip
    for number, each in enumerate(five, start=1):
        storage.put(replace(each, run=base + number))
    for _ in range(20):
        next(RUNS)
    KNOWN[storage.name] = base
    return base


KNOWN: dict[str, int] = {}


@pytest.mark.parametrize(
    ("filters", "error", "said"),
    [
        (
            {"statuses": "failed"},
            TypeError,
            "there is no filter 'statuses'\nDid you mean 'status",
        ),
        ({"status": "done"}, InvalidValue, "the status 'done' is unknown"),
        ({"status_in": ["failed", 3]}, InvalidValue, "the status 3 is unknown"),
        ({"status_in": 3}, InvalidValue, "status=3 is refused: it must be a status"),
        ({"id": 3}, InvalidValue, "id=3 is refused: it must be a string"),
        ({"workflow": "a\0"}, InvalidValue, "NUL"),
        ({"workflow_version": "1"}, InvalidValue, "it must be a whole number from 1"),
        ({"workflow_version": 0}, InvalidValue, "it must be a whole number from 1"),
        ({"workflow_family": 1}, InvalidValue, "it must be a string"),
        ({"tags": "red"}, InvalidValue, "it must be a list of strings"),
        ({"tags": [1]}, InvalidValue, "each tag must be a string"),
        ({"metadata": [1]}, InvalidValue, "it must be a dict"),
        ({"metadata": {"a": float("nan")}}, InvalidPayload, "metadata.a is nan"),
        ({"input": object()}, InvalidPayload, "input cannot be stored"),
        ({"steps": ["ship"]}, InvalidValue, "it must be a dict of steps and what their outputs contain"),
        ({"steps": {"ship": {"a": "\0"}}}, InvalidPayload, r"steps.ship.a holds a NUL"),
        ({"order": "random"}, InvalidValue, '"newest" or "oldest"'),
        ({"before": "3"}, InvalidValue, "it must be a run id"),
        ({"after": -1}, InvalidValue, "it must be a run id"),
        ({"limit": 0}, InvalidValue, "it must be a whole number from 1, or None"),
    ],
)
def test_an_invalid_filter_is_refused(storage: Any, filters: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        storage.query(**filters)


@pytest.mark.parametrize(
    ("filters", "said"),
    [
        ({"state": "failed"}, "there is no filter 'state'\nDid you mean 'status'"),
        ({"limit": 10_001}, "a page has 1 to 10,000 instances"),
        ({"limit": None}, "a page has 1 to 10,000 instances"),
        ({"limit": True}, "a page has"),
    ],
)
def test_a_list_has_filters_of_its_own(app: Any, filters: dict[str, Any], said: str) -> None:
    with pytest.raises((TypeError, InvalidValue), match=said):
        app.list(**filters)


def test_a_list_takes_the_same_filters_and_a_workflow_or_none(app: Any) -> None:
    base = put_five(app.storage)
    page: Any = {"after": base, "before": base + 6}
    assert [each.run - base for each in app.list(**page)] == [5, 4, 3, 2, 1]
    assert [each.run - base for each in app.list(Parcel, status="failed", **page)] == [3, 2]
    assert [each.run - base for each in Parcel.list(status=["failed", "completed"], tags=["red"], **page)] == [4, 2]
    assert [each.run - base for each in Parcel.list(family="Pay", **page)] == []
    assert [each.run - base for each in app.list(version=1, family="Pay", **page)] == [5]
    assert [each.run - base for each in Parcel.list(order="oldest", after=base + 1, limit=2)] == [2, 3]
    assert [each.run - base for each in asyncio.run(alisted(app, steps={"ship": {"boxes": [1]}}, **page))] == [1]
    (listed,) = Parcel.list(id="parcel::five-1")
    assert (listed.steps, listed.history, listed.input) == ({}, (), {"a": 1})


async def alisted(app: Any, **filters: Any) -> list[Instance]:
    found: list[Instance] = await app.alist(**filters)
    if isinstance(app, Pgflow):
        await app.aclose()
    return found


def test_an_active_instance_that_was_put_continues_where_its_history_ends(app: Any, value: str) -> None:
    given = active(value)
    app.storage.put(given)
    found = ended(Parcel, value)
    assert found.status == "completed"
    assert BEGUN[value] == ["ship"]
    assert found.steps == {"weigh": {"weight": 7}, "ship": {"from": 7}}
    assert found.history[0] == WEIGHED
    assert (found.run, found.created_at) == (given.run, AT)


def ended(workflow: Any, value: str) -> Instance:
    found = until(
        lambda: each if (each := workflow.get(value)).status not in ("pending", "running", "waiting") else None,
        f"{value} ends",
    )
    assert isinstance(found, Instance)
    return found


def test_a_waiting_instance_that_was_put_waits_again_and_consumes_its_signal(app: Any, value: str) -> None:
    started = Payment.start(value)
    until(lambda: Payment.get(value).status == "waiting", "it waits")
    app.storage.put(replace(app.storage.get(started.id), tags=("put",)))
    until(lambda: BEGUN[value] == ["pay", "pay"] and Payment.get(value).status == "waiting", "it waits again")
    assert Payment.resume(value, "paid", {"amount": 3}) == "delivered"
    found = ended(Payment, value)
    assert (found.status, found.steps, found.tags) == ("completed", {"pay": {"amount": 3}}, ("put",))


def test_a_pending_instance_that_was_put_starts_when_due(app: Any, value: str) -> None:
    later = datetime.now(UTC) + timedelta(days=1)
    waits = (WaitingFor("weigh", "queue", until=later),)
    given = instance(value, status="pending", finished_at=None, waiting_for=waits)
    app.storage.put(given)
    found = Parcel.get(value)
    assert (found.status, found.waiting_for[0].until) == ("pending", later)
    app.storage.put(replace(given, waiting_for=()))
    assert ended(Parcel, value).status == "completed"


def test_a_running_step_cannot_record_a_result_after_its_instance_was_put(app: Any, value: str) -> None:
    GO[value] = Event()
    started = Parcel.start(value)
    until(lambda: BEGUN.get(value) == ["weigh", "ship"], "its step runs")
    stored = app.storage.get(started.id)
    app.storage.put(replace(stored, status="cancelled", finished_at=AT, error={"reason": "by hand"}))
    GO[value].set()
    Parcel.start(f"{value}-after")
    ended(Parcel, f"{value}-after")  # so earlier results are settled
    found = app.storage.get(started.id)
    assert (found.status, [each.step for each in found.history]) == ("cancelled", ["weigh"])


def test_a_running_step_cannot_record_a_result_after_its_instance_was_deleted(app: Any, value: str) -> None:
    GO[value] = Event()
    started = Parcel.start(value)
    until(lambda: BEGUN.get(value) == ["weigh", "ship"], "its step runs")
    app.storage.delete(started.id)
    assert app.storage.query(id=started.id) == []
    again = Parcel.start(value)  # its key is free
    GO[value].set()
    assert ended(Parcel, value).status == "completed"
    assert [each.run for each in app.storage.query(id=started.id)] == [again.run]


def test_a_run_that_was_put_is_never_given_to_another(app: Any, value: str) -> None:
    newest = max(each.run for each in [*app.list(limit=1), instance(value)])
    near, far = newest + 7, newest + 50_000
    app.storage.put(instance(f"{value}-near", run=near))
    assert Parcel.start(f"{value}-a").run > near
    app.storage.put(instance(f"{value}-far", run=far))
    assert Parcel.start(f"{value}-b").run > far
    while next(RUNS) < far + 10:
        pass


def test_a_run_of_another_instance_is_not_overwritten(app: Any, value: str) -> None:
    started = Parcel.start(value)
    ended(Parcel, value)
    with pytest.raises(Conflict, match=f"run {started.run} belongs to"):
        app.storage.put(instance("other", run=started.run))
    with pytest.raises(Conflict, match=f"run {started.run} belongs to"):
        app.storage.put(instance("other", id="payment::other", run=started.run, workflow="Payment"))
    assert app.storage.get(started.id).status == "completed"


def test_a_second_active_instance_of_a_key_is_refused(app: Any, value: str) -> None:
    Payment.start(value)
    other = active("x", id=f"payment::{value}", workflow="Payment", history=(), steps={})
    with pytest.raises(AlreadyRunning, match="is already running in another run"):
        app.storage.put(other)
    Payment.cancel(value)
    app.storage.put(other)
    assert app.storage.get(other.id).run == other.run


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"run": 0}, InvalidValue, "a run id is a whole number from 1"),
        ({"run": "1"}, InvalidValue, "a run id is a whole number from 1"),
        ({"version": 0}, InvalidValue, "a version is"),
        ({"status": "done"}, InvalidValue, "the status 'done' is unknown"),
        ({"finished_at": None}, InvalidValue, "is completed, and its finished_at is None"),
        ({"status": "running"}, InvalidValue, "is running, and its finished_at is 2030"),
        ({"created_at": datetime(2030, 1, 1)}, InvalidValue, "it must be an aware datetime"),  # noqa: DTZ001 -- the point
        ({"id": ""}, InvalidValue, "it must be a string with text"),
        ({"input": {"a": [1, "\0"]}}, InvalidPayload, r"input.a\[1\] holds a NUL"),
        ({"metadata": {"a": float("inf")}}, InvalidPayload, "metadata.a is inf"),
        ({"metadata": [1]}, InvalidPayload, "must be a mapping, got"),
        ({"tags": (1,)}, InvalidValue, "it must be a string with text"),
        ({"error": "boom"}, InvalidPayload, "must be a mapping, got"),
        ({"steps": {"ship": {}}}, InvalidValue, "does not have each of its steps once"),
        ({"history": (WEIGHED, WEIGHED)}, InvalidValue, "does not have each of its steps once"),
        ({"history": (replace(WEIGHED, output=object()),), "steps": {"weigh": 1}}, InvalidPayload, "weigh.output"),
        ({"unreadable": "input: it is too deep"}, InvalidValue, "could not be read completely"),
    ],
)  # fmt: skip
def test_an_invalid_instance_is_refused_and_nothing_is_changed(
    app: Any, value: str, change: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        app.storage.put(replace(instance(value), **change))
    assert app.storage.query(id=f"parcel::{value}") == []


def test_an_active_instance_with_an_impossible_history_is_refused(app: Any, value: str) -> None:
    shipped = Entry("ship", "done", AT, output={})
    with pytest.raises(GraphChanged, match="result of ship"):
        app.storage.put(active(value, history=(shipped,), steps={"ship": {}}))
    assert app.storage.query(id=f"parcel::{value}") == []


def test_postgres_takes_only_workflows_that_its_app_has(postgres: Pgflow, value: str) -> None:
    with pytest.raises(UnknownWorkflow, match="no workflow named 'Other'"):
        postgres.storage.put(instance(value, workflow="Other"))
    with pytest.raises(InvalidValue, match="only supports version 1, not 2"):
        postgres.storage.put(instance(value, version=2))


def test_an_instance_moves_from_one_stack_to_the_other(local: Local, postgres: Pgflow, value: str) -> None:
    pairs: list[tuple[Any, Any]] = [(local, postgres), (postgres, local)]
    for source, goal in pairs:
        for workflow in WORKFLOWS:
            workflow.bind(source)
        source.storage.put(active(f"{value}-{source.storage.name}"))
        found = ended(Parcel, f"{value}-{source.storage.name}")
        goal.storage.put(found)
        assert goal.storage.get(found.id) == found
        source.storage.put(active(f"{value}-{source.storage.name}-2", status="failed", finished_at=AT))
        half = source.storage.get(f"parcel::{value}-{source.storage.name}-2")
        for workflow in WORKFLOWS:
            workflow.bind(goal)
        goal.storage.put(half)
        Parcel.retry(f"{value}-{source.storage.name}-2")
        assert ended(Parcel, f"{value}-{source.storage.name}-2").steps["ship"] == {"from": 7}


def test_the_async_twins_do_the_same(app: Any, value: str) -> None:
    given = instance(value)

    async def all_of_them() -> list[Any]:
        await app.storage.aput(given)
        got, found = await app.storage.aget(given.id), await app.storage.aquery(id=given.id)
        await app.storage.adelete(given.id)
        after = await app.storage.aquery(id=given.id)
        if isinstance(app, Pgflow):
            await app.aclose()
        return [got, found, after]

    assert asyncio.run(all_of_them()) == [given, [given], []]


def test_on_postgres_it_joins_the_callers_transaction(postgres: Pgflow, value: str) -> None:
    given = instance(value)
    with psycopg.connect(postgres.dsn) as conn:
        postgres.storage.put(given, conn=conn)
        assert postgres.storage.get(given.id, conn=conn) == given
        assert postgres.storage.query(id=given.id) == []
        conn.rollback()
        postgres.storage.delete(given.id, conn=conn)
    assert postgres.storage.query(id=given.id) == []
