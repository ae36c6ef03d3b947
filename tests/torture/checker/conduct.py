"""How workers behave: only a step's own failures count, logs and sessions are clean, memory is bounded (I18 to I21)."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

from tests.torture.checker.history import History, InstanceHistory, seconds_of
from tests.torture.install.audit import Change

__all__ = [
    "checkpoints_are_its_own",
    "logs_are_clean",
    "only_own_failures_count",
    "sessions_are_clean",
    "workers_stay_small",
]

MAX_CRASHES = 5
QUARANTINE_FROM = 2  # lost workers
CONNECTIONS_EACH = 3 + 20  # work, heartbeats, notifications, and transactional steps
MAX_RSS = 160 * 1024 * 1024
INTENDED = "failpoint "  # an error that the harness raised
# The lines after it name the lock cycle. The fault "refusals" raises deadlock errors with another message.
DEADLOCK = re.compile(r"^(.*)ERROR:  deadlock detected\n(?:.*DETAIL:  (.*)\n(?:\t(.*)\n)?)?", re.MULTILINE)


def checkpoints_are_its_own(history: History) -> Iterator[str]:
    """I23: an attempt reads a checkpoint that an attempt of the same step of the same run has written."""
    for instance in history.instances.values():
        written = {(body["step"], body["nonce"]) for body in instance.bodies if body["e"] == "begin"}
        for body in instance.bodies:
            checkpoint = body.get("checkpoint")
            if body["e"] == "begin" and checkpoint is not None and (body["step"], checkpoint) not in written:
                yield f"{body['step']} of run {instance.run} read the checkpoint {checkpoint!r}, which is not its own"


def only_own_failures_count(history: History) -> Iterator[str]:
    """I18: only a step's own failures use up its attempts, and only a poison job fails after five crashes."""
    for instance in history.instances.values():
        for change in instance.results:
            row = change.row
            own = [each for each in row["errors"] or () if not each.keys() & {"crashes", "severed"}]
            output = row["output"] if isinstance(row["output"], dict) else {}
            has_failed = "error" in output or "operator" in output  # passed over by its policy, or completed for it
            if row["attempt"] != len(own) + (not has_failed):
                where = f"{row['step']} of run {instance.run}"
                yield f"{where} was recorded in attempt {row['attempt']} with {len(own)} failures of its own"
        if not instance.changes or instance.status != "failed":
            continue
        if instance.workflow == "Poison":
            begun = sum(body["e"] == "begin" for body in instance.bodies)
            crashes = begun - sum(_is_unattributed(history, change) for change in instance.moves)
            if instance.error.get("type") != "WorkerLost" or crashes > MAX_CRASHES:
                yield f"{instance.id} killed {begun} workers and failed with {instance.error.get('reason')}"
        elif instance.error.get("type") == "WorkerLost":
            if not _was_lost_alone(history, instance):
                yield f"{instance.id} failed because its worker was lost, but does not kill workers"
        elif instance.workflow not in ("Broken", "Exhausted"):
            yield f"{instance.id} failed: {instance.error.get('reason')}"


def _is_unattributed(history: History, change: Change) -> bool:
    """Whether the rescue could not attribute the worker's loss to this step: see sql/queries/job/rescue.sql.

    A quarantined job may have shared its worker, even without the worker's knowledge when an answer was lost. And when
    the clock moved back, the lease expires too late to prove anything.
    """
    was, now = change.was, change.now
    if was is None or now is None or (was["state"], now["state"]) != ("running", "ready"):
        return False
    if now["crashes"] > was["crashes"]:
        return False
    beats = [each for each in history.leases.get(was["worker"], ()) if each.seq < change.seq]
    if beats and seconds_of(beats[-1].row["lease_expires_at"]) > change.moment:
        return True
    return bool(was["crashes"] >= QUARANTINE_FROM) and _had_company(history, change)


def _was_lost_alone(history: History, instance: InstanceHistory) -> bool:
    """Whether five workers were lost while they held the step, the last three while they held no other job.

    The engine then blames the step, which may be wrong (see sql/README.md): here, once in ten thousand instances.
    """
    charges = [
        each
        for job in instance.jobs.values()
        for each in job
        if each.was
        and each.now
        and each.now["crashes"] > each.was["crashes"]
        and each.was["step"] == instance.error["step"]
    ]
    return len(charges) == MAX_CRASHES and not any(
        each.was is not None and each.was["crashes"] >= QUARANTINE_FROM and _had_company(history, each)
        for each in charges
    )


def _had_company(history: History, change: Change) -> bool:
    """Whether a job's worker held another job when it lost this one."""
    return any(
        other.row["id"] != change.row["id"] and (other.xact == change.xact or other.seq > change.seq)
        for other in history.departures[(change.was or {})["worker"]]
    )


def workers_stay_small(history: History) -> Iterator[str]:
    """I19: memory and connections stay below their limits."""
    sizes: dict[int, list[int]] = defaultdict(list)
    for sample in history.metrics:
        for pid, size in sample["rss"].items():
            sizes[int(pid)].append(size)
        if sample["connections"] > CONNECTIONS_EACH * max(1, len(sample["rss"])) + 60:
            yield f"there were {sample['connections']} connections for {len(sample['rss'])} workers"
    for pid, seen in sizes.items():
        if max(seen) > MAX_RSS:
            yield f"worker process {pid} grew to {max(seen) >> 20} MB"


def logs_are_clean(history: History) -> Iterator[str]:
    """I20: workers log no unexpected errors, and the server no deadlocks."""
    for name, text in history.logs.items():
        for block in re.split(r"(?m)^(?=\d{4}-\d\d-\d\d )", text):
            if "Traceback" in block and INTENDED not in block:
                last = block.strip().splitlines()[-1]
                yield f"{name}: {block.splitlines()[0][:120]} … {last[:160]}"
    for name, text in history.server_logs.items():
        for session, *cycle in DEADLOCK.findall(text):
            yield f"{name}: {session}deadlock detected: {' '.join(cycle)}"


def sessions_are_clean(history: History) -> Iterator[str]:
    """I21: a transactional step finds no session state of another step."""
    for body in history.bodies:
        if body["e"] == "session":
            left = "; ".join(f"{kind} {name}: {value}" for kind, name, value in body["left"])
            yield f"{body['step']} of run {body['run']} found in its session {left[:200]}"
