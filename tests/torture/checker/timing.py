"""How long things take at the most: timers, and the recovery of what a dead worker held (I14, I15).

Nothing is in time while no worker lives: steps may kill one after the other, and on a busy machine it takes seconds
until the next one is there. So that time does not count.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.torture.checker.history import History, seconds_of
from tests.torture.install.audit import Change

__all__ = ["dead_workers_steps_are_freed_in_time", "timers_are_never_early"]

# Faults that keep everybody from the database, or the database from everybody: nothing can be on time then.
EVERYBODY = frozenset({"server", "disk", "connections", "locks", "clock", "network"})


def dead_workers_steps_are_freed_in_time(history: History) -> Iterator[str]:
    """I14: what a dead worker held is free again within lease + sweep + poll."""
    for story in history.stories.values():
        for change in story.moves:
            was, now = change.was, change.now
            if was is None or now is None or now["crashes"] <= was["crashes"]:
                continue
            beats = [each for each in history.leases.get(was["worker"], ()) if each.seq < change.seq and each.now]
            if not beats:
                continue
            waited = history.attended(beats[-1].at, change.at)
            if waited > history.bound and not _is_excused(history, beats[-1].at, change.at):
                yield f"token {was['id']} of run {story.run} was freed {waited:.1f} s after its worker's last heartbeat"


def timers_are_never_early(history: History) -> Iterator[str]:
    """I15: what is due later is made ready when its time has come; not before, and not much later."""
    for story in history.stories.values():
        for change in story.moves:
            if not _is_staged(change):
                continue
            late = change.moment - seconds_of(change.row["run_at"])
            if late < -0.001:
                yield f"token {change.row['id']} of run {story.run} was made ready {-late:.3f} s too early"
            bound = history.times["poll"] + 1.0 + history.times["slack"]
            if history.attended(change.at - late, change.at) > bound and not _is_excused(
                history, change.at - late, change.at
            ):
                yield f"token {change.row['id']} of run {story.run} was made ready {late:.1f} s late"


def _is_staged(change: Change) -> bool:
    was, now = change.was, change.now
    if was is None or now is None or was["state"] not in ("scheduled", "parked") or was["run_at"] is None:
        return False
    return bool(now["state"] == "ready" and now["run_at"] == was["run_at"])


def _is_excused(history: History, start: float, end: float) -> bool:
    return any(each["group"] in EVERYBODY for each in history.blows_between(start, end))
