"""Group R: what engines of this kind are known to get wrong, and what is promised here instead."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from pgflow import Workflow, telemetry
from pgflow.core.engine.machine import advance, new, replay
from pgflow.core.engine.state import Begun, Cancelled, Completed, Failed
from pgflow.database import files
from pgflow.database.statement import run
from pgflow.errors import AlreadyRunning, InvalidPayload, NotActive, UndeclaredEvent
from pgflow.store import job
from tests.conformance.conftest import OnPostgres
from tests.conformance.manual_workers import CALLS, Asking, Line, ManualWorkers, Mixed, Paused, Three
from tests.store.driver import Driver

THREE = ("first", "west", "east", "north", "join")
LINE = ("first", "second", "third")


@pytest.fixture
def bench(postgres: OnPostgres) -> Iterator[ManualWorkers]:
    """A bench on each PostgreSQL in turn."""
    with ExitStack() as ends:
        yield ManualWorkers(postgres, ends)


# -- R1, R2: wake-ups


def test_r1_a_step_that_ends_while_a_sibling_is_being_settled_is_not_lost(bench: ManualWorkers) -> None:
    """R1: a step that ends while a sibling's end is being written is recorded at once and applied afterwards."""
    a, b, c = bench.forked("v")
    for worker in (a, b, c):
        worker.run_steps()
    with bench.transaction() as conn:
        a.decide()
        a.send(conn)
        b.settle()  # waits for nobody
        assert bench.results(applied=False) == ["east"]
    a.adopt()
    folding = bench.worker()
    assert folding.claim() == 1
    folding.run_steps()
    folding.decide()
    assert Three.resume("v", "ok", step="join") == "kept"  # and so that decision is out of date
    folding.send()
    assert [row.status for row in folding.settled] == ["conflict"]
    folding.adopt()
    c.settle()
    bench.finish(a, b, c, folding)
    bench.check(Three, "v", *THREE)


def test_r1_a_sibling_that_dies_in_the_middle_takes_nobodys_wake_up_along(bench: ManualWorkers) -> None:
    """R1: when the transaction that a sibling's end had to give way to is rolled back, both ends are applied."""
    a, b, c = bench.forked("v")
    for worker in (b, c):
        worker.run_steps()
    conn = bench.connect()
    conn.execute("begin")
    conn.execute("select from pgflow.instances for update")
    b.settle()
    c.settle()
    assert bench.results(applied=False) == ["east", "north"]
    conn.execute("rollback")
    bench.die(a)
    bench.finish(b, c)
    bench.check(Three, "v", *THREE)


def test_r2_a_lock_that_somebody_holds_delays_a_write_and_never_drops_it(bench: ManualWorkers) -> None:
    """R2: what meets a row that somebody has locked is told so and sent again; it never passes for written."""
    worker = bench.worker()
    Line.start("v")
    worker.claim()
    worker.run_steps()
    with bench.transaction() as conn:
        conn.execute("select from pgflow.jobs for update")
        worker.settle()
        assert (bench.results(), worker.settler.has_outcomes, worker.settler.is_held_up) == ([], True, True)
    worker.settle()
    assert bench.results() == ["first"]
    bench.finish(worker)
    bench.check(Line, "v", *LINE)


def test_r2_a_token_that_is_skipped_while_it_is_locked_is_claimed_later(bench: ManualWorkers) -> None:
    """R2: whoever claims, or makes due tokens ready, passes over locked rows and finds them the next time."""
    worker = bench.worker()
    Line.start("v", delay=timedelta(hours=1))
    bench.conn.execute("update pgflow.jobs set run_at = pgflow.now()")
    with bench.transaction() as conn:
        conn.execute("select from pgflow.jobs for update")
        assert run(bench.conn, job.stage("pgflow")).jobs == 0
    assert run(bench.conn, job.stage("pgflow")).jobs == 1
    with bench.transaction() as conn:
        conn.execute("select from pgflow.jobs for update")
        assert worker.claim() == 0
    bench.finish(worker)
    bench.check(Line, "v", *LINE)


# -- R3, R4: once


def test_r3_a_slow_branch_is_not_enqueued_again_when_others_end(bench: ManualWorkers) -> None:
    """R3: only steps that have just become active get a token: a slow branch keeps its one while its siblings end."""
    slow, b, c = bench.forked("v")
    kept = bench.rows("select id, attempt from pgflow.jobs where step = 'west'")
    for worker in (b, c):
        bench.end(worker)
    assert bench.tokens() == [("west", "execute", "running", 1)]
    assert bench.rows("select id, attempt from pgflow.jobs") == kept
    slow.run_steps()
    slow.settle()
    bench.finish(slow)
    bench.check(Three, "v", *THREE)


def test_r4_a_late_result_leaves_no_trace(bench: ManualWorkers) -> None:
    """R4: a worker that lost its token can write nothing, be it before or after another one has done the step."""
    late, other = bench.worker(), bench.worker()
    Line.start("v")
    late.claim()
    late.run_steps()
    late.decide()
    bench.die(late)
    CALLS.clear()
    other.claim()
    late.send()
    assert [row.status for row in late.settled] == ["fenced"]
    assert bench.results() == []
    bench.finish(other)
    recorded = bench.rows("select * from pgflow.step_results order by seq")
    late.send()
    assert [row.status for row in late.settled] == ["fenced"]
    assert bench.rows("select * from pgflow.step_results order by seq") == recorded
    bench.check(Line, "v", *LINE)


def test_r4_the_database_keeps_one_result_of_a_step(bench: ManualWorkers) -> None:
    """R4: a second result of a step cannot be stored in a run, however long ago the first one was applied."""
    Line.start("v")
    bench.finish()
    again = """insert into pgflow.step_results (run, step, event, attempt, started_at)
        select run, 'first', 'ok', 1, now() from pgflow.instances"""
    with pytest.raises(psycopg.errors.UniqueViolation):
        bench.conn.execute(again)


def test_r4_a_step_completes_once() -> None:
    """R4: the engine passes over the second completion of a step, so that what follows it is activated once."""
    begun, _ = advance(new(Line.graph), Begun())
    once, commands = advance(begun, Completed("first", "ok"))
    assert len(commands) == 1
    assert advance(once, Completed("first", "ok")) == (once, ())


# -- R5, R6, R7: failures, and what they leave behind


def test_r5_the_last_failed_attempt_fails_the_instance_in_its_own_transaction(bench: ManualWorkers) -> None:
    """R5: whoever records the last attempt's failure ends the instance in the same statement, its siblings with it."""
    a, b, c = bench.forked("v", fails="west")
    a.run_steps()
    a.settle()
    assert bench.tokens()[0] == ("west", "execute", "scheduled", 1)
    run(bench.conn, job.stage("pgflow"))
    assert a.claim() == 1
    a.run_steps()
    a.decide()
    with bench.transaction() as conn:
        a.send(conn)
        assert (Three.get("v").status, len(bench.tokens())) == ("running", 3)
    failed = Three.get("v")
    assert (failed.status, bench.tokens()) == ("failed", [])
    assert failed.error is not None
    assert (failed.error["step"], failed.error["reason"], failed.error["attempt"]) == ("west", "as told", 2)
    assert [attempt["attempt"] for attempt in failed.error["attempts"]] == [1]
    for worker in (b, c):
        worker.run_steps()
        worker.settle()
    assert bench.results() == ["first"]


def test_r5_a_step_whose_workers_all_die_fails_its_instance(bench: ManualWorkers) -> None:
    """R5: the loss of a worker counts, too: after the fifth one the instance fails, and nothing runs."""
    Line.start("v")
    for _ in range(5):
        worker = bench.worker()
        assert worker.claim() == 1
        bench.die(worker)
    bench.finish()
    failed = Line.get("v")
    assert failed.status == "failed"
    assert failed.error is not None
    assert (failed.error["step"], len(failed.error["attempts"]), CALLS) == ("first", 5, [])


def test_r6_a_key_that_failed_starts_anew(bench: ManualWorkers) -> None:
    """R6: a run knows nothing of an earlier failed one of its key: it begins at the beginning and runs to its end."""
    old = Line.start("v", {"fails": "second"})
    bench.finish()
    CALLS.clear()
    fresh = Line.start("v")
    assert fresh.run > old.run
    assert Line.get("v").history == ()
    bench.finish()
    bench.check(Line, "v", *LINE)
    assert [(each.run, each.status) for each in Line.runs("v")] == [(fresh.run, "completed"), (old.run, "failed")]


def test_r7_timers_of_an_old_run_are_gone(bench: ManualWorkers) -> None:
    """R7: when a run ends, its timers end with it, and so cannot touch the next run of its key."""
    old = Asking.start("v")
    bench.finish()
    assert bench.tokens() == [("answer", "resume", "parked", 1)]
    Asking.cancel("v")
    Asking.start("v")
    bench.finish()
    bench.conn.execute("update pgflow.jobs set run_at = pgflow.now() where run = %s", [old.run])
    bench.finish()
    assert bench.rows("select step from pgflow.jobs where run = %s", old.run) == []
    assert [entry.step for entry in Asking.get("v").history] == ["first"]
    assert Asking.get("v").status == "waiting"


def test_r7_signals_of_an_old_run_are_its_own(bench: ManualWorkers) -> None:
    """R7: a signal belongs to the run that it was sent to, and is never taken by the next run of its key."""
    Asking.start("v")
    assert Asking.resume("v", "answered", "old") == "kept"
    Asking.cancel("v")
    Asking.start("v")
    bench.finish()
    assert Asking.get("v").status == "waiting"
    assert Asking.resume("v", "answered", "new") == "delivered"
    bench.finish()
    assert Asking.get("v").steps["answer"] == "new"
    bench.check(Asking, "v", "first", "answer", "close")


# -- R8, R9: signals


def test_r8_a_signal_for_a_step_that_runs_is_kept_and_nothing_runs_twice(bench: ManualWorkers) -> None:
    """R8: a signal that comes while its step runs, or another one does, is kept; it completes nothing by itself."""
    worker = bench.worker()
    Asking.start("v")
    worker.claim()
    before = bench.tokens()
    assert Asking.resume("v", "ok", step="first") == "kept"  # an event of the step that runs
    assert Asking.resume("v", "answered", {"n": 1}) == "kept"  # of one that is still to come
    with pytest.raises(UndeclaredEvent):
        Asking.resume("v", "ok", step="answer")
    assert (bench.tokens(), bench.results()) == (before, [])
    worker.run_steps()
    worker.settle()
    bench.finish(worker)
    assert Asking.get("v").steps["answer"] == {"n": 1}
    bench.check(Asking, "v", "first", "answer", "close")
    assert bench.rows("select name from pgflow.signals where consumed_at is null") == [("ok",)]


def test_r9_a_signal_before_the_wait_is_kept_for_it(bench: ManualWorkers) -> None:
    """R9: a signal sent before its wait begins ends that wait."""
    Asking.start("v")
    assert Asking.resume("v", "answered", "early") == "kept"
    bench.finish()
    assert Asking.get("v").steps["answer"] == "early"
    bench.check(Asking, "v", "first", "answer", "close")


def test_r9_a_signal_in_the_very_moment_of_parking_is_found(bench: ManualWorkers) -> None:
    """R9: a signal that comes between a step's decision to wait and the writing of it ends that wait, too."""
    worker = bench.worker()
    Asking.start("v")
    bench.step(worker)
    worker.claim()
    worker.run_steps("answer")
    worker.decide()
    assert Asking.resume("v", "answered", "just now") == "kept"
    worker.send()
    assert [row.status for row in worker.settled] == ["conflict"]
    worker.adopt()
    bench.finish(worker)
    assert Asking.get("v").steps["answer"] == "just now"
    bench.check(Asking, "v", "first", "answer", "close")


# -- R10, R11: starts and cancels that meet something


@pytest.mark.parametrize("is_undone", [False, True], ids=["committed", "rolled back"])
def test_r10_of_two_starts_at_once_one_wins(bench: ManualWorkers, is_undone: bool) -> None:
    """R10: a start that meets another one of its key under way waits for it, and is refused if that one commits."""
    conn = bench.connect()
    conn.execute("begin")
    Line.start("v", conn=conn)
    second = bench.aside(lambda: Line.start("v"))
    conn.execute("rollback" if is_undone else "commit")
    if is_undone:
        assert second.result().created
    else:
        with pytest.raises(AlreadyRunning):
            second.result()
    assert bench.one("select count(*) from pgflow.instances") == bench.one("select count(*) from pgflow.jobs") == 1


def test_r11_what_ends_after_a_cancel_is_not_recorded(bench: ManualWorkers) -> None:
    """R11: cancel takes every token away, also that of a step which runs: what it comes to afterwards is dropped."""
    worker = bench.worker()
    Line.start("v")
    worker.claim()
    worker.run_steps()
    worker.decide()
    Line.cancel("v", reason="enough")
    worker.send()
    assert [row.status for row in worker.settled] == ["fenced"]
    worker.adopt()
    bench.finish(worker)
    gone = Line.get("v")
    assert (gone.status, gone.error, bench.tokens(), bench.results()) == ("cancelled", {"reason": "enough"}, [], [])


@pytest.mark.parametrize("is_last", [False, True], ids=["in the middle", "at the end"])
def test_r11_a_cancel_waits_for_an_end_that_is_being_written(bench: ManualWorkers, is_last: bool) -> None:
    """R11: a cancel that meets a step's end under way waits for it, and is refused if the instance ended with it."""
    worker = bench.worker()
    Line.start("v")
    for _ in range(2 if is_last else 1):
        bench.step(worker)
    worker.claim()
    worker.run_steps()
    worker.decide()
    conn = bench.connect()
    conn.execute("begin")
    worker.send(conn)
    cancel = bench.aside(lambda: Line.cancel("v"))
    conn.execute("commit")
    if is_last:
        with pytest.raises(NotActive):
            cancel.result()
        bench.check(Line, "v", *LINE)
    else:
        cancel.result()
        assert (Line.get("v").status, bench.tokens()) == ("cancelled", [])


# -- R12 to R15: what breaks in the middle


@pytest.mark.parametrize("kind", ["execute", "resume", "advance"])
def test_r12_a_dead_workers_token_of_any_kind_is_taken_over(bench: ManualWorkers, kind: str) -> None:
    """R12: whatever a worker held when it died, another one takes over once its lease has ended."""
    dead = bench.worker()
    workflow: type[Workflow[Any]] = Line
    steps: tuple[str, ...] = LINE
    if kind == "execute":
        Line.start("v")
    elif kind == "resume":
        workflow, steps = Asking, ("first", "answer", "close")
        Asking.start("v")
        bench.finish()
        Asking.resume("v", "answered")
    else:
        workflow, steps = Three, THREE
        conflict(bench)
    assert dead.claim() == 1
    assert [token.kind for token in dead.held_jobs.tokens.values()] == [kind]
    bench.die(dead)
    bench.finish()
    bench.check(workflow, "v", *steps)


def conflict(bench: ManualWorkers) -> None:
    """Leave an instance of Three whose last branch is recorded and waits to be folded in."""
    a, b, c = bench.forked("v")
    for worker in (a, b):
        bench.end(worker)
    c.run_steps()
    with bench.transaction() as conn:
        conn.execute("select from pgflow.instances for update")
        c.settle()
    assert bench.results(applied=False) == ["north"]


def test_r13_what_cannot_be_read_fails_its_own_instance_and_hides_nobody_elses(bench: ManualWorkers) -> None:
    """R13: stored data that makes no sense fails the instance that has it, with the reason; all can still be read."""
    worker = bench.worker()
    for value in ("bad", "good"):
        Line.start(value, {f"a key that nobody has seen: {value}": {"é": [None, 1.5]}})
    bench.step(worker)
    bench.conn.execute(
        """update pgflow.step_results set event = 'unheard_of'
        where run = (select run from pgflow.instances where id = 'line::bad')"""
    )
    assert worker.claim() == 2
    bench.finish(worker)
    bench.check(Line, "good", *LINE)
    assert Line.get("good").input == {"a key that nobody has seen: good": {"é": [None, 1.5]}}
    bad = Line.get("bad")
    assert bad.status == "failed"
    assert bad.error is not None
    assert "unheard_of" in bad.error["reason"]
    assert [each.id for each in Line.list()] == ["line::good", "line::bad"]


def test_r13_what_could_not_be_read_is_refused_before_it_is_stored(bench: ManualWorkers) -> None:
    """R13: an input that JSON cannot hold is refused at the start."""
    with pytest.raises(InvalidPayload, match=r"input\.what"):
        Line.start("v", {"what": object()})
    assert bench.one("select count(*) from pgflow.instances") == 0


def test_r14_a_result_that_the_database_refuses_fails_its_step_and_says_so(postgres: OnPostgres) -> None:
    """R14: what cannot be stored never passes for done: its instance fails with the reason, and its batch goes on."""
    postgres.idle(Line)
    with psycopg.connect(postgres.dsn, autocommit=True) as conn:
        conn.execute("alter table pgflow.step_results add constraint no_bad check (output ->> 'value' <> 'bad')")
        try:
            Line.start_many([("good", {}), ("bad", {}), ("better", {})])
            postgres.work()
            ended = {value: postgres.until(Line, value) for value in ("good", "bad", "better")}
        finally:
            conn.execute("alter table pgflow.step_results drop constraint no_bad")
    assert {value: each.status for value, each in ended.items()} == {
        "good": "completed",
        "bad": "failed",
        "better": "completed",
    }
    error = ended["bad"].error
    assert error is not None
    assert (error["step"], "no_bad" in error["reason"], ended["bad"].history) == ("first", True, ())


def test_r15_an_instance_and_its_first_token_are_one_commit(bench: ManualWorkers) -> None:
    """R15: a start stores the instance and its first token together, or neither."""
    count = "select (select count(*) from pgflow.instances), (select count(*) from pgflow.jobs)"
    conn = bench.connect()
    for end, expected in (("rollback", (0, 0)), ("commit", (1, 1))):
        conn.execute("begin")
        Line.start("v", conn=conn)
        assert bench.rows(count) == [(0, 0)]
        conn.execute(end)
        assert bench.rows(count) == [expected]


def test_r15_a_result_and_the_tokens_that_follow_are_one_commit(bench: ManualWorkers) -> None:
    """R15: a result, the change of its instance and every token that follows from it are stored together, or not."""
    worker = bench.worker(room=1)  # two of the three branches are for others
    Three.start("v")
    worker.claim()
    worker.run_steps()
    worker.decide()
    conn = bench.connect()
    for end in ("rollback", "commit"):
        conn.execute("begin")
        worker.send(conn)
        assert (bench.results(), [token[0] for token in bench.tokens()]) == ([], ["first"])
        conn.execute(end)
    assert bench.results() == ["first"]
    assert [token[0] for token in bench.tokens()] == ["west", "east", "north"]
    worker.adopt()
    bench.finish(worker)
    bench.check(Three, "v", *THREE)


# -- R16 to R20


ADVISORY = """select count(*) from pg_locks where locktype = 'advisory'
    and database = (select oid from pg_database where datname = current_database())"""


def test_r16_no_statement_takes_an_advisory_lock(bench: ManualWorkers) -> None:
    """R16: rows are locked by themselves, never through a number in a space that the application shares."""
    conn = bench.connect()
    worker = Driver(conn, (Three, Asking))
    with conn.transaction():  # a lock of any statement in it would last until its end
        Three.start("v", conn=conn)
        Asking.start("w", conn=conn)
        Asking.start("x", {"fails": "first"}, conn=conn)
        for _ in range(8):
            worker.turn()
        Asking.resume("w", "answered", conn=conn)
        for _ in range(3):
            worker.turn()
        Asking.retry("x", conn=conn)
        Asking.cancel("x", conn=conn)
        run(conn, job.rescue("pgflow"))
        run(conn, job.reconcile("pgflow", worker.settler.worker, ()))
        assert conn.execute(ADVISORY.encode()).fetchone() == (0,)
        assert Three.get("v", conn=conn).status == Asking.get("w", conn=conn).status == "completed"


def test_r16_workers_at_work_hold_no_advisory_lock(postgres: OnPostgres) -> None:
    """R16: while workers run, pg_locks shows no advisory lock; only migrations and benchmarks take one."""
    postgres.run(Three)
    postgres.work()
    Three.start_many([(f"v{number}", {}) for number in range(50)])
    seen = postgres.rows(ADVISORY)
    while postgres.rows("select from pgflow.instances where status = 'running' limit 1"):
        seen += postgres.rows(ADVISORY)
    assert set(seen) == {(0,)}
    speaking = {path for path in files.list_files() if "advisory" in files.load(path)}
    assert {path for path in speaking if not path.startswith(("queries/migration/", "queries/bench/"))} == set()


def test_r17_a_failed_instance_stays_failed(bench: ManualWorkers) -> None:
    """R17: what a sibling comes to after the failure changes nothing, and is not recorded."""
    a, b, c = bench.forked("v", fails="west")
    for worker in (b, c):
        worker.run_steps()
        worker.decide()
    for _ in range(2):
        run(bench.conn, job.stage("pgflow"))
        a.claim()
        a.run_steps()
        a.settle()
    failed = Three.get("v")
    assert failed.status == "failed"
    for worker in (b, c):
        worker.send()
        assert [row.status for row in worker.settled] == ["fenced"]
        worker.adopt()
    bench.finish(a, b, c)
    assert (Three.get("v"), bench.tokens(), bench.results()) == (failed, [], ["first"])


def test_r17_an_end_is_final() -> None:
    """R17: no event changes an instance that has ended."""
    begun, _ = advance(new(Three.graph), Begun())
    forked, _ = advance(begun, Completed("first", "ok"))
    failed, _ = advance(forked, Failed("west", "as told"))
    completed = replay(Line.graph, [(step, "ok", None) for step in LINE])
    assert (failed.status, completed.status) == ("failed", "completed")
    for ended in (failed, completed):
        for event in (Begun(), Completed("east", "ok"), Failed(None, "too"), Cancelled()):
            assert advance(ended, event) == (ended, ())


def test_r18_results_of_one_moment_keep_their_order(bench: ManualWorkers) -> None:
    """R18: a sequence orders results: those of one statement, with one time, are listed as they were recorded."""
    worker = bench.worker()
    Three.start("v")
    worker.turn()
    worker.settle()
    worker.run_steps()
    worker.settle()
    assert len(bench.rows("select distinct finished_at from pgflow.step_results where step <> 'first'")) == 1
    bench.finish(worker)
    bench.conn.execute("update pgflow.step_results set attempt = attempt where step = 'west'")  # lies elsewhere now
    history = [entry.step for entry in Three.get("v").history]
    assert history == bench.results() == list(THREE)


def test_r18_a_finished_instance_can_be_deleted(bench: ManualWorkers) -> None:
    """R18: the rows of a finished instance can be deleted, and nothing but that instance is gone."""
    for value in ("old", "young"):
        Line.start(value)
        bench.finish()
    run_ = Line.get("old").run
    for table in ("signals", "step_results", "instances"):
        bench.conn.execute(f"delete from pgflow.{table} where run = %s".encode(), [run_])  # noqa: S608 -- named above
    assert [each.id for each in Line.list()] == ["line::young"]
    bench.check(Line, "young", *LINE)
    assert Line.start("old").created


def test_r19_all_events_are_told_on_postgresql(postgres: OnPostgres) -> None:
    """R19: workers tell the eleven events, and the reason and the attempts of a failure are in its instance's row."""
    seen: list[telemetry.Event] = []
    telemetry.attach("seen", telemetry.SEED_EVENTS, lambda event, config: seen.append(event))
    try:
        postgres.run(Line, Asking)
        Line.start("v", {"fails": "second"})
        failed = postgres.until(Line, "v")
        Asking.start("w")
        postgres.until(Asking, "w", "waiting")
        Asking.resume("w", "answered")
        postgres.until(Asking, "w")
        postgres.restart()  # what was committed last is told by now
    finally:
        telemetry.detach("seen")
    assert {event.name for event in seen} == set(telemetry.SEED_EVENTS)
    (told,) = [event for event in seen if event.name == telemetry.WORKFLOW_EXCEPTION]
    assert (told.metadata["failed_step"], told.metadata["reason"]) == ("second", "as told")
    assert failed.error is not None
    assert (failed.error["reason"], failed.error["type"], failed.error["attempt"]) == ("as told", "RuntimeError", 2)
    assert [(each["attempt"], each["reason"]) for each in failed.error["attempts"]] == [(1, "as told")]


@pytest.mark.parametrize("workflow", [Mixed, Paused])
def test_r20_a_branch_goes_on_while_its_sibling_waits(bench: ManualWorkers, workflow: type[Workflow[Any]]) -> None:
    """R20: waiting is a step's affair: what becomes active in the batch in which a sibling begins to wait, runs."""
    worker = bench.worker()
    workflow.start("v")
    worker.turn()
    worker.settle()
    worker.run_steps()  # both branches
    worker.settle()  # one of them waits from now on
    assert [entry.step for entry in workflow.get("v").history] == ["first", "second"]
    bench.finish(worker)
    waiting = workflow.get("v")
    ran = [entry.step for entry in waiting.history]
    assert (waiting.status, ran) == (
        "waiting",
        ["first", "second", "third"] if workflow is Mixed else ["first", "second"],
    )
    wait = "word" if workflow is Mixed else "hour"
    assert [each.step for each in waiting.waiting_for] == [wait]
    workflow.resume("v", "word" if workflow is Mixed else "timeout", step=wait)
    bench.finish(worker)
    bench.check(workflow, "v", *ran, wait, "close")
