"""Harm to worker processes: killed, stopped and asked to end, anywhere and at each point that has a name."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from typing import Any

from tests.torture.faults.fault import Aim, Harm, at_a_worker
from tests.torture.trial.setup import Arena
from tests.torture.workers.failpoints import POINTS
from tests.torture.workers.fleet import LEASE, WorkerSlot

__all__ = ["HARMS"]

BEYOND = (1.3 * LEASE, 2.2 * LEASE)
FAR_BEYOND = (1.3 * LEASE, 4.5 * LEASE)  # at the most longer than a dead worker's steps may take to run again
START_SECONDS = 20.0  # until a worker that was ended is there again
MEET_SECONDS = 6.0  # until it has come to the point where it is awaited


def sent(number: signal.Signals) -> Callable[[Arena, Aim], bool]:
    """Send a signal to a worker that is at work."""

    def send(arena: Arena, aim: Aim) -> bool:
        berth = arena.berth(aim)
        return berth.until_ready(START_SECONDS) and berth.send(number) is not None

    return send


def kill_at_the_start(arena: Arena, aim: Aim) -> bool:
    berth = arena.berth(aim)
    arena.fleet.restart(berth)
    deadline, before = time.monotonic() + START_SECONDS, berth.starts
    while berth.starts == before and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(aim["seconds"])
    return berth.starts > before and berth.send(signal.SIGKILL) is not None


def soon(dice: random.Random, arena: Arena) -> dict[str, Any]:
    return {**at_a_worker(dice, arena), "seconds": round(dice.uniform(0.1, 1.5), 2)}


def kill_all(arena: Arena, aim: Aim) -> bool:
    are_ready = all([berth.until_ready(START_SECONDS) for berth in arena.fleet.berths])  # noqa: C419 -- each gets its time
    return are_ready and None not in [berth.send(signal.SIGKILL) for berth in arena.fleet.berths]


def go_on(arena: Arena, aim: Aim) -> None:
    arena.berth(aim).send(signal.SIGCONT)


def end_twice(arena: Arena, aim: Aim) -> bool:
    berth = arena.berth(aim)
    if not berth.until_ready(START_SECONDS):
        return False
    berth.send(signal.SIGTERM)
    time.sleep(aim["seconds"])  # it has heard of the first, and has not ended
    return berth.send(signal.SIGTERM) is not None


def drain_and_run_again(arena: Arena, aim: Aim) -> bool:
    """Let a worker drain and run again on the same object, until the next run is ready."""
    berth = arena.berth(aim)
    if not berth.until_ready(START_SECONDS):
        return False
    before, pid = berth.runs, berth.send(signal.SIGHUP)
    deadline = time.monotonic() + START_SECONDS
    while pid is not None and berth.pid == pid and time.monotonic() < deadline:
        if berth.runs > before:
            return True
        time.sleep(0.05)
    return False


def at_once(dice: random.Random, arena: Arena) -> dict[str, Any]:
    return {**at_a_worker(dice, arena), "seconds": round(dice.uniform(0.002, 0.03), 3)}


def at_a_point(deed: str, point: str) -> Harm:
    """A worker that is killed, stopped or disturbed just when it comes to a point for the n-th time."""

    def aim(dice: random.Random, arena: Arena) -> dict[str, Any]:
        often = {"worker": 1, "heart": 2, "transaction": 1}.get(point.partition(".")[0], 6)
        return {**at_a_worker(dice, arena), "nth": dice.randint(1, often)}

    def has_come(berth: WorkerSlot, before: int) -> bool:
        match deed:
            case "stop":
                return berth.is_stopped()
            case "kill":
                return berth.exits[before : before + 1] == [-signal.SIGKILL]
        return f"failpoint {point}" in berth.said

    def apply(arena: Arena, given: Aim) -> bool:
        berth = arena.berth(given)
        before = berth.starts
        arena.fleet.restart(berth, f"{point}={deed}@{given['nth']}")
        is_ready, deadline, bait = False, time.monotonic() + START_SECONDS, 0.0
        while time.monotonic() < deadline:
            time.sleep(0.05)
            if berth.starts > before and has_come(berth, before):
                return True
            if berth.starts > before and not is_ready and berth.is_ready:
                is_ready, deadline = True, time.monotonic() + MEET_SECONDS
            if is_ready and point.startswith("transaction") and time.monotonic() > bait + 1.0:
                arena.lay_bait()
                bait = time.monotonic()
        if deed == "stop":
            berth.send(signal.SIGKILL)  # else it may come there yet, with nobody left to let it go on
        return False

    hold = FAR_BEYOND if deed == "stop" else (0.0, 0.0)
    return Harm(f"{deed} at {point}", "worker", apply, nothing_more, aim, hold, 0.5)


def nothing_more(arena: Arena, aim: Aim) -> None:
    """The next process of this berth has no failpoints, and this one goes on where it was stopped."""
    arena.berth(aim).failpoints = ""
    go_on(arena, aim)


HARMS = (
    Harm("kill a worker", "worker", sent(signal.SIGKILL), aim=at_a_worker, weight=3),
    Harm("kill a worker that starts", "worker", kill_at_the_start, aim=soon),
    Harm("kill all workers", "worker", kill_all, weight=0.5),
    Harm(
        "stop a worker beyond its lease",
        "worker",
        sent(signal.SIGSTOP),
        go_on,
        at_a_worker,
        BEYOND,
        2,
    ),
    Harm("ask a worker to end", "worker", sent(signal.SIGTERM), aim=at_a_worker),
    Harm("drain a worker that runs again", "worker", drain_and_run_again, aim=at_a_worker),
    Harm("ask a worker to end, twice", "worker", end_twice, aim=at_once),
    *(at_a_point("kill", point) for point in POINTS),
    *(at_a_point("stop", point) for point in POINTS if not point.startswith("heart")),
    *(at_a_point("fail", point) for point in POINTS if not point.startswith(("worker", "step"))),
)
