"""Time limits: rescue of a dead worker's jobs, and timers (I14, I15).

Time without a live worker does not count: poison steps may kill one after the other, and on a busy machine it takes
seconds until the next one is ready.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.torture.checker.history import History, seconds_of, title
from tests.torture.install.audit import Change

__all__ = ["dead_workers_jobs_are_rescued_in_time", "timers_are_never_early"]

# Faults that affect the database or all connections to it: no time limit holds then.
GLOBAL = frozenset({"server", "disk", "connections", "locks", "clock", "network"})


def dead_workers_jobs_are_rescued_in_time(history: History) -> Iterator[str]:
    """I14: a dead worker's jobs are rescued within lease + sweep + poll."""
    for changes in history.jobs.values():
        for change in changes:
            was, now = change.was, change.now
            if was is None or now is None or now["crashes"] <= was["crashes"]:
                continue
            beats = [each for each in history.leases.get(was["worker"], ()) if each.seq < change.seq and each.now]
            if not beats:
                continue
            waited = history.attended(beats[-1].at, change.at)
            if waited > history.bound and not _is_excused(history, beats[-1].at, change.at):
                yield f"{title(change)} was rescued {waited:.1f} s after the last heartbeat"


def timers_are_never_early(history: History) -> Iterator[str]:
    """I15: a scheduled job becomes ready when it is due, not earlier and not much later."""
    for changes in history.jobs.values():
        for change in changes:
            if not _is_staged(change):
                continue
            late = change.moment - seconds_of(change.row["run_at"])
            if late < -0.001:
                yield f"{title(change)} became ready {-late:.3f} s too early"
            bound = history.times["poll"] + 1.0 + history.times["slack"]
            if history.attended(change.at - late, change.at) > bound and not _is_excused(
                history, change.at - late, change.at
            ):
                yield f"{title(change)} became ready {late:.1f} s late"


def _is_staged(change: Change) -> bool:
    was, now = change.was, change.now
    if was is None or now is None or was["state"] not in ("scheduled", "parked") or was["run_at"] is None:
        return False
    return bool(now["state"] == "ready" and now["run_at"] == was["run_at"])


def _is_excused(history: History, start: float, end: float) -> bool:
    return any(each["group"] in GLOBAL for each in history.injections_between(start, end))
