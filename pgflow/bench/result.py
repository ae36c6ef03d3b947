"""Measurements of one run, and their medians and ranges over several runs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from pgflow.bench.meter import Cost

__all__ = ["Line", "Measurement", "Range", "Summary", "percentiles", "summarize"]

NANOSECOND = 1e-6  # milliseconds


@dataclass(frozen=True, slots=True)
class Line:
    """One measured quantity. Latencies have the values "p50", "p95", "p99" and "max", others have "value"."""

    name: str
    unit: str
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Measurement:
    """The result of one run: `cost` is per step, `others` the share of the machine that other processes used."""

    lines: Sequence[Line]
    cost: Cost | None = None
    others: float = 0.0


@dataclass(frozen=True, slots=True)
class Range:
    """The median of several runs, with the lowest and the highest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Range:
        """Return the range of some values."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True, slots=True)
class Summary:
    """All runs of one scenario: for each line's name, its unit and the range of each value."""

    scenario: str
    runs: int
    lines: Mapping[str, tuple[str, Mapping[str, Range]]]
    cost: Mapping[str, Range | None]
    others: Range

    def record(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "scenario": self.scenario,
            "runs": self.runs,
            "measured": [
                {"name": name, "unit": unit, **{key: asdict(each) for key, each in values.items()}}
                for name, (unit, values) in self.lines.items()
            ],
            "cost_per_step": {name: each and asdict(each) for name, each in self.cost.items()},
            "others_share": asdict(self.others),
        }


def summarize(scenario: str, runs: Sequence[Measurement]) -> Summary:
    """Combine the runs of one scenario, which have the same lines."""
    lines = {}
    for number, line in enumerate(runs[0].lines):
        values = {key: Range.of([run.lines[number].values[key] for run in runs]) for key in line.values}
        lines[line.name] = (line.unit, values)
    costs = [run.cost for run in runs if run.cost is not None]
    cost = (
        {field.name: _range([getattr(each, field.name) for each in costs]) for field in fields(Cost)} if costs else {}
    )
    return Summary(scenario, len(runs), lines, cost, Range.of([run.others for run in runs]))


def percentiles(name: str, nanoseconds: Sequence[int]) -> Line:
    """Return the percentiles of some durations, in milliseconds."""
    ordered = sorted(nanoseconds)
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
    return Line(name, "ms", {key: _percentile(ordered, share) * NANOSECOND for key, share in shares.items()})


def _percentile(ordered: Sequence[int], share: float) -> float:
    place = (len(ordered) - 1) * share
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def _range(values: Sequence[float | None]) -> Range | None:
    known = [value for value in values if value is not None]
    return Range.of(known) if known else None
