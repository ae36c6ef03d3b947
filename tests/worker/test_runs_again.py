"""One worker object runs again, whatever ended the run before, and never twice at a time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from datetime import timedelta
from itertools import count
from typing import Any

import pytest

from pgflow import Context, Done, Ok, Pgflow, Unique, Workflow, step
from pgflow.database.connect import Connection
from pgflow.errors import BadDsn, Conflict, SchemaMissing, Unreachable
from pgflow.worker import Worker
from tests.conftest import Server
from tests.worker.db_helpers import leftovers, one, rows
from tests.worker.thread_worker import BRISK
from tests.worker.waiting import PATIENCE, until

Input = dict[str, Any]
GO: dict[str, threading.Event] = {}
BEGUN: list[tuple[str, int]] = []
VALUES = (f"v{number}" for number in count(1))


def note(ctx: Context[Input]) -> None:
    BEGUN.append((ctx.value, ctx.attempt))


@step
def work(ctx: Context[Input]) -> Ok:
    note(ctx)
    if ctx.value in GO:
        GO[ctx.value].wait(PATIENCE)
    return Ok("done")


@step
async def work_async(ctx: Context[Input]) -> Ok:
    note(ctx)
    if ctx.value in GO:
        await asyncio.to_thread(GO[ctx.value].wait, PATIENCE)
    return Ok("done")


@step(transactional=True)
def book(ctx: Context[Input]) -> Ok:
    ctx.conn.execute("select 1")
    return Ok("done")


@step(transactional=True)
async def book_async(ctx: Context[Input]) -> Ok:
    await ctx.conn.execute("select 1")
    return Ok("done")


class Sync(Workflow[Input], unique=Unique("sync")):
    """A sync step, and transactional ones of both kinds: each uses something of its own of the run."""

    initial = work
    transitions = {work: {"done": book}, book: {"done": book_async}, book_async: {"done": Done}}


class Awaited(Workflow[Input], unique=Unique("awaited")):
    """An async step."""

    initial = work_async
    transitions = {work_async: {"done": Done}}


WORKFLOWS = (Sync, Awaited)
End = Callable[[Worker], Coroutine[Any, Any, None]]


def start(kind: type[Workflow[Input]] = Sync, *, is_held: bool = False) -> str:
    value = next(VALUES)
    if is_held:
        GO[value] = threading.Event()
    kind.start(value, {})
    return value


async def has_begun(value: str, attempts: int = 1) -> None:
    await asyncio.to_thread(until, lambda: [name for name, _ in BEGUN].count(value) >= attempts, "the step has begun")


async def has_completed(kind: type[Workflow[Input]], value: str) -> None:
    await asyncio.to_thread(until, lambda: kind.get(value).status == "completed", f"{value} has completed")


async def by_stop(worker: Worker) -> None:
    """Run a worker, let it complete an instance, stop it."""
    running = asyncio.create_task(worker.run())
    await has_completed(Sync, start())
    worker.stop()
    await running


async def by_drain(worker: Worker) -> None:
    worker._drains = True
    start()
    await worker.run()
    worker._drains = False


async def by_cancel(worker: Worker) -> None:
    running = asyncio.create_task(worker.run())
    await has_completed(Sync, start())
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def by_cancel_at_the_start(worker: Worker) -> None:
    running = asyncio.create_task(worker.run())
    await asyncio.sleep(0)  # it has begun to connect
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def by_stop_at_the_start(worker: Worker) -> None:
    running = asyncio.create_task(worker.run())
    await asyncio.sleep(0)
    worker.stop()
    await running


async def by_stop_before_it_runs(worker: Worker) -> None:
    worker.stop()
    await asyncio.wait_for(worker.run(), PATIENCE)


async def by_bad_dsn(worker: Worker) -> None:
    known, worker.dsn = worker.dsn, "host=/nowhere dbname=x"
    with pytest.raises((Unreachable, BadDsn)):
        await worker.run()
    worker.dsn = known


ENDS: list[End] = [
    by_stop, by_drain, by_cancel, by_cancel_at_the_start, by_stop_at_the_start, by_stop_before_it_runs, by_bad_dsn,
]  # fmt: skip


@pytest.fixture
def worker(app: Pgflow) -> Worker:
    return app.worker({"default": 5}, **BRISK)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("is_same_loop", [True, False])
def test_a_worker_runs_again_after(worker: Worker, conn: Connection, end: End, is_same_loop: bool) -> None:
    async def both() -> None:
        await end(worker)
        await by_stop(worker)
        await by_stop(worker)

    if is_same_loop:
        asyncio.run(both())
    else:
        asyncio.run(end(worker))
        asyncio.run(by_stop(worker))
        asyncio.run(by_stop(worker))
    assert rows(conn, "select status, count(*) from pgflow.instances where status <> 'completed' group by 1") == []
    assert one(conn, "select count(*) from pgflow.step_results where attempt > 1") == 0
    assert one(conn, "select count(*) from pgflow.workers where lease_expires_at > now()") == 0
    assert leftovers(conn) == {}
    assert worker.abandoned == 0
    assert worker.stats.steps >= 6, "counters go on over all runs"
    assert worker.readiness_error() == "it is not running"
    assert worker.liveness_error() is None


def test_a_worker_runs_once_the_schema_is_there(server: Server, new_database: Callable[..., str]) -> None:
    app = Pgflow(new_database(server), workflows=WORKFLOWS)
    worker = app.worker({"default": 5}, **BRISK)

    async def run() -> None:
        for _ in range(2):
            with pytest.raises(SchemaMissing):
                await worker.run()
        await asyncio.to_thread(app.migrate)
        await app.aregister()
        await by_stop(worker)
        await app.aclose()

    asyncio.run(run())


def test_it_runs_again_in_another_thread(worker: Worker) -> None:
    asyncio.run(by_stop(worker))
    errors: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(by_stop(worker))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert errors == []


def test_each_run_has_a_readiness_of_its_own(worker: Worker) -> None:
    async def run() -> None:
        running = asyncio.create_task(worker.run())
        ready = worker.is_ready
        assert not ready.is_set()
        await asyncio.wait_for(ready.wait(), PATIENCE)
        assert worker.readiness_error() is None
        worker.stop()
        await running
        assert worker.is_ready is not ready

    asyncio.run(run())
    asyncio.run(run())


def test_it_does_not_run_twice_at_a_time(worker: Worker) -> None:
    async def run() -> None:
        running = asyncio.create_task(worker.run())
        await asyncio.wait_for(worker.is_ready.wait(), PATIENCE)
        with pytest.raises(Conflict, match="running already"):
            await worker.run()
        with pytest.raises(Conflict, match="running already"):
            await asyncio.to_thread(asyncio.run, worker.run())
        await has_completed(Sync, start())  # the first one is not disturbed
        worker.stop()
        await running
        await by_stop(worker)

    asyncio.run(run())


@pytest.mark.parametrize("kind", [Sync, Awaited])
def test_a_cancelled_run_gives_its_steps_back_and_counts_no_crash(
    worker: Worker, conn: Connection, kind: type[Workflow[Input]]
) -> None:
    async def run() -> None:
        value = start(kind, is_held=True)
        for round_ in range(1, 4):
            running = asyncio.create_task(worker.run())
            await has_begun(value, round_)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            states = await asyncio.to_thread(rows, conn, "select state, attempt, crashes from pgflow.jobs")
            assert states == [("ready", 0, 0)]
        GO[value].set()
        running = asyncio.create_task(worker.run())
        await has_completed(kind, value)
        worker.stop()
        await running

    asyncio.run(run())
    assert one(conn, "select max(attempt) from pgflow.step_results") == 1
    assert leftovers(conn) == {}


def test_a_step_that_a_run_left_behind_does_not_touch_the_next_one(app: Pgflow, conn: Connection) -> None:
    worker = app.worker({"default": 5}, **{**BRISK, "shutdown_timeout": timedelta(0)})

    async def run() -> None:
        value = start(is_held=True)
        running = asyncio.create_task(worker.run())
        await has_begun(value)
        worker.stop()
        await running
        assert worker.abandoned == 1
        again = asyncio.create_task(worker.run())
        await has_begun(value, 2)
        GO[value].set()  # both end now: the thread of the first run, and the second one
        await has_completed(Sync, value)
        worker.stop()
        await again

    asyncio.run(run())
    assert worker.abandoned == 0
    slots = {(buffer.running, buffer.settling, buffer.waiting) for buffer in worker.held_jobs.buffers.values()}
    assert slots == {(0, 0, 0)}
    assert leftovers(conn) == {}


def test_a_workflow_that_is_adopted_stays_known(app: Pgflow, dsn: str) -> None:
    worker = Worker(dsn, [Awaited], queues={"default": 5})

    async def run() -> None:
        worker.adopt(Sync)
        await by_stop(worker)
        await by_stop(worker)

    asyncio.run(run())


def test_cancelled_again_and_again_under_load_nothing_is_lost(worker: Worker, conn: Connection) -> None:
    """Cut off at any point, also in the middle of a claim."""
    Sync.start_many([(next(VALUES), {}) for _ in range(300)])

    async def run() -> None:
        for number in range(25):
            running = asyncio.create_task(worker.run())
            await asyncio.wait_for(worker.is_ready.wait(), PATIENCE)
            for _ in range(number * 4):
                await asyncio.sleep(0)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
        running = asyncio.create_task(worker.run())
        await asyncio.to_thread(until, lambda: not one(conn, "select count(*) from pgflow.jobs"), "all is done")
        worker.stop()
        await running

    asyncio.run(run())
    assert rows(conn, "select status, count(*) from pgflow.instances group by 1") == [("completed", 300)]
    assert one(conn, "select count(*) from pgflow.step_results") == 900
    until(lambda: leftovers(conn) == {}, "nothing is left")
