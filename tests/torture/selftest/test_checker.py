"""The checker can fail: each invariant notices when a real history is spoilt in the way that it is about."""

from __future__ import annotations

import copy
import dataclasses
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgflow.database.connect import connect
from pgflow.database.statement import run
from pgflow.migrations.migrate import up
from tests.torture.checker import INVARIANTS, History, check, counters
from tests.torture.checker.model import follow
from tests.torture.host import faults
from tests.torture.host.cluster import Cluster
from tests.torture.install import debug
from tests.torture.install.audit import Change
from tests.torture.selftest.writer import QUICK
from tests.torture.trial.run import Plan, run_trial

Spoil = Callable[[list[Change], list[dict[str, Any]], list[dict[str, Any]]], object]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> History:
    """A real history: a few seconds of load, and no fault."""
    plan = Plan(tmp_path_factory.mktemp("torture"), seconds=6.0, seed=1, workers=2, rate=8.0, only=["nothing at all"])
    return run_trial(plan, lambda message: None).history


def where(changes: list[Change], relation: str, **wanted: Any) -> list[int]:
    """The places of changes whose row is so."""
    return [
        place
        for place, change in enumerate(changes)
        if change.relation == relation and all(change.row.get(name) == value for name, value in wanted.items())
    ]


def alter(changes: list[Change], place: int, side: str = "now", **values: Any) -> None:
    """Let a change have been another one."""
    row = copy.deepcopy(getattr(changes[place], side))
    row.update(values)
    changes[place] = dataclasses.replace(changes[place], **{side: row})


def claims(changes: list[Change]) -> list[int]:
    return [
        place
        for place, change in enumerate(changes)
        if change.relation == "jobs"
        and change.was is not None
        and change.now is not None
        and (change.was["state"], change.now["state"]) == ("ready", "running")
        and change.now["kind"] == "execute"
    ]


def ends(changes: list[Change], status: str = "completed") -> list[int]:
    return [place for place in where(changes, "instances", status=status) if changes[place].op == "update"]


def results(changes: list[Change], step: str) -> list[int]:
    return [place for place in where(changes, "step_results", step=step) if changes[place].op == "insert"]


def lost_instance(changes: list[Change], calls: list[dict[str, Any]], bodies: list[dict[str, Any]]) -> None:
    run = next(call["answer"]["run"] for call in calls if call["op"] == "start" and call["r"] == "ok")
    changes[:] = [each for each in changes if each.row.get("run") != run]
    bodies[:] = [each for each in bodies if each["run"] != run]


def lost_visit(changes: list[Change], calls: list[dict[str, Any]], bodies: list[dict[str, Any]]) -> None:
    extra = next(call for call in calls if call["op"] == "start_many" and call["r"] == "ok")
    calls.append({**extra, "key": "another"})


def lost_signal(changes: list[Change], calls: list[dict[str, Any]], bodies: list[dict[str, Any]]) -> None:
    place = next(place for place, each in enumerate(changes) if each.relation == "signals" and each.op == "insert")
    alter(changes, place, payload={"nonce": "unknown"})


def half_a_transaction(changes: list[Change], calls: list[dict[str, Any]], bodies: list[dict[str, Any]]) -> None:
    call = next(call for call in calls if call["op"] == "start_in_own" and call["r"] == "ok" and call["kept"])
    call["kept"] = False


def two_answers(changes: list[Change], calls: list[dict[str, Any]], bodies: list[dict[str, Any]]) -> None:
    call = next(call for call in calls if call["op"] == "start" and call["r"] == "ok")
    calls.append({**call, "answer": {**call["answer"], "run": call["answer"]["run"] + 1}})


def unending(changes: list[Change], calls: list[dict[str, Any]], bodies: list[dict[str, Any]]) -> None:
    del changes[ends(changes)[0]]


def left_token(changes: list[Change], calls: list[dict[str, Any]], bodies: list[dict[str, Any]]) -> None:
    del changes[next(place for place, each in enumerate(changes) if (each.relation, each.op) == ("jobs", "delete"))]


def skipped_state(changes: list[Change], calls: list[dict[str, Any]], bodies: list[dict[str, Any]]) -> None:
    alter(changes, claims(changes)[0], "now", state="parked")


def late_attempt(changes: list[Change], calls: list[dict[str, Any]], bodies: list[dict[str, Any]]) -> None:
    place = claims(changes)[0]
    alter(changes, place, "now", attempt=changes[place].row["attempt"] - 1)


def too_many_attempts(changes: list[Change], calls: list[dict[str, Any]], bodies: list[dict[str, Any]]) -> None:
    alter(changes, claims(changes)[0], "now", max_attempts=0)


def strangers_result(changes: list[Change], calls: list[dict[str, Any]], bodies: list[dict[str, Any]]) -> None:
    alter(changes, results(changes, "last")[0], worker=999_999)


def early_rescue(changes: list[Change], calls: list[dict[str, Any]], bodies: list[dict[str, Any]]) -> None:
    place = claims(changes)[-1]  # its worker has beaten for a while
    claim = changes[place]
    freed = {**(claim.now or {}), "state": "ready", "worker": None, "attempt": 0}
    elsewhere = dataclasses.replace(claim, op="update", was=claim.now, now=freed, seq=claim.seq, backend=0)
    changes.insert(place + 1, elsewhere)


def another_output(changes: list[Change], calls: list[dict[str, Any]], bodies: list[dict[str, Any]]) -> None:
    alter(changes, results(changes, "last")[0], output={"nonce": "of no body"})


def recorded_twice(changes: list[Change], calls: list[dict[str, Any]], bodies: list[dict[str, Any]]) -> None:
    changes.append(changes[results(changes, "last")[0]])


def other_input(changes: list[Change], calls: list[dict[str, Any]], bodies: list[dict[str, Any]]) -> None:
    body = next(body for body in bodies if body["e"] == "begin" and "fetch" in body["given"])
    body["given"]["fetch"] = "of another step"


def too_early_a_step(changes: list[Change], calls: list[dict[str, Any]], bodies: list[dict[str, Any]]) -> None:
    body = next(body for body in bodies if body["e"] == "begin" and body["given"])
    body["t"] -= int(60e9)


def off_the_path(changes: list[Change], calls: list[dict[str, Any]], bodies: list[dict[str, Any]]) -> None:
    alter(changes, results(changes, "decide")[0], event="maybe")


def unfinished_end(changes: list[Change], calls: list[dict[str, Any]], bodies: list[dict[str, Any]]) -> None:
    del changes[results(changes, "last")[0]]


def scheduled_twice(changes: list[Change], calls: list[dict[str, Any]], bodies: list[dict[str, Any]]) -> None:
    failed = {changes[place].row["run"] for place in where(changes, "instances", status="failed")}
    place = next(
        place
        for place, each in enumerate(changes)
        if each.relation == "jobs" and each.op == "update" and each.now and each.was and each.now["step"] == "last"
        if each.was["step"] != "last" and each.now["run"] not in failed  # a retried one may schedule it again
    )
    changes.append(dataclasses.replace(changes[place], seq=changes[-1].seq + 1))


def moved_revision(changes: list[Change], calls: list[dict[str, Any]], bodies: list[dict[str, Any]]) -> None:
    place = ends(changes)[0]
    alter(changes, place, revision=changes[place].row["revision"] + 1)


def unclaimed_run(changes: list[Change], calls: list[dict[str, Any]], bodies: list[dict[str, Any]]) -> None:
    bodies.append(copy.deepcopy(next(body for body in bodies if body["e"] == "begin")))


def second_end(changes: list[Change], calls: list[dict[str, Any]], bodies: list[dict[str, Any]]) -> None:
    end = changes[ends(changes)[0]]
    again = {**(end.now or {}), "status": "cancelled", "revision": end.row["revision"] + 1}
    changes.append(dataclasses.replace(end, seq=changes[-1].seq + 1, was=end.now, now=again))


def two_at_once(changes: list[Change], calls: list[dict[str, Any]], bodies: list[dict[str, Any]]) -> None:
    first, second = [
        place for place, each in enumerate(changes) if (each.relation, each.op) == ("instances", "insert")
    ][:2]
    key = changes[first].row["unique_key"]
    run = changes[second].row["run"]
    for place in where(changes, "instances", run=run):
        for side in ("was", "now"):
            if getattr(changes[place], side) is not None:
                alter(changes, place, side, unique_key=key)
    changes[second] = dataclasses.replace(changes[second], at=changes[first].at)


def early_timer(changes: list[Change], calls: list[dict[str, Any]], bodies: list[dict[str, Any]]) -> None:
    place = staged(changes)
    changes[place] = dataclasses.replace(changes[place], moment=changes[place].moment - 60)


def late_timer(changes: list[Change], calls: list[dict[str, Any]], bodies: list[dict[str, Any]]) -> None:
    place = staged(changes)
    changes[place] = dataclasses.replace(changes[place], moment=changes[place].moment + 60)
    always_attended(changes)


def always_attended(changes: list[Change]) -> None:
    """Let there have been one more worker, before, throughout and after it all."""
    beat = next(each for each in changes if each.relation == "workers")
    row = {**beat.row, "id": 999_999}
    renewed = {**row, "lease_expires_at": "9999-01-01T00:00:00+00:00"}
    changes.insert(0, dataclasses.replace(beat, op="insert", was=None, now=row, at=beat.at - 1000))
    changes.append(dataclasses.replace(beat, op="update", was=row, now=renewed, at=beat.at + 1000))


def staged(changes: list[Change]) -> int:
    return next(
        place
        for place, each in enumerate(changes)
        if each.relation == "jobs"
        and each.was is not None
        and each.now is not None
        and each.was["state"] in ("scheduled", "parked")
        and each.now["state"] == "ready"
        and each.now["run_at"] == each.was["run_at"]
    )


def read_later(calls: list[dict[str, Any]], change: Callable[[list[str]], list[str]]) -> None:
    """Add a later read that returned other steps."""
    reads = [call for call in calls if call["op"] == "read" and call["r"] == "ok"]
    read = [call for call in reads if len(call["answer"]["steps"]) > 1][-1]
    later = copy.deepcopy(read)
    later["t0"], later["t1"] = read["t1"] + 1, read["t1"] + 2
    later["answer"]["steps"] = change(read["answer"]["steps"])
    calls.append(later)


def backward_read(changes: list[Change], calls: list[dict[str, Any]], bodies: list[dict[str, Any]]) -> None:
    read_later(calls, lambda steps: steps[:-1])


def reordered_read(changes: list[Change], calls: list[dict[str, Any]], bodies: list[dict[str, Any]]) -> None:
    read_later(calls, lambda steps: steps[::-1])


def sideways_read(changes: list[Change], calls: list[dict[str, Any]], bodies: list[dict[str, Any]]) -> None:
    """No defect: a branch that was recorded before another one, and committed after it."""
    read_later(calls, lambda steps: [*steps[:-1], "a branch", steps[-1]])


def lost_read(changes: list[Change], calls: list[dict[str, Any]], bodies: list[dict[str, Any]]) -> None:
    start = next(call for call in calls if call["op"] == "start" and call["r"] == "ok" and call["value"][0] != "r")
    moment = start["t1"] + 1
    calls.append(
        {**start, "op": "read", "r": "fail", "why": "instance-not-found", "t0": moment, "t1": moment, "key": None}
    )


def unheard_cancel(changes: list[Change], calls: list[dict[str, Any]], bodies: list[dict[str, Any]]) -> None:
    cancel = next(call for call in calls if call["op"] == "cancel" and call["r"] == "ok")
    prefix = f"{cancel['workflow'].lower()}::{cancel['value']}"
    run = next(each.row["run"] for each in changes if each.relation == "instances" and each.row["id"] == prefix)
    body = copy.deepcopy(next(body for body in bodies if body["e"] == "begin"))
    bodies.append({**body, "run": run, "t": cancel["t1"] + int(60e9), "given": {}})


def burnt_attempt(changes: list[Change], calls: list[dict[str, Any]], bodies: list[dict[str, Any]]) -> None:
    alter(changes, results(changes, "last")[0], attempt=3)


def failed_innocent(changes: list[Change], calls: list[dict[str, Any]], bodies: list[dict[str, Any]]) -> None:
    alter(changes, ends(changes)[-1], status="failed", error={"type": "WorkerLost", "reason": "lost"})


def dirty_session(changes: list[Change], calls: list[dict[str, Any]], bodies: list[dict[str, Any]]) -> None:
    found = {"e": "session", "left": [["setting", "search_path", "nowhere"]]}
    bodies.append({**next(body for body in bodies if body["e"] == "begin" and body["step"] == "book"), **found})


def ticks(changes: list[Change]) -> list[int]:
    """The runs of a schedule."""
    return [each.row["run"] for each in changes if each.op == "insert" and "::ticks@" in str(each.row.get("id"))]


def fired_twice(changes: list[Change], calls: list[dict[str, Any]], bodies: list[dict[str, Any]]) -> None:
    first, second = ticks(changes)[:2]
    (business_id,) = {changes[place].row["id"] for place in where(changes, "instances", run=first)}
    for place in where(changes, "instances", run=second):
        alter(changes, place, id=business_id)


def never_fired(changes: list[Change], calls: list[dict[str, Any]], bodies: list[dict[str, Any]]) -> None:
    run = ticks(changes)[1]
    changes[:] = [each for each in changes if each.row.get("run") != run]
    bodies[:] = [each for each in bodies if each["run"] != run]


def no_instant(changes: list[Change], calls: list[dict[str, Any]], bodies: list[dict[str, Any]]) -> None:
    for place in where(changes, "instances", run=ticks(changes)[0]):
        alter(changes, place, id="chain::ticks@2026-01-01T00:00:00.500000Z")


def strangers_checkpoint(changes: list[Change], calls: list[dict[str, Any]], bodies: list[dict[str, Any]]) -> None:
    """An attempt reads a checkpoint that no attempt of its step has written."""
    next(body for body in bodies if body["e"] == "begin")["checkpoint"] = "another step's"


def enqueued(calls: list[dict[str, Any]], op: str = "enqueue", **wanted: Any) -> dict[str, Any]:
    """A call that has made a job."""
    return next(
        call
        for call in calls
        if call["op"] == op and call["r"] == "ok" and (op != "enqueue" or call["answer"]["created"])
        if all(call[name] == value for name, value in wanted.items())
    )


def of_job(changes: list[Change], job: int) -> list[int]:
    return [*where(changes, "jobs", id=job), *where(changes, "task_results", id=job)]


def lost_job(changes: list[Change], calls: list[dict[str, Any]], bodies: list[dict[str, Any]]) -> None:
    for place in reversed(of_job(changes, enqueued(calls)["answer"]["job"])):
        del changes[place]


def unwanted_job(changes: list[Change], calls: list[dict[str, Any]], bodies: list[dict[str, Any]]) -> None:
    enqueued(calls, "enqueue_in_sql")["r"] = "fail"


def half_an_enqueue(changes: list[Change], calls: list[dict[str, Any]], bodies: list[dict[str, Any]]) -> None:
    enqueued(calls, "enqueue_in_own", kept=True)["kept"] = False


def unended_job(changes: list[Change], calls: list[dict[str, Any]], bodies: list[dict[str, Any]]) -> None:
    jobs = where(changes, "jobs", id=enqueued(calls)["answer"]["job"])
    del changes[next(place for place in jobs if changes[place].op == "delete")]


def two_results(changes: list[Change], calls: list[dict[str, Any]], bodies: list[dict[str, Any]]) -> None:
    (place,) = where(changes, "task_results", id=enqueued(calls)["answer"]["job"])
    changes.append(dataclasses.replace(changes[place], seq=changes[-1].seq + 1))


def unheard_task_cancel(changes: list[Change], calls: list[dict[str, Any]], bodies: list[dict[str, Any]]) -> None:
    place = where(changes, "task_results", status="completed")[0]
    job = changes[place].row["id"]
    calls.append({"op": "cancel", "r": "ok", "job": job, "workflow": "toil", "value": "v", "t0": 0, "t1": 0})


def zombies_result(changes: list[Change], calls: list[dict[str, Any]], bodies: list[dict[str, Any]]) -> None:
    """A worker records a job that another one holds."""
    place = where(changes, "task_results", status="completed")[0]
    alter(changes, place, worker=999_999)


def zombies_output(changes: list[Change], calls: list[dict[str, Any]], bodies: list[dict[str, Any]]) -> None:
    """The holder has recorded the output of an execution in another process."""
    place = where(changes, "task_results", status="completed")[0]
    for beat in where(changes, "workers", id=changes[place].row["worker"]):
        alter(changes, beat, "was" if changes[beat].op == "delete" else "now", pid=1)


def unwritten_task(changes: list[Change], calls: list[dict[str, Any]], bodies: list[dict[str, Any]]) -> None:
    place = where(changes, "task_results", task="book_job", status="completed")[0]
    alter(changes, place, output="another nonce")


def two_holders(changes: list[Change], calls: list[dict[str, Any]], bodies: list[dict[str, Any]]) -> None:
    first, second = [
        place for place in where(changes, "jobs", step="occupy", kind="task") if changes[place].op == "insert"
    ][:2]
    alter(changes, second, unique_key=changes[first].row["unique_key"])
    changes[second] = dataclasses.replace(changes[second], at=changes[first].at)


def immortal_key(changes: list[Change], calls: list[dict[str, Any]], bodies: list[dict[str, Any]]) -> None:
    """An enqueue is answered with a job that has ended long before."""
    call = copy.deepcopy(enqueued(calls, workflow="occupy"))
    call["answer"]["created"] = False
    calls.append({**call, "key": "another", "t0": call["t1"] + int(600e9), "t1": call["t1"] + int(601e9)})


def lost_hook(changes: list[Change], calls: list[dict[str, Any]], bodies: list[dict[str, Any]]) -> None:
    hook = changes[where(changes, "jobs", step="noted")[0]].row["id"]
    for place in reversed(of_job(changes, hook)):
        del changes[place]


def late_hook(changes: list[Change], calls: list[dict[str, Any]], bodies: list[dict[str, Any]]) -> None:
    """A hook is enqueued in a transaction of its own."""
    place = where(changes, "jobs", step="noted")[0]
    changes[place] = dataclasses.replace(changes[place], xact=1)


DEFECTS: dict[str, list[Spoil]] = {
    "I1": [lost_instance, lost_visit, lost_signal, half_a_transaction, two_answers],
    "I2": [unending, left_token],
    "I3": [skipped_state, late_attempt, too_many_attempts],
    "I4": [strangers_result, early_rescue],
    "I5": [another_output, recorded_twice],
    "I6": [other_input, too_early_a_step],
    "I7": [off_the_path, unfinished_end],
    "I8": [scheduled_twice],
    "I10": [moved_revision],
    "I11": [unclaimed_run],
    "I12": [second_end],
    "I13": [two_at_once],
    "I15": [early_timer, late_timer],
    "I16": [backward_read, reordered_read, lost_read],
    "I17": [unheard_cancel],
    "I18": [burnt_attempt, failed_innocent],
    "I21": [dirty_session],
    "I22": [fired_twice, never_fired, no_instant],
    "I23": [strangers_checkpoint],
    "I24": [lost_job, unwanted_job, half_an_enqueue],
    "I25": [unended_job, two_results, unheard_task_cancel],
    "I26": [zombies_result, zombies_output, unwritten_task],
    "I27": [two_holders, immortal_key],
    "I28": [lost_hook, late_hook],
}
CASES = [(invariant, spoil) for invariant, spoils in DEFECTS.items() for spoil in spoils]


def spoilt(sound: History, spoil: Spoil) -> History:
    changes = list(sound.changes)
    calls: list[Any] = copy.deepcopy(list(sound.calls))
    bodies: list[Any] = copy.deepcopy(list(sound.bodies))
    spoil(changes, calls, bodies)
    return dataclasses.replace(sound, changes=changes, calls=calls, bodies=bodies)


def broken(history: History) -> set[str]:
    return {each.invariant for each in check(history)}


@pytest.mark.slow
def test_a_real_history_has_no_violation_and_covers_enough(sound: History) -> None:
    assert [(each.invariant, each.message) for each in check(sound)] == []
    seen = counters(sound)
    assert min(seen[name] for name in ("completed", "cancelled", "retried by callers", "waits parked")) > 0


@pytest.mark.slow
@pytest.mark.parametrize(("invariant", "spoil"), CASES, ids=lambda each: getattr(each, "__name__", each))
def test_each_defect_violates_its_invariant(sound: History, invariant: str, spoil: Spoil) -> None:
    assert invariant in broken(spoilt(sound, spoil))


@pytest.mark.slow
def test_the_other_invariants_are_violated_by_effects_metrics_and_logs(sound: History) -> None:
    effects = [each for each in sound.effects if each[0] > 0]
    jobs = [each for each in sound.effects if each[0] < 0]
    assert "I26" in broken(dataclasses.replace(sound, effects=[*sound.effects, jobs[0]]))
    assert "I26" in broken(dataclasses.replace(sound, effects=[each for each in sound.effects if each != jobs[0]]))
    assert "I9" in broken(dataclasses.replace(sound, effects=[*sound.effects, effects[0]]))
    assert "I9" in broken(dataclasses.replace(sound, effects=[each for each in sound.effects if each != effects[0]]))
    assert "I9" in broken(dataclasses.replace(sound, effects=[*sound.effects, (effects[0][0], "book", "another")]))
    fat = {"rss": {"1": 1 << 30}, "connections": 3}
    crowded = {"rss": {"1": 1}, "connections": 3000}
    assert "I19" in broken(dataclasses.replace(sound, metrics=[fat]))
    assert "I19" in broken(dataclasses.replace(sound, metrics=[crowded]))
    noisy = "2026-01-01 00:00:00 ERROR oh\nTraceback (most recent call last):\nKeyError: 'a defect'\n"
    assert "I20" in broken(dataclasses.replace(sound, logs={"worker-1": noisy}))
    late = slow_rescue(sound)
    claimed = late.changes[-1].moment - 600
    alone = [each for each in late.changes if each.relation != "workers" or each.at <= claimed]
    assert "I14" not in broken(dataclasses.replace(late, changes=alone))  # no worker was there
    always_attended(changes := list(late.changes))
    assert "I14" in broken(dataclasses.replace(late, changes=changes))


@pytest.mark.slow
def test_a_branch_that_is_committed_late_may_stand_between_others(sound: History) -> None:
    assert "I16" not in broken(spoilt(sound, sideways_read))


@pytest.mark.slow
def test_what_a_worker_held_that_has_left_is_free_at_once(sound: History) -> None:
    changes = list(sound.changes)
    early_rescue(changes, [], [])
    place = next(place for place, each in enumerate(changes) if each.backend == 0)
    worker = (changes[place].was or {})["worker"]
    early = dataclasses.replace(sound, changes=changes)
    beat = next(each for each in reversed(early.leases[worker]) if each.seq < changes[place].seq)
    at_once = datetime.fromtimestamp(changes[place].moment - 0.1, UTC).isoformat()
    leaves = dataclasses.replace(beat, was=beat.now, now={**beat.row, "lease_expires_at": at_once}, backend=1)
    assert "I4" in broken(early)
    changes.insert(place, leaves)
    assert "I4" not in broken(dataclasses.replace(sound, changes=changes))


@pytest.mark.slow
@pytest.mark.chaos
def test_a_deadlock_breaks_i20_unless_it_is_made_up(sound: History) -> None:
    with Cluster(settings=QUICK) as cluster:
        with connect(cluster.dsn, "migrate") as conn:
            up(conn)
        faults.install(cluster)
        be_refused_as_in_a_deadlock(cluster)
        assert broken(dataclasses.replace(sound, server_logs={"server-1": cluster.logs[0]})) == set()
        run_into_a_deadlock(cluster)
        found = check(dataclasses.replace(sound, server_logs={"server-1": cluster.logs[0]}))
    assert [each.invariant for each in found] == ["I20"]
    assert "pgflow:worker: deadlock detected: Process" in found[0].message
    assert found[0].message.count("waits for ExclusiveLock on advisory lock") == 2


def be_refused_as_in_a_deadlock(cluster: Cluster) -> None:
    """Have a statement refused by the test install until the reason is a deadlock."""
    with psycopg.connect(cluster.admin_dsn, autocommit=True) as conn:
        run(conn, debug.refuse(1.0))
        for _ in range(200):
            try:
                conn.execute("delete from pgflow.signals")
            except psycopg.errors.DeadlockDetected:
                break
            except psycopg.OperationalError:
                continue
        run(conn, debug.refuse(0.0))
    assert "with 40P01" in cluster.logs[0]


def run_into_a_deadlock(cluster: Cluster) -> None:
    """Let two sessions wait for one another."""
    both_hold = threading.Barrier(2, timeout=30)

    def lock(first: int, second: int) -> bool:
        with psycopg.connect(cluster.dsn, application_name="pgflow:worker") as conn:
            conn.execute("select pg_advisory_xact_lock(%s)", [first])
            both_hold.wait()
            try:
                conn.execute("select pg_advisory_xact_lock(%s)", [second])
            except psycopg.errors.DeadlockDetected:
                conn.rollback()
                return True
            return False

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(lock, (1, 2), (2, 1))) == [False, True]


def slow_rescue(sound: History) -> History:
    changes = list(sound.changes)
    place = claims(changes)[-1]
    claim = changes[place]
    freed = {**(claim.now or {}), "state": "ready", "worker": None, "attempt": 0, "crashes": 1}
    late = dataclasses.replace(claim, at=claim.at + 600, moment=claim.moment + 600, was=claim.now, now=freed)
    return dataclasses.replace(sound, changes=[*changes, late])


def poisoned(workflow: str = "Poison", *, company: int | None = None, clock_went_back: bool = False) -> History:
    """Six workers have died of one step; one of them held something else, or the third had a lease from the future."""
    changes: list[Change] = []

    def change(relation: str, was: dict[str, Any] | None, now: dict[str, Any], xact: int) -> None:
        seq = len(changes) + 1
        op = "insert" if was is None else "update"
        changes.append(Change(seq, xact, seq, seq, "pgflow:worker", 1, relation, op, was, now))

    instance = {"run": 1, "id": "poison::v", "workflow": workflow, "status": "running", "error": None}
    job = {"id": 1, "run": 1, "kind": "execute", "step": "strike", "attempt": 1}
    change("instances", None, instance, 1)
    lease_ends = "2030-01-01T00:00:00+00:00" if clock_went_back else "1970-01-01T00:00:00+00:00"
    change("workers", None, {"id": 3, "backend": 1, "lease_expires_at": lease_ends}, 2)
    for worker, (before, after) in enumerate(((0, 1), (1, 2), (2, 2), (2, 3), (3, 4), (4, 5)), start=1):
        held = {**job, "state": "running", "worker": worker}
        freed = {**job, "state": "ready", "worker": None}
        change("jobs", {**held, "crashes": before}, {**freed, "crashes": after}, 10 + worker)
        if worker == company:
            other = {"id": 2, "run": 2, "crashes": 0}
            change("jobs", {**held, **other}, {**freed, **other}, 10 + worker)
    failed = {**instance, "status": "failed", "error": {"type": "WorkerLost", "reason": "lost", "step": "strike"}}
    change("instances", instance, failed, 99)
    bodies = [{"e": "begin", "run": 1, "step": "strike"}] * 6
    times = {"lease": 1.0, "sweep": 0.3, "poll": 0.3, "slack": 1.0}
    return History(changes, [], bodies, [], [], {}, {}, 0.0, times)


def test_a_crash_is_in_doubt_where_the_worker_held_something_else_and_where_the_clock_went_back() -> None:
    found = INVARIANTS["I18"]
    assert list(found(poisoned(company=3))) == []
    assert list(found(poisoned(clock_went_back=True))) == []
    assert list(found(poisoned())) == ["poison::v killed 6 workers and failed with lost"]


def test_an_innocent_may_fail_of_five_lost_workers_if_it_was_alone_with_the_last_three() -> None:
    found = INVARIANTS["I18"]
    assert list(found(poisoned("Wide"))) == []
    assert list(found(poisoned("Wide", company=4))) == [
        "poison::v failed because its worker was lost, but does not kill workers"
    ]


def test_every_invariant_has_a_defect() -> None:
    assert {*DEFECTS, "I9", "I14", "I19", "I20"} == set(INVARIANTS)


def test_the_model_agrees_with_the_engine_on_random_ways() -> None:
    from pgflow.core.engine.machine import replay
    from tests.torture.workload.flows import WORKFLOWS

    dice = random.Random(1)  # noqa: S311 -- to be repeated
    for workflow in WORKFLOWS:
        graph = workflow.graph
        for _ in range(200):
            done: dict[str, tuple[str, list[str] | None]] = {}
            while True:
                completions = [
                    (step, event, None if way is None else tuple(way)) for step, (event, way) in done.items()
                ]
                state = replay(graph, completions)
                recorded, following, is_at_end = follow(graph.spec(), done)
                assert recorded == set(done)
                assert is_at_end == (state.status == "completed")
                if state.status != "running":
                    break
                assert following == set(state.active)
                step = dice.choice(sorted(state.active))
                choice = dice.choice(sorted(graph.nodes[step].choices))
                declared = graph.choice(step, choice)
                way = None
                if declared.chooser is not None:
                    way = dice.sample(declared.targets, dice.randint(1, len(declared.targets)))
                done[step] = (choice, way)


def test_a_run_folder_holds_what_is_needed_to_look_again(sound: History, tmp_path: Path) -> None:
    assert sound.changes
    assert {each["op"] for each in sound.calls} >= {"start", "start_many", "start_in_own", "signal", "cancel", "read"}
    assert "database system is ready to accept connections" in sound.server_logs["server-1"]
