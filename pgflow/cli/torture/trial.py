"""One run from its beginning to its verdict: set up, load, harm, heal, drain, check."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pgflow.cli.torture import flows
from pgflow.cli.torture.arena import Arena, opened
from pgflow.cli.torture.checker import History, Violation, check, counters
from pgflow.cli.torture.fleet import LEASE, POLL, SWEEP
from pgflow.cli.torture.gauge import Gauge
from pgflow.cli.torture.ink import lines
from pgflow.cli.torture.load import Load
from pgflow.cli.torture.nemesis import HARMS, Harm, Nemesis
from pgflow.store import audit
from pgflow.store.audit import Change
from pgflow.store.statement import run

__all__ = ["Plan", "Recording", "Row", "Verdict", "held", "record"]

SLACK_SECONDS = 2.0  # this machine's share
DRAIN_SECONDS = 60.0
ACTIVE = "select count(*) from pgflow.instances where status in ('pending', 'running', 'waiting')"
RUN = re.compile(r"\brun (\d+)")

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Recording:
    """What a run has left: its history, who did the harm, and why some harm could not be done.

    `drained` is how many seconds it took until everything had ended after the last fault, None when that did not come
    about.
    """

    history: History
    nemesis: Nemesis
    impossible: dict[str, str]
    started: int
    drained: float | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is to be: how long, by which dice, with how many workers and callers, and how many starts a second."""

    folder: Path
    seconds: float
    seed: int
    workers: int = 4
    callers: int = 3
    rate: float = 6.0
    only: Sequence[str] = ()  # harms whose names hold one of these; none: all
    replay: Path | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """What is told of one harm: how often it was tried and came about, and the instances that were under way."""

    harm: str
    tried: int
    came: int
    instances: int
    violations: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a run came to. It is `valid` when everything that it was to go through has come about."""

    violations: Sequence[Violation]
    counters: dict[str, int]
    rows: Sequence[Row]
    impossible: dict[str, str]
    missing: Sequence[str]
    started: int
    seconds: float
    drained: float | None
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def is_green(self) -> bool:
        """Whether nothing is broken, and that means something."""
        return not self.violations and not self.missing and self.drained is not None


def held(plan: Plan, tell: Tell) -> Verdict:
    """Hold a run. Raises what goes wrong with the harness itself."""
    began = time.monotonic()
    recording = record(plan, tell)
    history = recording.history
    violations = check(history)
    counts = counters(history)
    came = recording.nemesis.came
    missing = [name for name, count in counts.items() if not count] + sorted(
        each.name for each in recording.nemesis.harms if not came[each.name]
    )
    return Verdict(
        violations,
        counts,
        _rows(history, recording.nemesis, violations),
        recording.impossible,
        missing,
        recording.started,
        time.monotonic() - began,
        recording.drained,
    )


def record(plan: Plan, tell: Tell) -> Recording:
    """Hold a run and return all that was noted, without a verdict."""
    skew = time.time() - time.monotonic()
    with opened(plan.folder, plan.workers, plan.callers) as arena:
        possible, impossible = _sorted(plan, arena)
        gauge = Gauge(arena)
        load = Load(arena.callers, plan.folder, plan.seed, plan.rate)
        nemesis = Nemesis(arena, possible, plan.seed, plan.seconds, plan.replay, tell)
        load.start()
        nemesis.strike()
        arena.cluster.bring_up()
        arena.lead()
        tell("healed: waiting for each call's answer and each instance's end")
        drained = _drained(arena, load)
        gauge.close()
        history = _history(plan, arena, skew)
    return Recording(history, nemesis, impossible, load.started, drained)


def _sorted(plan: Plan, arena: Arena) -> tuple[list[Harm], dict[str, str]]:
    """Return the harms that can be done here, and why not of the others."""
    wanted = [each for each in HARMS if not plan.only or any(part in each.name for part in plan.only)]
    reasons = {each.name: each.why_not(arena) for each in wanted}
    impossible = {name: reason for name, reason in reasons.items() if reason is not None}
    return [each for each in wanted if each.name not in impossible], impossible


def _drained(arena: Arena, load: Load) -> float | None:
    """Wait for the end of everything; returns how many seconds it took, None when it did not come about."""
    began = time.monotonic()
    is_answered = load.finish(DRAIN_SECONDS)
    while time.monotonic() - began < DRAIN_SECONDS:
        with arena.admin() as conn:
            ((active,),) = conn.execute(ACTIVE).fetchall()
        if is_answered and not active:
            return time.monotonic() - began
        time.sleep(0.1)
    return None


def _history(plan: Plan, arena: Arena, skew: float) -> History:
    changes: list[Change] = []
    with arena.admin() as conn:
        while page := run(conn, audit.read("pgflow", changes[-1].seq if changes else 0)):
            changes += page
        effects = run(conn, audit.effects("pgflow"))
    return History(
        changes=changes,
        calls=list(lines(plan.folder / "calls.jsonl")),
        bodies=list(lines(plan.folder / "bodies.jsonl")),
        effects=effects,
        blows=list(lines(plan.folder / "blows.jsonl")),
        logs={berth.name: berth.log.read_text(errors="replace") for berth in arena.fleet.berths},
        graphs={each.name: json.loads(json.dumps(each.graph.spec())) for each in flows.WORKFLOWS},
        skew=skew,
        times={"lease": LEASE, "sweep": SWEEP, "poll": POLL, "slack": SLACK_SECONDS},
        gauges=list(lines(plan.folder / "gauges.jsonl")),
    )


def _rows(history: History, nemesis: Nemesis, violations: Sequence[Violation]) -> list[Row]:
    spans = {
        story.run: (story.instance[0].at, story.instance[-1].at) for story in history.stories.values() if story.instance
    }
    broken = [int(found[1]) for each in violations if (found := RUN.search(each.said))]
    rows = []
    for harm in sorted(nemesis.tried):
        windows = [(each["from"], each["to"]) for each in history.blows if each["harm"] == harm and each["has_come"]]
        under_way = {
            number
            for number, (born, ended) in spans.items()
            if any(born <= end and ended >= start for start, end in windows)
        }
        hit = sum(each in under_way for each in broken)
        rows.append(Row(harm, nemesis.tried[harm], nemesis.came[harm], len(under_way), hit))
    return rows
