"""A user's own storage class under `Local`: four methods, here over a dict."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import pytest

from pgflow import Async, Context, Done, Instance, Ok, Unique, Workflow, step
from pgflow.errors import InstanceNotFound, InvalidValue
from pgflow.local import InstanceStorage, Local, Storage, select
from tests.worker.waiting import PATIENCE

Input = dict[str, Any]


@step
def begin(ctx: Context[Input]) -> Ok:
    return Ok("done", {"seen": ctx.initial})


@step
def ask(ctx: Context[Input]) -> Async:
    return Async()


class Asking(Workflow[Input], unique=Unique("asking")):
    initial = begin
    transitions = {begin: {"done": ask}, ask: {"done": Done}}


class InDict:
    """Keeps instances in a dict, which fails while `is_full`."""

    def __init__(self) -> None:
        self.by_run: dict[int, Instance] = {}
        self.is_full = False

    def __repr__(self) -> str:
        return "InDict()"

    def put(self, instance: Instance) -> int:
        if self.is_full:
            raise OSError("no space left")
        assert type(instance) is Instance
        self.by_run[instance.run] = instance
        return instance.run

    def get(self, id: str, *, workflow: Any = None, version: int | None = None) -> Instance:  # noqa: A002
        found = self.query(id=id, workflow=workflow, workflow_version=version, limit=1)
        if not found:
            raise InstanceNotFound(f"no instance {id!r}")
        return found[0]

    def delete(self, id: str, *, workflow: Any = None, version: int | None = None) -> None:  # noqa: A002
        for each in self.query(id=id, workflow=workflow, workflow_version=version):
            del self.by_run[each.run]

    def query(self, **filters: Any) -> list[Instance]:
        return select(self.by_run.values(), **filters)


def test_a_local_writes_each_change_through_and_a_later_one_continues_from_there() -> None:
    own: InstanceStorage = InDict()
    with Local(workflows=[Asking], storage=own) as app:
        first = Asking.start("v", {"n": 1}, tags=["gift"], delay=timedelta(hours=1))
        assert own.get(first.id).status == "pending"
        app.advance_time(timedelta(hours=1))
        stored = own.get(first.id)
        assert (stored.status, stored.steps, stored.tags) == ("waiting", {"begin": {"seen": {"n": 1}}}, ("gift",))
        assert app.storage.get(first.id) == stored
        assert repr(app) == "Local(workflows=[Asking], storage=InDict())"
    with Local(workflows=[Asking], storage=own) as app:
        app.settle(PATIENCE)
        assert Asking.resume("v", "done", "late") == "delivered"
        app.drain(PATIENCE)
        assert Asking.start("v").run == first.run + 1
        app.settle(PATIENCE)
    assert [each.status for each in own.query(id=first.id)] == ["waiting", "completed"]
    assert own.query(id=first.id)[1].steps["ask"] == "late"


def test_instances_are_put_and_deleted_in_both() -> None:
    own = InDict()
    with Local(workflows=[Asking], storage=own) as app:
        run = app.storage.put(Instance.new(Asking, 1, {"n": 2}, "asking::put"))
        app.settle(PATIENCE)
        assert own.by_run[run].status == "waiting"
        app.storage.delete("asking::put")
        assert (own.by_run, app.storage.query()) == ({}, [])


def test_an_error_of_the_storage_is_raised_by_a_put_and_logged_for_a_step(caplog: pytest.LogCaptureFixture) -> None:
    own = InDict()
    with Local(workflows=[Asking], storage=own) as app:
        own.is_full = True
        with pytest.raises(OSError, match="no space left"):
            app.storage.put(Instance.new(Asking, 1, {}, "asking::put"))
        assert app.storage.query() == []
        with caplog.at_level(logging.ERROR, logger="pgflow.local"):
            Asking.start("v")
            app.settle(PATIENCE)
        assert "InDict() did not store asking::v: no space left" in caplog.text
        own.is_full = False
        Asking.resume("v", "done")
        app.drain(PATIENCE)
    assert own.get("asking::v").status == "completed"


def test_select_applies_the_filters_of_a_query() -> None:
    storage = Storage()
    for number, status in enumerate(("running", "running", "waiting"), 1):
        storage.put(Instance.new(Asking, 1, {"n": number}, f"asking::{status}{number}"))
    everything = storage.query()
    assert [each.run for each in select(everything, input={"n": 2})] == [2]
    assert [each.run for each in select(reversed(everything), limit=2)] == [3, 2]
    with pytest.raises(InvalidValue, match="'done' is unknown"):
        select([], status="done")  # type: ignore[arg-type]
