"""The outcomes of the runs: their figures, and medians, ranges and ratios."""

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
    """The outcome of one run, without figures when it `failed`; `others` is the share of other load on the machine."""

    contest: str
    peer: str
    config: str
    figures: Mapping[str, float]
    failed: str | None = None
    others: float = 0.0


@dataclass(slots=True)
class Results:
    """All outcomes, with the machine and server."""

    repeat: int
    machine: Mapping[str, Any]
    settings: Mapping[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Add an outcome."""
        self.outcomes.append(outcome)
        if outcome.failed is not None:
            self.fail(f"{outcome.contest}, {outcome.peer} ({outcome.config}): {outcome.failed}")

    def fail(self, what: str) -> None:
        """Record a failure."""
        self.failures.append(" ".join(what.split()))

    def entrants(self, contest: str) -> list[tuple[str, str]]:
        """The (peer, configuration) pairs that completed a contest."""
        found = [
            (each.peer, each.config)
            for each in self.outcomes
            if each.figures
            and each.config in CONTESTS[contest].configs
            and each.contest == _held_in(contest, each.peer)
        ]
        if CONTESTS[contest].peers_in and all(peer != OURS.name for peer, _ in found):
            return []  # nothing of its own
        return list(dict.fromkeys(found))

    def range(self, contest: str, peer: str, config: str, figure: str) -> Range | None:
        """The median and the range of a figure."""
        held = _held_in(contest, peer), peer, config
        values = [
            each.figures[figure]
            for each in self.outcomes
            if (each.contest, each.peer, each.config) == held and figure in each.figures
        ]
        return Range.of(values) if values else None

    def ratio(self, contest: str, peer: str, config: str) -> float | None:
        """How many times better pgflow's best configuration is than this one, by the medians."""
        figure, is_rate = CONTESTS[contest].figure, CONTESTS[contest].is_rate
        ours = self.range(contest, OURS.name, "best", figure)
        theirs = self.range(contest, peer, config, figure)
        if ours is None or theirs is None or not theirs.median or not ours.median:
            return None
        return ours.median / theirs.median if is_rate else theirs.median / ours.median

    @property
    def runs(self) -> int:
        """The highest number of runs of a contest: fewer than requested after an early end."""
        counted = Counter((each.contest, each.peer, each.config) for each in self.outcomes)
        return max(counted.values(), default=0)

    def take_over(self, record: Mapping[str, Any]) -> None:
        """Add the runs of an earlier comparison on the same machine, from its `record`."""
        self.versions = {**record["versions"], **self.versions}
        self.outcomes += [Outcome(**run) for run in record["runs"]]
        self.failures += record["failures"]

    def record(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return {
            "machine": dict(self.machine),
            "settings": dict(self.settings),
            "versions": self.versions,
            "repeat": self.repeat,
            "runs": [asdict(each) for each in self.outcomes],
            "failures": self.failures,
        }


def _held_in(contest: str, peer: str) -> str:
    """Return the contest with the figures of a peer."""
    return contest if peer == OURS.name else CONTESTS[contest].peers_in or contest
