"""Harm to worker processes: killed, stopped and asked to end, anywhere and at each point that has a name."""

from __future__ import annotations

import random
import signal
import time
from typing import Any

from pgflow.cli.torture.arena import Arena
from pgflow.cli.torture.fleet import LEASE
from pgflow.cli.torture.nemesis.harm import Aim, Harm, at_a_worker
from pgflow.store.failpoint import POINTS

__all__ = ["HARMS"]

MEET_SECONDS = 6.0  # until a worker has come to the point where it is awaited


def kill(arena: Arena, aim: Aim) -> bool:
    return arena.berth(aim).send(signal.SIGKILL) is not None


def kill_all(arena: Arena, aim: Aim) -> bool:
    return all([berth.send(signal.SIGKILL) for berth in arena.fleet.berths])  # noqa: C419 -- all of them, none is spared


def stop(arena: Arena, aim: Aim) -> bool:
    return arena.berth(aim).send(signal.SIGSTOP) is not None


def go_on(arena: Arena, aim: Aim) -> None:
    arena.berth(aim).send(signal.SIGCONT)


def end(arena: Arena, aim: Aim) -> bool:
    return arena.berth(aim).send(signal.SIGTERM) is not None


def end_twice(arena: Arena, aim: Aim) -> bool:
    berth = arena.berth(aim)
    berth.send(signal.SIGTERM)
    time.sleep(0.05)
    return berth.send(signal.SIGTERM) is not None


def at_a_point(deed: str, point: str) -> Harm:
    """A worker that is killed, stopped or disturbed just when it comes to a point for the n-th time."""

    def aim(dice: random.Random, arena: Arena) -> dict[str, Any]:
        often = {"worker": 1, "heart": 2, "transaction": 2}.get(point.partition(".")[0], 12)
        return {**at_a_worker(dice, arena), "nth": dice.randint(1, often)}

    def apply(arena: Arena, given: Aim) -> bool:
        berth = arena.berth(given)
        before = berth.starts
        if point.startswith("transaction"):
            arena.lay_bait()
        arena.fleet.restart(berth, f"{point}={deed}@{given['nth']}")
        deadline = time.monotonic() + MEET_SECONDS
        while time.monotonic() < deadline:
            time.sleep(0.05)
            if berth.starts > before and (
                (deed == "stop" and berth.is_stopped())
                or (deed == "kill" and berth.exits[-1:] == [-signal.SIGKILL] and berth.starts > before + 1)
                or (deed == "fail" and f"failpoint {point}" in berth.log.read_text(errors="replace"))
            ):
                return True
        return False

    hold = (1.3 * LEASE, 2.2 * LEASE) if deed == "stop" else (0.0, 0.0)
    return Harm(f"{deed} at {point}", "worker", apply, go_on if deed == "stop" else nothing_more, aim, hold, 0.5)


def nothing_more(arena: Arena, aim: Aim) -> None:
    """The next process of this berth has no failpoints, unless this one lives still, with a point it never came to."""
    arena.berth(aim).failpoints = ""


HARMS = (
    Harm("kill a worker", "worker", kill, aim=at_a_worker, weight=3),
    Harm("kill all workers", "worker", kill_all, weight=0.5),
    Harm("stop a worker beyond its lease", "worker", stop, go_on, at_a_worker, (1.3 * LEASE, 2.2 * LEASE), 2),
    Harm("ask a worker to end", "worker", end, aim=at_a_worker),
    Harm("ask a worker to end, twice", "worker", end_twice, aim=at_a_worker),
    *(at_a_point("kill", point) for point in POINTS),
    *(at_a_point("stop", point) for point in POINTS if not point.startswith("heart")),
    *(at_a_point("fail", point) for point in POINTS if not point.startswith(("worker", "step"))),
)
