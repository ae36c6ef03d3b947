"""Progress and checkpoints on PostgreSQL: who may write them, in how many statements, and what survives."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from pgflow import Context, Done, Ok, Pgflow, Retry, Unique, Workflow, step
from pgflow.contrib.encryption import AesGcm
from pgflow.database.connect import Connection
from pgflow.database.statement import run
from pgflow.errors import ConfigError, NotActive
from pgflow.store import job
from tests.store.driver import Driver
from tests.worker.conftest import Work
from tests.worker.db_helpers import everything, one, rows, until_status
from tests.worker.thread_worker import Inside
from tests.worker.waiting import PATIENCE, until

Input = dict[str, Any]
NEVER = timedelta(hours=1)
SOON = timedelta(milliseconds=5)
CANARY = "canary-0815"


class Scene:
    """What the steps find and leave behind."""

    go = threading.Event()
    seen: list[Any] = []


@pytest.fixture(autouse=True)
def scene() -> Iterator[None]:
    Scene.go = threading.Event()
    Scene.seen = []
    yield
    Scene.go.set()


@step
def watch(ctx: Context[Input]) -> Ok:
    ctx.progress(0.5, ctx.value)
    Scene.seen.append("begun")
    while not ctx.cancelled and not Scene.go.wait(0.01):
        ctx.progress(0.5, ctx.value)
    Scene.seen.append(ctx.cancelled)
    return Ok("done")


@step(retry=Retry(max_attempts=1))
def hold(ctx: Context[Input]) -> Ok:
    ctx.checkpoint({"text": CANARY})
    Scene.seen.append("begun")
    assert Scene.go.wait(PATIENCE)
    try:
        ctx.checkpoint("stolen")
    except NotActive as error:
        Scene.seen.append(error)
    return Ok("done")


@step(transactional=True, retry=Retry(max_attempts=2, base=SOON))
def book(ctx: Context[Input]) -> Ok:
    Scene.seen.append(ctx.checkpointed)
    if ctx.attempt == 1:
        ctx.checkpoint("outside of the transaction")
        raise RuntimeError("which is rolled back")
    return Ok("done")


@step(retry=Retry(max_attempts=1))
async def block(ctx: Context[Input]) -> Ok:
    with pytest.raises(ConfigError, match="would block the worker's event loop"):
        ctx.checkpoint(1)
    return Ok("done")


@step(retry=Retry(max_attempts=2, base=SOON))
def secretive(ctx: Context[Input]) -> Ok:
    Scene.seen.append(ctx.checkpointed)
    if ctx.attempt == 1:
        ctx.checkpoint(CANARY)
        raise RuntimeError("once more")
    return Ok("done")


class WatchFlow(Workflow[Input], unique=Unique("watch")):
    initial = watch
    transitions = {watch: {"done": Done}}


class HoldFlow(Workflow[Input], unique=Unique("hold")):
    initial = hold
    transitions = {hold: {"done": Done}}


class BookFlow(Workflow[Input], unique=Unique("book")):
    initial = book
    transitions = {book: {"done": Done}}


class BlockFlow(Workflow[Input], unique=Unique("block")):
    initial = block
    transitions = {block: {"done": Done}}


class SecretFlow(Workflow[Input], unique=Unique("secret")):
    initial = secretive
    transitions = {secretive: {"done": Done}}


WORKFLOWS = (WatchFlow, HoldFlow, BookFlow, BlockFlow, SecretFlow)


def test_a_cancel_is_seen_without_a_notification_and_before_a_sweep(work: Work, conn: Connection) -> None:
    work(listen=False, sweep=NEVER, lease=NEVER, poll=NEVER)
    WatchFlow.start("a", {})
    until(lambda: Scene.seen, "the step")
    conn.execute("select pgflow.cancel('WatchFlow', 'a', notify => false)")
    until(lambda: Scene.seen == ["begun", True], "the cancel")


def test_the_progress_of_all_jobs_is_one_statement_now_and_then(work: Work, conn: Connection) -> None:
    inside = work({"default": 8})
    WatchFlow.start_many([(f"v{number}", {}) for number in range(8)])
    written = "select count(*) from pgflow.jobs where progress ->> 'note' like 'v%%'"
    until(lambda: one(conn, written) == 8, "the progress of all")
    before = inside.worker.stats.round_trips
    version = rows(conn, "select xmin::text from pgflow.jobs")
    until(lambda: inside.worker.stats.round_trips > before + 5, "some more turns")
    assert rows(conn, "select xmin::text from pgflow.jobs") == version  # it has not changed since
    Scene.go.set()
    until(lambda: one(conn, "select count(*) from pgflow.jobs") == 0, "the end")


def test_a_checkpoint_is_fenced_like_a_result(work: Work, conn: Connection) -> None:
    work(sweep=NEVER, lease=NEVER)
    HoldFlow.start("a", {})
    until(lambda: Scene.seen, "the step")
    conn.execute("update pgflow.jobs set attempt = attempt + 1")  # as another worker's claim does
    Scene.go.set()
    until(lambda: len(Scene.seen) == 2, "the refusal")
    assert isinstance(Scene.seen[1], NotActive)
    assert one(conn, "select checkpoint ->> 'text' from pgflow.jobs") == CANARY


def test_a_checkpoint_waits_while_its_row_is_locked(work: Work, conn: Connection) -> None:
    work(sweep=NEVER, lease=NEVER)
    HoldFlow.start("a", {})
    until(lambda: Scene.seen, "the step")
    with conn.transaction():
        conn.execute("select from pgflow.jobs for update")
        Scene.go.set()
        assert one(conn, "select checkpoint ->> 'text' from pgflow.jobs") == CANARY
    until_status(HoldFlow, "a", "completed")
    assert Scene.seen == ["begun"]


def test_a_checkpoint_survives_the_loss_of_its_worker(app: Pgflow, conn: Connection) -> None:
    HoldFlow.start("a", {})
    lost, other = Driver(conn, WORKFLOWS), Driver(conn, WORKFLOWS)
    lost.claim()
    (held,) = lost.held_jobs.jobs.values()
    stored = job.Report(held.id, held.attempt, held.step, None, '{"page": 3}')
    assert run(conn, job.report("pgflow", lost.settler.worker, [stored])) == [held.id]
    conn.execute("update pgflow.workers set lease_expires_at = pgflow.now() where id = %s", [lost.settler.worker])
    run(conn, job.rescue("pgflow"))
    other.claim()
    assert [each.checkpoint for each in other.held_jobs.jobs.values()] == ['{"page": 3}']
    assert run(conn, job.report("pgflow", lost.settler.worker, [stored._replace(checkpoint="4")])) == []


def test_a_checkpoint_of_a_transactional_step_outlives_the_rollback(work: Work) -> None:
    work()
    BookFlow.start("a", {})
    until_status(BookFlow, "a", "completed")
    assert Scene.seen == [None, "outside of the transaction"]


def test_an_async_step_learns_how_to_store_a_checkpoint(work: Work) -> None:
    work()
    BlockFlow.start("a", {})
    until_status(BlockFlow, "a", "completed")


def test_a_worker_that_stops_still_stores_the_checkpoints_of_its_last_steps(work: Work, conn: Connection) -> None:
    inside = work()
    HoldFlow.start("a", {})
    until(lambda: Scene.seen, "the step")
    inside.call(inside.worker.stop)
    Scene.go.set()
    until_status(HoldFlow, "a", "completed")
    assert Scene.seen == ["begun"]


def test_a_checkpoint_is_encrypted(dsn: str, conn: Connection) -> None:
    app = Pgflow(dsn, workflows=[SecretFlow], codec=AesGcm({"k": b"k" * 32}, current="k"))
    app.register()
    with Inside(app):
        conn.execute("update pgflow.jobs set priority = 0")
        SecretFlow.start("a", {})
        until_status(SecretFlow, "a", "completed")
        assert CANARY not in everything(conn)
    app.close()
    assert Scene.seen == [None, CANARY]
