"""The scenarios that can be measured, by name, each with its default number of instances; and running them in turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from pgflow.bench import latency, throughput
from pgflow.bench.environment import BenchEnvironment, BenchRun, Plan, Progress
from pgflow.bench.flows import BRANCHES, CHAIN, Chain, Fan, Single, Timed, count, count_unique
from pgflow.bench.machine import OtherLoad
from pgflow.bench.result import Measurement, Summary, summarize

__all__ = ["SCENARIOS", "Scenario", "measure"]

PILOT = 0.05  # share of the default count that is run first, to estimate how many instances take `Plan.seconds`
PACE = 20  # instances a second, in scenarios that set the pace


@dataclass(frozen=True, slots=True)
class Scenario:
    """One thing to measure, with its default `count` of instances, each of which traces `traced` steps.

    `rate` is how many instances a second it starts, when the scenario decides that. If `is_timed`, `count` is a number
    of seconds instead.
    """

    title: str
    measure: Callable[[BenchRun, Plan, int], Measurement]
    count: int
    traced: int = 1
    rate: float | None = None
    is_timed: bool = False

    def run(self, environment: BenchEnvironment, plan: Plan, progress: Progress, label: str) -> Measurement:
        """Measure once, on empty tables."""
        count = self._choose_count(environment, plan, progress, label)
        progress.begin(label, count * self.traced)
        with environment.new_run(progress) as run:
            other_load = OtherLoad(environment.server)
            return replace(self.measure(run, plan, count), others=other_load.share())

    def _choose_count(self, environment: BenchEnvironment, plan: Plan, progress: Progress, label: str) -> int:
        """Return the plan's number of instances, or how many take the plan's number of seconds."""
        if plan.seconds is None:
            return self.count if plan.count is None or self.is_timed else plan.count
        if self.rate is not None:
            return max(1, round(self.rate * plan.seconds))
        pilot = replace(plan, count=max(1, round(self.count * PILOT)), seconds=None)
        rate = self.run(environment, pilot, progress, f"{label}, pilot").lines[0].values["value"]
        return max(1, round(rate * plan.seconds))


SCENARIOS: Mapping[str, Scenario] = {
    "start": Scenario("instances started one by one", partial(throughput.start_one, Single), 2_000),
    "start-many": Scenario("instances started in batches", partial(throughput.start_many, Single), 50_000),
    "enqueue": Scenario("tasks enqueued one by one", partial(throughput.enqueue_one, count), 2_000),
    "enqueue-many": Scenario("tasks enqueued in batches", partial(throughput.enqueue_many, count), 100_000),
    "enqueue-unique": Scenario(
        "tasks with a unique key, enqueued in batches", partial(throughput.enqueue_many, count_unique), 50_000
    ),
    "tasks": Scenario("drain of tasks", throughput.drain_tasks, 50_000),
    "single": Scenario("drain of workflows of one step", partial(throughput.drain, Single, traced=1, steps=1), 20_000),
    "chain": Scenario(
        "drain of workflows of five steps in a row",
        partial(throughput.drain, Chain, traced=CHAIN, steps=CHAIN),
        8_000,
        traced=CHAIN,
    ),
    "fan": Scenario(
        "drain of workflows with ten branches that join",
        partial(throughput.drain, Fan, traced=BRANCHES, steps=BRANCHES + 2),
        1_000,
        traced=BRANCHES,
    ),
    "timer": Scenario(
        "drain of workflows with a timer of one second",
        partial(throughput.drain, Timed, traced=2, steps=3),
        8_000,
        traced=2,
    ),
    "latency-start": Scenario("from a start to its first step, workers idle", latency.start, 300, rate=latency.RATE),
    "latency-chain": Scenario("a workflow of five steps, workers idle", latency.chain, 200, rate=PACE),
    "latency-signal": Scenario("from a signal to the step after the wait", latency.signal, 300, rate=latency.RATE),
    "latency-timer": Scenario("how late timers are, with thousands pending", latency.timer, 200, rate=latency.ALARMS),
    "idle": Scenario("a worker that has nothing to do", latency.idle, 10, rate=1, is_timed=True),
}


def measure(
    environment: BenchEnvironment, plan: Plan, progress: Progress, names: Sequence[str], repeat: int
) -> list[Summary]:
    """Run the named scenarios in turn, `repeat` times."""
    measured: dict[str, list[Measurement]] = {name: [] for name in dict.fromkeys(names)}
    for number in range(1, repeat + 1):
        for name, so_far in measured.items():
            so_far.append(SCENARIOS[name].run(environment, plan, progress, f"{name}, {number} of {repeat}"))
    return [summarize(name, found) for name, found in measured.items()]
