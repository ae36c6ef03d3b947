"""Retries: how long the pauses are, whose policy counts, how it ends, and how a failed instance goes on."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from pgflow import Async, Context, Done, Error, Ok, Pgflow, Retry, Unique, Wait, WaitForEvent, Workflow, step
from pgflow.core.definition.retry import BackoffName
from pgflow.database.connect import Connection
from pgflow.errors import NotRetryable
from tests.worker.conftest import Work
from tests.worker.db_helpers import leftovers, one, rows, steps, until_status
from tests.worker.waiting import until

Input = dict[str, Any]
HOUR = timedelta(hours=1)
SOON = timedelta(milliseconds=10)


class Mended(Exception):
    """An error of no hope."""


class World:
    """What the steps find: whether things are broken, and a record of who was called."""

    is_broken = True
    calls: list[tuple[str, int]] = []


@pytest.fixture(autouse=True)
def world() -> None:
    World.is_broken = True
    World.calls.clear()


def act(ctx: Context[Input]) -> Ok | Error:
    World.calls.append((ctx.step, ctx.attempt))
    match ctx.initial.get("how"):
        case "never_on" if World.is_broken:
            raise Mended("never again")
        case "no_retry" if World.is_broken:
            return Error("card expired", retry=False)
        case "returns" if World.is_broken:
            return Error("declined")
        case "exits" if World.is_broken:
            raise SystemExit(3)
        case "flaky" if ctx.attempt < 3:
            raise ConnectionError(f"attempt {ctx.attempt}")
        case "raises" if World.is_broken:
            raise ConnectionError("down")
        case "nul" if World.is_broken:
            return Error("a NUL \x00 and half a pair \ud800")
        case "nul_raised" if World.is_broken:
            raise ConnectionError("a NUL \x00 and half a pair \ud800")
    return Ok("done")


@step(retry=Retry(max_attempts=3, base=SOON, never_on=(Mended,)))
def own(ctx: Context[Input]) -> Ok | Error:
    return act(ctx)


@step
async def inherited(ctx: Context[Input]) -> Ok | Error:
    return act(ctx)


@step
def begin(ctx: Context[Input]) -> Ok:
    World.calls.append((ctx.step, ctx.attempt))
    return Ok("done", {"n": 1})


@step
def wait_here(ctx: Context[Input]) -> Async:
    return Async()


hour = Wait(HOUR).named("hour")
word = WaitForEvent("word").named("word")


@step
def end(ctx: Context[Input]) -> Ok:
    World.calls.append((ctx.step, ctx.attempt))
    return Ok("done")


class OwnPolicy(Workflow[Input], unique=Unique("own"), retry=Retry(max_attempts=9, backoff="constant", base=HOUR)):
    """The step's policy counts."""

    initial = begin
    transitions = {begin: {"done": own}, own: {"done": end}, end: {"done": Done}}


class WorkflowPolicy(Workflow[Input], unique=Unique("workflow"), retry=Retry(max_attempts=2, base=SOON)):
    """The workflow's policy counts, the step having none."""

    initial = inherited
    transitions = {inherited: {"done": Done}}


class DefaultPolicy(Workflow[Input], unique=Unique("default")):
    """The default policy: five attempts, exponential, from a second."""

    initial = inherited
    transitions = {inherited: {"done": Done}}


class Crowded(Workflow[Input], unique=Unique("crowded")):
    """A step that fails beside a timer and a wait."""

    initial = begin
    transitions = {
        begin: {"done": [own, hour, word]},
        own: {"done": end},
        hour: {"timeout": end},
        word: {"received": end},
        end: {"done": Done},
    }


WORKFLOWS = (OwnPolicy, WorkflowPolicy, DefaultPolicy, Crowded)


# -- the pauses, computed by the database


def seconds(attempt: int, kind: BackoffName, base: float, cap: float) -> float:
    growth = {"constant": 1.0, "linear": float(attempt), "exponential": 2.0 ** min(attempt - 1, 64)}[kind]
    return min(cap, base * growth)


@pytest.mark.parametrize("kind", ["exponential", "linear", "constant"])
@pytest.mark.parametrize("attempt", [1, 2, 3, 7, 31, 32, 33, 1000, 32_767])
@pytest.mark.parametrize(("base", "cap"), [(1.0, 60.0), (0.25, 3600.0), (5.0, 5.0), (0.0, 60.0), (10.0, 1.0)])
def test_the_database_computes_each_kind_of_pause_under_its_cap(
    conn: Connection, kind: BackoffName, attempt: int, base: float, cap: float
) -> None:
    query = "select extract(epoch from pgflow.backoff(%s, %s, %s, %s, %s, %s))::float"
    whole = seconds(attempt, kind, base, cap)
    assert one(conn, query, kind, base, cap, 0.0, attempt, 0.999) == pytest.approx(whole)
    assert one(conn, query, kind, base, cap, 0.1, attempt, 0.0) == pytest.approx(whole)
    assert one(conn, query, kind, base, cap, 0.1, attempt, 0.999) == pytest.approx(whole * (1 - 0.0999), abs=1e-5)
    assert one(conn, query, kind, base, cap, 1.0, attempt, 0.999) == pytest.approx(whole * 0.001, abs=1e-5)
    policy = Retry(backoff=kind, base=timedelta(seconds=base), max_backoff=timedelta(seconds=cap), jitter=0.1)
    assert policy.delay(attempt, 0.999).total_seconds() == pytest.approx(whole * (1 - 0.0999), abs=1e-5)


def test_the_longest_pause_of_all_can_be_written(conn: Connection) -> None:
    longest = timedelta(days=3650).total_seconds()
    moment = "pgflow.now() + pgflow.backoff('exponential', %s, %s, 0, 32767, 0)"
    query = f"select extract(epoch from {moment} - pgflow.now())::float"  # noqa: S608 -- the line above
    assert one(conn, query, longest, longest) == pytest.approx(longest)


def test_a_retried_job_waits_as_long_as_its_policy_demands(app: Pgflow, conn: Connection, work: Work) -> None:
    work()
    DefaultPolicy.start("v", {"how": "raises"})
    pause = """select extract(epoch from run_at - pgflow.now())::float, errors from pgflow.jobs
        where state = 'scheduled' and attempt = %s"""

    def until_paused(attempt: int) -> tuple[Any, ...]:
        return until(lambda: rows(conn, pause, attempt), f"the pause after attempt {attempt}")[0]

    for attempt in (1, 2, 3, 4):
        left, errors = until_paused(attempt)
        assert 0.9 * 2 ** (attempt - 1) - 0.5 < left <= 2 ** (attempt - 1)
        assert [error["attempt"] for error in errors] == list(range(1, attempt + 1))
        assert errors[-1]["reason"] == "down"
        assert errors[-1]["type"] == "ConnectionError"
        conn.execute("update pgflow.jobs set run_at = pgflow.now() where state = 'scheduled'")
    failed = until_status(DefaultPolicy, "v")
    assert (failed.status, World.calls) == ("failed", [("inherited", attempt) for attempt in range(1, 6)])


# -- whose policy counts


def test_the_steps_own_policy_counts_before_the_workflows(app: Pgflow, conn: Connection, work: Work) -> None:
    work()
    OwnPolicy.start("v", {"how": "raises"})
    assert until_status(OwnPolicy, "v").status == "failed"
    assert World.calls == [("begin", 1), ("own", 1), ("own", 2), ("own", 3)]


def test_the_workflows_policy_counts_where_the_step_has_none(app: Pgflow, conn: Connection, work: Work) -> None:
    work()
    WorkflowPolicy.start("v", {"how": "raises"})
    assert until_status(WorkflowPolicy, "v").status == "failed"
    assert World.calls == [("inherited", 1), ("inherited", 2)]


def test_a_flaky_step_completes_and_its_history_has_the_failures(app: Pgflow, conn: Connection, work: Work) -> None:
    work()
    OwnPolicy.start("v", {"how": "flaky"})
    done = until_status(OwnPolicy, "v")
    assert (done.status, [(entry.step, entry.attempt) for entry in done.history]) == (
        "completed",
        [("begin", 1), ("own", 3), ("end", 1)],
    )
    errors = one(conn, "select errors from pgflow.step_results where step = 'own'")
    assert [(error["attempt"], error["reason"]) for error in errors] == [(1, "attempt 1"), (2, "attempt 2")]


# -- how it ends


@pytest.mark.parametrize(
    ("how", "attempts", "reason", "kind"),
    [
        ("no_retry", 1, "card expired", "Error"),
        ("never_on", 1, "never again", "Mended"),
        ("returns", 3, "declined", "Error"),
        ("raises", 3, "down", "ConnectionError"),
        ("exits", 3, "3", "SystemExit"),
        ("nul", 3, "a NUL \ufffd and half a pair ?", "Error"),
        ("nul_raised", 3, "a NUL \ufffd and half a pair ?", "ConnectionError"),
    ],
)
def test_a_step_that_fails_for_good_fails_its_instance_with_the_reason(
    app: Pgflow, conn: Connection, work: Work, how: str, attempts: int, reason: str, kind: str
) -> None:
    work()
    OwnPolicy.start("v", {"how": how})
    OwnPolicy.start("other", {})
    failed = until_status(OwnPolicy, "v")
    assert (failed.status, steps(failed)) == ("failed", ["begin"])
    assert failed.finished_at is not None
    assert failed.error is not None
    assert (failed.error["step"], failed.error["reason"], failed.error["type"]) == ("own", reason, kind)
    assert failed.error["attempt"] == attempts
    assert [error["attempt"] for error in failed.error["attempts"]] == list(range(1, attempts))
    assert until_status(OwnPolicy, "other").status == "completed"
    assert leftovers(conn) == {}


def test_a_failure_takes_siblings_and_timers_along_and_nothing_of_others(
    app: Pgflow, conn: Connection, work: Work
) -> None:
    work()
    Crowded.start("good", {})
    until_status(Crowded, "good", "waiting")
    kept = rows(conn, "select id, step, run_at, awaits from pgflow.jobs order by id")
    Crowded.start("bad", {"how": "no_retry"})
    failed = until_status(Crowded, "bad")
    assert failed.status == "failed"
    assert failed.waiting_for == ()
    assert rows(conn, "select id, step, run_at, awaits from pgflow.jobs order by id") == kept
    # One transaction: there is no moment at which it has failed and still has tokens, nor the other way round.
    assert one(conn, "select xmin from pgflow.instances where id = 'crowded::bad'") is not None
    with pytest.raises(NotRetryable):
        Crowded.retry("good")
    assert Crowded.get("good").status == "waiting"


def test_no_moment_shows_a_failed_instance_with_tokens_or_an_active_one_without(
    app: Pgflow, conn: Connection, work: Work
) -> None:
    odd = """select i.id, i.status, count(j.id) from pgflow.instances i left join pgflow.jobs j using (run)
        group by i.run having (i.status in ('completed', 'failed', 'cancelled')) <> (count(j.id) = 0)"""
    Crowded.start_many([(f"v{number}", {"how": "raises"}) for number in range(100)])
    work()
    seen: list[Any] = []

    def all_failed() -> bool:
        seen.extend(rows(conn, odd))
        return bool(one(conn, "select count(*) from pgflow.instances where status = 'failed'") == 100)

    until(all_failed, "the failures", pause=0.001)
    assert seen == []
    assert leftovers(conn) == {}


# -- going on


def test_retry_goes_on_where_it_stopped_and_runs_nothing_twice(app: Pgflow, conn: Connection, work: Work) -> None:
    work()
    OwnPolicy.start("v", {"how": "raises"})
    failed = until_status(OwnPolicy, "v")
    World.is_broken = False
    World.calls.clear()
    OwnPolicy.retry("v")
    done = until_status(OwnPolicy, "v", "completed")
    assert (done.run, done.error) == (failed.run, None)
    assert World.calls == [("own", 1), ("end", 1)]
    assert steps(done) == ["begin", "own", "end"]
    assert leftovers(conn) == {}
    with pytest.raises(NotRetryable):
        OwnPolicy.retry("v")


def test_retry_brings_back_every_branch_that_was_under_way(app: Pgflow, conn: Connection, work: Work) -> None:
    work()
    Crowded.start("v", {"how": "no_retry"})
    until_status(Crowded, "v", "failed")
    World.is_broken = False
    Crowded.retry("v")
    waiting = until_status(Crowded, "v", "waiting")
    assert sorted(wait.step for wait in waiting.waiting_for) == ["hour", "word"]
    Crowded.resume("v", "word", "go")
    Crowded.resume("v", "timeout", step="hour")
    done = until_status(Crowded, "v")
    assert (done.status, sorted(steps(done))) == ("completed", ["begin", "end", "hour", "own", "word"])
    assert World.calls.count(("begin", 1)) == World.calls.count(("end", 1)) == 1
    assert leftovers(conn) == {}


def test_retry_that_fails_again_ends_failed_again(app: Pgflow, conn: Connection, work: Work) -> None:
    work()
    OwnPolicy.start("v", {"how": "no_retry"})
    first = until_status(OwnPolicy, "v")
    OwnPolicy.retry("v")
    until(lambda: OwnPolicy.get("v").finished_at not in (None, first.finished_at), "the end")
    assert OwnPolicy.get("v").status == "failed"
    assert leftovers(conn) == {}


def test_a_key_may_be_started_again_after_a_failure_and_then_the_old_run_stays_failed(
    app: Pgflow, conn: Connection, work: Work
) -> None:
    inside = work()
    OwnPolicy.start("v", {"how": "no_retry"})
    old = until_status(OwnPolicy, "v")
    inside.stop()
    new = OwnPolicy.start("v", {})
    assert new.run > old.run
    # The newest run is what a value means; the old one cannot come back beside it.
    with pytest.raises(NotRetryable):
        OwnPolicy.retry("v")
    assert rows(conn, "select run, status from pgflow.instances order by run") == [
        (old.run, "failed"),
        (new.run, "running"),
    ]
