"""Group I: the durable runner, whose jobs and results are rows that a test can read and change."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import Any

import psycopg
import pytest

from pgflow import Async, Context, Done, Ok, Pgflow, Retry, Step, Unique, WaitForEvent, Workflow, route, step, telemetry
from pgflow.core.definition.retry import Backoff
from pgflow.database.connect import connect
from pgflow.database.statement import run
from pgflow.errors import InvalidPayload, NotActive
from pgflow.store import job
from tests.acceptance.pages import README, Workspace
from tests.conformance.conftest import TABLES, OnPostgres
from tests.conformance.killed_worker import Errands, Spread
from tests.conformance.manual_workers import CALLS, TWICE, Asking, Input, Line, ManualWorkers, Mixed, Three, act
from tests.conftest import VERSIONS, Server
from tests.store.driver import Driver
from tests.worker.processes import Process, Processes
from tests.worker.waiting import BUSY, PATIENCE, until

THREE = ("first", "west", "east", "north", "join")
NEWEST = VERSIONS[0] if VERSIONS else None
BRIEFLY = timedelta(milliseconds=300)


@pytest.fixture
def workers(postgres: OnPostgres) -> Iterator[ManualWorkers]:
    """Manual workers on each PostgreSQL in turn."""
    with ExitStack() as ends:
        yield ManualWorkers(postgres, ends)


@pytest.fixture
def newest(installed: Callable[[int | None], str]) -> Iterator[OnPostgres]:
    """Only the newest PostgreSQL, for slow tests."""
    dsn = installed(NEWEST)
    try:
        with ExitStack() as ends:
            yield OnPostgres(dsn, ends)
    finally:
        with connect(dsn, "test") as conn:
            for table in TABLES:
                conn.execute(f"delete from pgflow.{table}".encode())  # noqa: S608 -- the names are constants


class Gate:
    """A barrier between the steps of a running worker and the test."""

    begun = Event()
    go = Event()
    interrupted = Event()


@pytest.fixture(autouse=True)
def gate() -> None:
    """Close the gate, and clear the calls."""
    for event in (Gate.begun, Gate.go, Gate.interrupted):
        event.clear()
    CALLS.clear()


# -- the workflows of this group alone


@step(events=("ok",))
def start_(ctx: Context[Input]) -> Ok:
    return act(ctx)


@step(events=("ok",), queue="post")
def mail(ctx: Context[Input]) -> Ok:
    return act(ctx)


class Pack(Step):
    """A step with a configuration."""

    events = ("ok",)
    retry = Retry(max_attempts=7)
    boxes: int

    def execute(self, ctx: Context[Input]) -> Ok:
        return act(ctx)


@step(events=("ok",))
def held(ctx: Context[Input]) -> Ok:
    Gate.begun.set()
    assert Gate.go.wait(PATIENCE)
    return act(ctx)


@step(events=("ok",))
async def lingering(ctx: Context[Input]) -> Ok:
    Gate.begun.set()
    try:
        await asyncio.Event().wait()
    finally:
        Gate.interrupted.set()
    return act(ctx)


@step(events=("ok",))
def doomed(ctx: Context[Input]) -> Ok:
    assert Gate.begun.wait(PATIENCE)
    return act(ctx)


@step(events=("ok",))
def end(ctx: Context[Input]) -> Ok:
    return act(ctx)


@step(events=("yes", "no"))
def ask_ann(ctx: Context[Input]) -> Async:
    CALLS.append(f"{ctx.value}.{ctx.step}")
    return Async()


@step(events=("yes", "no"))
def ask_bob(ctx: Context[Input]) -> Async:
    CALLS.append(f"{ctx.value}.{ctx.step}")
    return Async()


pack = Pack(boxes=3)
brief = WaitForEvent("word", timeout=BRIEFLY).named("brief")
word = WaitForEvent("word").named("word")


class Sending(Workflow[Input], unique=Unique("sending"), retry=TWICE, priority=-2):
    """Two branches: one in a queue of its own, one with a configuration."""

    initial = start_
    transitions = {start_: {"ok": [mail, pack]}, mail: {"ok": end}, pack: {"ok": end}, end: {"ok": Done}}


class Slow(Workflow[Input], unique=Unique("slow"), retry=TWICE):
    """A branch that the test delays, next to two fast ones."""

    initial = start_
    transitions = {
        start_: {"ok": [held, mail, pack]},
        held: {"ok": end},
        mail: {"ok": end},
        pack: {"ok": end},
        end: {"ok": Done},
    }


class Doomed(Workflow[Input], unique=Unique("doomed"), retry=TWICE):
    """A branch that fails, one that would run forever, and one that waits."""

    initial = start_
    transitions = {
        start_: {"ok": [doomed, lingering, word]},
        doomed: {"ok": end},
        lingering: {"ok": end},
        word: {"received": end},
        end: {"ok": Done},
    }


class Brief(Workflow[Input], unique=Unique("brief"), retry=TWICE):
    """A wait of some tenths of a second."""

    initial = brief
    transitions = {brief: {"received": end, "timeout": end}, end: {"ok": Done}}


class HeldUp(Workflow[Input], unique=Unique("heldup"), retry=TWICE):
    """A step that the test delays, followed by a wait."""

    initial = held
    transitions = {held: {"ok": ask_ann}, ask_ann: {"yes": end, "no": end}, end: {"ok": Done}}


class Polling(Workflow[Input], unique=Unique("polling"), retry=TWICE):
    """Two waits for signals of the same names."""

    initial = start_
    transitions = {
        start_: {"ok": [ask_ann, ask_bob]},
        ask_ann: {"yes": end, "no": end},
        ask_bob: {"yes": end, "no": end},
        end: {"ok": Done},
    }


def stray(ctx: Context[Input]) -> Any:
    """Choose an undeclared target, or none."""
    if ctx.initial["how"] == "raises":
        raise LookupError("no way")
    return start_


@step(events=("ok", "routed"))
def guide(ctx: Context[Input]) -> Ok:
    act(ctx)
    return Ok("unheard_of" if ctx.initial["how"] == "event" else "routed")


class Guided(Workflow[Input], unique=Unique("guided"), retry=TWICE):
    """A step with a wrong event or route."""

    initial = guide
    transitions = {guide: {"ok": Done, "routed": route(stray, end, mail)}, end: {"ok": Done}, mail: {"ok": Done}}


# -- tokens and results


def test_i1_a_start_commits_the_instance_and_its_first_job(workers: ManualWorkers) -> None:
    """I1: a start stores the instance and its first job in one transaction, the caller's if given."""
    count = "select (select count(*) from pgflow.instances), (select count(*) from pgflow.jobs)"
    conn = workers.connect()
    conn.execute("begin")
    Line.start("v", conn=conn)
    Line.start_many([("w", {}), ("x", {})], conn=conn)
    assert workers.rows(count) == [(0, 0)]
    conn.execute("commit")
    assert workers.rows(count) == [(3, 3)]
    with pytest.raises(InvalidPayload):
        Line.start_many([("y", {}), ("z", {"what": object()})])
    assert workers.rows(count) == [(3, 3)]
    together = """select count(distinct t.xmin::text)
        from (select xmin from pgflow.instances union all select xmin from pgflow.jobs) t"""
    assert workers.one(together) == 1


def test_i2_each_active_step_has_a_job_with_all_it_needs(postgres: OnPostgres) -> None:
    """I2: a fan-out creates a job for each active step, with queue, priority, attempts and configuration."""
    postgres.idle(Sending)
    Sending.start("v")
    query = "select step, kind, queue, priority, max_attempts, config from pgflow.jobs order by step"
    assert postgres.rows(query) == [("start_", "execute", "default", -2, 2, None)]
    with psycopg.connect(postgres.dsn, autocommit=True) as conn:
        driver = Driver(conn, [Sending])
        driver.turn()
        driver.settle()
    assert postgres.rows(query) == [
        ("mail", "execute", "post", -2, 2, None),
        ("pack", "execute", "default", -2, 7, {"boxes": 3}),
    ]


def test_i3_a_linear_flow_runs_to_its_end_with_all_outputs(postgres: OnPostgres) -> None:
    """I3: a linear flow runs from start to end; each step reads the input and the stored outputs."""
    given = {"text": "ä \U0001f600", "deep": {"list": [1, 2.5, None, True, []]}, "large": 12345678901234567890}
    postgres.run(Line)
    Line.start("v", given)
    postgres.restart()  # the next process has only the stored data
    done = postgres.until(Line, "v")
    assert (done.status, done.input) == ("completed", given)
    assert done.steps == {name: {"by": name, "value": "v"} for name in ("first", "second", "third")}
    assert [(entry.step, entry.event, entry.attempt) for entry in done.history] == [
        ("first", "ok", 1),
        ("second", "ok", 1),
        ("third", "ok", 1),
    ]


def test_i4_an_async_flow_waits_is_resumed_and_completes(postgres: OnPostgres) -> None:
    """I4: an instance waits without a worker, is resumed with a payload, and completes."""
    postgres.run(Asking)
    Asking.start("v")
    waiting = postgres.until(Asking, "v", "waiting")
    assert [(each.step, each.kind, each.events) for each in waiting.waiting_for] == [
        ("answer", "signal", ("answered",))
    ]
    postgres.restart()
    assert Asking.resume("v", "answered", {"amount": 3}) == "delivered"
    done = postgres.until(Asking, "v")
    assert (done.status, done.steps["answer"]) == ("completed", {"amount": 3})


def test_i5_a_wait_is_a_parked_job_and_not_a_result(workers: ManualWorkers) -> None:
    """I5: a step that waits is a parked job with the events it awaits and its timer; it has no result row."""
    Asking.start("v")
    workers.finish()
    query = "select step, kind, state, awaits, run_at > now() + interval '59 minutes', worker from pgflow.jobs"
    assert workers.rows(query) == [("answer", "resume", "parked", {"answered": "received"}, True, None)]
    assert workers.results() == ["first"]
    assert (workers.results(applied=False), workers.one("select status from pgflow.instances")) == ([], "waiting")


def test_i6_results_are_stored_marked_and_ordered(workers: ManualWorkers) -> None:
    """I6: a result is a row of step_results, ordered by seq; `applied` is true once it is part of the instance."""
    a, b, c = workers.forked("v")
    for worker in (c, a):
        worker.run_steps()
        with workers.transaction() as conn:
            conn.execute("select from pgflow.instances for update")
            worker.settle()
    assert workers.results() == ["first"]
    assert workers.results(applied=False) == ["north", "west"]
    workers.end(a)
    assert workers.results() == ["first", "north", "west"]
    workers.finish(a, b)
    assert workers.results() == ["first", "north", "west", "east", "join"]
    workers.check(Three, "v", *THREE)


def test_i7_the_same_result_sent_twice_is_stored_once(workers: ManualWorkers) -> None:
    """I7: a settle that is repeated because its answer was lost changes nothing."""
    worker = workers.worker()
    Line.start("v")
    worker.claim()
    worker.run_steps()
    worker.decide()
    worker.send()
    rows = workers.rows("select * from pgflow.step_results"), workers.rows("select * from pgflow.jobs")
    worker.send()
    assert [row.status for row in worker.settled] == ["fenced"]
    assert (workers.rows("select * from pgflow.step_results"), workers.rows("select * from pgflow.jobs")) == rows


def test_i8_each_step_of_a_fan_out_with_a_slow_branch_runs_once(postgres: OnPostgres) -> None:
    """I8: while one branch is slow its siblings complete, and each step runs exactly once."""
    postgres.run(Slow, queues={"default": 4, "post": 4})
    postgres.work({"default": 4, "post": 4})
    Slow.start("v")
    until(lambda: [row[0] for row in postgres.rows("select step from pgflow.jobs")] == ["held"], "the siblings' end")
    assert Gate.begun.is_set()
    Gate.go.set()
    assert postgres.until(Slow, "v").status == "completed"
    assert Counter(CALLS) == Counter(f"v.{name}" for name in ("start_", "held", "mail", "pack", "end"))


# -- many, and through thick and thin


def test_i9_five_hundred_fan_outs_and_ten_workers_leave_nothing_behind(postgres: OnPostgres) -> None:
    """I9: 500 fast fan-outs with ten workers all complete, and no unapplied result is left."""
    is_newest = NEWEST is None or postgres.rows("show server_version_num")[0][0].startswith(str(NEWEST))
    number = 500 if is_newest else 60
    postgres.idle(Three)
    Three.start_many([(f"v{each}", {}) for each in range(number)])
    for _ in range(10):
        postgres.work({"default": 4})
    until(lambda: not postgres.rows("select from pgflow.instances where finished_at is null limit 1"), "the end")
    assert postgres.rows("select status, count(*) from pgflow.instances group by status") == [("completed", number)]
    assert postgres.rows("select run from pgflow.step_results where not applied") == []
    assert postgres.rows("select run from pgflow.jobs") == []
    assert set(Counter(CALLS).values()) == {1}
    assert postgres.rows("select count(*) from pgflow.step_results") == [(5 * number,)]


def kill_often(postgres: OnPostgres, folder: Path, kills: int) -> None:
    """Kill workers with SIGKILL at random points of their work, starting instances; then wait for all to end."""
    app = Pgflow(postgres.dsn, workflows=(Errands, Spread))
    dice = random.Random(kills)  # noqa: S311 -- chance for a test, the same each time
    batch: list[Process] = []
    with psycopg.connect(postgres.dsn, autocommit=True) as conn:
        processes = Processes(postgres.dsn, folder, conn)

        def recorded() -> int:
            return int(postgres.rows("select count(*) from pgflow.step_results")[0][0])

        def start(*options: str) -> Process:
            return processes.start(
                "--lease", "1", "-q", "default=4", *options, app="tests.conformance.killed_worker", ready=False
            )

        try:
            app.register()
            for number in range(kills):
                if number % 5 == 0:
                    batch = [start() for _ in range(min(5, kills - number))]
                process = batch.pop()
                processes.wait_for(process)
                goal = recorded() + dice.randrange(25)
                Errands.start_many([(f"v{number}.{each}", {}) for each in range(8)])  # more than enough
                Spread.start_many([(f"v{number}.{each}", {}) for each in range(2)])
                until(lambda goal=goal: recorded() >= goal, "some work", pause=0.002)  # type: ignore[misc]
                process.kill()
            active = "select from pgflow.instances where finished_at is null limit 1"
            start("--drain").wait(2 * PATIENCE)
            until(lambda: not postgres.rows(active), "the end")
            # A step that lost five workers, three of them while running alone, counts as a poison job.
            failed = "select id from pgflow.instances where status = 'failed' and error ->> 'type' = 'WorkerLost'"
            unlucky = [str(row[0]).partition("::") for row in postgres.rows(failed)]
            assert len(unlucky) <= kills // 20
            for key, _, value in unlucky:
                {"errands": Errands, "spread": Spread}[key].retry(value)
            start("--drain").wait(2 * PATIENCE)
            until(lambda: not postgres.rows(active), "the end of the retried instances")
        finally:
            processes.reap()
            app.close()
    per_instance = """select i.workflow, i.status, count(*), count(*) filter (where applied)
        from pgflow.instances i join pgflow.step_results r using (run) group by i.run"""
    assert Counter(postgres.rows(per_instance)) == {
        ("Errands", "completed", 3, 3): 8 * kills,
        ("Spread", "completed", 6, 6): 2 * kills,
    }
    assert postgres.rows("select run from pgflow.jobs") == []


@pytest.mark.chaos
def test_i10_all_instances_end_while_workers_are_killed(postgres: OnPostgres, tmp_path: Path) -> None:
    """I10: workers are killed with SIGKILL at random points; every workflow ends, and each step completes once."""
    kill_often(postgres, tmp_path, 5)


@pytest.mark.chaos
@pytest.mark.slow
def test_i10_all_instances_end_while_many_workers_are_killed(newest: OnPostgres, tmp_path: Path, is_long: bool) -> None:
    """I10: a hundred workers (30 without --long) are killed with SIGKILL at random points, and every workflow ends.

    The few whose step lost five workers have failed, and complete after a retry.
    """
    kill_often(newest, tmp_path, 100 if is_long else 30)


# -- failures


def pauses(backoff: Backoff) -> type[Workflow[Input]]:
    """Return a workflow with a failing step and this kind of backoff: from ten seconds to 35."""

    @step(events=("ok",), retry=Retry(5, backoff, timedelta(seconds=10), timedelta(seconds=35), jitter=0))
    def failing(ctx: Context[Input]) -> Ok:
        raise RuntimeError("fails")

    class Pausing(Workflow[Input], unique=Unique("pausing"), name=f"Pausing_{backoff}"):
        initial = failing
        transitions = {failing: {"ok": Done}}

    return Pausing


@pytest.mark.parametrize(
    ("backoff", "expected"),
    [("constant", [10, 10, 10, 10]), ("linear", [10, 20, 30, 35]), ("exponential", [10, 20, 35, 35])],
)
def test_i11_the_pauses_are_those_of_the_policy(postgres: OnPostgres, backoff: Backoff, expected: list[float]) -> None:
    """I11: a retry's job is due after the pause of its policy, up to the cap, and attempts are counted."""
    workflow = pauses(backoff)
    postgres.idle(workflow)
    workflow.start("v")
    with psycopg.connect(postgres.dsn, autocommit=True) as conn:
        driver = Driver(conn, [workflow])
        for attempt, pause in enumerate(expected, start=1):
            driver.claim()
            driver.run_steps()
            before = conn.execute("select now()").fetchone()
            driver.settle()
            after = conn.execute("select now()").fetchone()
            assert before is not None
            assert after is not None
            ((state, tried, run_at),) = postgres.rows("select state, attempt, run_at from pgflow.jobs")
            assert (state, tried) == ("scheduled", attempt)
            assert before[0] <= run_at - timedelta(seconds=pause) <= after[0]
            conn.execute("update pgflow.jobs set state = 'ready'")
        driver.claim()
        driver.run_steps()
        driver.settle()
    failed = workflow.get("v")
    assert (failed.status, failed.error and failed.error["attempt"]) == ("failed", 5)


def test_i12_the_last_failed_attempt_fails_the_instance_within_a_second(postgres: OnPostgres) -> None:
    """I12: the last failed attempt fails the instance within a second, stops its siblings, and emits events."""
    seen: list[telemetry.Event] = []
    telemetry.attach("seen", [telemetry.WORKFLOW_EXCEPTION], lambda event, config: seen.append(event))
    try:
        postgres.run(Doomed)
        Doomed.start("v", {"fails": "doomed"})
        failed = postgres.until(Doomed, "v")
        until(lambda: Gate.interrupted.is_set() and seen, "the sibling's end, and the news")
    finally:
        telemetry.detach("seen")
    assert failed.status == "failed"
    assert failed.error is not None
    assert (failed.error["step"], failed.error["reason"], failed.error["attempt"]) == ("doomed", "fails", 2)
    assert failed.finished_at is not None
    assert failed.finished_at - failed.history[0].at < timedelta(seconds=1 + BUSY)
    assert [(event.metadata["instance_id"], event.metadata["reason"]) for event in seen] == [("doomed::v", "fails")]
    assert (failed.waiting_for, postgres.rows("select from pgflow.jobs")) == ((), [])
    assert [entry.step for entry in Doomed.get("v").history] == ["start_"]


def test_i13_a_failure_removes_only_its_own_jobs(workers: ManualWorkers) -> None:
    """I13: when an instance fails, jobs of other instances stay, of the same workflow and of others."""
    Mixed.start("m")
    Asking.start("a")
    workers.finish()
    kept = workers.rows("select * from pgflow.jobs order by id")
    assert len(kept) == 2
    Mixed.start("v", {"fails": "third"})
    workers.finish()
    assert Mixed.get("v").status == "failed"
    assert workers.rows("select * from pgflow.jobs order by id") == kept
    Mixed.resume("m", "word")
    Asking.resume("a", "answered")
    workers.finish()
    workers.check(Mixed, "m", "first", "second", "third", "word", "close")
    workers.check(Asking, "a", "first", "answer", "close")


def test_i14_a_key_can_be_started_again_after_a_failure(postgres: OnPostgres) -> None:
    """I14: after a failure the same key can be started again and completes; the failed run does not change."""
    postgres.run(Line)
    Line.start("v", {"fails": "third"})
    failed = postgres.until(Line, "v")
    CALLS.clear()
    Line.start("v")
    assert postgres.until(Line, "v").status == "completed"
    assert CALLS == ["v.first", "v.second", "v.third"]
    _, old = Line.runs("v")
    assert (old.run, old.status, old.error, old.finished_at) == (failed.run, "failed", failed.error, failed.finished_at)


def test_i15_a_timer_of_an_old_run_does_not_affect_a_new_one(postgres: OnPostgres) -> None:
    """I15: the timer of an earlier run of a key does not end the wait of the next run, whose own timer does."""
    postgres.run(Brief)
    Brief.start("v")
    postgres.until(Brief, "v", "waiting")
    until(lambda: postgres.rows("select from pgflow.jobs where run_at < now() + interval '150 ms'"), "the last moment")
    Brief.cancel("v")
    Brief.start("v")
    done = postgres.until(Brief, "v")
    assert [(entry.step, entry.event) for entry in done.history] == [("brief", "timeout"), ("end", "ok")]
    assert done.history[0].at - done.created_at >= BRIEFLY
    assert done.steps["brief"] == {}


def test_i15_a_signal_of_an_old_run_does_not_affect_a_new_one(postgres: OnPostgres) -> None:
    """I15: a signal kept for an earlier run of a key does not end the wait of the next run."""
    postgres.run(HeldUp)
    HeldUp.start("v")
    assert Gate.begun.wait(PATIENCE)
    assert HeldUp.resume("v", "yes", "old") == "kept"
    HeldUp.cancel("v")
    Gate.go.set()
    HeldUp.start("v")
    assert postgres.until(HeldUp, "v", "waiting").waiting_for[0].step == "ask_ann"
    assert HeldUp.resume("v", "no", "new") == "delivered"
    assert postgres.until(HeldUp, "v").steps["ask_ann"] == "new"


def test_i16_a_stray_signal_while_a_step_runs_is_kept(postgres: OnPostgres) -> None:
    """I16: a signal sent while a step runs is kept for the wait that consumes it; nothing runs twice."""
    postgres.run(HeldUp)
    HeldUp.start("v")
    assert Gate.begun.wait(PATIENCE)
    assert HeldUp.resume("v", "ok") == "kept"  # an event of the step that runs
    assert HeldUp.resume("v", "yes", {"by": "Ann"}) == "kept"
    Gate.go.set()
    done = postgres.until(HeldUp, "v")
    assert (done.status, done.steps["ask_ann"]) == ("completed", {"by": "Ann"})
    assert CALLS == ["v.held", "v.ask_ann", "v.end"]
    with pytest.raises(NotActive):
        HeldUp.resume("v", "yes")


def test_i17_of_a_hundred_signals_right_after_the_start_none_is_lost(postgres: OnPostgres) -> None:
    """I17: a signal sent right after the start ends the wait that comes later: 100 of 100."""
    postgres.run(Asking)
    postgres.work()
    for number in range(100):
        Asking.start(f"v{number}")
        assert Asking.resume(f"v{number}", "answered", number) in ("kept", "delivered")
    for number in range(100):
        done = postgres.until(Asking, f"v{number}")
        assert (done.status, done.steps["answer"]) == ("completed", number)
    assert set(Counter(CALLS).values()) == {1}


# -- waits, signals and locks


def test_i18_two_waits_are_ended_one_by_one(postgres: OnPostgres) -> None:
    """I18: two parallel waits each end with their own signal, and neither step runs again."""
    postgres.run(Polling)
    Polling.start("v")
    postgres.until(Polling, "v", "waiting")
    assert Polling.resume("v", "no", "Bob's", step=ask_bob) == "delivered"
    until(lambda: len(Polling.get("v").history) == 2, "Bob's answer")
    half = postgres.until(Polling, "v", "waiting")
    assert [each.step for each in half.waiting_for] == ["ask_ann"]
    assert Polling.resume("v", "yes", "Ann's") == "delivered"
    done = postgres.until(Polling, "v")
    assert (done.steps["ask_ann"], done.steps["ask_bob"]) == ("Ann's", "Bob's")
    assert Counter(CALLS) == Counter(f"v.{name}" for name in ("start_", "ask_ann", "ask_bob", "end"))


def test_i19_a_branch_continues_while_its_sibling_waits(postgres: OnPostgres) -> None:
    """I19: a branch without waits runs up to the join while its sibling waits."""
    postgres.run(Mixed)
    Mixed.start("v")
    waiting = postgres.until(Mixed, "v", "waiting")
    assert [entry.step for entry in waiting.history] == ["first", "second", "third"]
    Mixed.resume("v", "word")
    assert postgres.until(Mixed, "v").status == "completed"


def test_i21_of_two_signals_for_one_wait_the_first_counts(workers: ManualWorkers) -> None:
    """I21: two signals for one wait complete it once, with the first one's payload; the second one is refused."""
    Asking.start("v")
    workers.finish()
    conn = workers.connect()
    conn.execute("begin")
    assert Asking.resume("v", "answered", "one", conn=conn) == "delivered"
    later = workers.aside(lambda: Asking.resume("v", "answered", "two"))
    assert not later.done()
    conn.execute("commit")
    with pytest.raises(NotActive, match="has gone past the step that takes 'answered'"):
        later.result()
    workers.finish()
    assert Asking.get("v").steps["answer"] == "one"
    workers.check(Asking, "v", "first", "answer", "close")
    assert workers.rows("select payload from pgflow.signals where consumed_at is null") == []


def test_i24_two_advances_of_one_instance_never_overlap(workers: ManualWorkers) -> None:
    """I24: an advance of a join locks the instance's row; a concurrent advance writes nothing."""
    a, b, c = workers.forked("v")
    probe = "select run from pgflow.instances for no key update nowait"
    with workers.transaction() as conn:
        a.run_steps()
        a.decide()
        a.send(conn)
        with pytest.raises(psycopg.errors.LockNotAvailable):
            workers.conn.execute(probe)
        revision = workers.rows("select revision from pgflow.instances")
        for worker in (b, c):
            worker.run_steps()
            worker.decide()
            worker.send()
            assert [row.status for row in worker.settled] == ["conflict"]
            worker.adopt()
        assert workers.rows("select revision from pgflow.instances") == revision
    workers.conn.execute(probe)
    a.adopt()
    workers.finish(a, b, c)
    workers.check(Three, "v", *THREE)


def test_i26_the_quick_start_works_as_printed(server: Server, new_database: Callable[..., str], tmp_path: Path) -> None:
    """I26: the first workflow of the docs runs and prints as shown; tests/acceptance runs the rest."""
    workspace = Workspace(tmp_path, new_database(server))
    workspace.prepare(README.files)
    commands = [block.command for block in README.blocks]
    command = README.blocks[commands.index("python flow.py")]
    shown = README.blocks[commands.index("python flow.py") + 1]
    done = workspace.sh(command.text)
    errors = [line for line in done.stderr.splitlines() if "in a crash" not in line]  # a notice of the test server
    assert (done.returncode, errors, done.stdout) == (0, [], shown.text)


@pytest.mark.parametrize(
    ("how", "kind", "words"),
    [
        ("event", "UndeclaredEvent", "unheard_of"),
        ("raises", "RouteError", "no way"),
        ("undeclared", "RouteError", "start_"),
    ],
)
def test_i27_an_invalid_transition_fails_the_instance(postgres: OnPostgres, how: str, kind: str, words: str) -> None:
    """I27: an undeclared event, or a route that raises or chooses wrongly, fails the instance with the reason."""
    postgres.run(Guided)
    Guided.start("v", {"how": how})
    failed = postgres.until(Guided, "v")
    recorded = [] if kind == "UndeclaredEvent" else ["guide"]  # the step completed; its route failed
    assert (failed.status, [entry.step for entry in failed.history]) == ("failed", recorded)
    assert failed.error is not None
    assert (failed.error["step"], failed.error["type"]) == ("guide", kind)
    assert words in failed.error["reason"]
    assert len(CALLS) == 1
    assert postgres.rows("select from pgflow.jobs") == []


def test_i28_an_orphaned_instance_is_repaired(postgres: OnPostgres) -> None:
    """I28: an active instance without jobs gets new ones from any worker's next sweep, and continues."""
    app = postgres.run(Line, Asking, Three)
    Asking.start("v")
    postgres.until(Asking, "v", "waiting")
    tamper(postgres, "delete from pgflow.jobs")
    until(lambda: postgres.rows("select from pgflow.jobs where state = 'parked'"), "the wait's return")
    assert Asking.resume("v", "answered", "yes") == "delivered"
    done = postgres.until(Asking, "v")
    assert (done.status, [entry.step for entry in done.history]) == ("completed", ["first", "answer", "close"])
    assert app.get(Asking, "v").steps["answer"] == "yes"


def test_i28_unapplied_results_count_when_an_instance_is_repaired(workers: ManualWorkers) -> None:
    """I28: unapplied results are applied when lost jobs are repaired; their steps do not run again."""
    _, b, _ = workers.forked("v")
    b.run_steps()
    with workers.transaction() as conn:
        conn.execute("select from pgflow.instances for update")
        b.settle()
    assert workers.results(applied=False) == ["east"]
    tamper(workers.stack, "delete from pgflow.jobs")
    assert run(workers.conn, job.repair_orphaned("pgflow")).jobs == 1
    assert run(workers.conn, job.repair_orphaned("pgflow")).jobs == 0
    workers.finish()
    workers.check(Three, "v", *THREE)


def test_i28_an_orphaned_instance_is_found_among_many(workers: ManualWorkers) -> None:
    """I28: workers scan all active instances, a page at a time."""
    Line.start_many([(f"v{number}", {}) for number in range(25)])
    Line.start("lost")
    tamper(workers.stack, "delete from pgflow.jobs where run = (select max(run) from pgflow.instances)")
    found, after = [], 0
    while (page := run(workers.conn, job.repair_orphaned("pgflow", after, limit=10))).last_run is not None:
        found.append(page.jobs)
        after = page.last_run
    assert [*found, page.jobs] == [0, 0, 1]
    workers.finish()
    workers.check(Line, "lost", "first", "second", "third")


def tamper(postgres: OnPostgres, statement: str) -> None:
    """Change rows with plain SQL."""
    with psycopg.connect(postgres.dsn, autocommit=True) as conn:
        conn.execute(statement.encode())
