"""The contests: how one run of one peer works, and the figures that it yields."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from pgflow.bench.result import percentiles
from tests.bench.compare.arena import Bout, Failed
from tests.bench.compare.peers.contestant import BRANCHES, CHAIN

__all__ = ["CONTESTS", "Contest"]

MARKS = {"task": 1, "workflow": 1, "chain": CHAIN, "fan": BRANCHES}
NANOSECONDS = 1e9
RATE = 20  # a second, for latencies
SETTLE_SECONDS = 2.0
WARM = 20


@dataclass(frozen=True, slots=True)
class Contest:
    """One thing to compare. Ratios are computed from `figure`; more is better if `is_rate`.

    `peers_in` names the contest with the peers' figures, where they have nothing else for it: what DBOS and Absurd
    enqueue is a workflow, and the others have only jobs.
    """

    title: str
    unit: str
    figure: str
    kind: str
    measure: Callable[[Bout, float], dict[str, float]]
    configs: tuple[str, ...] = ("best",)
    is_rate: bool = True
    peers_in: str | None = None


def start_one(bout: Bout, scale: float, *, kind: str) -> dict[str, float]:
    """Start jobs one by one."""
    bout.drive("start", kind=kind, count=WARM)
    count = max(10, round(2000 * scale))
    return {"rate": count * NANOSECONDS / bout.drive("start", kind=kind, count=count)}


def start_many(bout: Bout, scale: float, *, kind: str) -> dict[str, float]:
    """Start jobs a thousand at a time."""
    bout.drive("start", kind=kind, count=WARM)
    count = max(10, round(bout.peer.bulk * scale))
    return {"rate": count * NANOSECONDS / bout.drive("start_many", kind=kind, count=count)}


def drain(bout: Bout, scale: float, *, kind: str, workers: int) -> dict[str, float]:
    """Let workers drain a backlog: from the first step until no work is left in the database."""
    count = max(10, round(bout.peer.count(kind, bout.config) * scale))
    bout.drive("start_many", kind=kind, count=count)
    bout.dismiss()
    bout.arena.analyze(bout.dsn)
    before = bout.arena.spent(bout.database)
    with bout.workers(workers):
        bout.wait_for_steps(count * MARKS[kind])
        bout.until_done()
        ended = time.monotonic_ns()
    _check(bout)
    after = bout.arena.spent(bout.database)
    first = bout.trace.read().first
    return {
        "rate": count * NANOSECONDS / (ended - first),
        "wal": (after.wal - before.wal) / count,
        "commits": (after.commits - before.commits) / count,
        "server_ms": 1000 * (after.seconds - before.seconds) / count,
    }


def pace(bout: Bout, scale: float, *, kind: str) -> dict[str, float]:
    """Start twenty a second, with an idle worker: from the call to the first line of the job."""
    count = max(10, round(200 * scale))
    with bout.workers(1):
        _warm_up(bout, kind)
        bout.drive("pace", kind=kind, count=count, rate=RATE)
        bout.wait_for_steps(2 * WARM + count)
    _check(bout)
    took = [event.at - event.key for event in bout.trace.events()[-count:]]
    return dict(percentiles("", took).values)


def finish(bout: Bout, scale: float) -> dict[str, float]:
    """Run one chain after another, with an idle worker: until the last step begins, and until the caller sees the end.

    The second figure also depends on how the client waits.
    """
    count = max(5, round(100 * scale))
    with bout.workers(1):
        _warm_up(bout, "task")
        took = bout.drive("finish", kind="chain", count=count)
    _check(bout)
    begun: dict[int, list[int]] = {}
    for event in bout.trace.events():
        begun.setdefault(event.key, []).append(event.at)
    last = [times[-1] - sent for sent, times in begun.items() if len(times) == CHAIN]
    return {**percentiles("", last).values, "seen_p50": percentiles("", took).values["p50"]}


def _warm_up(bout: Bout, kind: str) -> None:
    """Wait until the worker is ready and everything is loaded and prepared, then pause."""
    bout.drive("start", kind=kind, count=WARM)
    bout.wait_for_steps(WARM)
    time.sleep(SETTLE_SECONDS)
    bout.drive("pace", kind=kind, count=WARM, rate=RATE)
    bout.wait_for_steps(2 * WARM)


def _check(bout: Bout) -> None:
    deadline = time.monotonic() + 10
    while failed := bout.drive("failed"):
        if time.monotonic() > deadline:
            raise Failed(f"{failed} jobs have failed")
        time.sleep(0.05)
    bout.dismiss()


BOTH = ("best", "default")
CONTESTS: Mapping[str, Contest] = {
    "enqueue": Contest("enqueue one by one", "jobs/s", "rate", "task", partial(start_one, kind="task")),
    "enqueue-many": Contest("enqueue 1,000 at a time", "jobs/s", "rate", "task", partial(start_many, kind="task")),
    "start": Contest(
        "start workflows one by one",
        "instances/s",
        "rate",
        "workflow",
        partial(start_one, kind="workflow"),
        peers_in="enqueue",
    ),
    "start-many": Contest(
        "start workflows, 1,000 at a time",
        "instances/s",
        "rate",
        "workflow",
        partial(start_many, kind="workflow"),
        peers_in="enqueue-many",
    ),
    "task-1": Contest("jobs drained, 1 process", "jobs/s", "rate", "task", partial(drain, kind="task", workers=1)),
    "task-2": Contest(
        "jobs drained, 2 processes", "jobs/s", "rate", "task", partial(drain, kind="task", workers=2), BOTH
    ),
    "single-2": Contest(
        "workflows of one step, 2 processes",
        "instances/s",
        "rate",
        "workflow",
        partial(drain, kind="workflow", workers=2),
        peers_in="task-2",
    ),
    "chain-1": Contest(
        "5 steps in a row, 1 process", "instances/s", "rate", "chain", partial(drain, kind="chain", workers=1)
    ),
    "chain-2": Contest(
        "5 steps in a row, 2 processes", "instances/s", "rate", "chain", partial(drain, kind="chain", workers=2), BOTH
    ),
    "fan-1": Contest(
        "10 branches, joined, 1 process", "instances/s", "rate", "fan", partial(drain, kind="fan", workers=1)
    ),
    "fan-2": Contest(
        "10 branches, joined, 2 processes", "instances/s", "rate", "fan", partial(drain, kind="fan", workers=2), BOTH
    ),
    "latency": Contest(
        "enqueue → first line of the job", "ms", "p50", "task", partial(pace, kind="task"), BOTH, is_rate=False
    ),
    "latency-start": Contest(
        "start a workflow → first line of its step",
        "ms",
        "p50",
        "workflow",
        partial(pace, kind="workflow"),
        is_rate=False,
        peers_in="latency",
    ),
    "finish": Contest("5 steps in a row, start → the fifth begins", "ms", "p50", "chain", finish, BOTH, is_rate=False),
}
