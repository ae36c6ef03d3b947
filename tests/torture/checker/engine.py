"""Invariants of the database's history: jobs, results, instances (I2 to I13)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from tests.torture.checker.history import ENDED, History, InstanceHistory, seconds_of, title
from tests.torture.checker.model import follow
from tests.torture.install.audit import Change

__all__ = [
    "each_instance_ends",
    "effects_are_written_once",
    "ends_are_final",
    "executions_are_claimed",
    "jobs_move_by_the_rules",
    "only_the_owner_records",
    "outcomes_are_a_path",
    "outputs_are_from_an_execution",
    "revisions_have_no_gap",
    "steps_are_reached_once",
    "steps_begin_with_what_was_recorded",
    "unique_keys_are_held_once",
]

# From a job's state to the next one; None is before its insert and after its delete.
LEGAL = {
    (None, "ready"),
    (None, "running"),
    (None, "scheduled"),
    ("ready", "running"),
    ("running", "running"),
    ("running", "ready"),
    ("running", "scheduled"),
    ("running", "parked"),
    ("scheduled", "ready"),
    ("parked", "ready"),
    ("ready", None),
    ("running", None),
    ("scheduled", None),
    ("parked", None),
}
WAITS = frozenset({"approval", "word", "courier", "pause"})  # ended by a signal or a timer, not by an execution


def each_instance_ends(history: History) -> Iterator[str]:
    """I2: after the last fault every instance ends, and no job remains."""
    for instance in history.instances.values():
        if not instance.changes:
            yield f"run {instance.run} is known only from its steps"
            continue
        if instance.status not in ENDED:
            yield f"{instance.id} (run {instance.run}) is {instance.status} at the end"
        for job, changes in instance.jobs.items():
            if changes[-1].op != "delete":
                yield f"job {job} of {instance.id} remains: {_state(changes[-1].now)}"


def jobs_move_by_the_rules(history: History) -> Iterator[str]:
    """I3: a job changes its state only as allowed, and only a claim counts an attempt."""
    for changes in history.jobs.values():
        for change in changes:
            was, now = change.was, change.now
            pair = (was and was["state"], now and now["state"])
            if pair not in LEGAL:
                yield f"{title(change)} went from {pair[0]} to {pair[1]}"
            if now is not None and now["attempt"] > now["max_attempts"]:
                yield f"{title(change)} is in attempt {now['attempt']} of {now['max_attempts']}"
            if was is not None and now is not None and not _attempt_is_right(was, now):
                yield (
                    f"{title(change)}: attempt {was['attempt']} became {now['attempt']} ({_state(was)} → {_state(now)})"
                )


def _attempt_is_right(was: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    before, after = was["attempt"], now["attempt"]
    match was["state"], now["state"]:
        case "ready", "running":
            return bool(after == before + (was["kind"] in ("execute", "task")))
        case "running", "running" if now["step"] == was["step"]:  # it has reported progress or a checkpoint
            return bool(after == before and now["worker"] == was["worker"])
        case "running", "running":
            return bool(after == 1)
        case "running", ("ready" | "scheduled" | "parked") if now["step"] == was["step"]:
            return after in (before, before - 1)
        case "running", ("ready" | "scheduled"):
            return bool(after == 0)
    return bool(after == before)


def only_the_owner_records(history: History) -> Iterator[str]:
    """I4: only the job's owner in this attempt records a step, and no job is taken before the lease expires."""
    by_transaction: dict[int, list[Change]] = {}
    for change in history.changes:
        if change.relation == "jobs" and change.was is not None:
            by_transaction.setdefault(change.xact, []).append(change)
    for instance in history.instances.values():
        for result in instance.results:
            row = result.row
            owners = [
                each.was
                for each in by_transaction.get(result.xact, ())
                if each.was is not None and each.was["run"] == instance.run and each.was["step"] == row["step"]
            ]
            if not any(
                (each["state"], each["worker"], each["attempt"]) == ("running", row["worker"], row["attempt"])
                for each in owners
            ):
                held = ", ".join(map(_state, owners)) or "not held"
                yield (
                    f"{row['step']} of run {instance.run} was recorded by worker {row['worker']} in attempt "
                    f"{row['attempt']}, when its job was {held}"
                )
    for changes in history.jobs.values():
        for change in changes:
            yield from _taken_too_early(history, change)


def _taken_too_early(history: History, change: Change) -> Iterator[str]:
    """A job released at the same step, by a session of another worker, must have been rescued from a dead one."""
    was, now = change.was, change.now
    if was is None or now is None or (was["state"], now["state"], now["step"]) != ("running", "ready", was["step"]):
        return
    beats = [each for each in history.leases.get(was["worker"], ()) if each.seq < change.seq and each.now]
    if any(each.row["backend"] == change.backend for each in beats) or now["kind"] != was["kind"]:
        return
    # The last heartbeat may be invisible while its commit waits for a standby. A heartbeat after which its session did
    # more is certainly visible.
    visible = [
        place for place, beat in enumerate(beats) if any(beat.backend == on.backend for on in beats[place + 1 :])
    ]
    if not visible:
        return
    # Each later one may be visible as well; the last one of a worker that leaves ends its lease at once.
    ends = min(seconds_of(beat.row["lease_expires_at"]) for beat in beats[visible[-1] :])
    lease = history.times["lease"]
    if change.moment + 0.001 < ends <= change.moment + 2 * lease:
        yield (
            f"job {was['id']} was taken from worker {was['worker']} as from a dead worker, "
            f"{ends - change.moment:.3f} s before its lease ended"
        )


def outputs_are_from_an_execution(history: History) -> Iterator[str]:
    """I5: a step is recorded once, with the output of an execution in that attempt."""
    for instance in history.instances.values():
        left = {(body["step"], body["attempt"], body["nonce"]) for body in instance.bodies if body["e"] == "end"}
        seen = Counter(each.row.get("step") for each in instance.results)
        for step, count in seen.items():
            if count > 1:
                yield f"{step} of run {instance.run} was recorded {count} times"
        for change in instance.results:
            row = change.row
            if row["step"] in WAITS or not (row["output"] or {}).get("nonce"):
                continue
            if (row["step"], row["attempt"], row["output"]["nonce"]) not in left:
                yield f"{row['step']} of run {instance.run}, attempt {row['attempt']}: the output is from no execution"


def steps_begin_with_what_was_recorded(history: History) -> Iterator[str]:
    """I6: a step begins after its predecessors were recorded, and gets their recorded outputs."""
    for instance in history.instances.values():
        recorded = {each.row["step"]: each for each in instance.results}
        for body in instance.bodies:
            if body["e"] != "begin":
                continue
            for step, nonce in body["given"].items():
                known = recorded.get(step)
                if known is None:
                    yield f"{body['step']} of run {instance.run} was given {step}, which was never recorded"
                    continue
                stored = (known.row["output"] or {}).get("nonce")
                if stored != nonce:
                    yield f"{body['step']} of run {instance.run} was given {nonce} of {step}, but {stored} is recorded"
                if known.at > history.wall(body["t"]) + 0.005:
                    yield f"{body['step']} of run {instance.run} began before {step} was recorded"


def outcomes_are_a_path(history: History) -> Iterator[str]:
    """I7: an instance's results form a path through its graph, from the initial step to its current state."""
    for instance in history.instances.values():
        if not instance.changes:
            continue
        graph = history.graphs[instance.workflow]
        results = {each.row["step"]: (each.row["event"], each.row["targets"]) for each in instance.results}
        done, _, is_at_end = follow(graph, results)
        for step in sorted(results.keys() - done):
            yield f"{step} of {instance.id} (run {instance.run}) is recorded, but not reachable"
        if is_at_end != (instance.status == "completed") and instance.status in ENDED:
            where = "at" if is_at_end else "not at"
            yield f"{instance.id} (run {instance.run}) is {instance.status}; by its results it is {where} the end"


def steps_are_reached_once(history: History) -> Iterator[str]:
    """I8: each step, also a join, is scheduled once in a run, and once more for each retry of the instance."""
    for instance in history.instances.values():
        reached = Counter(
            change.now["step"]
            for change in instance.moves
            if change.now is not None
            and change.now["kind"] == "execute"
            and (change.was is None or change.was["step"] != change.now["step"])
        )
        for step, count in reached.items():
            if count > 1 + instance.retries:
                yield f"{step} of run {instance.run} was scheduled {count} times"


def effects_are_written_once(history: History) -> Iterator[str]:
    """I9: the row of a transactional step exists once if the step was recorded, and not otherwise."""
    written = Counter((run, step, nonce) for run, step, nonce in history.effects if run > 0)
    for (run, step, nonce), count in written.items():
        row = history.instances[run].result(step) if run in history.instances else None
        if row is None or (row["output"] or {}).get("nonce") != nonce:
            yield f"{step} of run {run} has an effect that does not belong to its result"
        if count > 1:
            yield f"{step} of run {run} has its effect {count} times"
    for instance in history.instances.values():
        for change in instance.results:
            row = change.row
            made = (row["output"] or {}).get("nonce", "")
            if row["step"] in ("book", "abook") and (instance.run, row["step"], made) not in written:
                yield f"{row['step']} of run {instance.run} is recorded without its effect"


def revisions_have_no_gap(history: History) -> Iterator[str]:
    """I10: each change of an instance increments its revision by one."""
    for instance in history.instances.values():
        for change in instance.changes:
            if change.was is not None and change.now is not None:
                by = change.now["revision"] - change.was["revision"]
                if by != 1:
                    yield f"the revision of {instance.id} (run {instance.run}) moved by {by}"


def executions_are_claimed(history: History) -> Iterator[str]:
    """I11: a step is executed at most as often as it was claimed."""
    for instance in history.instances.values():
        claims = Counter(
            change.now["step"]
            for change in instance.moves
            if change.now is not None
            and change.now["state"] == "running"
            and change.now["kind"] == "execute"
            and (change.was is None or change.was["state"] == "ready" or change.was["step"] != change.now["step"])
        )
        begun = Counter(body["step"] for body in instance.bodies if body["e"] == "begin")
        for step, count in begun.items():
            if count > claims[step]:
                yield f"{step} of run {instance.run} ran {count} times and was claimed {claims[step]} times"


def ends_are_final(history: History) -> Iterator[str]:
    """I12: an instance ends once, unless it is retried after a failure."""
    for instance in history.instances.values():
        for change in instance.changes:
            was, now = change.was, change.now
            if was is None or now is None or was["status"] not in ENDED:
                continue
            if not (was["status"] == "failed" and now["status"] == "running"):
                yield f"{instance.id} (run {instance.run}) was {was['status']} and became {now['status']}"


def unique_keys_are_held_once(history: History) -> Iterator[str]:
    """I13: at most one instance per unique key is active at a time."""
    lives: dict[str, list[tuple[float, float, InstanceHistory]]] = {}
    for instance in history.instances.values():
        if not instance.changes or instance.changes[0].row.get("unique_key") is None:
            continue
        key = instance.changes[0].row["unique_key"]
        since: float | None = None
        for change in instance.changes:
            is_active = change.now is not None and change.now["status"] not in ENDED
            if is_active and since is None:
                since = change.at
            elif not is_active and since is not None:
                lives.setdefault(key, []).append((since, change.at, instance))
                since = None
    for key, spans in lives.items():
        spans.sort(key=lambda span: span[:2])
        for (_, end, first), (start, _, second) in pairwise(spans):
            if start < end:
                yield f"{key}: runs {first.run} and {second.run} were active at once"


def _state(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "gone"
    return f"{row['state']} {row['kind']} at {row['step'] or '?'} of worker {row['worker']}, attempt {row['attempt']}"
