"""Group G: the calls on a workflow and on an app, uniqueness, discovery of the app, cancel."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from enum import Enum, StrEnum
from typing import Any
from weakref import WeakSet

import pytest
from pydantic import BaseModel

from pgflow import Async, Context, Done, Error, Ok, Pgflow, Started, Unique, Wait, WaitForEvent, Workflow, step
from pgflow.client import apps
from pgflow.core.definition.unique import build_id, build_id_with_suffix, extract_value, validate_value
from pgflow.database.connect import connect
from pgflow.errors import (
    AlreadyRunning,
    DefinitionError,
    InstanceNotFound,
    InvalidPayload,
    InvalidValue,
    NotActive,
    NotBound,
    NotFound,
    PgflowError,
    UndeclaredEvent,
    UnknownOption,
)
from pgflow.local import Local, Storage
from tests.conformance.conftest import OnPostgres, Stack
from tests.worker.waiting import BUSY, PATIENCE, until

Input = dict[str, Any]
UUID = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"


class Answer(StrEnum):
    YES = "yes"
    NO = "no"


class Colour(Enum):
    RED = "red"


@step
def work(ctx: Context[Input]) -> Ok | Error:
    return Error("as asked", retry=False) if ctx.initial.get("fails") else Ok("done")


@step(events=tuple(Answer))
def ask(ctx: Context[Input]) -> Async:
    return Async()


ASKING: Any = {ask: {Answer.YES: work, "no": Done}, work: {"done": Done}}


class Plain(Workflow[Input], unique=Unique("orderid")):
    initial = work
    transitions = {work: {"done": Done}}


class Asking(Workflow[Input], unique=Unique("orderid")):
    initial = ask
    transitions = ASKING


class AskingToo(Workflow[Input], unique=Unique("orderid")):
    initial = ask
    transitions = ASKING


class PerVersion(Workflow[Input], unique=Unique("userid", scope="version"), current=2):
    class V1(Workflow[Input], version=1):
        initial = ask
        transitions = ASKING

    class V2(Workflow[Input], version=2):
        initial = ask
        transitions = {**ASKING, ask: {"yes": Done, "no": work}}

    versions = {1: V1, 2: V2}


class World(Workflow[Input], unique=Unique("seat", scope="global")):
    initial = ask
    transitions = ASKING


class WorldToo(Workflow[Input], unique=Unique("seat", scope="global")):
    initial = ask
    transitions = ASKING


class Visits(Workflow[Input], unique=Unique("visit", scope="none")):
    initial = ask
    transitions = ASKING


class Timed(Workflow[Input], unique=Unique("timed")):
    initial = Wait(timedelta(hours=1))
    transitions = {Wait(timedelta(hours=1)): {"timeout": work}, work: {"done": Done}}


def waits(stack: Stack, workflow: type[Workflow[Any]], value: str) -> None:
    stack.until(workflow, value, "waiting")


# -- starting, and which of them are the same


def test_g1_start_returns_the_business_id(stack: Stack) -> None:
    """G1: `W.start("abc123", input)` has the id `"orderid::abc123"`."""
    stack.run(Plain)
    assert Plain.start("abc123").id == "orderid::abc123"
    assert stack.until(Plain, "abc123").id == "orderid::abc123"


def test_g2_a_second_start_is_refused_while_the_first_is_active(stack: Stack) -> None:
    """G2: a duplicate while one is active raises `AlreadyRunning`, which names the run."""
    stack.run(Asking)
    first = Asking.start("abc123")
    with pytest.raises(AlreadyRunning, match=f"orderid::abc123.*run {first.run}"):
        Asking.start("abc123")
    assert [run.run for run in Asking.runs("abc123")] == [first.run]


def test_g3_an_ended_instance_makes_room_for_another(stack: Stack) -> None:
    """G3: after completed, failed or cancelled a new start of the same value works, and earlier runs stay readable."""
    stack.run(Plain, Asking)
    Plain.start("v")
    assert stack.until(Plain, "v").status == "completed"
    Plain.start("v", {"fails": True})
    assert stack.until(Plain, "v", "failed").error is not None
    Plain.start("v")
    assert stack.until(Plain, "v", "completed").run
    Asking.start("v")
    Asking.cancel("v")
    Asking.start("v")
    assert [run.status for run in Plain.runs("v")] == ["completed", "failed", "completed"]
    assert [run.status in ("running", "waiting") for run in Asking.runs("v")] == [True, False]


@pytest.mark.parametrize("value", ["a", "ORD-2024_001", UUID, "ann@example.org", "ü/ß", "x" * 200])
def test_g4_real_keys_are_values(value: str) -> None:
    """G4: a value is any string of 1 to 200 characters without white space, control characters or "::"."""
    assert validate_value(value) == value


@pytest.mark.parametrize("value", ["", "a b", "a\n", "\ta", "a::b", "a\x00", "x" * 201, 7, None, b"a"])
def test_g4_other_values_are_refused_by_a_message_with_the_rule(value: Any) -> None:
    """G4: anything else is rejected with a message that names the rule, by start too, and nothing is stored."""
    with pytest.raises(InvalidValue) as caught:
        validate_value(value)
    assert "1 to 200 characters, without white space, control characters" in f"{caught.value} {caught.value.hint}"
    with Local(workflows=[Plain]) as app:
        with pytest.raises(InvalidValue):
            Plain.start(value)
        assert len(app.storage) == 0


def test_g5_ids_are_built_and_taken_apart() -> None:
    """G5: `build_id`, `build_id_with_suffix` (8 hex digits) and `extract_value` (2 and 3 parts); malformed raises."""
    assert build_id("orderid", UUID) == f"orderid::{UUID}"
    assert build_id_with_suffix("visit", "ann", "0a1b2c3d") == "visit::ann::0a1b2c3d"
    assert extract_value(f"orderid::{UUID}") == UUID
    assert extract_value("visit::ann::0a1b2c3d") == "ann"
    for bad in ("orderid", "::abc", "Order::abc", "orderid::", "a::b::c::d"):
        with pytest.raises(InvalidValue):
            extract_value(bad)
    with pytest.raises(InvalidValue):
        build_id_with_suffix("visit", "ann", "XYZ")


def test_g6_scope_workflow_lets_another_workflow_have_the_key(stack: Stack) -> None:
    """G6: with the scope "workflow" another workflow with the same key and value runs beside, and both are readable."""
    stack.run(Asking, AskingToo)
    one, two = Asking.start("same"), AskingToo.start("same")
    waits(stack, Asking, "same")
    waits(stack, AskingToo, "same")
    assert one.id == two.id
    assert one.run != two.run
    Asking.resume("same", "yes")
    assert stack.until(Asking, "same").run == one.run
    assert AskingToo.get("same").status == "waiting"


def test_g7_scope_version_lets_versions_stand_side_by_side(stack: Stack) -> None:
    """G7: with the scope "version" V1 and V2 of a value coexist, a second one of the same version is refused."""
    stack.run(PerVersion)
    PerVersion.start("u", version=1)
    PerVersion.start("u", version=2)
    for version in (1, 2):
        with pytest.raises(AlreadyRunning):
            PerVersion.start("u", version=version)
    waits(stack, PerVersion.V1, "u")
    PerVersion.V1.resume("u", "no")
    assert stack.until(PerVersion.V1, "u").version == 1
    assert PerVersion.V2.get("u").is_active


def test_g8_scope_global_is_one_over_all_workflows(stack: Stack) -> None:
    """G8: with the scope "global" an instance of any workflow blocks the key; the message names it."""
    stack.run(World, WorldToo)
    World.start("12a")
    with pytest.raises(AlreadyRunning, match="of this workflow or another"):
        WorldToo.start("12a")
    World.cancel("12a")
    assert WorldToo.start("12a").id == "seat::12a"


def test_g9_scope_none_lets_any_number_run(stack: Stack) -> None:
    """G9: with the scope "none" many run at once, each with a suffix; calls on one of them need the whole id."""
    stack.run(Visits)
    started = [Visits.start("ann") for _ in range(3)]
    assert len({each.id for each in started}) == 3
    assert all(each.id.startswith("visit::ann::") and extract_value(each.id) == "ann" for each in started)
    for call in (Visits.get, Visits.cancel, lambda value: Visits.resume(value, "yes")):
        with pytest.raises(InvalidValue, match="may have many instances"):
            call("ann")
    assert {each.id for each in Visits.list()} == {each.id for each in started}


def test_g10_each_scope_looks_for_its_own_key(postgres: OnPostgres) -> None:
    """G10: what a scope compares is one column under a partial unique index: workflow + id, + version, id alone."""
    postgres.idle(Asking, PerVersion, World, Visits)
    for workflow in (Asking, PerVersion, World, Visits):
        workflow.start("x")
    keys = [key for (key,) in postgres.rows("select unique_key from pgflow.instances order by run")]
    assert keys == ["w Asking orderid::x", "v PerVersion 2 userid::x", "g seat::x", None]


def test_g11_of_fifty_concurrent_starts_one_wins(stack: Stack) -> None:
    """G11: 50 concurrent starts of one key give exactly one success; the others raise `AlreadyRunning`."""
    stack.run(Asking)
    gate = threading.Barrier(50)

    def start() -> Started | str:
        gate.wait(PATIENCE)
        try:
            return Asking.start("hot")
        except AlreadyRunning as error:
            return error.code

    with ThreadPoolExecutor(50) as threads:
        outcomes = [future.result() for future in [threads.submit(start) for _ in range(50)]]
    assert sum(isinstance(each, Started) for each in outcomes) == 1
    assert outcomes.count("already-running") == 49
    assert len(Asking.runs("hot")) == 1


# -- the calls


def test_g12_calls_take_the_raw_value_and_lists_filter(stack: Stack) -> None:
    """G12: resume, get, list and cancel take the raw value; list filters by status and covers all versions."""
    stack.run(Asking, PerVersion)
    for value in ("a", "b", "c"):
        Asking.start(value)
        waits(stack, Asking, value)
    assert Asking.resume("a", "no") == "delivered"
    assert stack.until(Asking, "a").status == "completed"
    Asking.cancel("b")
    assert Asking.get("orderid::b").status == "cancelled"
    assert [each.id for each in Asking.list(status="waiting")] == ["orderid::c"]
    assert [each.id for each in Asking.list(status=["completed", "cancelled"])] == ["orderid::b", "orderid::a"]
    PerVersion.start("u", version=1)
    PerVersion.start("u", version=2)
    assert [each.version for each in PerVersion.list()] == [2, 1]
    assert [each.version for each in PerVersion.V1.list()] == [1]


def test_g13_cancel_ends_it_for_good(stack: Stack) -> None:
    """G13: a cancelled instance runs no further step, its timers and jobs are gone, a later resume is refused."""
    stack.run(Asking, Timed)
    Asking.start("a")
    Timed.start("t")
    waits(stack, Asking, "a")
    waits(stack, Timed, "t")
    Asking.schedule_resume("a", ask, timedelta(hours=1), "yes")
    Asking.cancel("a", reason="withdrawn")
    Timed.cancel("t")
    with pytest.raises(NotActive, match="cancelled"):
        Asking.resume("a", "yes")
    for workflow, value in ((Asking, "a"), (Timed, "t")):
        gone = workflow.get(value)
        assert (gone.status, gone.waiting_for, gone.history) == ("cancelled", (), ())
    assert Asking.get("a").error == {"reason": "withdrawn"}
    if isinstance(stack, OnPostgres):
        assert stack.rows("select run from pgflow.jobs union all select run from pgflow.scheduled_signals") == []


def test_g14_a_cancel_that_is_impossible_is_refused(stack: Stack) -> None:
    """G14: cancelling a finished one raises `NotActive`, an unknown one `InstanceNotFound`."""
    stack.run(Plain)
    Plain.start("v")
    stack.until(Plain, "v")
    with pytest.raises(NotActive, match="completed"):
        Plain.cancel("v")
    with pytest.raises(InstanceNotFound):
        Plain.cancel("nobody")


def test_g15_scope_none_is_cancelled_by_the_whole_id(stack: Stack) -> None:
    """G15: an instance of the scope "none" is cancelled by its full id, the others go on."""
    app = stack.run(Visits)
    one, two = Visits.start("ann"), Visits.start("ann")
    Visits.cancel(one.id)
    app.cancel("Visits", two.id)
    assert [each.status for each in Visits.list()] == ["cancelled", "cancelled"]


@pytest.mark.parametrize("call", ["start", "start_many", "list"])
def test_g12_an_option_that_does_not_exist_is_refused(stack: Stack, call: str) -> None:
    """G12: a misspelt option or filter is refused, with the one that was meant, and nothing is stored."""
    stack.run(Plain)
    calls: dict[str, Callable[[], object]] = {
        "start": lambda: Plain.start("v", {}, tagz=["x"]),  # type: ignore[call-arg]
        "start_many": lambda: Plain.start_many([("v", {})], tagz=["x"]),  # type: ignore[call-arg]
        "list": lambda: Plain.list(tagz=["x"]),  # type: ignore[call-arg]
    }
    with pytest.raises(UnknownOption, match="'tagz'") as caught:
        calls[call]()
    assert caught.value.hint == "Did you mean 'tags'?"
    assert Plain.list() == []


# -- which app


@pytest.fixture
def no_open_app(monkeypatch: pytest.MonkeyPatch) -> None:
    """No app is open."""
    monkeypatch.setattr(apps, "open_apps", WeakSet())


def unlisted(**options: Any) -> type[Workflow[Input]]:
    class Unlisted(Workflow[Input], unique=Unique("u"), **options):
        initial = work
        transitions = {work: {"done": Done}}

    return Unlisted


@pytest.mark.usefixtures("no_open_app")
def test_g16_without_an_app_the_error_has_the_fix() -> None:
    """G16: with no app open the call raises an error with how to make one."""
    with pytest.raises(NotBound, match="none is open") as caught:
        unlisted().start("v")
    assert caught.value.hint == "Make one first: Pgflow(dsn, workflows=[Unlisted])."


@pytest.mark.usefixtures("no_open_app")
def test_g16_the_only_app_is_found(stack: Stack) -> None:
    """G16: a workflow that no app lists goes to the only one that is open, on each stack, also in a later worker."""
    stack.run(Plain)
    workflow = unlisted()
    assert workflow.start("v").id == "u::v"
    assert workflow.bound() is stack.app
    assert stack.until(workflow, "v").status == "completed"
    stack.restart()
    workflow.start("w")
    assert stack.until(workflow, "w").status == "completed"


@pytest.mark.usefixtures("no_open_app")
def test_g16_of_several_apps_none_is_guessed() -> None:
    """G16: with several open the call is refused and lists them; `app=` wins, and a closed one counts no more."""
    with Local() as one:
        two = Pgflow("host=nowhere", name="shop")
        with pytest.raises(NotBound, match=r"several are open: Local\(.*Pgflow\(name='shop'") as caught:
            unlisted().start("v")
        assert "app=app" in (caught.value.hint or "")
        explicit = unlisted(app=one)
        assert explicit.start("v").id == "u::v"
        assert (explicit.bound(), explicit in one.workflows) == (one, True)
        two.close()
        late = unlisted(name="Late")
        assert late.start("v").id == "u::v"
        assert late.bound() is one
    with pytest.raises(DefinitionError, match="app is 'shop', which is not an app"):
        unlisted(app="shop")


@pytest.mark.usefixtures("no_open_app")
def test_g16_a_version_is_found_with_its_workflow() -> None:
    """G16: a call on a version that no app lists registers the versioned workflow."""

    class Versioned(Workflow[Input], unique=Unique("u"), current=1):
        class V1(Workflow[Input], version=1):
            initial = work
            transitions = {work: {"done": Done}}

        versions = {1: V1}

    with Local() as app:
        assert Versioned.V1.start("v").id == "u::v"
        assert app.workflows == (Versioned,)


@pytest.mark.usefixtures("no_open_app")
def test_g16_the_app_made_last_has_a_listed_workflow_until_it_is_closed() -> None:
    """G16: a workflow that several apps list belongs to the last one; closed, it gives it back to the one before."""
    with Local(workflows=[Plain]) as outer:
        with Local(workflows=[Plain]) as inner:
            assert Plain.bound() is inner
        assert Plain.bound() is outer


def test_g17_each_of_two_apps_reaches_its_own(postgres: OnPostgres) -> None:
    """G17: two apps at once, on schemas of their own: each call of an app reaches its own instances."""
    first = postgres.run(Asking)
    with connect(postgres.dsn, "test") as conn:
        conn.execute("drop schema if exists side cascade")
    second = Pgflow(postgres.dsn, workflows=[Asking], schema="side", name="side")
    second.migrate()
    try:
        first.start(Asking, "a")
        second.start(Asking, "a", {"n": 2})
        until(lambda: first.get(Asking, "a").status == "waiting", "the wait")
        assert first.resume(Asking, "a", "no") == "delivered"
        assert second.resume("Asking", "a", "no") == "kept"
        until(lambda: first.get(Asking, "a").status == "completed", "the end")
        assert (second.get(Asking, "a").status, second.get(Asking, "a").input) == ("running", {"n": 2})
        second.run_worker(drain=True)
        assert second.get(Asking, "a").status == "completed"
    finally:
        second.close()
        with connect(postgres.dsn, "test") as conn:
            conn.execute("drop schema side cascade")


def test_g17_two_local_apps_do_not_meet() -> None:
    """G17: in memory, too, each app has its own instances."""
    with Local(workflows=[Asking]) as one, Local(workflows=[Asking]) as two:
        one.start(Asking, "a")
        two.start("Asking", "a")
        one.cancel(Asking, "a")
        assert [one.get(Asking, "a").status, two.get("Asking", "a").is_active] == ["cancelled", True]


def test_g18_the_stack_is_the_apps_class() -> None:
    """G18: the stack is the app's class: `Local` with a storage and threads, `Pgflow` with a dsn, schema and name."""
    storage = Storage("mine")
    with Local(workflows=[Plain], storage=storage, threads=2) as app:
        Plain.start("v")
        app.drain(PATIENCE)
        assert storage.get("orderid::v").status == "completed"
    with Local() as bare:
        assert (bare.storage.name, bare.workflows) == ("default", ())
    there = Pgflow("host=nowhere", [Plain], schema="jobs", name="shop")
    assert (there.dsn, there.schema, there.name) == ("host=nowhere", "jobs", "shop")
    there.close()
    with pytest.raises(PgflowError):
        Pgflow("host=nowhere", schema='no "such" name').migrate()


def test_g19_an_app_has_every_call(stack: Stack) -> None:
    """G19: start, resume, schedule_resume, cancel, get, list, runs and retry are calls of the app, by class or name."""
    app = stack.run(Asking, Plain)
    assert app.start("Asking", "a").id == "orderid::a"
    app.start(Asking, "b")
    waits(stack, Asking, "a")
    waits(stack, Asking, "b")
    handle = app.schedule_resume("Asking", "b", "ask", timedelta(hours=1), "no")
    assert app.unschedule(handle.id) is True
    assert app.resume("Asking", "a", "no") == "delivered"
    app.cancel("Asking", "b")
    assert stack.until(Asking, "a").status == "completed"
    assert {each.id: each.status for each in app.list("Asking")} == {
        "orderid::a": "completed",
        "orderid::b": "cancelled",
    }
    app.start("Plain", "f", {"fails": True})
    assert stack.until(Plain, "f").status == "failed"
    app.retry("Plain", "f")
    assert [each.run for each in app.runs("Plain", "f")] == [app.get("Plain", "f").run]
    with pytest.raises(NotFound, match="no workflow named 'Nothing'"):
        app.get("Nothing", "a")


@pytest.mark.parametrize("event", [Answer.YES, "yes"])
def test_g20_an_event_is_a_string_or_an_enum(stack: Stack, event: Any) -> None:
    """G20: a signal's event may be given as a string or as an enum, on every stack."""
    stack.run(Asking)
    Asking.start("a")
    waits(stack, Asking, "a")
    assert Asking.resume("a", event) == "delivered"
    assert [entry.event for entry in stack.until(Asking, "a").history] == ["yes", "done"]


def test_g20_an_unknown_event_is_refused_at_once(stack: Stack) -> None:
    """G20: an event that no step takes is refused immediately with the list of those it takes; nothing is kept."""
    stack.run(Asking)
    Asking.start("a")
    waits(stack, Asking, "a")
    event: Any
    for event in ("maybe", Colour.RED, 7):
        with pytest.raises(PgflowError) as caught:
            Asking.resume("a", event)
        if event != 7:
            assert isinstance(caught.value, UndeclaredEvent)
            assert "no (ask), yes (ask)" in (caught.value.hint or "")
    assert Asking.get("a").status == "waiting"


# -- signals that are sent later


def test_i20_a_resume_is_scheduled_durably(stack: Stack) -> None:
    """I20: `schedule_resume` is stored, survives a restart, and comes within two seconds of its time, never early."""
    stack.run(Asking)
    Asking.start("a")
    waits(stack, Asking, "a")
    handle = Asking.schedule_resume("a", ask, timedelta(milliseconds=300), "no", {"why": "too late"})
    assert (handle.step, handle.event, handle.run) == ("ask", "no", Asking.get("a").run)
    stack.restart()
    done = stack.until(Asking, "a")
    (entry,) = done.history
    assert (entry.event, entry.output) == ("no", {"why": "too late"})
    assert timedelta(0) <= entry.at - handle.at < timedelta(seconds=2 + BUSY)
    assert stack.app.unschedule(handle.id) is False


def test_i20_a_scheduled_resume_can_be_cancelled(stack: Stack) -> None:
    """I20: the handle cancels it, once; by its id another process can, too."""
    app = stack.run(Asking)
    Asking.start("a")
    waits(stack, Asking, "a")
    first = Asking.schedule_resume("a", "ask", timedelta(milliseconds=200), "no")
    second = Asking.schedule_resume("a", "ask", timedelta(milliseconds=200), "no")
    third = Asking.schedule_resume("a", "ask", timedelta(milliseconds=400), "yes")
    assert [first.cancel(), first.cancel(), app.unschedule(second.id)] == [True, False, True]
    assert [entry.event for entry in stack.until(Asking, "a").history] == ["yes", "done"]
    assert third.cancel() is False


def test_i20_a_scheduled_resume_waits_for_the_wait(stack: Stack) -> None:
    """I20: one that is due before its step waits is kept for it; a step that has completed is refused."""
    order = WaitForEvent("paid")

    class Later(Workflow[Input], unique=Unique("later")):
        initial = ask
        transitions = {ask: {"yes": order, "no": Done}, order: {"received": Done}}

    app = stack.run(Later)
    Later.start("a")
    waits(stack, Later, "a")
    Later.schedule_resume("a", order, timedelta(0), payload=7)  # the only signal that it takes: "paid"
    if isinstance(app, Local):
        app.settle(PATIENCE)
    else:
        until(lambda: app.list(Later) and not _scheduled(stack), "the signal")
    Later.resume("a", "yes")
    assert stack.until(Later, "a").steps == {"ask": {}, "wait_for_event": 7}
    with pytest.raises(NotActive):
        Later.schedule_resume("a", order, timedelta(0))


def _scheduled(stack: Stack) -> Any:
    return isinstance(stack, OnPostgres) and stack.rows("select id from pgflow.scheduled_signals")


@pytest.mark.parametrize(
    ("step", "delay", "event", "code"),
    [
        ("ask", timedelta(seconds=-1), "yes", "invalid-value"),
        ("ask", 3, "yes", "invalid-value"),
        ("ask", timedelta(1), "maybe", "undeclared-event"),
        ("ask", timedelta(1), None, "undeclared-event"),
        ("nothing", timedelta(1), "yes", "unknown-step"),
        ("work", timedelta(1), "yes", "undeclared-event"),
    ],
)
def test_i20_what_cannot_be_scheduled_is_refused(stack: Stack, step: str, delay: Any, event: Any, code: str) -> None:
    """I20: a negative delay, an unknown step, an event that it does not take: refused with what would be accepted."""
    stack.run(Asking)
    Asking.start("a")
    with pytest.raises(PgflowError) as caught:
        Asking.schedule_resume("a", step, delay, event)
    assert (caught.value.code, bool(caught.value.hint)) == (code, True)
    with pytest.raises(InstanceNotFound):
        Asking.schedule_resume("nobody", "ask", timedelta(1), "yes")


def test_i17_signals_that_no_step_has_taken_are_shown(stack: Stack) -> None:
    """I17: a signal that is kept, and a scheduled one, are part of what `get` returns, until they are consumed."""
    stack.run(Asking)
    Asking.start("a", delay=timedelta(seconds=30))
    Asking.resume("a", "yes", {"by": "Ada"}, step=ask)
    later = Asking.schedule_resume("a", ask, timedelta(hours=1), "no")
    kept, scheduled = Asking.get("a").signals
    assert (kept.event, kept.step, kept.payload, kept.id) == ("yes", "ask", {"by": "Ada"}, None)
    assert (scheduled.event, scheduled.id, scheduled.at, scheduled.payload) == ("no", later.id, later.at, None)
    assert Asking.list()[0].signals == ()
    later.cancel()
    assert Asking.get("a").signals == (kept,)
    if isinstance(stack, OnPostgres):
        stack.rows("update pgflow.jobs set run_at = pgflow.now() returning id")
    else:
        stack.app.advance_time(timedelta(minutes=1))
    assert stack.until(Asking, "a").signals == ()


async def _twins(app: Any, wait: Callable[[], object]) -> None:
    await Asking.astart("a")
    wait()
    handle = await Asking.aschedule_resume("a", ask, timedelta(hours=1), "yes")
    assert await handle.acancel() is True
    assert await app.aunschedule(handle.id) is False
    await app.aclose()


def test_i20_async_twins_do_the_same(stack: Stack) -> None:
    """I20: `aschedule_resume`, `acancel` and `aunschedule` are the same calls for async code."""
    import asyncio

    app = stack.run(Asking)
    asyncio.run(_twins(app, lambda: waits(stack, Asking, "a")))


class Verdict(BaseModel):
    by: str


@step(events=("yes", "no"), output=Verdict)
def judge(ctx: Context[Input]) -> Async:
    return Async()


class Judged(Workflow[Input], unique=Unique("judged")):
    initial = judge
    transitions = {judge: {"yes": Done, "no": Done}}


def test_i18_a_payload_has_to_be_what_the_step_declares(stack: Stack) -> None:
    """I18: a signal's payload is checked against the output that the step declares, and refused before it is sent."""
    stack.run(Judged)
    Judged.start("a")
    waits(stack, Judged, "a")
    payload: Any
    for payload in ({"of": "Ada"}, {"by": 1}, [], 7):
        with pytest.raises(InvalidPayload, match="step 'judge' declares the output Verdict, which the value is not"):
            Judged.resume("a", "yes", payload)
        with pytest.raises(InvalidPayload):
            Judged.schedule_resume("a", judge, timedelta(0), "yes", payload)
    assert Judged.resume("a", "yes", Verdict(by="Ada")) == "delivered"
    assert stack.until(Judged, "a").steps == {"judge": {"by": "Ada"}}
