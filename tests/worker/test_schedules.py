"""Schedules on a real database: fired by workers, changed at run time, and seen when something is wrong with them."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import psycopg
import pytest

from pgflow import Context, Done, Ok, Pgflow, TaskContext, Unique, WaitForEvent, Workflow, every, schedule, step, task
from pgflow.core.definition.timing import check_expression
from pgflow.core.models.schedule import instant_text
from pgflow.database.connect import Connection
from pgflow.errors import InvalidValue, PgflowError, ScheduleConflict, UnknownSchedule, UnknownWorkflow
from pgflow.worker.turns.claimer import Claimer
from tests.worker.conftest import Work
from tests.worker.db_helpers import one, rows
from tests.worker.thread_worker import Inside
from tests.worker.waiting import until

SECOND = timedelta(seconds=1)
JANUARY = datetime(2026, 1, 1, tzinfo=UTC)


@step
def note(ctx: Context[Any]) -> Ok:
    return Ok("done", {"seen": ctx.metadata["scheduled_for"], "input": ctx.initial})


gate = WaitForEvent("go").named("gate")


class Quick(Workflow[dict[str, Any]], unique=Unique("quick")):
    """One step."""

    initial = note
    transitions = {note: {"done": Done}}


class Slow(Workflow[dict[str, Any]], unique=Unique("slow")):
    """Runs until it gets a signal."""

    initial = gate
    transitions = {gate: {"received": Done}}


WORKFLOWS = (Quick, Slow)

REPORTS: list[tuple[int, str, str]] = []
RELEASE = threading.Event()


@task(queue="default")
def report(days: int, *, to: str = "all", ctx: TaskContext) -> str:
    REPORTS.append((days, to, ctx.metadata["scheduled_for"]))
    return "sent"


@task
def wait_for_release() -> None:
    RELEASE.wait(20)


TASKS = (report, wait_for_release)


def runs_of(conn: Connection, name: str) -> list[tuple[str, str]]:
    """Return (instant, status) of each run of a schedule, in the order of their starts."""
    query = (
        "select i.metadata ->> 'scheduled_for', i.status from pgflow.instances i"
        " where i.metadata ->> 'schedule' = %s order by i.run"
    )
    return rows(conn, query, name)


@contextmanager
def app_with(app: Pgflow, *schedules: Any, name: str = "shop", workflows: Any = WORKFLOWS) -> Iterator[Pgflow]:
    """An app on the same database that declares schedules."""
    other = Pgflow(app.dsn, workflows=workflows, tasks=TASKS, schedules=schedules, name=name)
    try:
        yield other
    finally:
        other.close()


def test_a_declared_schedule_fires_and_its_runs_know_their_instants(app: Pgflow, conn: Connection) -> None:
    ticking = schedule(every(SECOND), Quick, name="tick", args={"n": 1}, overlap="allow")
    with app_with(app, ticking) as shop, Inside(shop):
        until(lambda: len([run for run in runs_of(conn, "tick") if run[1] == "completed"]) >= 3)
        found = [datetime.fromisoformat(instant) for instant, _ in runs_of(conn, "tick")]
        assert {later - earlier for earlier, later in pairwise(found)} == {SECOND}
        first = shop.get("Quick", f"tick@{runs_of(conn, 'tick')[0][0]}")
        assert first.output(note) == {"seen": runs_of(conn, "tick")[0][0], "input": {"n": 1}}
        assert first.created_at >= found[0]
        info = shop.schedules.get("tick")
        assert (info.state, info.declared_by, info.skipped, info.missed) == ("active", "shop", 0, 0)
        assert info.fired >= 3


def test_a_schedule_enqueues_a_task_with_its_arguments(app: Pgflow, conn: Connection) -> None:
    REPORTS.clear()
    named = schedule(every(SECOND), report, args={"days": 7, "to": "ada"})
    with app_with(app, named) as shop, Inside(shop):
        until(lambda: len(REPORTS) >= 2)
        assert REPORTS[0][:2] == (7, "ada")
        started = shop.schedules.run("report")
        until(lambda: (7, "ada", instant_text(started.instant)) in REPORTS)
        shop.schedules.add("@daily", "report", name="other", args=[3])
        filled = shop.schedules.backfill("other", JANUARY, JANUARY + timedelta(days=2))
        until(lambda: {(3, "all", instant_text(each.instant)) for each in filled} <= set(REPORTS))
        with pytest.raises(PgflowError, match="days"):
            shop.schedules.add("@daily", report, name="bad", args={"days": "many"})
        with pytest.raises(PgflowError, match="dais"):
            shop.schedules.add("@daily", report, name="bad", args={"days": 7, "dais": 7})
        with pytest.raises(InvalidValue, match="args="):
            shop.schedules.add("@daily", report, name="bad", args="7")
    conn.execute("select pgflow.add_schedule('sql', 'report', '@daily', input => '{\"days\": 1}')")
    job = one(conn, "select pgflow.run_schedule('sql')")
    assert one(conn, "select args ->> 'days' from pgflow.jobs where id = %s", job) == "1"


def test_runs_of_a_task_overlap_as_those_of_a_workflow(app: Pgflow, conn: Connection) -> None:
    def count(name: str) -> int:
        query = (
            "select count(*) from (select metadata from pgflow.jobs union all select metadata from pgflow.task_results)"
            " r where r.metadata ->> 'schedule' = %s"
        )
        return int(one(conn, query, name))

    RELEASE.clear()
    declared = [
        schedule(every(SECOND), wait_for_release, name=overlap, overlap=overlap)
        for overlap in ("skip", "queue", "cancel_old")
    ]
    with app_with(app, *declared) as shop, Inside(shop, {"default": 30}):
        until(lambda: shop.schedules.get("skip").skipped >= 2 and count("cancel_old") >= 3)
        assert (count("skip"), count("queue")) == (1, 1)
        cancelled = "select count(*) from pgflow.task_results where status = 'cancelled' and error is not null"
        assert one(conn, cancelled) >= 2
        RELEASE.set()
        until(lambda: count("queue") >= 3)


def test_an_idle_worker_looks_for_due_schedules_with_its_poll_only(
    app: Pgflow, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[str, ...]] = []
    run_all = Claimer._run_all

    async def record(self: Claimer, conn: Any, statements: list[Any]) -> list[Any]:
        sent.append(tuple(each.name for each in statements))
        return await run_all(self, conn, statements)

    monkeypatch.setattr(Claimer, "_run_all", record)
    app.schedules.add("@yearly", Quick, name="yearly")
    work(listen=False, poll=timedelta(milliseconds=20), sweep=timedelta(hours=1), retention=None)
    until(lambda: app.schedules.get("yearly").next_at is not None)
    assert any("schedule/fire" in names for names in sent)
    sent.clear()
    until(lambda: len(sent) > 20)
    assert {name for names in sent for name in names} <= {"job/peek", "queue/read"}
    assert ("job/peek",) in sent


def test_pause_resume_run_backfill_next_and_remove(app: Pgflow, conn: Connection, work: Work) -> None:
    app.schedules.add("0 9 * * *", Quick, name="daily", tz="Europe/Berlin", args={"n": 2})
    assert [each.hour for each in app.schedules.next("daily", 400)].count(8) > 100  # UTC, in winter
    work()
    app.schedules.pause("daily", by="ada")
    paused = app.schedules.get("daily")
    assert (paused.state, paused.paused_by, paused.next_at) == ("paused", "ada", None)
    app.schedules.pause("daily", by="bob")
    assert app.schedules.get("daily").paused_by == "ada"
    app.schedules.resume("daily")
    until(lambda: app.schedules.get("daily").next_at is not None)
    assert app.schedules.get("daily").next_at == app.schedules.next("daily", 1)[0]

    started = app.schedules.run("daily", idempotency_key="once")
    assert app.schedules.run("daily", idempotency_key="once") == started
    span = (JANUARY, JANUARY + timedelta(days=3))
    dry = app.schedules.backfill("daily", *span, dry_run=True)
    assert [(each.instant.hour, each.run) for each in dry] == [(8, None)] * 3
    filled = app.schedules.backfill("daily", *span)
    assert [each.instant for each in filled] == [each.instant for each in dry]
    until(lambda: all(status == "completed" for _, status in runs_of(conn, "daily")))
    assert len(runs_of(conn, "daily")) == 4
    with pytest.raises(InvalidValue, match="1,000 instants"):
        app.schedules.backfill("daily", JANUARY, JANUARY + timedelta(days=2000))
    with pytest.raises(InvalidValue, match="end="):
        app.schedules.backfill("daily", JANUARY, JANUARY)
    app.schedules.remove("daily")
    assert app.schedules.list() == []
    for call in (app.schedules.pause, app.schedules.resume, app.schedules.remove, app.schedules.run, app.schedules.get):
        with pytest.raises(UnknownSchedule):
            call("daily")


async def _use_async_calls(app: Pgflow) -> list[str]:
    calls = app.schedules
    await calls.aadd(every(SECOND), Quick, name="a")
    await calls.apause("a")
    await calls.aresume("a")
    started = await calls.arun("a")
    assert started.created
    assert await calls.abackfill("a", JANUARY, JANUARY + SECOND, dry_run=True)
    assert (await calls.aget("a")).name == "a"
    assert len(await calls.anext("a", 3)) == 3
    names = [each.name for each in await calls.alist()]
    await calls.aremove("a")
    return names


def test_every_call_has_an_async_twin(app: Pgflow) -> None:
    import asyncio

    async def use() -> list[str]:
        try:
            return await _use_async_calls(app)
        finally:
            await app.aclose()

    assert asyncio.run(use()) == ["a"]


def test_an_active_run_is_skipped_queued_behind_or_cancelled(app: Pgflow, conn: Connection, work: Work) -> None:
    for overlap in ("skip", "queue", "cancel_old", "allow"):
        app.schedules.add(every(SECOND), Slow, name=overlap, overlap=overlap)
    actions = one(conn, "select count(*) from pgflow.audit")
    work({"default": 20})
    until(lambda: len(runs_of(conn, "cancel_old")) >= 3 and len(runs_of(conn, "allow")) >= 3)
    until(lambda: app.schedules.get("skip").skipped >= 2)
    assert [status for _, status in runs_of(conn, "cancel_old")][:2] == ["cancelled", "cancelled"]
    assert one(conn, "select count(*) from pgflow.audit") == actions, "these are not an operator's"
    assert len(runs_of(conn, "skip")) == len(runs_of(conn, "queue")) == 1
    assert app.schedules.get("queue").state == "active"  # it waits, and is not overdue
    ((first, _),) = runs_of(conn, "queue")
    app.resume(Slow, f"queue@{first}", "go")
    until(lambda: len(runs_of(conn, "queue")) == 2)
    second = runs_of(conn, "queue")[1][0]
    assert datetime.fromisoformat(second) - datetime.fromisoformat(first) == SECOND  # none was left out


def test_a_schedule_is_fired_only_by_workers_that_know_its_target_and_declare_it(
    app: Pgflow, conn: Connection, work: Work
) -> None:
    app.schedules.add(every(SECOND), Slow, name="unknown-here", overlap="allow")
    app.schedules.add(every(SECOND), Quick, name="known", overlap="allow")
    with app_with(app, schedule(every(SECOND), Quick, name="declared")) as shop:
        shop.register()
    with app_with(app, workflows=[Quick], name="other") as other, Inside(other):
        until(lambda: len(runs_of(conn, "known")) >= 3)
    assert runs_of(conn, "unknown-here") == runs_of(conn, "declared") == []
    conn.execute("update pgflow.schedules set next_at = next_at - interval '2 minutes' where name <> 'known'")
    assert {each.name: each.state for each in app.schedules.list()} == {
        "declared": "overdue", "known": "active", "unknown-here": "overdue"
    }  # fmt: skip


def test_a_schedule_that_a_later_release_does_not_declare_is_marked_and_still_fired_by_the_earlier_one(
    app: Pgflow, conn: Connection
) -> None:
    ticking = schedule(every(SECOND), Quick, name="tick")
    with app_with(app, ticking) as before, app_with(app) as after, Inside(before):
        until(lambda: len(runs_of(conn, "tick")) >= 1)
        with Inside(after):
            until(lambda: app.schedules.get("tick").state == "undeclared")
            count = len(runs_of(conn, "tick"))
            until(lambda: len(runs_of(conn, "tick")) > count + 1)
        with Inside(before):  # a worker of the earlier release starts again
            until(lambda: app.schedules.get("tick").state == "active")
    with app_with(app) as after, Inside(after):
        until(lambda: app.schedules.get("tick").state == "undeclared")
        count = len(runs_of(conn, "tick"))
        app.schedules.add(every(SECOND), Quick, name="other")
        until(lambda: len(runs_of(conn, "other")) >= 2)
        assert len(runs_of(conn, "tick")) == count
        app.schedules.remove("tick")


def test_names_are_taken_once_and_what_the_code_declares_changes_in_the_code(app: Pgflow, conn: Connection) -> None:
    daily = schedule("@daily", Quick, name="daily")
    with app_with(app, daily) as shop:
        shop.register()
        with pytest.raises(ScheduleConflict, match="declared by the app 'shop'"):
            app.schedules.add("@hourly", Quick, name="daily", replace=True)
        with pytest.raises(ScheduleConflict, match="declares the schedule"):
            app.schedules.remove("daily")
    with app_with(app, daily, name="another") as another, pytest.raises(ScheduleConflict, match="'shop'"):
        another.register()
    app.schedules.remove("daily", force=True)
    app.schedules.add("@hourly", Quick, name="daily")
    with pytest.raises(ScheduleConflict, match="already"):
        app.schedules.add("@daily", Quick, name="daily")
    app.schedules.add("@daily", Quick, name="daily", replace=True, overlap="queue")
    assert (str(app.schedules.get("daily").timing), app.schedules.get("daily").overlap) == ("@daily", "queue")
    with app_with(app, daily) as shop, pytest.raises(ScheduleConflict, match="added at run time"):
        shop.register()


def test_other_times_in_the_code_begin_now_and_the_same_ones_go_on(app: Pgflow, conn: Connection) -> None:
    def handled(when: Any) -> datetime:
        with app_with(app, schedule(when, Quick, name="s")) as shop:
            shop.register()
        return one(conn, "select handled_at from pgflow.schedules")  # type: ignore[no-any-return]

    first = handled("@hourly")
    conn.execute("update pgflow.schedules set handled_at = handled_at - interval '2 days'")
    assert handled("@hourly") == first - timedelta(days=2)  # missed instants are caught up after a restart
    assert handled("@daily") > first
    conn.execute("update pgflow.schedules set handled_at = %s", [first])
    conn.execute("update pgflow.schedules set undeclared_at = pgflow.now() - interval '2 hours'")
    assert handled("@daily") > first


def test_sql_adds_pauses_resumes_runs_and_removes(app: Pgflow, conn: Connection, work: Work) -> None:
    work()
    conn.execute("select pgflow.add_schedule('sql', 'Quick', '*/1 * * * * *', input => '{\"n\": 3}')")
    until(lambda: len(runs_of(conn, "sql")) >= 1)
    conn.execute("select pgflow.pause_schedule('sql')")
    assert app.schedules.get("sql").paused_by == one(conn, "select session_user::text")
    conn.execute("select pgflow.resume_schedule('sql')")
    run = one(conn, "select pgflow.run_schedule('sql', '2026-01-31 09:00Z')")
    assert app.get("Quick", "sql@2026-01-31T09:00:00Z").run == run
    app.schedules.add("@yearly", Slow, name="slow")
    for error in (None, PgflowError):  # its run is active
        with nullcontext() if error is None else pytest.raises(error):
            app.start(Slow, "slow@2026-01-01T00:00:00Z", {})
    assert [each.created for each in app.schedules.backfill("slow", JANUARY, JANUARY + SECOND)] == [False]
    conn.execute("select pgflow.remove_schedule('sql'), pgflow.remove_schedule('slow')")


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        ("'a b', 'Quick', '@daily'", "name: "),
        ("'a', 'Quick'", "give either cron or every"),
        ("'a', 'Quick', '@daily', '1 minute'", "give either cron or every"),
        ("'a', 'Quick', '* * *'", "cron: '* * *' has neither five nor six fields"),
        ("'a', 'Quick', '0 25 * * *'", "cron: the hour '25' is not in 0-23"),
        ("'a', 'Quick', '0 9 * * frid'", "cron: the day-of-week 'frid' is not in 0-7 or SUN-SAT"),
        ("'a', 'Quick', every => '10 ms'", "every: "),
        ("'a', 'Quick', '@daily', tz => 'Europe/Berln'", "tz: there is no time zone 'Europe/Berln'"),
        ("'a', 'Quick', every => '1 s', tz => 'Europe/Berlin'", "an interval has no time zone"),
        ("'a', 'Quick', '@daily', value => 'x'", "value: 'x' does not contain {instant}"),
        ("'a', 'Quick', '@daily', overlap => 'wait'", "overlap: "),
        ("'a', 'Quick', '@daily', catch_up => 'some'", "catch_up: "),
        ("'a', 'Quick', every => '1 minute', jitter => '1 hour'", "jitter: "),
    ],
)
def test_sql_refuses_what_is_wrong_with_the_field(conn: Connection, call: str, problem: str) -> None:
    with pytest.raises(Exception, match="invalid schedule") as refusal:
        conn.execute(f"select pgflow.add_schedule({call})".encode())
    assert problem in str(refusal.value)
    assert rows(conn, "select name from pgflow.schedules") == []


def test_sql_accepts_every_expression_that_a_worker_can_read(app: Pgflow, conn: Connection) -> None:
    rng = random.Random(12)  # noqa: S311 -- expressions to try
    atoms = ["*", "0", "7", "59", "31", "12", "007", "JAN", "dec", "sun", "Fri", "L", "LW", "5L", "mon#2", "60", "x"]
    items = [*atoms, *(f"{a}-{b}" for a in atoms for b in atoms), *(f"{a}/{b}" for a in atoms for b in ("2", "0", "L"))]
    add = "select pgflow.add_schedule(%s, 'Quick', %s)"
    accepted = 0
    by_sql: AbstractContextManager[Any]
    for number in range(900):
        fields = ["*", "*", "*", "*", "*"]
        fields[rng.randrange(5)] = ",".join(rng.choices(items, k=rng.choice((1, 1, 2))))
        expression = " ".join(fields)
        try:
            check_expression(expression)
        except InvalidValue as error:
            by_sql = nullcontext() if "no day" in str(error) else suppress(psycopg.Error)
        else:
            by_sql = nullcontext()
            accepted += 1
        with by_sql, conn.transaction():
            conn.execute(add, [f"s-{number}", expression])
    assert accepted > 30
    for wrong in ("60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "* * * * mon#6", "*/0 * * * *"):
        with pytest.raises(psycopg.Error, match="invalid schedule: cron: the "), conn.transaction():
            conn.execute(add, ["wrong", wrong])


def test_an_unknown_workflow_is_refused_by_both(app: Pgflow, conn: Connection) -> None:
    with pytest.raises(UnknownWorkflow, match="target: this app has no workflow or task named 'Quik'"):
        app.schedules.add("@daily", "Quik")
    with pytest.raises(Exception, match="no workflow or task named 'Quik' is registered"):
        conn.execute("select pgflow.add_schedule('a', 'Quik', '@daily')")


def test_what_a_worker_cannot_start_is_recorded_and_stops_no_other_schedule(
    app: Pgflow, conn: Connection, work: Work
) -> None:
    conn.execute("select pgflow.add_schedule('bad', 'Quick', '9-3 * * * *')")
    conn.execute("select pgflow.add_schedule('broken', 'Quick', every => '1 second')")
    conn.execute("update pgflow.schedules set value = 'two words {instant}' where name = 'broken'")
    app.schedules.add(every(SECOND), Quick, name="good")
    work()
    until(lambda: len(runs_of(conn, "good")) >= 2)
    until(lambda: app.schedules.get("bad").last_error and app.schedules.get("broken").last_error)
    bad, broken = app.schedules.get("bad"), app.schedules.get("broken")
    assert bad.state == "ended"
    assert "the minute '9-3'" in (bad.last_error or {})["reason"]
    assert "not a valid business value" in (broken.last_error or {})["reason"]
    assert broken.fired == 0


def test_a_change_between_the_reading_and_the_firing_wins(app: Pgflow, conn: Connection) -> None:
    from pgflow.database.statement import run
    from pgflow.store import schedule as store
    from pgflow.store.schedule import ScheduleScope
    from tests.worker.test_schedules_year import Rival

    app.schedules.add(every(SECOND), Quick, name="s")
    conn.execute("update pgflow.schedules set handled_at = pgflow.now() - interval '5 s'")
    for change in ("pause_schedule('s')", "add_schedule('s', 'Slow', '@daily', replace_existing => true)"):
        rival = Rival(app, conn)
        rival.read()
        assert len(rival.chore._firings) == 1
        conn.execute(f"select pgflow.{change}".encode())
        rival.fire()
        assert runs_of(conn, "s") == []
        conn.execute("select pgflow.resume_schedule('s')")
    assert run(conn, store.due("pgflow", ScheduleScope(["Quick"]))).schedules == []


def test_a_refused_call_writes_nothing(app: Pgflow) -> None:
    with pytest.raises(PgflowError):
        app.schedules.add("@daily", Quick, args=[1])
    assert app.schedules.list() == []
