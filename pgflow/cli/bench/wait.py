"""Measure how long it takes until a step begins, while the workers have little to do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

from pgflow.cli.bench import machine
from pgflow.cli.bench.flows import Alarmed, Chain, Load, Signalled, Single, Sleeping
from pgflow.cli.bench.ground import BenchRun, Plan, round_trips
from pgflow.cli.bench.load import NANOSECONDS, fill
from pgflow.cli.bench.marks import Mark
from pgflow.cli.bench.result import Line, Run, latency
from pgflow.cli.processes import Processes
from pgflow.errors import PgflowError
from pgflow.store import bench

__all__ = ["chain", "idle", "signal", "start", "timer"]

RATE = 20  # a second: little enough for an idle worker to stay one
ALARMS = 100  # a second
WARM = 20
PENDING = 10_000
LOOK_SECONDS = 0.001
SETTLE_SECONDS = 1.0
SOON_SECONDS = 60.0


def start(field: BenchRun, plan: Plan, count: int) -> Run:
    """From the call that starts an instance to the first line of its step."""
    with field.workers(plan) as processes:
        _warm_up(field, processes)
        for number in _paced(count, RATE):
            field.app.start(Single, str(number), Load(sent=time.monotonic_ns()))
        field.until_marked(WARM + count, processes)
    took = [mark.at - mark.about for mark in _marks(field)]
    return Run([latency("start → first step", took)])


def chain(field: BenchRun, plan: Plan, count: int) -> Run:
    """One workflow of five steps at a time: between its steps, and until its caller sees that it has completed."""
    seen = []
    with field.workers(plan) as processes:
        _warm_up(field, processes)
        for number in range(count):
            sent = time.monotonic_ns()
            field.app.start(Chain, str(number), Load(sent=sent))
            while field.app.get(Chain, str(number)).is_active:
                processes.check()
                time.sleep(LOOK_SECONDS)
            seen.append(time.monotonic_ns() - sent)
            field.progress.advance(1)
            time.sleep(0.005 * (number % 7))  # not in step with any timer
    begun: dict[int, list[int]] = {}
    for mark in _marks(field):
        begun.setdefault(mark.about, []).append(mark.at)
    between = [after - before for times in begun.values() for before, after in pairwise(times)]
    return Run(
        [
            latency("start → first step, one at a time", [times[0] - sent for sent, times in begun.items()]),
            latency("step → step", between),
            latency("start → fifth step", [times[-1] - sent for sent, times in begun.items()]),
            latency("start → completed, as its caller sees it", seen),
        ]
    )


def signal(field: BenchRun, plan: Plan, count: int) -> Run:
    """From the call that sends a signal to the first line of the step after the wait."""
    fill(field.app, Signalled, count, plan.batch)
    with field.workers(plan) as processes:
        field.until_parked(count, processes)
        _warm_up(field, processes)
        for number in _paced(count, RATE):
            field.app.resume(Signalled, str(number), "go", {"sent": time.monotonic_ns()})
        field.until_marked(WARM + count, processes)
    took = [mark.at - mark.about for mark in _marks(field)]
    return Run([latency("signal → step after the wait", took)])


def timer(field: BenchRun, plan: Plan, count: int) -> Run:
    """From the moment at which a timer is due to the first line of the step after it, while thousands of timers wait.

    When it is due the database says, whose clock is compared with ours before.
    """
    fill(field.app, Sleeping, PENDING, plan.batch)
    with field.workers(plan) as processes:
        field.until_parked(PENDING, processes)
        _warm_up(field, processes)
        for number in _paced(count, ALARMS):
            field.app.start(Alarmed, str(number), Load())
        due = _alarms(field, count)
        field.until_marked(WARM + count, processes)
    ahead = field.ground.clock_ahead
    late = [round(NANOSECONDS * (mark.at / NANOSECONDS + ahead - due[mark.about])) for mark in _marks(field)]
    return Run(
        [
            latency(f"timer, late with {PENDING:,} pending", late),
            Line("timer, the earliest", "ms", {"value": min(late) / NANOSECONDS * 1000}),
        ]
    )


def idle(field: BenchRun, plan: Plan, count: int) -> Run:
    """What a worker does while there is nothing to do, for `count` seconds; and how long it takes to come up."""
    field.app.register()
    field.app.close()
    began = time.monotonic()
    with field.workers(replace(plan, workers=1), level="info") as processes:
        processes.wait_until_ready()
        ready = time.monotonic() - began
        time.sleep(SETTLE_SECONDS)
        (pid,), since, before = processes.pids, time.monotonic(), machine.seconds_of(processes.pids[0])
        for _ in range(count):
            time.sleep(1)
            processes.check()
            field.progress.advance(1)
        used = (machine.seconds_of(pid) - before) / (time.monotonic() - since)
        resident = machine.resident_bytes(pid)
        lived = time.monotonic() - began - ready
    return Run(
        [
            Line("worker comes up", "s", {"value": ready}),
            Line("idle worker, round trips", "per s", {"value": round_trips(processes) / lived}),
            Line("idle worker, CPU", "%", {"value": 100 * used}),
            Line("idle worker, memory", "MB", {"value": resident / 1e6}),
        ]
    )


def _warm_up(field: BenchRun, processes: Processes) -> None:
    """Run some instances, so that all is loaded, prepared and connected; then let things come to rest."""
    before = field.tally.read().marks
    for number in range(WARM):
        field.app.start(Single, f"warm-{number}", Load(sent=1))
        field.until_marked(before + number + 1, processes)
    time.sleep(SETTLE_SECONDS)


def _marks(field: BenchRun) -> list[Mark]:
    """What was kept after the warm-up."""
    return [mark for mark in field.tally.marks() if mark.about != 1]


def _paced(count: int, rate: int) -> Iterator[int]:
    """Give the numbers up to `count`, so many a second."""
    began = time.monotonic()
    for number in range(count):
        time.sleep(max(0.0, began + number / rate - time.monotonic()))
        yield number


def _alarms(field: BenchRun, count: int) -> dict[int, float]:
    """Ask when each timer is due, before the first of them is."""
    deadline = time.monotonic() + SOON_SECONDS
    found: dict[int, float] = {}
    while len(found) < count:
        found |= field.look(bench.due(field.app.schema, Alarmed.name))
        if time.monotonic() > deadline:
            raise PgflowError(f"of {count} timers only {len(found)} were seen")
        time.sleep(0.05)
    return found
