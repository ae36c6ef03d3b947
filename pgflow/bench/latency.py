"""Measure how soon a step begins while the workers are idle."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

from pgflow.bench import machine
from pgflow.bench.environment import BenchRun, Plan, round_trips
from pgflow.bench.flows import Alarmed, Chain, Load, Signalled, Single, Sleeping
from pgflow.bench.result import Line, Measurement, percentiles
from pgflow.bench.throughput import NANOSECONDS, fill
from pgflow.bench.trace import TraceEvent
from pgflow.bench.worker_processes import WorkerProcesses
from pgflow.errors import PgflowError
from pgflow.store import bench

__all__ = ["chain", "idle", "signal", "start", "timer"]

RATE = 20  # a second: low enough to keep a worker idle
ALARMS = 100  # a second
WARM_UP = 20  # instances
PENDING = 10_000
POLL_SECONDS = 0.001
SETTLE_SECONDS = 1.0
SEEN_SECONDS = 60.0  # until all timers have been read


def start(run: BenchRun, plan: Plan, count: int) -> Measurement:
    """From the call that starts an instance to the first line of its step."""
    with run.workers(plan) as processes:
        _warm_up(run, processes)
        for number in _paced(count, RATE):
            run.app.start(Single, str(number), Load(sent=time.monotonic_ns()))
        run.wait_for_steps(WARM_UP + count, processes)
    took = [event.at - event.key for event in _events(run)]
    return Measurement([percentiles("start → first step", took)])


def chain(run: BenchRun, plan: Plan, count: int) -> Measurement:
    """One workflow of five steps at a time: between its steps, and until its caller sees it completed."""
    seen = []
    with run.workers(plan) as processes:
        _warm_up(run, processes)
        for number in range(count):
            sent = time.monotonic_ns()
            run.app.start(Chain, str(number), Load(sent=sent))
            while run.app.get(Chain, str(number)).is_active:
                processes.check()
                time.sleep(POLL_SECONDS)
            seen.append(time.monotonic_ns() - sent)
            run.progress.advance(1)
            time.sleep(0.005 * (number % 7))  # avoid running in phase with a timer
    begun: dict[int, list[int]] = {}
    for event in _events(run):
        begun.setdefault(event.key, []).append(event.at)
    between = [after - before for times in begun.values() for before, after in pairwise(times)]
    return Measurement(
        [
            percentiles("start → first step, one at a time", [times[0] - sent for sent, times in begun.items()]),
            percentiles("step → step", between),
            percentiles("start → fifth step", [times[-1] - sent for sent, times in begun.items()]),
            percentiles("start → completed, as its caller sees it", seen),
        ]
    )


def signal(run: BenchRun, plan: Plan, count: int) -> Measurement:
    """From the call that sends a signal to the first line of the step after the wait."""
    fill(run.app, Signalled, count, plan.batch)
    with run.workers(plan) as processes:
        run.wait_for_parked(count, processes)
        _warm_up(run, processes)
        for number in _paced(count, RATE):
            run.app.resume(Signalled, str(number), "go", {"sent": time.monotonic_ns()})
        run.wait_for_steps(WARM_UP + count, processes)
    took = [event.at - event.key for event in _events(run)]
    return Measurement([percentiles("signal → step after the wait", took)])


def timer(run: BenchRun, plan: Plan, count: int) -> Measurement:
    """From the time at which a timer is due to the first line of the step after it, while thousands of timers wait.

    The due times are the database's; its clock was compared with ours before.
    """
    fill(run.app, Sleeping, PENDING, plan.batch)
    with run.workers(plan) as processes:
        run.wait_for_parked(PENDING, processes)
        _warm_up(run, processes)
        for number in _paced(count, ALARMS):
            run.app.start(Alarmed, str(number), Load())
        due = _due_times(run, count)
        run.wait_for_steps(WARM_UP + count, processes)
    ahead = run.environment.clock_ahead
    late = [round(NANOSECONDS * (event.at / NANOSECONDS + ahead - due[event.key])) for event in _events(run)]
    return Measurement(
        [
            percentiles(f"timer, late with {PENDING:,} pending", late),
            Line("timer, the earliest", "ms", {"value": min(late) / NANOSECONDS * 1000}),
        ]
    )


def idle(run: BenchRun, plan: Plan, count: int) -> Measurement:
    """How long a worker takes to start, and what it uses while it is idle for `count` seconds."""
    run.app.register()
    run.app.close()
    began = time.monotonic()
    with run.workers(replace(plan, workers=1), level="info") as processes:
        processes.wait_until_ready()
        ready = time.monotonic() - began
        time.sleep(SETTLE_SECONDS)
        (pid,), since, before = processes.pids, time.monotonic(), machine.seconds_of(processes.pids[0])
        for _ in range(count):
            time.sleep(1)
            processes.check()
            run.progress.advance(1)
        used = (machine.seconds_of(pid) - before) / (time.monotonic() - since)
        resident = machine.resident_bytes(pid)
        alive = time.monotonic() - began - ready
    return Measurement(
        [
            Line("worker comes up", "s", {"value": ready}),
            Line("idle worker, round trips", "per s", {"value": round_trips(processes) / alive}),
            Line("idle worker, CPU", "%", {"value": 100 * used}),
            Line("idle worker, memory", "MB", {"value": resident / 1e6}),
        ]
    )


def _warm_up(run: BenchRun, processes: WorkerProcesses) -> None:
    """Run some instances, so that everything is loaded, prepared and connected; then pause."""
    before = run.trace.read().steps
    for number in range(WARM_UP):
        run.app.start(Single, f"warm-{number}", Load(sent=1))
        run.wait_for_steps(before + number + 1, processes)
    time.sleep(SETTLE_SECONDS)


def _events(run: BenchRun) -> list[TraceEvent]:
    """Return what was recorded after the warm-up."""
    return [event for event in run.trace.events() if event.key != 1]


def _paced(count: int, rate: int) -> Iterator[int]:
    """Yield the numbers up to `count` at `rate` a second."""
    began = time.monotonic()
    for number in range(count):
        time.sleep(max(0.0, began + number / rate - time.monotonic()))
        yield number


def _due_times(run: BenchRun, count: int) -> dict[int, float]:
    """Read when each timer is due, before the first one fires."""
    deadline = time.monotonic() + SEEN_SECONDS
    found: dict[int, float] = {}
    while len(found) < count:
        found |= run.query(bench.due(run.app.schema, Alarmed.name))
        if time.monotonic() > deadline:
            raise PgflowError(f"read the due times of only {len(found)} of {count} timers")
        time.sleep(0.05)
    return found
