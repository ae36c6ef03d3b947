"""One run from its beginning to its verdict: set up, load, harm, heal, drain, check."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pgflow.database.statement import run
from pgflow.errors import ConfigError
from tests.torture.checker import History, Violation, check, counters
from tests.torture.faults import HARMS, Harm, Nemesis
from tests.torture.install import audit
from tests.torture.install.audit import Change
from tests.torture.trial.journal import Journal, lines
from tests.torture.trial.metrics import MetricsSampler
from tests.torture.trial.setup import Arena, opened
from tests.torture.workers.fleet import LEASE, POLL, SWEEP
from tests.torture.workload import flows
from tests.torture.workload.callers import Load

__all__ = ["Plan", "Recording", "Row", "Verdict", "hold", "judge", "read"]

SLACK_SECONDS = 2.0  # this machine's share
DRAIN_SECONDS = 60.0
ABOUT, CHANGES, EFFECTS, SERVERS = "run.json", "changes.jsonl", "effects.jsonl", "servers"
ACTIVE = "select count(*) from pgflow.instances where status in ('pending', 'running', 'waiting')"
RUN = re.compile(r"\brun (\d+)")

Tell = Callable[[str], None]


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
class Recording:
    """What a run has left: its history, and what was to be done to it.

    `harms` are those that could be done here, `impossible` says of the others why not. `drained` is how many seconds it
    took until everything had ended after the last fault, None when that did not come about.
    """

    history: History
    harms: Sequence[str]
    impossible: Mapping[str, str]
    started: int
    seed: int
    seconds: float
    drained: float | None


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
    """What a run came to. It is worth something when nothing is `missing` that it was to go through."""

    recording: Recording
    violations: Sequence[Violation]
    counters: Mapping[str, int]
    rows: Sequence[Row]
    missing: Sequence[str]

    @property
    def is_green(self) -> bool:
        """Whether nothing is broken, and that means something."""
        return not self.violations and not self.missing and self.recording.drained is not None


def hold(plan: Plan, tell: Tell) -> Recording:
    """Hold a run, and leave all that happened in its folder. Raises what goes wrong with the harness itself."""
    began, skew = time.monotonic(), time.time() - time.monotonic()
    with opened(plan.folder, plan.workers, plan.callers) as arena:
        possible, impossible = _sorted(plan, arena)
        gauge = MetricsSampler(arena)
        load = Load(arena.callers, plan.folder, plan.seed, plan.rate)
        nemesis = Nemesis(arena, possible, plan.seed, plan.seconds, plan.replay, tell)
        load.start()
        nemesis.strike()
        arena.cluster.bring_up()
        arena.lead()
        tell("healed: waiting for each call's answer and each instance's end")
        drained = _drained(arena, load)
        gauge.close()
        arena.fleet.end()  # so that nothing more happens while it is written down what did
        _keep(arena)
    about = {
        "harms": [each.name for each in nemesis.harms],
        "impossible": impossible,
        "started": load.started,
        "seed": plan.seed,
        "seconds": time.monotonic() - began,
        "drained": drained,
        "graphs": {each.name: each.graph.spec() for each in flows.WORKFLOWS},
        "skew": skew,
        "times": {"lease": LEASE, "sweep": SWEEP, "poll": POLL, "slack": SLACK_SECONDS},
    }
    (plan.folder / ABOUT).write_text(json.dumps(about, indent=2) + "\n")
    return read(plan.folder)


def read(folder: Path) -> Recording:
    """Read what a run has left in its folder. Raises `ConfigError` when it has not come to its end."""
    try:
        about = json.loads((folder / ABOUT).read_text())
    except (OSError, ValueError) as error:
        hint = "Give the folder of a run that has come to its end."
        raise ConfigError(f"there is no run in {folder}: {error}", hint=hint) from error
    history = History(
        changes=[Change(**each) for each in lines(folder / CHANGES)],
        calls=list(lines(folder / "calls.jsonl")),
        bodies=list(lines(folder / "bodies.jsonl")),
        effects=[(each["run"], each["step"], each["nonce"]) for each in lines(folder / EFFECTS)],
        blows=list(lines(folder / "blows.jsonl")),
        logs={path.stem: path.read_text(errors="replace") for path in sorted(folder.glob("*.log"))},
        graphs=about.pop("graphs"),
        skew=about.pop("skew"),
        times=about.pop("times"),
        gauges=list(lines(folder / "gauges.jsonl")),
        server_logs={path.stem: path.read_text(errors="replace") for path in sorted((folder / SERVERS).glob("*.log"))},
    )
    return Recording(history, **about)


def judge(recording: Recording) -> Verdict:
    """Check a run."""
    history = recording.history
    violations = check(history)
    counts = counters(history)
    came = {each["harm"] for each in history.blows if each["has_come"]}
    missing = [name for name, count in counts.items() if not count] + sorted(set(recording.harms) - came)
    return Verdict(recording, violations, counts, _rows(history, violations), missing)


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


def _keep(arena: Arena) -> None:
    """Write down what only the database and its servers have noted."""
    changes, effects = Journal(arena.folder / CHANGES), Journal(arena.folder / EFFECTS)
    with arena.admin() as conn:
        after = 0
        while page := run(conn, audit.read_changes("pgflow", after)):
            for change in page:
                changes.write(**asdict(change))
            after = page[-1].seq
        for number, step, nonce in run(conn, audit.read_effects("pgflow")):
            effects.write(run=number, step=step, nonce=nonce)
    changes.close()
    effects.close()
    (arena.folder / SERVERS).mkdir()
    for number, text in enumerate(arena.cluster.logs, start=1):
        (arena.folder / SERVERS / f"server-{number}.log").write_text(text)


def _rows(history: History, violations: Sequence[Violation]) -> list[Row]:
    spans = {
        story.run: (story.instance[0].at, story.instance[-1].at) for story in history.stories.values() if story.instance
    }
    broken = [int(found[1]) for each in violations if (found := RUN.search(each.said))]
    tried = Counter(each["harm"] for each in history.blows)
    rows = []
    for harm in sorted(tried):
        windows = [(each["from"], each["to"]) for each in history.blows if each["harm"] == harm and each["has_come"]]
        under_way = {
            number
            for number, (born, ended) in spans.items()
            if any(born <= end and ended >= start for start, end in windows)
        }
        hit = sum(each in under_way for each in broken)
        rows.append(Row(harm, tried[harm], len(windows), len(under_way), hit))
    return rows
