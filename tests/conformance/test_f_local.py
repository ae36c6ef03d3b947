"""Group F: the in-memory stack and its storage; PostgreSQL and a worker behave alike."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pgflow import Async, Context, Done, Error, Instance, Ok, Retry, Snooze, Step, Wait, WaitForEvent, route, step
from pgflow.database.connect import connect
from pgflow.errors import AlreadyRunning, InstanceNotFound, InvalidValue, NotActive, NotFound
from pgflow.local import Local, Storage
from tests.conformance.conftest import OnPostgres, Stack
from tests.conformance.definitions import Flow, Input, chain, define, make
from tests.worker.db_helpers import until_status
from tests.worker.flows import Held
from tests.worker.processes import Processes
from tests.worker.waiting import PATIENCE, until

HOUR = timedelta(hours=1)
SOON = timedelta(milliseconds=10)
ONCE = Retry(max_attempts=1)
A, B, C, D = make("a"), make("b"), make("c"), make("d")
Ch = make("ch", "x", "y")


@step
async def later(ctx: Context[Input]) -> Ok:
    await asyncio.sleep(0.001)
    return Ok("done", "later")


class Waiting(Step):
    """A custom step that waits."""

    events = ("yes", "no")

    async def execute(self, ctx: Context[Input]) -> Async:
        return Async()


KINDS: dict[str, tuple[Flow, tuple[str, ...]]] = {
    "linear": (chain(A, B, C), ("a", "b", "c", "done")),
    "branch": (define(Ch, {Ch: {"x": B, "y": C}, B: {"done": Done}, C: {"done": Done}}), ("ch", "b", "done")),
    "parallel": (
        define(A, {A: {"done": [B, later]}, B: {"done": D}, later: {"done": D}, D: {"done": Done}}),
        ("a", "b", "d", "done", "later"),
    ),
    "dynamic": (
        define(A, {A: {"done": route(lambda ctx: C, B, C)}, B: {"done": Done}, C: {"done": Done}}),
        ("a", "c", "done"),
    ),
    "event": (chain(A, WaitForEvent("yes")), ("a", "done", "wait_for_event")),
    "async": (chain(later, Waiting(), B), ("b", "done", "later", "waiting")),
}


@pytest.mark.parametrize("kind", KINDS)
def test_f1_workflows_of_each_kind_complete(stack: Stack, kind: str) -> None:
    """F1: linear, branching, parallel, dynamic, waiting and asynchronous workflows come to their end."""
    flow, steps = KINDS[kind]
    stack.run(flow)
    flow.start("v")
    if kind in ("event", "async"):
        stack.until(flow, "v", "waiting")
        flow.resume("v", "yes")
    done = stack.until(flow, "v")
    assert (done.status, tuple(sorted(done.completed_steps))) == ("completed", tuple(sorted(steps)))


def test_f2_parallel_steps_overlap(stack: Stack) -> None:
    """F2: parallel steps really run at the same time, in threads and on the loop: each waits here for the others."""
    meeting = threading.Barrier(4)
    arrived: set[str] = set()

    def meet(ctx: Context[Input]) -> Ok:
        meeting.wait(PATIENCE)
        return Ok("done")

    async def wait_on_the_loop(ctx: Context[Input]) -> Ok:
        arrived.add(ctx.step)
        while len(arrived) < 2:  # noqa: ASYNC110 -- nothing that both could share belongs to one loop
            await asyncio.sleep(0.001)
        await asyncio.to_thread(meeting.wait, PATIENCE)
        return Ok("done")

    branches = [
        *(make(name, act=meet) for name in ("one", "two")),
        *(step(name=name)(wait_on_the_loop) for name in ("three", "four")),
    ]
    flow = define(A, {A: {"done": branches}, **{each: {"done": D} for each in branches}, D: {"done": Done}})
    stack.run(flow)
    flow.start("v")
    assert stack.until(flow, "v").status == "completed"


def test_f3_a_value_is_required(stack: Stack) -> None:
    """F3: there is no instance without a business value: the call refuses to be made without one."""
    flow: Any = chain(A)
    stack.run(flow)
    for call in (flow.start, flow.resume, flow.get, flow.cancel):
        with pytest.raises(TypeError, match="value"):
            call()
    for wrong in (None, ""):
        with pytest.raises(InvalidValue, match="business value"):
            flow.start(wrong)


def test_f4_a_resume_of_an_unknown_or_ended_instance_is_an_error(stack: Stack) -> None:
    """F4: a resume of an unknown instance is `InstanceNotFound`, of one that has ended `NotActive`, with a hint."""
    flow = chain(WaitForEvent("go"))
    stack.run(flow)
    with pytest.raises(NotFound, match="nobody") as unknown:
        flow.resume("nobody", "go")
    flow.start("v")
    flow.resume("v", "go")
    stack.until(flow, "v")
    with pytest.raises(NotActive, match="'k::v' is completed") as ended:
        flow.resume("v", "go")
    assert (unknown.type, unknown.value.code) == (InstanceNotFound, "instance-not-found")
    assert unknown.value.hint
    assert ended.value.hint


def test_f5_a_resume_can_be_scheduled(stack: Stack) -> None:
    """F5: `schedule_resume` resumes a wait after the delay and not before; of an unknown instance it is refused."""
    wait = WaitForEvent("go")
    flow = chain(wait)
    stack.run(flow)
    flow.start("v")
    scheduled = flow.schedule_resume("v", wait, timedelta(milliseconds=150), payload={"n": 1})
    assert flow.get("v").history == ()
    done = stack.until(flow, "v")
    assert (done.steps, done.history[0].event) == ({"wait_for_event": {"n": 1}}, "received")
    assert scheduled.at <= done.history[0].at < scheduled.at + timedelta(seconds=2)
    with pytest.raises(InstanceNotFound):
        flow.schedule_resume("nobody", wait, SOON)


# -- steps that fail, and steps that take long


class Rude(BaseException):
    """A `BaseException` that is not an `Exception`."""


class Mute(Exception):
    """An error whose text raises."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


def failing(how: str) -> Any:
    match how:
        case "returned":
            return Error("declined")
        case "raised":
            raise ConnectionError("down")
        case "exit":
            raise SystemExit(3)
        case "interrupt":
            raise KeyboardInterrupt
        case "cancelled":
            raise asyncio.CancelledError
        case "rude":
            raise Rude("go away")
        case "mute":
            raise Mute
        case "group":
            raise ExceptionGroup("several", [ValueError("one"), KeyError("two")])
        case "stop":
            raise StopIteration
    raise AssertionError(how)


@step(retry=ONCE)
async def fail_async(ctx: Context[Input]) -> Any:
    return failing(ctx.initial["how"])


FAILS = (make("fail", act=lambda ctx: failing(ctx.initial["how"]), retry=ONCE), fail_async)
HOWS: dict[str, str | None] = {
    "raised": "ConnectionError",
    "exit": "SystemExit",
    "interrupt": "KeyboardInterrupt",
    "cancelled": "CancelledError",
    "rude": "Rude",
    "mute": "Mute",
    "group": "ExceptionGroup",
    "stop": None,  # Python makes a RuntimeError of it, or a TypeError
}


def fail_beside_another(stack: Stack, fail: Step, hows: dict[str, str | None]) -> None:
    """Let an instance fail in each of these ways, beside a sibling that waits and an instance that goes on after."""
    wait = WaitForEvent("go")
    flow = define(A, {A: {"done": [fail, wait]}, fail: {"done": B}, wait: {"received": B}, B: {"done": Done}})
    waiting = chain(wait, B, name="Waiting")
    stack.run(flow, waiting)
    waiting.start("other")
    stack.until(waiting, "other", "waiting")
    for how, kind in hows.items():
        flow.start(how, {"how": how})
        failed = stack.until(flow, how)
        assert failed.error is not None
        assert (how, failed.status, failed.error["step"], failed.waiting_for) == (how, "failed", fail.key, ())
        assert kind in (None, failed.error["type"])
        assert failed.error["reason"]
    waiting.resume("other", "go")
    assert stack.until(waiting, "other").status == "completed"
    assert {flow.get(how).status for how in hows} == {"failed"}


@pytest.mark.parametrize("fail", FAILS, ids=["in a thread", "on the loop"])
def test_f6_a_step_error_fails_its_own_instance_alone(stack: Stack, fail: Step) -> None:
    """F6: a step that returns an `Error` fails its instance, with the reason, and no other."""
    fail_beside_another(stack, fail, {"returned": "Error"})


@pytest.mark.parametrize("fail", FAILS, ids=["in a thread", "on the loop"])
def test_f7_whatever_a_step_raises_is_a_step_error(stack: Stack, fail: Step) -> None:
    """F7: whatever a step raises, `sys.exit()` included, is an error of that step and affects no other instance."""
    fail_beside_another(stack, fail, HOWS)


def test_f8_a_long_step_runs_to_its_end_once(stack: Stack) -> None:
    """F8: a step that outlasts a worker's lease runs once and to its end, also beside another worker."""
    calls: Counter[str] = Counter()
    begun, go = threading.Event(), threading.Event()

    def hold(ctx: Context[Input]) -> Ok:
        calls[ctx.step] += 1
        begun.set()
        assert go.wait(PATIENCE)
        return Ok("done", "long")

    flow = chain(A, make("hold", act=hold), make("after", act=lambda ctx: calls.update(after=1) or Ok("done")))
    stack.run(flow, lease=timedelta(seconds=1.5))
    flow.start("v")
    assert begun.wait(PATIENCE)
    if isinstance(stack, OnPostgres):
        # Would run it as soon as its lease has expired.
        stack.work(lease=timedelta(seconds=1.5), sweep=timedelta(milliseconds=100))
        query = "select j.worker, w.lease_expires_at from pgflow.jobs j join pgflow.workers w on w.id = j.worker"
        ((owner, expiry),) = stack.rows(query)
        until(lambda: stack.rows("select pgflow.now() > %s + interval '200 ms'", expiry) == [(True,)], "a lease's end")
        assert [row[0] for row in stack.rows(query)] == [owner]
    assert (flow.get("v").status, flow.get("v").active_steps) == ("running", frozenset(["hold"]))
    go.set()
    done = stack.until(flow, "v")
    assert (done.status, done.steps["hold"], done.history[1].attempt) == ("completed", "long", 1)
    assert calls == {"hold": 1, "after": 1}


def test_f8_time_passes_without_end_for_a_long_step() -> None:
    """F8: in memory a step may outlast any timer: a day that passes at once does not end it or run it again."""
    begun, go = threading.Event(), threading.Event()
    calls = []

    def hold(ctx: Context[Input]) -> Ok:
        calls.append(ctx.attempt)
        begun.set()
        assert go.wait(PATIENCE)
        return Ok("done")

    flow, timed = chain(make("hold", act=hold)), chain(Wait(HOUR), name="Timed")
    with Local(workflows=[flow, timed]) as app:
        timed.start("v")
        app.settle(PATIENCE)
        flow.start("v")
        assert begun.wait(PATIENCE)
        with pytest.raises(TimeoutError, match=r"k::v hold \(running\)"):
            app.advance_time(timedelta(days=1), timeout=0.05)
        go.set()
        app.advance_time(timedelta(days=1), timeout=PATIENCE)
        assert (flow.get("v").status, timed.get("v").status, calls) == ("completed", "completed", [1])


# -- restarts


class Scene:
    """Records the calls of steps, across restarts."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.begun = threading.Event()
        self.may_end = False

    def note(self, name: str) -> Step:
        """A step that records its call."""
        return make(
            name, act=lambda ctx: self.calls.update([f"{ctx.value} {ctx.step}"]) or Ok("done", self.calls.total())
        )

    def long(self, name: str) -> Step:
        """A step that ends only when it may, and is interrupted by the end of its process."""

        @step(name=name, retry=Retry(max_attempts=2, base=SOON))
        async def linger(ctx: Context[Input]) -> Ok:
            self.calls[f"{ctx.value} {ctx.step}"] += 1
            self.begun.set()
            while not self.may_end:  # noqa: ASYNC110 -- an Event belongs to one loop; this lives over a restart
                await asyncio.sleep(0.001)
            return Ok("done", ctx.attempt)

        return linger


def test_f9_a_restart_keeps_completed_steps(stack: Stack) -> None:
    """F9: after a restart completed steps do not run again, the one that ran does, and what has ended stays ended."""
    scene = Scene()
    flow, quick = (
        chain(scene.note("one"), scene.long("two"), scene.note("three")),
        chain(scene.note("one"), name="Quick"),
    )
    stack.run(flow, quick, shutdown_timeout=timedelta(0))
    quick.start("q")
    before = stack.until(quick, "q")
    flow.start("v")
    assert scene.begun.wait(PATIENCE)
    first = flow.get("v").history
    scene.begun.clear()
    stack.restart()
    assert scene.begun.wait(PATIENCE)
    scene.may_end = True
    done = stack.until(flow, "v")
    assert (done.status, done.history[:1]) == ("completed", first)
    assert scene.calls == {"q one": 1, "v one": 1, "v two": 2, "v three": 1}
    assert quick.get("q") == before


def test_f9_a_killed_worker_loses_nothing(postgres: OnPostgres, tmp_path: Path) -> None:
    """F9: a worker that is killed leaves completed steps as they are; another one runs the step that it was in."""
    log, held = tmp_path / "log", tmp_path / "held"
    held.touch()
    postgres.idle(Held)
    Held.start("v", {"hold": str(held), "log": str(log)})
    with connect(postgres.dsn, "test") as conn:
        processes = Processes(postgres.dsn, tmp_path, conn)
        try:
            killed = processes.start()
            until(lambda: log.exists() and log.read_text(), "the first run")
            killed.kill()
            other = processes.start()
            until(lambda: len(log.read_text().splitlines()) == 2, "the second run")
            held.unlink()
            done = until_status(Held, "v")
        finally:
            processes.reap()
    runs = [line.split() for line in log.read_text().splitlines()]
    assert done.status == "completed"
    assert [(name, attempt) for name, attempt, _ in runs] == [("hold", "1"), ("hold", "1"), ("after", "1")]
    assert [int(pid) for _, _, pid in runs] == [killed.pid, other.pid, other.pid]


def test_f10_a_new_process_continues_active_instances(stack: Stack) -> None:
    """F10: a new app on the same storage continues running, waiting, retrying and delayed instances."""
    scene = Scene()

    def again(ctx: Context[Input]) -> Any:
        scene.calls[ctx.step] += 1
        return Ok("done") if scene.may_end else Error("not yet")

    def snooze(ctx: Context[Input]) -> Any:
        return Ok("done") if scene.may_end else Snooze(timedelta(milliseconds=20))

    kinds = {
        "running": chain(scene.note("one"), scene.long("two"), name="Running"),
        "timer": chain(scene.note("one"), Wait(timedelta(milliseconds=400)), name="Timer"),
        "signal": chain(scene.note("one"), WaitForEvent("go"), name="Signal"),
        "retry": chain(
            make("again", act=again, retry=Retry(max_attempts=999, base=SOON, max_backoff=SOON)), name="Again"
        ),
        "snooze": chain(make("snooze", act=snooze), name="Snoozing"),
        "later": chain(scene.note("one"), name="Later"),
        "mailbox": chain(Wait(timedelta(milliseconds=400)), WaitForEvent("go"), name="Mailbox"),
    }
    stack.run(*kinds.values(), shutdown_timeout=timedelta(0))
    for kind, flow in kinds.items():
        flow.start(kind, delay=timedelta(milliseconds=400) if kind == "later" else None)
    assert kinds["mailbox"].resume("mailbox", "go", "early") == "kept"
    assert scene.begun.wait(PATIENCE)
    stack.until(kinds["signal"], "signal", "waiting")
    until(lambda: scene.calls["again"] > 1, "a second attempt")
    stack.restart()
    scene.may_end = True
    kinds["signal"].resume("signal", "go", "late")
    ended = {kind: stack.until(flow, kind) for kind, flow in kinds.items()}
    assert {kind: done.status for kind, done in ended.items()} == dict.fromkeys(kinds, "completed")
    assert [scene.calls[f"{kind} one"] for kind in ("running", "timer", "signal", "later")] == [1, 1, 1, 1]
    assert ended["signal"].steps["wait_for_event"] == "late"
    assert ended["mailbox"].steps["wait_for_event"] == "early"
    assert ended["retry"].history[0].attempt >= 2


# -- the storage


def instance(run: int, value: str = "v", **more: Any) -> Instance:
    """An instance as a reader has it."""
    created_at = datetime(2030, 1, 1, tzinfo=UTC)
    plain = Instance(
        run=run,
        id=f"k::{value}",
        workflow="Flow",
        version=1,
        status="running",
        input={},
        steps={},
        history=(),
        waiting_for=(),
        metadata={},
        tags=(),
        error=None,
        created_at=created_at,
    )
    made = replace(plain, **more)
    return made if made.is_active else replace(made, finished_at=created_at)


def test_f11_the_storage_puts_gets_deletes_and_queries() -> None:
    """F11: `put` keeps and overwrites, `get` finds or raises, `delete` may be repeated, `query` gives all."""
    storage = Storage()
    assert storage.query() == []
    with pytest.raises(InstanceNotFound, match="k::v"):
        storage.get("k::v")
    storage.put(instance(1, input={"n": [1]}))
    storage.put(instance(2, "w"))
    assert (storage.get("k::v"), storage.get("k::w")) == (instance(1, input={"n": [1]}), instance(2, "w"))
    storage.put(instance(1, input={"n": [2]}))
    storage.get("k::v").input["n"].append("spoilt")
    assert storage.get("k::v").input == {"n": [2]}
    assert {each.run for each in storage.query()} == {1, 2}
    for _ in range(2):
        storage.delete("k::v")
    assert [each.run for each in storage.query()] == [2]
    with pytest.raises(InstanceNotFound):
        storage.get("k::v")


FILTERS: list[tuple[dict[str, Any], list[int]]] = [
    ({}, [4, 3, 2, 1]),
    ({"id": "k::a"}, [4, 1]),
    ({"status": "failed"}, [3, 2]),
    ({"status_in": ["failed", "completed"]}, [3, 2, 1]),
    ({"status_in": []}, []),
    ({"workflow": "Other"}, [3]),
    ({"workflow_version": 2}, [4, 2]),
    ({"tags": ["x"]}, [4, 2]),
    ({"tags": ["x", "y"]}, [4]),
    ({"status": "failed", "workflow": "Flow"}, [2]),
    ({"status": "failed", "status_in": ["completed"]}, []),
    ({"id": "k::a", "status_in": ["running"], "workflow": "Flow", "workflow_version": 2, "tags": ["y"]}, [4]),
    ({"id": "k::nobody"}, []),
]


@pytest.mark.parametrize(("filters", "runs"), FILTERS)
def test_f12_filters_are_anded(filters: dict[str, Any], runs: list[int]) -> None:
    """F12: instances are found by id, status, statuses, workflow, version and tags; all of them have to fit."""
    storage = Storage()
    storage.put(instance(1, "a", status="completed"))
    storage.put(instance(2, "b", status="failed", version=2, tags=("x",)))
    storage.put(instance(3, "c", status="failed", workflow="Other"))
    storage.put(instance(4, "a", version=2, tags=("x", "y", "z")))
    assert [each.run for each in storage.query(**filters)] == runs


def test_f12_a_filter_that_does_not_exist_is_an_error() -> None:
    """F12: a filter that does not exist is refused, and so is a status that does not; neither finds everything."""
    storage = Storage()
    storage.put(instance(1))
    wrong: Any = {"stauts": "failed"}
    with pytest.raises(TypeError, match="stauts"):
        storage.query(**wrong)
    for filters in ({"status": "broken"}, {"status_in": ["failed", "broken"]}):
        given: Any = filters
        with pytest.raises(InvalidValue, match="broken"):
            storage.query(**given)


def test_f13_of_48_puts_at_once_none_is_lost() -> None:
    """F13: instances that 48 threads put at the same time are all there, and readers see whole ones throughout."""
    storage = Storage()
    ready = threading.Barrier(48)
    seen: list[Instance] = []

    def put(number: int) -> None:
        ready.wait(PATIENCE)
        storage.put(instance(number, f"v{number}", input={"n": number}))
        seen.extend(storage.query(id=f"k::v{number}"))
        seen.extend(storage.query())

    _at_once(put, range(1, 49))
    assert [each.run for each in storage.query()] == list(range(48, 0, -1))
    assert {each.run for each in seen} == set(range(1, 49))
    assert all(each.input == {"n": each.run} and each.id == f"k::v{each.run}" for each in seen)


def _at_once(do: Callable[[int], None], numbers: range) -> None:
    threads = [threading.Thread(target=do, args=(number,)) for number in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)


def test_f14_starting_an_active_id_does_not_touch_what_is_stored(stack: Stack) -> None:
    """F14: a start that is refused because its id is active leaves the stored instance as it was, and runs nothing."""
    calls: Counter[str] = Counter()
    flow = chain(make("a", act=lambda ctx: calls.update("a") or Ok("done", {"n": 1})), WaitForEvent("go"))
    stack.run(flow)
    flow.start("v", {"first": True}, tags=["first"], metadata={"by": "first"})
    stack.until(flow, "v", "waiting")

    def stored() -> Any:
        if isinstance(stack, OnPostgres):
            tables = ("instances", "jobs", "step_results", "signals")
            return [stack.rows(f"select to_jsonb(t)::text from pgflow.{table} t order by 1") for table in tables]  # noqa: S608
        return repr(stack.app.storage.query())

    before = stored()
    with pytest.raises(AlreadyRunning, match=r"Flow 'k::v' is already running"):
        flow.start("v", {"second": True}, tags=["second"], metadata={"by": "second"}, priority=7)
    (known,) = flow.start_many([("v", {"second": True})])
    assert (known.created, known.run) == (False, flow.get("v").run)
    assert stored() == before
    flow.resume("v", "go")
    assert stack.until(flow, "v").input == {"first": True}
    assert calls == {"a": 1}
