"""The workflows of groups I and R, and workers that a test steps by hand, to control every interleaving."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Any

from pgflow import Context, Done, Ok, Retry, Unique, Wait, WaitForEvent, Workflow, step
from pgflow.database.connect import Connection, connect
from pgflow.database.statement import run
from pgflow.store import job
from tests.conformance.conftest import OnPostgres
from tests.store.driver import Driver
from tests.worker.waiting import until

__all__ = ["CALLS", "WORKFLOWS", "Asking", "Input", "Line", "ManualWorkers", "Mixed", "Paused", "Three"]

Input = dict[str, Any]
TWICE = Retry(max_attempts=2, base=timedelta(0), jitter=0)
CALLS: list[str] = []  # each run of a step, as "value.step"


def act(ctx: Context[Input]) -> Ok:
    """Record that the step ran; fail if the input names this step."""
    CALLS.append(f"{ctx.value}.{ctx.step}")
    if ctx.initial.get("fails") == ctx.step:
        raise RuntimeError("fails")
    return Ok("ok", {"by": ctx.step, "value": ctx.value})


@step(events=("ok",))
def first(ctx: Context[Input]) -> Ok:
    return act(ctx)


@step(events=("ok",))
def second(ctx: Context[Input]) -> Ok:
    return act(ctx)


@step(events=("ok",))
def third(ctx: Context[Input]) -> Ok:
    return act(ctx)


@step(events=("ok",))
def west(ctx: Context[Input]) -> Ok:
    return act(ctx)


@step(events=("ok",))
def east(ctx: Context[Input]) -> Ok:
    return act(ctx)


@step(events=("ok",))
def north(ctx: Context[Input]) -> Ok:
    return act(ctx)


@step(events=("ok",))
def join(ctx: Context[Input]) -> Ok:
    assert set(ctx.steps) >= {"west", "east", "north"}
    return act(ctx)


@step(events=("ok",))
def close(ctx: Context[Input]) -> Ok:
    return act(ctx)


answer = WaitForEvent("answered", timeout=timedelta(hours=1)).named("answer")
word = WaitForEvent("word").named("word")
hour = Wait(timedelta(hours=1)).named("hour")


class Line(Workflow[Input], unique=Unique("line"), retry=TWICE):
    """Three steps in a row."""

    initial = first
    transitions = {first: {"ok": second}, second: {"ok": third}, third: {"ok": Done}}


class Three(Workflow[Input], unique=Unique("three"), retry=TWICE):
    """Three branches that join; their names are not in the order in which they were declared."""

    initial = first
    transitions = {
        first: {"ok": [west, east, north]},
        west: {"ok": join},
        east: {"ok": join},
        north: {"ok": join},
        join: {"ok": Done},
    }


class Asking(Workflow[Input], unique=Unique("asking"), retry=TWICE):
    """A step, a wait for a signal or an hour, a step."""

    initial = first
    transitions = {first: {"ok": answer}, answer: {"received": close, "timeout": close}, close: {"ok": Done}}


class Mixed(Workflow[Input], unique=Unique("mixed"), retry=TWICE):
    """A wait beside a branch of two steps."""

    initial = first
    transitions = {
        first: {"ok": [word, second]},
        second: {"ok": third},
        third: {"ok": close},
        word: {"received": close},
        close: {"ok": Done},
    }


class Paused(Workflow[Input], unique=Unique("paused"), retry=TWICE):
    """A timer of an hour beside a step."""

    initial = first
    transitions = {
        first: {"ok": [hour, second]},
        hour: {"timeout": close},
        second: {"ok": close},
        close: {"ok": Done},
    }


WORKFLOWS = (Line, Three, Asking, Mixed, Paused)


class ManualWorkers:
    """A database with these workflows, and workers that act only when the test calls them."""

    def __init__(self, stack: OnPostgres, ends: ExitStack) -> None:
        CALLS.clear()
        self.stack = stack
        self.app = stack.idle(*WORKFLOWS)
        self._ends = ends
        self.conn = self.connect()
        self._threads = ends.enter_context(ThreadPoolExecutor(1))

    def connect(self) -> Connection:
        """Return another connection, which commits each statement outside a transaction."""
        return self._ends.enter_context(connect(self.stack.dsn, "test"))

    def worker(self, *, room: int = 100) -> Driver:
        """Return another worker."""
        return Driver(self.connect(), WORKFLOWS, room=room)

    def forked(self, value: str, **given: Any) -> tuple[Driver, Driver, Driver]:
        """Return three workers, each with one branch of an instance of Three: west, east, north."""
        workers = self.worker(), self.worker(), self.worker()
        Three.start(value, given)
        self.step(workers[0])
        for worker in workers:
            assert worker.claim(1) == 1
        steps = [held.step for worker in workers for held in worker.held_jobs.jobs.values()]
        assert steps == ["west", "east", "north"]
        return workers

    def step(self, worker: Driver) -> None:
        """Let a worker claim the ready jobs, run and settle them, and keep none."""
        worker.settler.is_draining = True
        worker.claim()
        worker.run_steps()
        worker.settle()
        worker.settler.is_draining = False

    def end(self, worker: Driver) -> None:
        """Let a worker run and settle its jobs, and apply results that a faster sibling left unapplied."""
        worker.run_steps()
        worker.settle()
        worker.turn()
        worker.settle()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Yield another connection in a transaction that is committed at the end."""
        conn = self.connect()
        with conn.transaction():
            yield conn

    def aside(self, call: Callable[[], Any]) -> Future[Any]:
        """Make a call in another thread, and return once it waits for a lock or has finished."""
        waits = """select count(*) from pg_stat_activity
            where datname = current_database() and wait_event_type = 'Lock'"""
        future = self._threads.submit(call)
        until(lambda: future.done() or self.one(waits), "the lock", pause=0.005)
        return future

    def die(self, worker: Driver) -> None:
        """Expire a worker's lease, and rescue its jobs."""
        self.conn.execute(
            "update pgflow.workers set lease_expires_at = pgflow.now() where id = %s", [worker.settler.worker]
        )
        run(self.conn, job.rescue("pgflow"))

    def finish(self, *workers: Driver) -> None:
        """Let workers, by default a new one, continue until all remaining jobs are parked."""
        chosen = workers or (self.worker(),)
        for _ in range(40):
            self.conn.execute("update pgflow.jobs set run_at = pgflow.now() where state = 'scheduled'")
            held = [worker.turn() for worker in chosen]
            if not any(held) and not self.one("select count(*) from pgflow.jobs where state <> 'parked'"):
                return
        raise AssertionError(f"jobs remain: {self.jobs()}")

    def rows(self, query: str, *params: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        return self.conn.execute(query.encode(), params).fetchall()

    def one(self, query: str, *params: Any) -> Any:
        """Return the first value of a query's first row."""
        return self.rows(query, *params)[0][0]

    def jobs(self) -> list[tuple[Any, ...]]:
        """Return step, kind, state and attempt of all jobs."""
        return self.rows("select step, kind, state, attempt from pgflow.jobs order by id")

    def results(self, *, applied: bool = True) -> list[str]:
        """Return the steps with a recorded result, in order: the applied ones, or the unapplied ones."""
        query = "select step from pgflow.step_results where applied = %s order by seq"
        return [name for (name,) in self.rows(query, applied)]

    def check(self, workflow: type[Workflow[Any]], value: str, *steps: str, status: str = "completed") -> None:
        """Assert that the instance has this status, each step ran and was recorded once, and no rows are left."""
        seen = workflow.get(value)
        history = [entry.step for entry in seen.history]
        assert (seen.status, sorted(history)) == (status, sorted(steps))
        ran = [call.partition(".")[2] for call in CALLS if call.partition(".")[0] == value]
        assert sorted(ran) == sorted(name for name in steps if name not in ("answer", "word", "hour"))
        assert self.rows("select step, state from pgflow.jobs where run = %s", seen.run) == []
        unapplied = "select step from pgflow.step_results where run = %s and not applied"
        assert self.rows(unapplied, seen.run) == []
