"""What can be measured, by name: each scenario with how many instances suit it and what they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from pgflow.cli.bench import load, wait
from pgflow.cli.bench.flows import BRANCHES, CHAIN, Chain, Fan, Single, Timed
from pgflow.cli.bench.ground import BenchEnvironment, BenchRun, Plan
from pgflow.cli.bench.machine import OtherLoad
from pgflow.cli.bench.progress import Progress
from pgflow.cli.bench.result import Run

__all__ = ["SCENARIOS", "Scenario"]

PILOT = 0.05  # of the usual number is tried first, to find out how many take so many seconds
PACE = 20  # instances a second, where the scenario sets the pace itself


@dataclass(frozen=True, slots=True)
class Scenario:
    """One thing to measure: `count` instances suit it, each of which makes `marks` while it runs.

    `rate` is how many of them a second takes, where that is the scenario's own choice. One that `is_timed` has no
    instances: its `count` are seconds.
    """

    says: str
    measure: Callable[[BenchRun, Plan, int], Run]
    count: int
    marks: int = 1
    rate: float | None = None
    is_timed: bool = False

    def run(self, ground: BenchEnvironment, plan: Plan, progress: Progress, label: str) -> Run:
        """Measure once, on empty tables."""
        count = self._fitting(ground, plan, progress, label)
        progress.begin(label, count * self.marks)
        with ground.field(progress) as field:
            neighbours = OtherLoad(ground.server)
            return replace(self.measure(field, plan, count), others=neighbours.share())

    def _fitting(self, ground: BenchEnvironment, plan: Plan, progress: Progress, label: str) -> int:
        """How many instances the plan asks for, or take as long as it says."""
        if plan.seconds is None:
            return self.count if plan.count is None or self.is_timed else plan.count
        if self.rate is not None:
            return max(1, round(self.rate * plan.seconds))
        pilot = replace(plan, count=max(1, round(self.count * PILOT)), seconds=None)
        rate = self.run(ground, pilot, progress, f"{label}, pilot").lines[0].values["value"]
        return max(1, round(rate * plan.seconds))


SCENARIOS: Mapping[str, Scenario] = {
    "start": Scenario("instances started one by one", partial(load.start_one, Single), 2_000),
    "start-many": Scenario("instances started in batches", partial(load.start_many, Single), 50_000),
    "single": Scenario("drain of workflows of one step", partial(load.drain, Single, marks=1, steps=1), 20_000),
    "chain": Scenario(
        "drain of workflows of five steps in a row",
        partial(load.drain, Chain, marks=CHAIN, steps=CHAIN),
        8_000,
        marks=CHAIN,
    ),
    "fan": Scenario(
        "drain of workflows with ten branches that join",
        partial(load.drain, Fan, marks=BRANCHES, steps=BRANCHES + 2),
        1_000,
        marks=BRANCHES,
    ),
    "timer": Scenario(
        "drain of workflows with a timer of one second",
        partial(load.drain, Timed, marks=2, steps=3),
        8_000,
        marks=2,
    ),
    "latency-start": Scenario("from a start to its first step, workers idle", wait.start, 300, rate=wait.RATE),
    "latency-chain": Scenario("a workflow of five steps, workers idle", wait.chain, 200, rate=PACE),
    "latency-signal": Scenario("from a signal to the step after the wait", wait.signal, 300, rate=wait.RATE),
    "latency-timer": Scenario("how late timers are, with thousands pending", wait.timer, 200, rate=wait.ALARMS),
    "idle": Scenario("a worker that has nothing to do", wait.idle, 10, rate=1, is_timed=True),
}
