"""Measure how fast instances are started, and how fast workers bring a backlog of them to its end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from pgflow.app import Pgflow
from pgflow.cli.bench.flows import Load
from pgflow.cli.bench.ground import QUEUE, BenchRun, Plan, round_trips
from pgflow.cli.bench.result import Line, Run, latency
from pgflow.client.workflow import Workflow
from pgflow.errors import PgflowError
from pgflow.store import bench, job

__all__ = ["NANOSECONDS", "drain", "fill", "start_many", "start_one"]

NANOSECONDS = 1e9


def start_one(workflow: type[Workflow[Any]], field: BenchRun, plan: Plan, count: int) -> Run:
    """Start instances one by one, each in a commit of its own."""
    field.app.start(workflow, "first", Load())  # opens the connection and stores the definitions
    field.app.close()
    field.meter.begin()
    took = []
    for number in range(count):
        began = time.monotonic_ns()
        field.app.start(workflow, str(number), Load())
        took.append(time.monotonic_ns() - began)
        field.progress.advance(1)
    field.app.close()
    cost = field.meter.end(count)
    rate = count * NANOSECONDS / sum(took)
    return Run([Line("started one by one", "instances/s", {"value": rate}), latency("a start", took)], cost)


def start_many(workflow: type[Workflow[Any]], field: BenchRun, plan: Plan, count: int) -> Run:
    """Start instances in calls of `plan.batch`."""
    field.app.start(workflow, "first", Load())
    field.app.close()
    field.meter.begin()
    began = time.monotonic_ns()
    fill(field.app, workflow, count, plan.batch)
    took = time.monotonic_ns() - began
    field.app.close()
    cost = field.meter.end(count)
    name = f"started {plan.batch} at a time"
    return Run([Line(name, "instances/s", {"value": count * NANOSECONDS / took})], cost)


def drain(workflow: type[Workflow[Any]], field: BenchRun, plan: Plan, count: int, *, marks: int, steps: int) -> Run:
    """Let workers bring `count` instances to their end: from their first step to the last commit.

    Each instance makes so many `marks`, and has so many `steps`.
    """
    schema = field.app.schema
    fill(field.app, workflow, count, plan.batch)
    field.app.close()
    field.look(bench.analyze(schema))
    field.meter.begin()
    with field.workers(plan) as processes:
        field.until_marked(marks * count, processes)
        field.wait(lambda: field.look(job.drained(schema, [QUEUE])), processes)
        ended = time.monotonic_ns()
    cost = field.meter.end(steps * count, round_trips(processes))
    completed = field.look(bench.completed(schema))
    if completed != count:
        raise PgflowError(f"of {count} instances {completed} have completed")
    seconds = (ended - field.tally.read().first) / NANOSECONDS
    rates = [Line("instances", "instances/s", {"value": count / seconds})]
    if steps > 1:
        rates.append(Line("steps", "steps/s", {"value": steps * count / seconds}))
    return Run(rates, cost)


def fill(app: Pgflow, workflow: type[Workflow[Any]], count: int, batch_size: int) -> None:
    """Start instances, so many in a call."""
    for batch in _batches(count, batch_size):
        app.start_many(workflow, [(str(number), Load()) for number in batch])


def _batches(count: int, size: int) -> Iterator[range]:
    return (range(begin, min(begin + size, count)) for begin in range(0, count, size))
