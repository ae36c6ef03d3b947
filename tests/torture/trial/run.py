"""One run: set up, load, inject faults, heal, drain, check."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pgflow.core.definition.hooks import hook_spec
from pgflow.database.statement import run
from pgflow.errors import ConfigError
from tests.torture.checker import History, Violation, check, counters
from tests.torture.faults.fault import Fault
from tests.torture.faults.injector import FAULTS, FaultInjector
from tests.torture.install import audit
from tests.torture.install.audit import Change
from tests.torture.trial.journal import Journal, lines
from tests.torture.trial.metrics import MetricsSampler
from tests.torture.trial.setup import Environment, open_environment
from tests.torture.workers.fleet import LEASE, POLL, SWEEP
from tests.torture.workload import flows
from tests.torture.workload.callers import Load
from tests.torture.workload.tasks import TASKS

__all__ = ["SLACK_SECONDS", "FaultRow", "Plan", "Recording", "Verdict", "judge", "read_recording", "run_trial"]

SLACK_SECONDS = 2.0  # added to time limits, for a busy machine
DRAIN_SECONDS = 60.0
SUMMARY, CHANGES, EFFECTS, SERVERS = "run.json", "changes.jsonl", "effects.jsonl", "servers"
ACTIVE = """
    select (select count(*) from pgflow.instances where status in ('pending', 'running', 'waiting'))
        + (select count(*) from pgflow.jobs where kind = 'task')
"""
PAUSE = "select pgflow.pause_schedule(s.name) from pgflow.schedules s"
RUN = re.compile(r"\brun (\d+)")

Notify = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """How to run: duration, seed, numbers of workers and callers, starts a second (`rate`), slack of time limits."""

    folder: Path
    seconds: float
    seed: int
    workers: int = 4
    callers: int = 3
    rate: float = 6.0
    slack: float = SLACK_SECONDS
    only: Sequence[str] = ()  # faults whose names contain one of these; empty: all
    replay: Path | None = None


@dataclass(frozen=True, slots=True)
class Recording:
    """The history of a run, and what it consisted of.

    `faults` could be injected on this machine; `impossible` has the reason for each other fault. `drained` is how many
    seconds it took after the last fault until all instances had ended, None when they did not.
    """

    history: History
    faults: Sequence[str]
    impossible: Mapping[str, str]
    started: int
    seed: int
    seconds: float
    drained: float | None


@dataclass(frozen=True, slots=True)
class FaultRow:
    """One fault in the report: how often it was tried and happened, and the instances that were active then."""

    fault: str
    tried: int
    happened: int
    instances: int
    violations: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of a run. It is valid when nothing is `missing` that the run must cover."""

    recording: Recording
    violations: Sequence[Violation]
    counters: Mapping[str, int]
    rows: Sequence[FaultRow]
    missing: Sequence[str]

    @property
    def is_green(self) -> bool:
        """Whether the run is valid, has drained and has no violations."""
        return not self.violations and not self.missing and self.recording.drained is not None


def run_trial(plan: Plan, notify: Notify) -> Recording:
    """Run a trial and record everything in its folder. Raises errors of the harness itself."""
    began, skew = time.monotonic(), time.time() - time.monotonic()
    with open_environment(plan.folder, plan.workers, plan.callers) as environment:
        possible, impossible = _split(plan, environment)
        sampler = MetricsSampler(environment)
        load = Load(environment.callers, plan.folder, plan.seed, plan.rate)
        injector = FaultInjector(environment, possible, plan.seed, plan.seconds, plan.replay, notify)
        load.start()
        injector.run()
        environment.cluster.bring_up()
        environment.follow_primary()
        notify("healed: waiting until each call is answered and each instance has ended")
        drained = _drained(environment, load)
        sampler.close()
        environment.fleet.end()  # so that nothing changes while the history is saved
        _save(environment)
    about = {
        "faults": [each.name for each in injector.faults],
        "impossible": impossible,
        "started": load.started,
        "seed": plan.seed,
        "seconds": time.monotonic() - began,
        "drained": drained,
        "hooks": {each.name: hook_spec(each.definition.hooks) for each in TASKS},
        "graphs": {each.name: each.graph.spec() for each in flows.WORKFLOWS},
        "skew": skew,
        "times": {"lease": LEASE, "sweep": SWEEP, "poll": POLL, "slack": plan.slack},
    }
    (plan.folder / SUMMARY).write_text(json.dumps(about, indent=2) + "\n")
    return read_recording(plan.folder)


def read_recording(folder: Path) -> Recording:
    """Read the recording of a run from its folder. Raises `ConfigError` when the run has not completed."""
    try:
        about = json.loads((folder / SUMMARY).read_text())
    except (OSError, ValueError) as error:
        hint = "Give the folder of a completed run."
        raise ConfigError(f"{folder} has no completed run: {error}", hint=hint) from error
    history = History(
        changes=[Change(**each) for each in lines(folder / CHANGES)],
        calls=list(lines(folder / "calls.jsonl")),
        bodies=list(lines(folder / "bodies.jsonl")),
        executions=list(lines(folder / "executions.jsonl")),
        effects=[(each["run"], each["step"], each["nonce"]) for each in lines(folder / EFFECTS)],
        injections=list(lines(folder / "injections.jsonl")),
        logs={path.stem: path.read_text(errors="replace") for path in sorted(folder.glob("*.log"))},
        graphs=about.pop("graphs"),
        hooks=about.pop("hooks"),
        skew=about.pop("skew"),
        times=about.pop("times"),
        metrics=list(lines(folder / "metrics.jsonl")),
        server_logs={path.stem: path.read_text(errors="replace") for path in sorted((folder / SERVERS).glob("*.log"))},
    )
    return Recording(history, **about)


def judge(recording: Recording) -> Verdict:
    """Check a run."""
    history = recording.history
    violations = check(history)
    counts = counters(history)
    happened = {each["fault"] for each in history.injections if each["happened"]}
    missing = [name for name, count in counts.items() if not count] + sorted(set(recording.faults) - happened)
    return Verdict(recording, violations, counts, _rows(history, violations), missing)


def _split(plan: Plan, environment: Environment) -> tuple[list[Fault], dict[str, str]]:
    """Return the faults that this machine supports, and why it does not support the others."""
    wanted = [each for each in FAULTS if not plan.only or any(part in each.name for part in plan.only)]
    reasons = {each.name: each.why_not(environment) for each in wanted}
    impossible = {name: reason for name, reason in reasons.items() if reason is not None}
    return [each for each in wanted if each.name not in impossible], impossible


def _drained(environment: Environment, load: Load) -> float | None:
    """Wait until all instances have ended; returns how many seconds it took, None on a timeout."""
    began = time.monotonic()
    is_answered = load.finish(DRAIN_SECONDS)
    with environment.admin() as conn:
        conn.execute(PAUSE)
    while time.monotonic() - began < DRAIN_SECONDS:
        with environment.admin() as conn:
            ((active,),) = conn.execute(ACTIVE).fetchall()
        if is_answered and not active:
            return time.monotonic() - began
        time.sleep(0.1)
    return None


def _save(environment: Environment) -> None:
    """Save the change log, the effects and the server logs."""
    changes, effects = Journal(environment.folder / CHANGES), Journal(environment.folder / EFFECTS)
    with environment.admin() as conn:
        after = 0
        while page := run(conn, audit.read_changes("pgflow", after)):
            for change in page:
                changes.write(**asdict(change))
            after = page[-1].seq
        for number, step, nonce in run(conn, audit.read_effects("pgflow")):
            effects.write(run=number, step=step, nonce=nonce)
    changes.close()
    effects.close()
    (environment.folder / SERVERS).mkdir()
    for number, text in enumerate(environment.cluster.logs, start=1):
        (environment.folder / SERVERS / f"server-{number}.log").write_text(text)


def _rows(history: History, violations: Sequence[Violation]) -> list[FaultRow]:
    spans = {
        instance.run: (instance.changes[0].at, instance.changes[-1].at)
        for instance in history.instances.values()
        if instance.changes
    }
    violating = [int(found[1]) for each in violations if (found := RUN.search(each.message))]
    tried = Counter(each["fault"] for each in history.injections)
    rows = []
    for fault in sorted(tried):
        windows = [
            (each["from"], each["to"]) for each in history.injections if each["fault"] == fault and each["happened"]
        ]
        active = {
            number
            for number, (born, ended) in spans.items()
            if any(born <= end and ended >= start for start, end in windows)
        }
        hit = sum(each in active for each in violating)
        rows.append(FaultRow(fault, tried[fault], len(windows), len(active), hit))
    return rows
