"""What came of the runs, as values: figures of each, and their medians, ranges and ratios."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pgflow.bench.result import Range
from tests.bench.compare.contests import CONTESTS
from tests.bench.compare.roster import OURS

__all__ = ["Outcome", "Results"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run came to; no figures when it `failed`. `others` used that share of the machine meanwhile."""

    contest: str
    peer: str
    config: str
    figures: Mapping[str, float]
    failed: str | None = None
    others: float = 0.0


@dataclass(slots=True)
class Results:
    """All outcomes, and what they were made on."""

    repeat: int
    machine: Mapping[str, Any]
    settings: Mapping[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Take an outcome in."""
        self.outcomes.append(outcome)
        if outcome.failed is not None:
            self.fail(f"{outcome.contest}, {outcome.peer} ({outcome.config}): {outcome.failed}")

    def fail(self, what: str) -> None:
        """Note that something did not come about."""
        self.failures.append(" ".join(what.split()))

    def entrants(self, contest: str) -> list[tuple[str, str]]:
        """Who took part in a contest, as (peer, configuration), and came to something."""
        found = [(each.peer, each.config) for each in self.outcomes if each.contest == contest and each.figures]
        return list(dict.fromkeys(found))

    def range(self, contest: str, peer: str, config: str, figure: str) -> Range | None:
        """The median and the range of a figure."""
        values = [
            each.figures[figure]
            for each in self.outcomes
            if (each.contest, each.peer, each.config) == (contest, peer, config) and figure in each.figures
        ]
        return Range.of(values) if values else None

    def ratio(self, contest: str, peer: str, config: str) -> float | None:
        """How many times better pgflow's best is than this one, by the medians."""
        figure, is_rate = CONTESTS[contest].figure, CONTESTS[contest].is_rate
        ours = self.range(contest, OURS.name, "best", figure)
        theirs = self.range(contest, peer, config, figure)
        if ours is None or theirs is None or not theirs.median or not ours.median:
            return None
        return ours.median / theirs.median if is_rate else theirs.median / ours.median

    @property
    def runs(self) -> int:
        """How many there are of each, at the most: fewer than were asked for when it was ended early."""
        counted = Counter((each.contest, each.peer, each.config) for each in self.outcomes)
        return max(counted.values(), default=0)

    def record(self) -> dict[str, Any]:
        """Return all of it as plain data."""
        return {
            "machine": dict(self.machine),
            "settings": dict(self.settings),
            "versions": self.versions,
            "repeat": self.repeat,
            "runs": [asdict(each) for each in self.outcomes],
            "failures": self.failures,
        }
