"""The storage in memory: put, get, delete, query; copies; threads."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Any

import pytest

from pgflow import Done, Ok, Unique, Workflow, step
from pgflow.core.models.instance import Instance
from pgflow.errors import Conflict, InstanceNotFound, InvalidValue
from pgflow.local import Storage


@step
def only(ctx: Any) -> Ok:
    return Ok("done")


class Flow(Workflow[Any], unique=Unique("key")):
    """One step."""

    initial = only
    transitions = {only: {"done": Done}}


def instance(run: int, value: str = "v", **more: Any) -> Instance:
    known: dict[str, Any] = {
        "workflow": "Flow", "version": 1, "status": "running", "input": {}, "steps": {}, "history": (),
        "waiting_for": (), "metadata": {}, "tags": (), "error": None, "created_at": datetime(2030, 1, 1, tzinfo=UTC),
    }  # fmt: skip
    if more.get("status") in ("completed", "failed", "cancelled"):
        known["finished_at"] = known["created_at"]
    return Instance(run=run, id=f"key::{value}", **{**known, **more})


def test_get_returns_what_was_put_and_raises_otherwise() -> None:
    storage = Storage("orders")
    storage.put(instance(1))
    assert storage.get("key::v") == instance(1)
    assert len(storage) == 1
    with pytest.raises(InstanceNotFound, match=r"Storage\('orders'\) has no instance 'key::w'"):
        storage.get("key::w")


def test_put_replaces_a_run_and_get_returns_the_newest() -> None:
    storage = Storage()
    storage.put(instance(2))
    storage.put(instance(2, status="failed"))
    assert [each.status for each in storage.query()] == ["failed"]
    storage.put(instance(1, status="cancelled"))
    assert storage.get("key::v").run == 2
    assert [each.run for each in storage.query(id="key::v")] == [2, 1]
    with pytest.raises(Conflict, match="run 2 belongs to Flow 'key::v', not to 'key::renamed'"):
        storage.put(instance(2, "renamed"))


def test_delete_may_be_repeated() -> None:
    storage = Storage()
    storage.put(instance(1))
    storage.put(instance(2))
    storage.delete("key::v")
    storage.delete("key::v")
    assert storage.query() == []


def test_it_stores_and_returns_copies() -> None:
    storage = Storage()
    given = instance(1, input={"items": [1]})
    storage.put(given)
    given.input["items"].append(2)
    storage.get("key::v").input["items"].append(3)
    storage.query()[0].input["items"].append(4)
    assert storage.get("key::v").input == {"items": [1]}


@pytest.mark.parametrize(
    ("filters", "runs"),
    [
        ({}, [4, 3, 2, 1]),
        ({"id": "key::a"}, [1]),
        ({"status": "failed"}, [3, 2]),
        ({"status_in": ("failed", "completed")}, [4, 3, 2]),
        ({"status_in": ()}, []),
        ({"workflow": "Flow"}, [3, 2, 1]),
        ({"workflow": Flow}, [3, 2, 1]),
        ({"workflow_version": 2}, [2]),
        ({"tags": ["x"]}, [4, 3]),
        ({"tags": ["x", "y"]}, [4]),
        ({"status": "failed", "workflow": Flow, "workflow_version": 1, "tags": ["x"]}, [3]),
        ({"status": "failed", "status_in": ("completed",)}, []),
    ],
)
def test_filters_are_anded(filters: dict[str, Any], runs: list[int]) -> None:
    storage = Storage()
    storage.put(instance(1, "a"))
    storage.put(instance(2, "b", status="failed", version=2))
    storage.put(instance(3, "c", status="failed", tags=("x",)))
    storage.put(instance(4, "d", status="completed", workflow="Other", tags=("y", "x")))
    assert [each.run for each in storage.query(**filters)] == runs


def test_an_unknown_filter_or_status_is_refused() -> None:
    with pytest.raises(TypeError, match="statuses"):
        Storage().query(statuses="failed")  # type: ignore[call-arg]
    with pytest.raises(InvalidValue, match="'done' is unknown"):
        Storage().query(status="done")  # type: ignore[arg-type]
    with pytest.raises(InvalidValue):
        Storage().query(status_in=["failed", "done"])  # type: ignore[list-item]


def test_storages_are_independent() -> None:
    left, right = Storage("left"), Storage("right")
    left.put(instance(1))
    assert (len(left), len(right)) == (1, 0)


def test_48_concurrent_puts_are_all_stored() -> None:
    storage = Storage()

    def put(run: int) -> None:
        storage.put(instance(run, f"v{run}"))
        storage.put(instance(run, f"v{run}", status="completed"))

    threads = [threading.Thread(target=put, args=(run,)) for run in range(1, 49)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {each.run for each in storage.query(status="completed")} == set(range(1, 49))
