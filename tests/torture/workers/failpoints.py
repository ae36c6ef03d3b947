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
    "claimer.sending": "a turn is decided and about to be sent",
    "claimer.sent": "a turn is committed, and the worker has not taken it in",
    "claimer.adopted": "the worker has taken a turn in",
    "step.begins": "a step is about to run",
    "step.ended": "a step has run, and nobody knows what it came to",
    "transaction.settled": "a transactional step is settled in its transaction, which is open",
    "transaction.committed": "a transactional step is committed, and the worker does not know",
    "heart.beating": "a heartbeat is about to be sent",
    "heart.beaten": "a heartbeat is confirmed",
}
DEEDS = ("kill", "stop", "fail")


@dataclass(frozen=True, slots=True)
class Failpoint:
    """What to do when a point is come to for the `nth` time: "kill" or "stop" this process, or "fail" (OSError)."""

    deed: str
    nth: int


_armed: dict[str, Failpoint] = {}
_hits: Counter[str] = Counter()


def parse(text: str) -> dict[str, Failpoint]:
    """Return the failpoints that a text names, "point=deed@nth", several with commas. Raises `ConfigError`.

    parse("claimer.sent=kill@3,heart.beaten=stop@1")
    """
    found = {}
    for part in filter(None, text.split(",")):
        point, _, deed = part.strip().partition("=")
        deed, _, nth = deed.partition("@")
        if point not in POINTS or deed not in DEEDS or not nth.isdecimal() or int(nth) < 1:
            known = f"Points: {', '.join(POINTS)}. Deeds: {', '.join(DEEDS)}."
            raise ConfigError(f"{part!r} is no failpoint: write point=deed@nth", hint=known)
        found[point] = Failpoint(deed, int(nth))
    return found


def arm(text: str) -> None:
    """Arm the failpoints that a text names; each triggers once."""
    _hits.clear()
    _armed.clear()
    _armed.update(parse(text))


def disarm() -> None:
    """Arm none."""
    _armed.clear()


def hit(point: str) -> None:
    """Come to a point; nothing happens unless it is armed."""
    if not _armed:
        return
    failpoint = _armed.get(point)
    if failpoint is None:
        return
    _hits[point] += 1
    if _hits[point] != failpoint.nth:
        return
    match failpoint.deed:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)  # it comes any moment now
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case _:
            raise OSError(f"failpoint {point}")
