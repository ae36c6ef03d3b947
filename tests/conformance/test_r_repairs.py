"""Group R: the known defects of engines of this kind, and what pgflow guarantees instead."""

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
def workers(postgres: OnPostgres) -> Iterator[ManualWorkers]:
    """Manual workers on each PostgreSQL in turn."""
    with ExitStack() as ends:
        yield ManualWorkers(postgres, ends)


# -- R1, R2: wake-ups


def test_r1_a_step_that_ends_while_a_sibling_is_being_settled_is_not_lost(workers: ManualWorkers) -> None:
    """R1: a step that ends while a sibling is being settled is recorded immediately and applied afterwards."""
    a, b, c = workers.forked("v")
    for worker in (a, b, c):
        worker.run_steps()
    with workers.transaction() as conn:
        a.decide()
        a.send(conn)
        b.settle()  # does not wait
        assert workers.results(applied=False) == ["east"]
    a.adopt()
    folding = workers.worker()
    assert folding.claim() == 1
    folding.run_steps()
    folding.decide()
    assert Three.resume("v", "ok", step="join") == "kept"  # which makes that decision stale
    folding.send()
    assert [row.status for row in folding.settled] == ["conflict"]
    folding.adopt()
    c.settle()
    workers.finish(a, b, c, folding)
    workers.check(Three, "v", *THREE)


def test_r1_a_sibling_that_rolls_back_loses_no_wake_up(workers: ManualWorkers) -> None:
    """R1: when the transaction that a sibling's end had to wait for is rolled back, both ends are applied."""
    a, b, c = workers.forked("v")
    for worker in (b, c):
        worker.run_steps()
    conn = workers.connect()
    conn.execute("begin")
    conn.execute("select from pgflow.instances for update")
    b.settle()
    c.settle()
    assert workers.results(applied=False) == ["east", "north"]
    conn.execute("rollback")
    workers.die(a)
    workers.finish(b, c)
    workers.check(Three, "v", *THREE)


def test_r2_a_held_lock_delays_a_write_and_never_drops_it(workers: ManualWorkers) -> None:
    """R2: a write that meets a locked row is reported as such and sent again; it never counts as written."""
    worker = workers.worker()
    Line.start("v")
    worker.claim()
    worker.run_steps()
    with workers.transaction() as conn:
        conn.execute("select from pgflow.jobs for update")
        worker.settle()
        assert (workers.results(), worker.settler.has_outcomes, worker.settler.is_held_up) == ([], True, True)
    worker.settle()
    assert workers.results() == ["first"]
    workers.finish(worker)
    workers.check(Line, "v", *LINE)


def test_r2_a_job_that_is_skipped_while_locked_is_claimed_later(workers: ManualWorkers) -> None:
    """R2: claim and staging skip locked rows and find them the next time."""
    worker = workers.worker()
    Line.start("v", delay=timedelta(hours=1))
    workers.conn.execute("update pgflow.jobs set run_at = pgflow.now()")
    with workers.transaction() as conn:
        conn.execute("select from pgflow.jobs for update")
        assert run(workers.conn, job.stage("pgflow")).jobs == 0
    assert run(workers.conn, job.stage("pgflow")).jobs == 1
    with workers.transaction() as conn:
        conn.execute("select from pgflow.jobs for update")
        assert worker.claim() == 0
    workers.finish(worker)
    workers.check(Line, "v", *LINE)


# -- R3, R4: once


def test_r3_a_slow_branch_is_not_enqueued_again_when_others_end(workers: ManualWorkers) -> None:
    """R3: only steps that have just become active get a job: a slow branch keeps its job while siblings end."""
    slow, b, c = workers.forked("v")
    kept = workers.rows("select id, attempt from pgflow.jobs where step = 'west'")
    for worker in (b, c):
        workers.end(worker)
    assert workers.jobs() == [("west", "execute", "running", 1)]
    assert workers.rows("select id, attempt from pgflow.jobs") == kept
    slow.run_steps()
    slow.settle()
    workers.finish(slow)
    workers.check(Three, "v", *THREE)


def test_r4_a_late_result_leaves_no_trace(workers: ManualWorkers) -> None:
    """R4: a worker that lost its job can write nothing, before or after another worker has done the step."""
    late, other = workers.worker(), workers.worker()
    Line.start("v")
    late.claim()
    late.run_steps()
    late.decide()
    workers.die(late)
    CALLS.clear()
    other.claim()
    late.send()
    assert [row.status for row in late.settled] == ["fenced"]
    assert workers.results() == []
    workers.finish(other)
    recorded = workers.rows("select * from pgflow.step_results order by seq")
    late.send()
    assert [row.status for row in late.settled] == ["fenced"]
    assert workers.rows("select * from pgflow.step_results order by seq") == recorded
    workers.check(Line, "v", *LINE)


def test_r4_the_database_keeps_one_result_of_a_step(workers: ManualWorkers) -> None:
    """R4: a second result of a step cannot be stored in a run, however long ago the first one was applied."""
    Line.start("v")
    workers.finish()
    again = """insert into pgflow.step_results (run, step, event, attempt, started_at)
        select run, 'first', 'ok', 1, now() from pgflow.instances"""
    with pytest.raises(psycopg.errors.UniqueViolation):
        workers.conn.execute(again)


def test_r4_a_step_completes_once() -> None:
    """R4: the engine ignores a second completion of a step, so its successors are activated once."""
    begun, _ = advance(new(Line.graph), Begun())
    once, commands = advance(begun, Completed("first", "ok"))
    assert len(commands) == 1
    assert advance(once, Completed("first", "ok")) == (once, ())


# -- R5, R6, R7: failures, and what they leave behind


def test_r5_the_last_failed_attempt_fails_the_instance_in_its_own_transaction(workers: ManualWorkers) -> None:
    """R5: the statement that records the last attempt's failure ends the instance and its siblings."""
    a, b, c = workers.forked("v", fails="west")
    a.run_steps()
    a.settle()
    assert workers.jobs()[0] == ("west", "execute", "scheduled", 1)
    run(workers.conn, job.stage("pgflow"))
    assert a.claim() == 1
    a.run_steps()
    a.decide()
    with workers.transaction() as conn:
        a.send(conn)
        assert (Three.get("v").status, len(workers.jobs())) == ("running", 3)
    failed = Three.get("v")
    assert (failed.status, workers.jobs()) == ("failed", [])
    assert failed.error is not None
    assert (failed.error["step"], failed.error["reason"], failed.error["attempt"]) == ("west", "fails", 2)
    assert [attempt["attempt"] for attempt in failed.error["attempts"]] == [1]
    for worker in (b, c):
        worker.run_steps()
        worker.settle()
    assert workers.results() == ["first"]


def test_r5_a_step_whose_workers_all_die_fails_its_instance(workers: ManualWorkers) -> None:
    """R5: the loss of a worker counts, too: after the fifth one the instance fails, and nothing runs."""
    Line.start("v")
    for _ in range(5):
        worker = workers.worker()
        assert worker.claim() == 1
        workers.die(worker)
    workers.finish()
    failed = Line.get("v")
    assert failed.status == "failed"
    assert failed.error is not None
    assert (failed.error["step"], len(failed.error["attempts"]), CALLS) == ("first", 5, [])


def test_r6_a_failed_key_starts_from_the_beginning(workers: ManualWorkers) -> None:
    """R6: a run is independent of an earlier failed run of its key: it starts from the beginning and completes."""
    old = Line.start("v", {"fails": "second"})
    workers.finish()
    CALLS.clear()
    fresh = Line.start("v")
    assert fresh.run > old.run
    assert Line.get("v").history == ()
    workers.finish()
    workers.check(Line, "v", *LINE)
    assert [(each.run, each.status) for each in Line.runs("v")] == [(fresh.run, "completed"), (old.run, "failed")]


def test_r7_timers_of_an_old_run_are_gone(workers: ManualWorkers) -> None:
    """R7: the end of a run removes its timers, so they cannot affect the next run of its key."""
    old = Asking.start("v")
    workers.finish()
    assert workers.jobs() == [("answer", "resume", "parked", 1)]
    Asking.cancel("v")
    Asking.start("v")
    workers.finish()
    workers.conn.execute("update pgflow.jobs set run_at = pgflow.now() where run = %s", [old.run])
    workers.finish()
    assert workers.rows("select step from pgflow.jobs where run = %s", old.run) == []
    assert [entry.step for entry in Asking.get("v").history] == ["first"]
    assert Asking.get("v").status == "waiting"


def test_r7_signals_of_an_old_run_are_its_own(workers: ManualWorkers) -> None:
    """R7: a signal belongs to the run that it was sent to, and the next run of its key never consumes it."""
    Asking.start("v")
    assert Asking.resume("v", "answered", "old") == "kept"
    Asking.cancel("v")
    Asking.start("v")
    workers.finish()
    assert Asking.get("v").status == "waiting"
    assert Asking.resume("v", "answered", "new") == "delivered"
    workers.finish()
    assert Asking.get("v").steps["answer"] == "new"
    workers.check(Asking, "v", "first", "answer", "close")


# -- R8, R9: signals


def test_r8_a_signal_for_a_step_that_runs_is_kept_and_nothing_runs_twice(workers: ManualWorkers) -> None:
    """R8: a signal sent while its step or another one runs is kept; by itself it completes nothing."""
    worker = workers.worker()
    Asking.start("v")
    worker.claim()
    before = workers.jobs()
    assert Asking.resume("v", "ok", step="first") == "kept"  # an event of the step that runs
    assert Asking.resume("v", "answered", {"n": 1}) == "kept"  # of one that is still to come
    with pytest.raises(UndeclaredEvent):
        Asking.resume("v", "ok", step="answer")
    assert (workers.jobs(), workers.results()) == (before, [])
    worker.run_steps()
    worker.settle()
    workers.finish(worker)
    assert Asking.get("v").steps["answer"] == {"n": 1}
    workers.check(Asking, "v", "first", "answer", "close")
    assert workers.rows("select name from pgflow.signals where consumed_at is null") == [("ok",)]


def test_r9_a_signal_before_the_wait_is_kept_for_it(workers: ManualWorkers) -> None:
    """R9: a signal sent before the start of its wait ends that wait."""
    Asking.start("v")
    assert Asking.resume("v", "answered", "early") == "kept"
    workers.finish()
    assert Asking.get("v").steps["answer"] == "early"
    workers.check(Asking, "v", "first", "answer", "close")


def test_r9_a_signal_concurrent_with_parking_is_found(workers: ManualWorkers) -> None:
    """R9: a signal sent between a step's decision to wait and its settle ends that wait, too."""
    worker = workers.worker()
    Asking.start("v")
    workers.step(worker)
    worker.claim()
    worker.run_steps("answer")
    worker.decide()
    assert Asking.resume("v", "answered", "just now") == "kept"
    worker.send()
    assert [row.status for row in worker.settled] == ["conflict"]
    worker.adopt()
    workers.finish(worker)
    assert Asking.get("v").steps["answer"] == "just now"
    workers.check(Asking, "v", "first", "answer", "close")


# -- R10, R11: starts and cancels that meet something


@pytest.mark.parametrize("is_undone", [False, True], ids=["committed", "rolled back"])
def test_r10_of_two_concurrent_starts_one_wins(workers: ManualWorkers, is_undone: bool) -> None:
    """R10: a start waits for a concurrent start of its key, and is refused if that one commits."""
    conn = workers.connect()
    conn.execute("begin")
    Line.start("v", conn=conn)
    second = workers.aside(lambda: Line.start("v"))
    conn.execute("rollback" if is_undone else "commit")
    if is_undone:
        assert second.result().created
    else:
        with pytest.raises(AlreadyRunning):
            second.result()
    assert workers.one("select count(*) from pgflow.instances") == workers.one("select count(*) from pgflow.jobs") == 1


def test_r11_a_result_after_a_cancel_is_not_recorded(workers: ManualWorkers) -> None:
    """R11: cancel removes every job, also that of a running step, whose later result is dropped."""
    worker = workers.worker()
    Line.start("v")
    worker.claim()
    worker.run_steps()
    worker.decide()
    Line.cancel("v", reason="enough")
    worker.send()
    assert [row.status for row in worker.settled] == ["fenced"]
    worker.adopt()
    workers.finish(worker)
    gone = Line.get("v")
    assert (gone.status, gone.error, workers.jobs(), workers.results()) == ("cancelled", {"reason": "enough"}, [], [])


@pytest.mark.parametrize("is_last", [False, True], ids=["in the middle", "at the end"])
def test_r11_a_cancel_waits_for_an_end_that_is_being_written(workers: ManualWorkers, is_last: bool) -> None:
    """R11: a cancel waits for a concurrent settle, and is refused if the instance ended with it."""
    worker = workers.worker()
    Line.start("v")
    for _ in range(2 if is_last else 1):
        workers.step(worker)
    worker.claim()
    worker.run_steps()
    worker.decide()
    conn = workers.connect()
    conn.execute("begin")
    worker.send(conn)
    cancel = workers.aside(lambda: Line.cancel("v"))
    conn.execute("commit")
    if is_last:
        with pytest.raises(NotActive):
            cancel.result()
        workers.check(Line, "v", *LINE)
    else:
        cancel.result()
        assert (Line.get("v").status, workers.jobs()) == ("cancelled", [])


# -- R12 to R15: what breaks in the middle


@pytest.mark.parametrize("kind", ["execute", "resume", "advance"])
def test_r12_a_dead_workers_job_of_any_kind_is_rescued(workers: ManualWorkers, kind: str) -> None:
    """R12: another worker gets all jobs of a dead one once its lease has expired."""
    dead = workers.worker()
    workflow: type[Workflow[Any]] = Line
    steps: tuple[str, ...] = LINE
    if kind == "execute":
        Line.start("v")
    elif kind == "resume":
        workflow, steps = Asking, ("first", "answer", "close")
        Asking.start("v")
        workers.finish()
        Asking.resume("v", "answered")
    else:
        workflow, steps = Three, THREE
        conflict(workers)
    assert dead.claim() == 1
    assert [job.kind for job in dead.held_jobs.jobs.values()] == [kind]
    workers.die(dead)
    workers.finish()
    workers.check(workflow, "v", *steps)


def conflict(workers: ManualWorkers) -> None:
    """Return an instance of Three whose last branch is recorded and not yet applied."""
    a, b, c = workers.forked("v")
    for worker in (a, b):
        workers.end(worker)
    c.run_steps()
    with workers.transaction() as conn:
        conn.execute("select from pgflow.instances for update")
        c.settle()
    assert workers.results(applied=False) == ["north"]


def test_r13_unreadable_data_fails_only_its_own_instance(workers: ManualWorkers) -> None:
    """R13: invalid stored data fails its own instance, with the reason; all instances stay readable."""
    worker = workers.worker()
    for value in ("bad", "good"):
        Line.start(value, {f"a key never seen before: {value}": {"é": [None, 1.5]}})
    workers.step(worker)
    workers.conn.execute(
        """update pgflow.step_results set event = 'unheard_of'
        where run = (select run from pgflow.instances where id = 'line::bad')"""
    )
    assert worker.claim() == 2
    workers.finish(worker)
    workers.check(Line, "good", *LINE)
    assert Line.get("good").input == {"a key never seen before: good": {"é": [None, 1.5]}}
    bad = Line.get("bad")
    assert bad.status == "failed"
    assert bad.error is not None
    assert "unheard_of" in bad.error["reason"]
    assert [each.id for each in Line.list()] == ["line::good", "line::bad"]


def test_r13_unreadable_data_is_refused_before_it_is_stored(workers: ManualWorkers) -> None:
    """R13: an input that JSON cannot represent is refused at the start."""
    with pytest.raises(InvalidPayload, match=r"input\.what"):
        Line.start("v", {"what": object()})
    assert workers.one("select count(*) from pgflow.instances") == 0


def test_r14_a_result_that_the_database_refuses_fails_its_step(postgres: OnPostgres) -> None:
    """R14: a result that cannot be stored never counts as done: its instance fails, and the batch continues."""
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


def test_r15_an_instance_and_its_first_job_are_one_commit(workers: ManualWorkers) -> None:
    """R15: a start stores the instance and its first job together, or neither."""
    count = "select (select count(*) from pgflow.instances), (select count(*) from pgflow.jobs)"
    conn = workers.connect()
    for end, expected in (("rollback", (0, 0)), ("commit", (1, 1))):
        conn.execute("begin")
        Line.start("v", conn=conn)
        assert workers.rows(count) == [(0, 0)]
        conn.execute(end)
        assert workers.rows(count) == [expected]


def test_r15_a_result_and_the_following_jobs_are_one_commit(workers: ManualWorkers) -> None:
    """R15: a result, the change of its instance and every following job are stored together, or not at all."""
    worker = workers.worker(room=1)  # the other two branches are for other workers
    Three.start("v")
    worker.claim()
    worker.run_steps()
    worker.decide()
    conn = workers.connect()
    for end in ("rollback", "commit"):
        conn.execute("begin")
        worker.send(conn)
        assert (workers.results(), [token[0] for token in workers.jobs()]) == ([], ["first"])
        conn.execute(end)
    assert workers.results() == ["first"]
    assert [token[0] for token in workers.jobs()] == ["west", "east", "north"]
    worker.adopt()
    workers.finish(worker)
    workers.check(Three, "v", *THREE)


# -- R16 to R20


ADVISORY = """select count(*) from pg_locks where locktype = 'advisory'
    and database = (select oid from pg_database where datname = current_database())"""


def test_r16_no_statement_takes_an_advisory_lock(workers: ManualWorkers) -> None:
    """R16: rows are locked themselves, never by a number in the advisory lock space of the application."""
    conn = workers.connect()
    worker = Driver(conn, (Three, Asking))
    with conn.transaction():  # locks last until the end of the transaction
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
    users = {path for path in files.list_files() if "advisory" in files.load(path)}
    assert {path for path in users if not path.startswith(("queries/migration/", "queries/bench/"))} == set()


def test_r17_a_failed_instance_stays_failed(workers: ManualWorkers) -> None:
    """R17: a sibling's result after the failure changes nothing, and is not recorded."""
    a, b, c = workers.forked("v", fails="west")
    for worker in (b, c):
        worker.run_steps()
        worker.decide()
    for _ in range(2):
        run(workers.conn, job.stage("pgflow"))
        a.claim()
        a.run_steps()
        a.settle()
    failed = Three.get("v")
    assert failed.status == "failed"
    for worker in (b, c):
        worker.send()
        assert [row.status for row in worker.settled] == ["fenced"]
        worker.adopt()
    workers.finish(a, b, c)
    assert (Three.get("v"), workers.jobs(), workers.results()) == (failed, [], ["first"])


def test_r17_an_end_is_final() -> None:
    """R17: no event changes an instance that has ended."""
    begun, _ = advance(new(Three.graph), Begun())
    forked, _ = advance(begun, Completed("first", "ok"))
    failed, _ = advance(forked, Failed("west", "fails"))
    completed = replay(Line.graph, [(step, "ok", None) for step in LINE])
    assert (failed.status, completed.status) == ("failed", "completed")
    for ended in (failed, completed):
        for event in (Begun(), Completed("east", "ok"), Failed(None, "too"), Cancelled()):
            assert advance(ended, event) == (ended, ())


def test_r18_results_with_one_time_keep_their_order(workers: ManualWorkers) -> None:
    """R18: a sequence orders results: those of one statement, with one time, are listed as they were recorded."""
    worker = workers.worker()
    Three.start("v")
    worker.turn()
    worker.settle()
    worker.run_steps()
    worker.settle()
    assert len(workers.rows("select distinct finished_at from pgflow.step_results where step <> 'first'")) == 1
    workers.finish(worker)
    workers.conn.execute(
        "update pgflow.step_results set attempt = attempt where step = 'west'"
    )  # moves the row version
    history = [entry.step for entry in Three.get("v").history]
    assert history == workers.results() == list(THREE)


def test_r18_a_finished_instance_can_be_deleted(workers: ManualWorkers) -> None:
    """R18: the rows of a finished instance can be deleted, without affecting any other."""
    for value in ("old", "young"):
        Line.start(value)
        workers.finish()
    run_ = Line.get("old").run
    for table in ("signals", "step_results", "instances"):
        workers.conn.execute(f"delete from pgflow.{table} where run = %s".encode(), [run_])  # noqa: S608 -- named above
    assert [each.id for each in Line.list()] == ["line::young"]
    workers.check(Line, "young", *LINE)
    assert Line.start("old").created


def test_r19_all_events_are_emitted_on_postgresql(postgres: OnPostgres) -> None:
    """R19: workers emit the eleven events, and store the reason and the attempts of a failure."""
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
        postgres.restart()  # after the last commit all events are emitted
    finally:
        telemetry.detach("seen")
    assert {event.name for event in seen} == set(telemetry.SEED_EVENTS)
    (failure,) = [event for event in seen if event.name == telemetry.WORKFLOW_EXCEPTION]
    assert (failure.metadata["failed_step"], failure.metadata["reason"]) == ("second", "fails")
    assert failed.error is not None
    assert (failed.error["reason"], failed.error["type"], failed.error["attempt"]) == ("fails", "RuntimeError", 2)
    assert [(each["attempt"], each["reason"]) for each in failed.error["attempts"]] == [(1, "fails")]


@pytest.mark.parametrize("workflow", [Mixed, Paused])
def test_r20_a_branch_continues_while_its_sibling_waits(workers: ManualWorkers, workflow: type[Workflow[Any]]) -> None:
    """R20: only the step waits: steps activated in the batch in which a sibling starts to wait run."""
    worker = workers.worker()
    workflow.start("v")
    worker.turn()
    worker.settle()
    worker.run_steps()  # both branches
    worker.settle()  # one of them waits now
    assert [entry.step for entry in workflow.get("v").history] == ["first", "second"]
    workers.finish(worker)
    waiting = workflow.get("v")
    ran = [entry.step for entry in waiting.history]
    assert (waiting.status, ran) == (
        "waiting",
        ["first", "second", "third"] if workflow is Mixed else ["first", "second"],
    )
    wait = "word" if workflow is Mixed else "hour"
    assert [each.step for each in waiting.waiting_for] == [wait]
    workflow.resume("v", "word" if workflow is Mixed else "timeout", step=wait)
    workers.finish(worker)
    workers.check(workflow, "v", *ran, wait, "close")
