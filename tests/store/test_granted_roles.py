"""Each part works with the privileges of `pgflow roles` only: an application, its worker, and a dashboard."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from pydantic import BaseModel

from pgflow import Async, Context, Done, Instance, Ok, Pgflow, Retry, Unique, Wait, WaitForEvent, Workflow, step
from pgflow.cli import cli
from pgflow.database.connect import connect
from pgflow.errors import AlreadyRunning, UnknownWorkflow
from tests.store.granted_roles import GrantedRoles
from tests.worker.thread_worker import Inside
from tests.worker.waiting import until

REPAIRED = threading.Event()
QUICKLY = Retry(max_attempts=2, base=timedelta(milliseconds=5))


class Trip(BaseModel):
    is_broken: bool = False


@step(events=("ok",), retry=QUICKLY)
async def pack(ctx: Context[Trip]) -> Ok:
    if ctx.attempt == 1 or (ctx.initial.is_broken and not REPAIRED.is_set()):
        raise ConnectionError("not yet")
    return Ok("ok", {"attempt": ctx.attempt}, metadata={"bag": "red"})


@step(events=("booked",), transactional=True)
def book(ctx: Context[Trip]) -> Ok:
    return Ok("booked", {"as": ctx.conn.execute("select current_user").fetchone()[0]})


@step(events=("agreed", "refused"))
def ask(ctx: Context[Trip]) -> Async:
    return Async()


rest = Wait(timedelta(milliseconds=20)).named("rest")
call = WaitForEvent("called", timeout=timedelta(milliseconds=30)).named("call")


@step(events=("there",))
def arrive(ctx: Context[Trip]) -> Ok:
    return Ok("there")


class Journey(Workflow[Trip], unique=Unique("journey")):
    """A retry, a fan-out, a transaction, a timer, a timeout, a signal and a join."""

    initial = pack
    transitions = {
        pack: {"ok": [book, rest, call, ask]},
        book: {"booked": arrive},
        rest: {"timeout": arrive},
        call: {"received": arrive, "timeout": arrive},
        ask: {"agreed": arrive, "refused": Done},
        arrive: {"there": Done},
    }


@pytest.fixture
def app_for(parts: GrantedRoles) -> Iterator[Callable[[str], Pgflow]]:
    """Return `app_for(part)`: an app that connects as the role with that part."""
    REPAIRED.clear()
    made: list[Pgflow] = []

    def make(part: str) -> Pgflow:
        made.append(Pgflow(parts.dsn(part), workflows=[Journey], name=part))
        return made[-1]

    yield make
    for app in made:
        app.close()


def seen(app: Pgflow, value: str, *statuses: str) -> Instance:
    """Wait until an instance has one of these statuses, as the dashboard sees it."""

    def look() -> Instance | None:
        found = app.get(Journey, value)
        return found if found.status in statuses else None

    found = until(look, f"{value}: {statuses}")
    assert found is not None
    return found


def test_an_app_can_make_every_call_in_its_own_transaction(
    parts: GrantedRoles, app_for: Callable[[str], Pgflow]
) -> None:
    client, onlooker = app_for("client"), app_for("dashboard")
    with parts.connect("client") as conn, pytest.raises(UnknownWorkflow), conn.transaction():
        client.start(Journey, "early", Trip(), conn=conn)
    app_for("worker").register()  # as each worker does at its start

    with psycopg.connect(parts.dsn("client")) as conn:
        client.start(Journey, "a", Trip(), conn=conn)
        conn.rollback()
        client.start(Journey, "a", Trip(), tags=["own"], conn=conn)
        assert client.resume(Journey, "a", "called", {"by": "Ada"}, conn=conn) == "kept"
        later = client.schedule_resume(Journey, "a", ask, timedelta(hours=1), "agreed", conn=conn)
        assert client.unschedule(later.id, conn=conn)
        client.cancel(Journey, "a", reason="rain", conn=conn)
        client.start_many(Journey, [("b", Trip()), ("c", Trip())], delay=timedelta(hours=1), conn=conn)
        conn.commit()
    assert [(each.id, each.status) for each in reversed(onlooker.list(Journey))] == [
        ("journey::a", "cancelled"),
        ("journey::b", "pending"),
        ("journey::c", "pending"),
    ]
    with pytest.raises(AlreadyRunning):
        client.start(Journey, "b", Trip())
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        client.get(Journey, "b")  # only the dashboard may read

    async def twins() -> None:
        app = app_for("client")
        await app.astart(Journey, "d", Trip())
        assert await app.aresume(Journey, "d", "called") == "kept"
        await app.acancel(Journey, "d")
        await app.aclose()

    asyncio.run(twins())
    assert onlooker.get(Journey, "d").status == "cancelled"


def test_a_worker_completes_every_instance(parts: GrantedRoles, app_for: Callable[[str], Pgflow]) -> None:
    client, worker, onlooker = app_for("client"), app_for("worker"), app_for("dashboard")
    worker.register()
    for value in ("whole", "lost", "bare"):
        client.start(Journey, value, Trip())
        client.schedule_resume(Journey, value, ask, timedelta(milliseconds=50), "agreed")
    client.start(Journey, "broken", Trip(is_broken=True))
    with parts.connect("admin") as conn:
        # One is claimed by a dead worker; another is orphaned (its job was deleted); an old worker is still listed.
        find = "select run from pgflow.instances where id = %s"
        (lost,), (bare,) = (conn.execute(find, [f"journey::{value}"]).fetchall()[0] for value in ("lost", "bare"))
        conn.execute("update pgflow.jobs set state = 'running', worker = 0, attempt = 1 where run = %s", [lost])
        conn.execute("delete from pgflow.jobs where run = %s", [bare])
        conn.execute(
            "insert into pgflow.workers (node, pid, queues, version, lease_expires_at)"
            " values ('gone', 1, '{}', '0', pgflow.now() - interval '400 days')"
        )

    with Inside(worker):
        for value in ("whole", "lost", "bare"):
            done = seen(onlooker, value, "completed")
            assert done.steps["book"] == {"as": parts.names["worker"]}
            assert {entry.step: entry.event for entry in done.history}["call"] == "timeout"
        assert seen(onlooker, "broken", "failed").error is not None
        REPAIRED.set()
        client.retry(Journey, "broken")
        seen(onlooker, "broken", "waiting")
        client.cancel(Journey, "broken")
        gone = "select count(*) from pgflow.workers where node = 'gone'"
        with parts.connect("admin") as conn:
            until(lambda: conn.execute(gone).fetchall() == [(0,)], "the worker of long ago is forgotten")
            assert conn.execute("select count(*) from pgflow.jobs").fetchall() == [(0,)]


def test_a_dashboard_can_list_and_show_and_nothing_else(parts: GrantedRoles, app_for: Callable[[str], Pgflow]) -> None:
    app_for("worker").register()
    app_for("client").start(Journey, "a", Trip())
    dsn = parts.dsn("dashboard")

    def pgflow(*arguments: str) -> Any:
        done = CliRunner().invoke(cli, [*arguments, "--dsn", dsn, "--json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.output)

    assert "journey::a" in json.dumps(pgflow("list", "Journey"))
    assert "journey::a" in json.dumps(pgflow("show", "Journey", "a"))
    assert "journey::a" in json.dumps(pgflow("jobs", "Journey"))
    assert pgflow("migrate", "--status")["up_to_date"]
    refused = CliRunner().invoke(cli, ["cancel", "Journey", "a", "--dsn", dsn])
    assert refused.exit_code == 3
    assert "permission denied for function cancel" in refused.output
    with connect(dsn, "read") as conn, pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute("update pgflow.instances set status = 'failed'")
