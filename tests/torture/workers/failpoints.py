"""Kill or stop a worker process at a named point of its run, or raise an error there.

Random faults do not hit a window of microseconds; a failpoint hits each commit from both sides. The points are the
calls of `pgflow.worker.points.reached`; `hit` is the hook to install there. (The idea is that of FreeBSD's fail(9).)
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from pgflow.errors import ConfigError

__all__ = ["POINTS", "VARIABLE", "Failpoint", "arm", "disarm", "hit", "parse"]

# The environment variable that arms them: "claimer.sent=kill@3" kills the process the third time it is there.
VARIABLE = "PGFLOW_FAILPOINTS"

POINTS: Mapping[str, str] = {
    "worker.registered": "the worker has its id, and no heartbeat yet",
    "claimer.sending": "a settle-and-claim is about to be sent",
    "claimer.sent": "it is committed, and the worker has not processed the answer",
    "claimer.adopted": "the worker has processed the answer",
    "step.begins": "a step is about to run",
    "step.ended": "a step has run, and its outcome is not settled",
    "task.begins": "a task is about to run",
    "task.ended": "a task has run, and its outcome is not settled",
    "transaction.settled": "a transactional step is settled in its open transaction",
    "transaction.committed": "a transactional step is committed, and the worker has not processed that",
    "heart.beating": "a heartbeat is about to be sent",
    "heart.beaten": "a heartbeat is confirmed",
}
ACTIONS = ("kill", "stop", "fail")


@dataclass(frozen=True, slots=True)
class Failpoint:
    """What to do when the point is reached for the `nth` time: "kill" or "stop" the process, or "fail" (OSError)."""

    action: str
    nth: int


_armed: dict[str, Failpoint] = {}
_hits: Counter[str] = Counter()


def parse(text: str) -> dict[str, Failpoint]:
    """Parse failpoints, "point=action@nth", separated by commas. Raises `ConfigError`.

    parse("claimer.sent=kill@3,heart.beaten=stop@1")
    """
    found = {}
    for part in filter(None, text.split(",")):
        point, _, action = part.strip().partition("=")
        action, _, nth = action.partition("@")
        if point not in POINTS or action not in ACTIONS or not nth.isdecimal() or int(nth) < 1:
            known = f"Points: {', '.join(POINTS)}. Actions: {', '.join(ACTIONS)}."
            raise ConfigError(f"{part!r} is not a failpoint: write point=action@nth", hint=known)
        found[point] = Failpoint(action, int(nth))
    return found


def arm(text: str) -> None:
    """Arm the failpoints of a text; each triggers once."""
    _hits.clear()
    _armed.clear()
    _armed.update(parse(text))


def disarm() -> None:
    """Disarm all failpoints."""
    _armed.clear()


def hit(point: str, subject: object = None) -> None:
    """Trigger the failpoint of a point, if it is armed, whatever the subject."""
    if not _armed:
        return
    failpoint = _armed.get(point)
    if failpoint is None:
        return
    _hits[point] += 1
    if _hits[point] != failpoint.nth:
        return
    match failpoint.action:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)  # the signal arrives any moment
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case _:
            raise OSError(f"failpoint {point}")
