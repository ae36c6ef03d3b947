"""Middleware runs around every attempt of a step: sync, async and transactional ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from datetime import timedelta
from threading import Event
from typing import Any

import pytest

from pgflow import (
    Context,
    Done,
    Error,
    Middleware,
    Ok,
    Pgflow,
    Proceed,
    Result,
    Retry,
    Snooze,
    StepCall,
    Unique,
    Workflow,
    step,
)
from pgflow.database.connect import Connection
from pgflow.errors import ConfigError
from tests.worker.conftest import Work
from tests.worker.db_helpers import leftovers, one, until_status
from tests.worker.waiting import PATIENCE, until

Input = dict[str, Any]
QUICKLY = Retry(max_attempts=3, base=timedelta(milliseconds=10))
TRACE: ContextVar[str] = ContextVar("TRACE", default="unset")


class Hostile(Exception):
    """An exception whose text cannot be read."""

    def __str__(self) -> str:
        raise SystemExit("not even that")


ERRORS: dict[str, Callable[[], BaseException]] = {
    "ValueError": lambda: ValueError("no"),
    "StopIteration": lambda: StopIteration("no"),
    "SystemExit": lambda: SystemExit("no"),
    "KeyboardInterrupt": lambda: KeyboardInterrupt("no"),
    "CancelledError": lambda: asyncio.CancelledError("no"),
    "Hostile": Hostile,
}
seen: list[Any] = []
begun = Event()


def body(ctx: Context[Input]) -> Ok:
    """Report the context variable, and raise in the attempts that are to fail."""
    if ctx.attempt <= ctx.initial.get("failures", 0):
        raise ERRORS[ctx.initial["error"]]()
    if ctx.conn is not None:
        return Ok("done")  # the write is the middleware's
    return Ok("done", {"trace": TRACE.get()})


@step(retry=QUICKLY)
def sync_step(ctx: Context[Input]) -> Ok:
    seen.append((ctx.step, TRACE.get()))
    return body(ctx)


@step(retry=QUICKLY)
async def async_step(ctx: Context[Input]) -> Ok:
    seen.append((ctx.step, TRACE.get()))
    return body(ctx)


@step(retry=QUICKLY, transactional=True)
def sync_books(ctx: Context[Input]) -> Ok:
    seen.append((ctx.step, TRACE.get()))
    return body(ctx)


@step(retry=QUICKLY, transactional=True)
async def async_books(ctx: Context[Input]) -> Ok:
    seen.append((ctx.step, TRACE.get()))
    return body(ctx)


@step(retry=QUICKLY, max_runtime=timedelta(seconds=0.3))
async def slow(ctx: Context[Input]) -> Ok:
    begun.set()
    await asyncio.sleep(PATIENCE if ctx.attempt == 1 else 0)
    return Ok("done")


@step
async def endless(ctx: Context[Input]) -> Ok:
    begun.set()
    await asyncio.sleep(PATIENCE)
    return Ok("done")


class Sync(Workflow[Input], unique=Unique("sync")):
    initial = sync_step
    transitions = {sync_step: {"done": Done}}


class Async(Workflow[Input], unique=Unique("async")):
    initial = async_step
    transitions = {async_step: {"done": Done}}


class Books(Workflow[Input], unique=Unique("books")):
    initial = sync_books
    transitions = {sync_books: {"done": Done}}


class AsyncBooks(Workflow[Input], unique=Unique("abooks")):
    initial = async_books
    transitions = {async_books: {"done": Done}}


class Slow(Workflow[Input], unique=Unique("slow")):
    initial = slow
    transitions = {slow: {"done": Done}}


class Endless(Workflow[Input], unique=Unique("endless")):
    initial = endless
    transitions = {endless: {"done": Done}}


WORKFLOWS = (Sync, Async, Books, AsyncBooks, Slow, Endless)
plain = pytest.mark.parametrize("kind", [Sync, Async], ids=lambda kind: kind.name)
transactional = pytest.mark.parametrize("kind", [Books, AsyncBooks], ids=lambda kind: kind.name)
every = pytest.mark.parametrize("kind", [Sync, Async, Books, AsyncBooks], ids=lambda kind: kind.name)


@pytest.fixture(autouse=True)
def clean(app: Pgflow, conn: Connection) -> Iterator[None]:
    seen.clear()
    begun.clear()
    conn.execute("create table if not exists audit_log (value text)")
    conn.execute("delete from audit_log")
    yield
    assert leftovers(conn) == {}


def named(name: str) -> Middleware:
    """Return middleware that notes its name before and after the step."""

    async def note(call: StepCall, proceed: Proceed) -> Result:
        seen.append(f"{name} before")
        try:
            return await proceed()
        finally:
            seen.append(f"{name} after")

    return note


async def tracing(call: StepCall, proceed: Proceed) -> Result:
    """Set a context variable for the time of the step, as a tracing library does."""
    token = TRACE.set(f"trace of {call.ctx.value}")
    try:
        return await proceed()
    finally:
        TRACE.reset(token)


async def noting_errors(call: StepCall, proceed: Proceed) -> Result:
    """Note what the step raises."""
    try:
        return await proceed()
    except BaseException as error:
        seen.append(error)
        raise


async def auditing(call: StepCall, proceed: Proceed) -> Result:
    """Write in the transaction of the step."""
    result = await proceed()
    inserted = call.ctx.conn.execute("insert into audit_log (value) values (%s)", [call.ctx.value])
    if hasattr(inserted, "__await__"):
        await inserted
    if call.ctx.attempt <= call.ctx.initial.get("refusals", 0):
        raise ValueError("refused after the step")
    return result


@every
def test_the_first_is_the_outermost_and_each_sees_where_the_step_runs(work: Work, kind: type[Workflow[Any]]) -> None:
    calls: list[StepCall] = []

    async def noting(call: StepCall, proceed: Proceed) -> Result:
        calls.append(call)
        return await proceed()

    inside = work(middleware=[named("a"), named("b"), noting])
    kind.start("v", {})
    until_status(kind, "v", "completed")
    assert [each for each in seen if isinstance(each, str)] == ["a before", "b before", "b after", "a after"]
    (call,) = calls
    assert (call.queue, call.worker) == ("default", inside.worker.settler.worker)
    assert (call.ctx.value, call.ctx.attempt, call.ctx.step) == ("v", 1, kind.graph.initial)
    assert call.step is kind.graph.nodes[kind.graph.initial].step
    assert (call.ctx.conn is not None) == call.step.transactional


@every
def test_context_variables_reach_the_step_and_no_other(work: Work, kind: type[Workflow[Any]]) -> None:
    work({"default": 1}, middleware=[tracing])
    for value in ("a", "b"):
        kind.start(value, {})
        until_status(kind, value, "completed")
    key = kind.graph.initial
    assert seen == [(key, "trace of a"), (key, "trace of b")]


@every
@pytest.mark.parametrize("name", ERRORS)
def test_it_sees_what_a_step_raises_and_the_attempt_fails_as_without_it(
    work: Work, kind: type[Workflow[Any]], name: str
) -> None:
    work(middleware=[noting_errors])
    kind.start("v", {"failures": 1, "error": name})
    (entry,) = until_status(kind, "v", "completed").history
    (error,) = (each for each in seen if isinstance(each, BaseException))
    is_wrapped = name == "StopIteration"  # by Python, in a coroutine
    cause = error.__cause__ if is_wrapped else error
    assert type(cause).__name__ == name
    (failed,) = entry.errors
    runs_in_thread = not kind.graph.nodes[kind.graph.initial].step.is_async
    assert failed["type"] == (name if runs_in_thread or not is_wrapped else "RuntimeError")
    assert "in body" in failed["trace"]
    assert not (runs_in_thread and "noting_errors" in failed["trace"]), "that of a thread is taken there"


@every
def test_it_can_replace_a_result(work: Work, kind: type[Workflow[Any]]) -> None:
    async def replacing(call: StepCall, proceed: Proceed) -> Result:
        await proceed()
        return Ok("done", {"by": "middleware"}) if call.ctx.attempt > 1 else Error("once more")

    work(middleware=[replacing])
    kind.start("v", {})
    (entry,) = until_status(kind, "v", "completed").history
    assert entry.output == {"by": "middleware"}
    assert [error["reason"] for error in entry.errors] == ["once more"]


@plain
def test_it_can_turn_an_exception_into_a_result_and_skip_the_step(work: Work, kind: type[Workflow[Any]]) -> None:
    async def forgiving(call: StepCall, proceed: Proceed) -> Result:
        if call.ctx.initial.get("skip"):
            return Ok("done", "skipped")
        try:
            return await proceed()
        except ValueError:
            return Ok("done", "forgiven")

    work(middleware=[forgiving])
    kind.start("a", {"failures": 9, "error": "ValueError"})
    kind.start("b", {"skip": True})
    assert until_status(kind, "a", "completed").history[0].output == "forgiven"
    assert until_status(kind, "b", "completed").history[0].output == "skipped"
    assert len(seen) == 1


@plain
def test_it_can_run_a_step_again(work: Work, kind: type[Workflow[Any]]) -> None:
    async def insisting(call: StepCall, proceed: Proceed) -> Result:
        await proceed()
        return await proceed()

    work(middleware=[insisting])
    kind.start("v", {})
    assert until_status(kind, "v", "completed").history[0].attempt == 1
    assert len(seen) == 2


@every
@pytest.mark.parametrize("name", ERRORS)
def test_one_that_raises_fails_the_attempt(work: Work, kind: type[Workflow[Any]], name: str) -> None:
    async def broken(call: StepCall, proceed: Proceed) -> Result:
        if call.ctx.attempt == 1:
            raise ERRORS[name]()
        return await proceed()

    work(middleware=[broken])
    kind.start("v", {})
    (entry,) = until_status(kind, "v", "completed").history
    assert [error["type"] for error in entry.errors] == ["RuntimeError" if name == "StopIteration" else name]
    assert len(seen) == 1, "the step ran in the second attempt only"


@every
def test_what_is_not_a_result_fails_the_step(work: Work, kind: type[Workflow[Any]]) -> None:
    async def careless(call: StepCall, proceed: Proceed) -> Any:
        await proceed()

    work(middleware=[careless])
    kind.start("v", {})
    failed = until_status(kind, "v", "failed").error
    assert failed is not None
    assert failed["reason"].endswith("returned NoneType; a step returns Ok, Async, Error or Snooze")


def test_one_that_is_not_async_fails_the_step_and_not_the_worker(work: Work) -> None:
    def careless(call: StepCall, proceed: Proceed) -> Any:
        return None

    work(middleware=[careless])
    Sync.start("v", {})
    failed = until_status(Sync, "v", "failed").error
    assert failed is not None
    assert failed["type"] == "TypeError"


@plain
def test_a_snooze_and_other_results_pass_through(work: Work, kind: type[Workflow[Any]]) -> None:
    async def snoozing(call: StepCall, proceed: Proceed) -> Result:
        result = await proceed()
        return result if len(seen) > 1 else Snooze(timedelta(milliseconds=1))

    work(middleware=[snoozing])
    kind.start("v", {})
    (entry,) = until_status(kind, "v", "completed").history
    assert (entry.attempt, entry.errors) == (1, ())


@transactional
def test_it_writes_in_the_transaction_of_a_transactional_step(
    work: Work, conn: Connection, kind: type[Workflow[Any]]
) -> None:
    work(middleware=[auditing])
    kind.start("v", {"refusals": 1})
    (entry,) = until_status(kind, "v", "completed").history
    assert [error["reason"] for error in entry.errors] == ["refused after the step"]
    assert one(conn, "select count(*) from audit_log") == 1, "the write of the failed attempt is rolled back"


def test_the_end_of_max_runtime_reaches_it_as_a_cancellation(work: Work) -> None:
    work(middleware=[noting_errors])
    Slow.start("v", {})
    (entry,) = until_status(Slow, "v", "completed").history
    assert [type(error) for error in seen] == [asyncio.CancelledError]
    assert [error["type"] for error in entry.errors] == ["TimeoutError"]


def test_a_cancel_reaches_it_and_one_that_swallows_it_changes_nothing(work: Work) -> None:
    async def swallowing(call: StepCall, proceed: Proceed) -> Result:
        try:
            return await proceed()
        except asyncio.CancelledError:
            seen.append("cancelled")
            return Ok("done")

    inside = work(middleware=[swallowing])
    Endless.start("v", {})
    assert begun.wait(PATIENCE)
    Endless.cancel("v")
    until(lambda: seen == ["cancelled"], "the cancellation")
    until(lambda: not inside.worker.held_jobs.jobs, "the release of the job")
    assert Endless.get("v").status == "cancelled"
    assert Endless.get("v").history == ()


def test_an_app_passes_its_middleware_to_its_workers(app: Pgflow, dsn: str) -> None:
    traced = Pgflow(dsn, workflows=[Sync], middleware=[tracing])
    Sync.start("v", {})
    traced.run_worker(drain=True)
    traced.close()
    assert until_status(Sync, "v").history[0].output == {"trace": "trace of v"}


def test_what_cannot_be_called_is_refused() -> None:
    wrong: Any = "log"
    with pytest.raises(ConfigError, match="middleware must be async functions, got str"):
        Pgflow("postgresql://", middleware=[wrong])
