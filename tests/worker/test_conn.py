"""What cannot be a `conn` is refused by every call, before anything is sent, with what to pass instead."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import psycopg
import psycopg_pool
import pytest

from pgflow import Context, Done, Instance, Ok, Pgflow, Unique, Wait, Workflow, step, task
from pgflow.database.connect import Connection
from pgflow.errors import ConfigError, PgflowError
from pgflow.local import Local
from tests.worker.db_helpers import one

Input = dict[str, Any]


@step
def begin(ctx: Context[Input]) -> Ok:
    return Ok("done")


pause = Wait(timedelta(hours=1)).named("pause")


class Task(Workflow[Input], unique=Unique("task")):
    initial = begin
    transitions = {begin: {"done": pause}, pause: {"timeout": Done}}


@task
def note(text: str = "") -> None:
    pass


WORKFLOWS = (Task,)
TASKS = (note,)
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "start": (Task, "a", {}),
    "start_many": (Task, [("a", {}), ("b", {})]),
    "resume": (Task, "a", "timeout"),
    "schedule_resume": (Task, "a", pause, timedelta(hours=1)),
    "unschedule": (1,),
    "cancel": (Task, "a"),
    "retry": (Task, "a"),
    "get": (Task, "a"),
    "list": (),
    "runs": (Task, "a"),
    "jobs": (),
    "find": ("workflow:Task",),
    "complete_step": (Task, "a", pause),
    "fail_step": (Task, "a", pause),
    "enqueue": (note,),
    "enqueue_many": (note, [()]),
    "list_tasks": (note,),
    "find_tasks": ("task:note",),
    "storage.put": ("the instance",),
    "storage.get": ("task::a",),
    "storage.delete": ("task::a",),
    "storage.query": (),
}


def method(app: Pgflow, name: str) -> Callable[..., Any]:
    owner, _, call = name.rpartition(".")
    found: Callable[..., Any] = getattr(app.storage if owner else app, call)
    return found


def asked(app: Pgflow, name: str, instance: Instance, conn: Any) -> Any:
    """Call a method, sync or async according to its name."""
    owner, dot, call = name.rpartition(".")
    is_async = name not in ARGUMENTS
    given = ARGUMENTS[f"{owner}{dot}{call.removeprefix('a')}" if is_async else name]
    result = method(app, name)(*(instance if each == "the instance" else each for each in given), conn=conn)
    return asyncio.run(result) if is_async else result


def names(prefix: str = "") -> list[str]:
    """The calls whose last part begins so."""
    return [f"{owner}{dot}{prefix}{call}" for owner, dot, call in (each.rpartition(".") for each in ARGUMENTS)]


@pytest.fixture
def instance(app: Pgflow) -> Instance:
    app.start(Task, "a", {})
    return app.get(Task, "a")


@pytest.fixture
def outside(dsn: str) -> Iterator[dict[str, Any]]:
    """Objects that users pass by mistake, and those of one kind of call that belong to the other."""
    loop = asyncio.new_event_loop()
    with psycopg.connect(dsn) as sync, psycopg.connect(dsn) as ended:
        ended.close()
        wrong = loop.run_until_complete(psycopg.AsyncConnection.connect(dsn))
        done = loop.run_until_complete(psycopg.AsyncConnection.connect(dsn))
        loop.run_until_complete(done.close())
        yield {
            "sync": sync,
            "async": wrong,
            "closed": ended,
            "aclosed": done,
            "cursor": sync.cursor(),
            "acursor": wrong.cursor(),
            "pool": psycopg_pool.ConnectionPool(dsn, open=False),
            "class": psycopg.Connection,
            "dsn": dsn,
            "engine": type("Session", (), {"__module__": "sqlalchemy.orm.session"})(),
            "child of a session": type("Mine", (type("S", (), {"__module__": "sqlalchemy.orm"}),), {})(),
            "other driver": type("connection", (), {"__module__": "psycopg2.extensions"})(),
            "empty string": "",
            "false": False,
        }
        loop.run_until_complete(wrong.close())
    loop.close()


REFUSED = {
    "closed": "conn is a closed connection",
    "cursor": "conn must be a psycopg.Connection, got psycopg.Cursor",
    "pool": "conn must be a psycopg.Connection, got psycopg_pool.ConnectionPool",
    "async": "conn must be a psycopg.Connection, got psycopg.AsyncConnection",
    "class": "conn must be a psycopg.Connection, got the class psycopg.Connection",
    "dsn": "conn must be a psycopg.Connection, got str",
    "engine": "conn must be a psycopg.Connection, got sqlalchemy.Session",
    "child of a session": "conn must be a psycopg.Connection, got ",
    "other driver": "conn must be a psycopg.Connection, got psycopg2.connection",
    "empty string": "conn must be a psycopg.Connection, got str",
    "false": "conn must be a psycopg.Connection, got bool",
}
AREFUSED = {
    **{key: text.replace("a psycopg.Connection", "a psycopg.AsyncConnection") for key, text in REFUSED.items()},
    "acursor": "conn must be a psycopg.AsyncConnection, got psycopg.AsyncCursor",
    "sync": "conn must be a psycopg.AsyncConnection, got psycopg.Connection",
    "aclosed": "conn is a closed connection",
}
AREFUSED.pop("async")
AREFUSED["closed"] = "conn must be a psycopg.AsyncConnection, got psycopg.Connection"
HINTS = {
    "async": "Call the async method",
    "sync": "Call the sync method",
    "cursor": "cursor.connection",
    "acursor": "cursor.connection",
    "pool": "pool.connection()",
    "dsn": "belongs in Pgflow(dsn)",
    "engine": "driver_connection",
    "child of a session": "driver_connection",
    "other driver": "psycopg 3",
}


def test_the_calls_below_are_all_that_take_a_conn(app: Pgflow) -> None:
    for owner, prefix in ((app, ""), (app.storage, "storage.")):
        found = {
            f"{prefix}{name}"
            for name, call in inspect.getmembers(type(owner), inspect.isfunction)
            if not name.startswith("_") and "conn" in inspect.signature(call).parameters
        }
        assert found == {name for name in (*names(), *names("a")) if name.startswith("storage.") == bool(prefix)}


@pytest.mark.parametrize("name", names())
def test_a_sync_call_refuses_what_is_not_an_open_sync_connection(
    app: Pgflow, instance: Instance, outside: dict[str, Any], conn: Connection, name: str
) -> None:
    assert_all_are_refused(app, name, instance, outside, REFUSED)
    assert one(conn, "select count(*) from pgflow.instances") == 1


@pytest.mark.parametrize("name", names("a"))
def test_an_async_call_refuses_what_is_not_an_open_async_connection(
    app: Pgflow, instance: Instance, outside: dict[str, Any], conn: Connection, name: str
) -> None:
    assert_all_are_refused(app, name, instance, outside, AREFUSED)
    assert one(conn, "select count(*) from pgflow.instances") == 1


def assert_all_are_refused(
    app: Pgflow, name: str, instance: Instance, outside: dict[str, Any], refused: dict[str, str]
) -> None:
    for kind, text in refused.items():
        with pytest.raises(ConfigError) as raised:
            asked(app, name, instance, outside[kind])
        assert str(raised.value).startswith(text), kind
        assert raised.value.hint is not None
        assert HINTS.get(kind, "psycopg") in raised.value.hint
        assert "host=" not in f"{raised.value} {raised.value.hint}"  # a connection string may hold a password


def test_a_refused_conn_opens_no_connection_and_registers_nothing(dsn: str, outside: dict[str, Any]) -> None:
    app = Pgflow("postgresql://localhost:1/nowhere", workflows=[Task])
    with pytest.raises(ConfigError, match=r"got sqlalchemy\.Session"):
        app.start(Task, "a", {}, conn=outside["engine"])
    with pytest.raises(ConfigError, match=r"got sqlalchemy\.Session"):
        asyncio.run(app.astart(Task, "a", {}, conn=outside["engine"]))


def test_a_subclass_of_a_psycopg_connection_is_taken(app: Pgflow, dsn: str) -> None:
    class Mine(psycopg.Connection[Any]):
        pass

    class AMine(psycopg.AsyncConnection[Any]):
        pass

    async def start() -> None:
        async with await AMine.connect(dsn) as conn:
            await app.astart(Task, "async", {}, conn=conn)

    with Mine.connect(dsn) as conn:
        app.start(Task, "sync", {}, conn=conn)
    asyncio.run(start())
    assert {each.id for each in app.list()} == {"task::sync", "task::async"}


@pytest.mark.parametrize("conn", ["", False, "postgresql://localhost/x", object()])
def test_a_local_takes_no_conn_at_all(conn: Any) -> None:
    with Local(workflows=[Task]) as local:
        for name, given in ARGUMENTS.items():
            if name.startswith("storage."):
                continue
            with pytest.raises(PgflowError, match="Local takes no conn") as raised:
                getattr(local, name)(*given, conn=conn)
            assert isinstance(raised.value, ConfigError)
