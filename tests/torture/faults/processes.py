"""Faults of worker processes: killed, stopped and terminated, at random times and at each failpoint."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from typing import Any

from tests.torture.faults.fault import Aim, Fault, at_a_worker
from tests.torture.trial.setup import Environment
from tests.torture.workers.failpoints import POINTS
from tests.torture.workers.fleet import LEASE, WorkerSlot

__all__ = ["FAULTS"]

BEYOND_LEASE = (1.3 * LEASE, 2.2 * LEASE)
FAR_BEYOND_LEASE = (1.3 * LEASE, 4.5 * LEASE)  # the maximum exceeds the time in which a dead worker's jobs run again
START_SECONDS = 20.0  # until a terminated worker runs again
REACH_SECONDS = 6.0  # until it reaches its failpoint


def sent(number: signal.Signals) -> Callable[[Environment, Aim], bool]:
    """Send a signal to a ready worker."""

    def send(environment: Environment, aim: Aim) -> bool:
        slot = environment.slot(aim)
        return slot.until_ready(START_SECONDS) and slot.send(number) is not None

    return send


def kill_at_the_start(environment: Environment, aim: Aim) -> bool:
    slot = environment.slot(aim)
    environment.fleet.restart(slot)
    deadline, before = time.monotonic() + START_SECONDS, slot.starts
    while slot.starts == before and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(aim["seconds"])
    return slot.starts > before and slot.send(signal.SIGKILL) is not None


def soon(dice: random.Random, environment: Environment) -> dict[str, Any]:
    return {**at_a_worker(dice, environment), "seconds": round(dice.uniform(0.1, 1.5), 2)}


def kill_all(environment: Environment, aim: Aim) -> bool:
    are_ready = all([slot.until_ready(START_SECONDS) for slot in environment.fleet.slots])  # noqa: C419 -- waits for each
    return are_ready and None not in [slot.send(signal.SIGKILL) for slot in environment.fleet.slots]


def continue_process(environment: Environment, aim: Aim) -> None:
    environment.slot(aim).send(signal.SIGCONT)


def end_twice(environment: Environment, aim: Aim) -> bool:
    slot = environment.slot(aim)
    if not slot.until_ready(START_SECONDS):
        return False
    slot.send(signal.SIGTERM)
    time.sleep(aim["seconds"])  # it has received the first, and is still running
    return slot.send(signal.SIGTERM) is not None


def drain_and_run_again(environment: Environment, aim: Aim) -> bool:
    """Let a worker drain and run again as the same object, until the next run is ready."""
    slot = environment.slot(aim)
    if not slot.until_ready(START_SECONDS):
        return False
    before, pid = slot.runs, slot.send(signal.SIGHUP)
    deadline = time.monotonic() + START_SECONDS
    while pid is not None and slot.pid == pid and time.monotonic() < deadline:
        if slot.runs > before:
            return True
        time.sleep(0.05)
    return False


def at_once(dice: random.Random, environment: Environment) -> dict[str, Any]:
    return {**at_a_worker(dice, environment), "seconds": round(dice.uniform(0.002, 0.03), 3)}


def at_a_point(action: str, point: str) -> Fault:
    """Kill or stop a worker, or raise an error, when it reaches a point for the n-th time."""

    def aim(dice: random.Random, environment: Environment) -> dict[str, Any]:
        often = {"worker": 1, "heart": 2, "transaction": 1}.get(point.partition(".")[0], 6)
        return {**at_a_worker(dice, environment), "nth": dice.randint(1, often)}

    def has_happened(slot: WorkerSlot, before: int) -> bool:
        match action:
            case "stop":
                return slot.is_stopped()
            case "kill":
                return slot.exits[before : before + 1] == [-signal.SIGKILL]
        return f"failpoint {point}" in slot.log_text

    def apply(environment: Environment, given: Aim) -> bool:
        slot = environment.slot(given)
        before = slot.starts
        environment.fleet.restart(slot, f"{point}={action}@{given['nth']}")
        is_ready, deadline, started = False, time.monotonic() + START_SECONDS, 0.0
        while time.monotonic() < deadline:
            time.sleep(0.05)
            if slot.starts > before and has_happened(slot, before):
                return True
            if slot.starts > before and not is_ready and slot.is_ready:
                is_ready, deadline = True, time.monotonic() + REACH_SECONDS
            if is_ready and point.startswith("transaction") and time.monotonic() > started + 1.0:
                environment.start_transactional_flows()
                started = time.monotonic()
        if action == "stop":
            slot.send(signal.SIGKILL)  # otherwise it may stop there later, and nothing would continue it
        return False

    hold = FAR_BEYOND_LEASE if action == "stop" else (0.0, 0.0)
    return Fault(f"{action} at {point}", "worker", apply, disarm, aim, hold, 0.5)


def disarm(environment: Environment, aim: Aim) -> None:
    """Continue this process where it was stopped; the next one of this slot has no failpoints."""
    environment.slot(aim).failpoints = ""
    continue_process(environment, aim)


FAULTS = (
    Fault("kill a worker", "worker", sent(signal.SIGKILL), aim=at_a_worker, weight=3),
    Fault("kill a worker that starts", "worker", kill_at_the_start, aim=soon),
    Fault("kill all workers", "worker", kill_all, weight=0.5),
    Fault(
        "stop a worker beyond its lease",
        "worker",
        sent(signal.SIGSTOP),
        continue_process,
        at_a_worker,
        BEYOND_LEASE,
        2,
    ),
    Fault("ask a worker to end", "worker", sent(signal.SIGTERM), aim=at_a_worker),
    Fault("drain a worker that runs again", "worker", drain_and_run_again, aim=at_a_worker),
    Fault("ask a worker to end, twice", "worker", end_twice, aim=at_once),
    *(at_a_point("kill", point) for point in POINTS),
    *(at_a_point("stop", point) for point in POINTS if not point.startswith("heart")),
    *(at_a_point("fail", point) for point in POINTS if not point.startswith(("worker", "step", "task"))),
)
