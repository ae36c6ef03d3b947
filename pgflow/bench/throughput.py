"""Measure how fast instances start, and how fast workers drain a backlog."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from pgflow.app import Pgflow
from pgflow.bench.environment import QUEUE, BenchRun, Plan, round_trips
from pgflow.bench.flows import Load, count
from pgflow.bench.result import Line, Measurement, percentiles
from pgflow.client.task import Task
from pgflow.client.workflow import Workflow
from pgflow.errors import PgflowError
from pgflow.store import bench, job

__all__ = ["NANOSECONDS", "drain", "drain_tasks", "enqueue_many", "enqueue_one", "fill", "start_many", "start_one"]

NANOSECONDS = 1e9


def start_one(workflow: type[Workflow[Any]], run: BenchRun, plan: Plan, count: int) -> Measurement:
    """Start instances one by one, each in a commit of its own."""
    run.app.start(workflow, "first", Load())  # opens the connection and stores the definitions
    run.app.close()
    run.meter.begin()
    took = []
    for number in range(count):
        began = time.monotonic_ns()
        run.app.start(workflow, str(number), Load())
        took.append(time.monotonic_ns() - began)
        run.progress.advance(1)
    run.app.close()
    cost = run.meter.end(count)
    rate = count * NANOSECONDS / sum(took)
    lines = [Line("started one by one", "instances/s", {"value": rate}), percentiles("a start", took)]
    return Measurement(lines, cost)


def start_many(workflow: type[Workflow[Any]], run: BenchRun, plan: Plan, count: int) -> Measurement:
    """Start instances in calls of `plan.batch`."""
    run.app.start(workflow, "first", Load())
    run.app.close()
    run.meter.begin()
    began = time.monotonic_ns()
    fill(run.app, workflow, count, plan.batch)
    took = time.monotonic_ns() - began
    run.app.close()
    cost = run.meter.end(count)
    name = f"started {plan.batch} at a time"
    return Measurement([Line(name, "instances/s", {"value": count * NANOSECONDS / took})], cost)


def drain(
    workflow: type[Workflow[Any]], run: BenchRun, plan: Plan, count: int, *, traced: int, steps: int
) -> Measurement:
    """Let workers complete `count` instances, and time it from the first step to the last commit.

    Each instance has so many `steps`, of which `traced` write to the trace.
    """
    schema = run.app.schema
    fill(run.app, workflow, count, plan.batch)
    run.app.close()
    run.query(bench.analyze(schema))
    run.meter.begin()
    with run.workers(plan) as processes:
        run.wait_for_steps(traced * count, processes)
        run.wait(lambda: run.query(job.drained(schema, [QUEUE])), processes)
        ended = time.monotonic_ns()
    cost = run.meter.end(steps * count, round_trips(processes))
    completed = run.query(bench.completed(schema))
    if completed != count:
        raise PgflowError(f"{completed} of {count} instances have completed")
    seconds = (ended - run.trace.read().first) / NANOSECONDS
    rates = [Line("instances", "instances/s", {"value": count / seconds})]
    if steps > 1:
        rates.append(Line("steps", "steps/s", {"value": steps * count / seconds}))
    return Measurement(rates, cost)


def drain_tasks(run: BenchRun, plan: Plan, number: int) -> Measurement:
    """Let workers complete so many tasks, and time it from the first one to the last commit."""
    schema = run.app.schema
    fill_tasks(run.app, count, number, plan.batch)
    run.app.close()
    run.query(bench.analyze(schema))
    run.meter.begin()
    with run.workers(plan) as processes:
        run.wait_for_steps(number, processes)
        run.wait(lambda: run.query(job.drained(schema, [QUEUE])), processes)
        ended = time.monotonic_ns()
    cost = run.meter.end(number, round_trips(processes))
    completed = run.query(bench.completed_tasks(schema))
    if completed != number:
        raise PgflowError(f"{completed} of {number} tasks have completed")
    seconds = (ended - run.trace.read().first) / NANOSECONDS
    return Measurement([Line("tasks", "tasks/s", {"value": number / seconds})], cost)


def enqueue_one(task: Task[..., Any, Any], run: BenchRun, plan: Plan, number: int) -> Measurement:
    """Enqueue tasks one by one, each in a commit of its own."""
    run.app.register()
    run.app.close()
    run.meter.begin()
    took = []
    for each in range(number):
        began = time.monotonic_ns()
        run.app.enqueue(task, {"sent": each})
        took.append(time.monotonic_ns() - began)
        run.progress.advance(1)
    run.app.close()
    cost = run.meter.end(number)
    rate = number * NANOSECONDS / sum(took)
    lines = [Line("enqueued one by one", "tasks/s", {"value": rate}), percentiles("an enqueue", took)]
    return Measurement(lines, cost)


def enqueue_many(task: Task[..., Any, Any], run: BenchRun, plan: Plan, number: int) -> Measurement:
    """Enqueue tasks in calls of `plan.batch`."""
    run.app.register()
    run.app.close()
    run.meter.begin()
    began = time.monotonic_ns()
    fill_tasks(run.app, task, number, plan.batch)
    took = time.monotonic_ns() - began
    run.app.close()
    cost = run.meter.end(number)
    name = f"enqueued {plan.batch} at a time"
    return Measurement([Line(name, "tasks/s", {"value": number * NANOSECONDS / took})], cost)


def fill_tasks(app: Pgflow, task: Task[..., Any, Any], number: int, batch_size: int) -> None:
    """Enqueue tasks, `batch_size` in each call; those of `count` do not time themselves."""
    for batch in _batches(number, batch_size):
        app.enqueue_many(task, [{"sent": 0 if task is count else each} for each in batch])


def fill(app: Pgflow, workflow: type[Workflow[Any]], count: int, batch_size: int) -> None:
    """Start instances, `batch_size` in each call."""
    for batch in _batches(count, batch_size):
        app.start_many(workflow, [(str(number), Load()) for number in batch])


def _batches(count: int, size: int) -> Iterator[range]:
    return (range(begin, min(begin + size, count)) for begin in range(0, count, size))
