"""The comparison runs its contests, reports and draws ratios, and lists what could not be measured."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from tests.bench.compare import environments
from tests.bench.compare.command import _undisturbed, command
from tests.bench.compare.contests import CONTESTS
from tests.bench.compare.environments import Missing
from tests.bench.compare.outcome import Outcome, Results
from tests.bench.compare.report import markdown, picture
from tests.bench.compare.roster import CONFIGS, OURS, PEERS, Peer

QUICK = ("--repeat", "1", "--scale", "0.001", "--tries", "1", "--patience", "0")
PROGRAMS = Path(environments.__file__).parent / "peers"
MACHINE = {"processor": "p", "cores": 2, "memory_bytes": 2**30, "system": "s", "python": "3"}


def results(*outcomes: Outcome) -> Results:
    made = Results(2, MACHINE, {"server_version": "18", "fsync": "on"}, {"pgflow": "1", "DBOS": "3"})
    for outcome in outcomes:
        made.add(outcome)
    return made


@pytest.mark.slow
def test_pgflow_itself_goes_through_each_kind_of_contest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, less in (("SETTLE_SECONDS", 0.0), ("WARM", 2), ("RATE", 100)):
        monkeypatch.setattr(f"tests.bench.compare.contests.{name}", less)
    told, drawn = tmp_path / "all.json", tmp_path / "plot.svg"
    names = ["enqueue-many", "single-2", "latency", "finish"]
    options = [
        "--peer",
        "pgflow",
        "--config",
        "best",
        *QUICK,
        "--envs",
        str(tmp_path),
    ]
    done = CliRunner().invoke(command, [*names, *options, "--json", str(told), "--svg", str(drawn)])

    assert done.exit_code == 0, done.output
    document = json.loads(told.read_text())
    assert [run["contest"] for run in document["runs"]] == names
    assert all(run["figures"][CONTESTS[run["contest"]].figure] > 0 for run in document["runs"])
    assert document["settings"]["fsync"] == document["settings"]["synchronous_commit"] == "on"
    assert document["failures"] == []
    assert all(f"**{CONTESTS[name].title}**" in done.stdout for name in names)
    ElementTree.parse(drawn)  # noqa: S314 -- our own


def test_a_ratio_is_how_many_times_better_pgflow_is() -> None:
    made = results(
        Outcome("chain-2", "pgflow", "best", {"rate": 400.0}),
        Outcome("chain-2", "pgflow", "best", {"rate": 600.0}),
        Outcome("chain-2", "DBOS", "best", {"rate": 50.0}),
        Outcome("latency", "pgflow", "best", {"p50": 4.0, "p99": 6.0}),
        Outcome("latency", "DBOS", "best", {"p50": 30.0, "p99": 60.0}),
    )
    assert made.ratio("chain-2", "DBOS", "best") == 10
    assert made.ratio("latency", "DBOS", "best") == 7.5
    rows = [line for line in markdown(made).splitlines() if line.startswith("| ")]
    assert "| pgflow | best | 500 | 400 to 600 |  |" in rows
    assert [row for row in rows if row.startswith("| DBOS | best | 50.0 | 50.0 to 50.0 | 10.0")]
    assert [row for row in rows if row.startswith("| DBOS | best | 30.0; p99 60.0 | 30.0 to 30.0 | 7.50")]
    assert "10.0" in picture(made)
    assert [
        row
        for row in rows
        if row.startswith("| 5 steps in a row, 2 processes, instances/s | 500 ±20% | 50.0 ±0%, **10.0")
    ]


def test_where_peers_have_only_jobs_workflows_are_compared_with_these() -> None:
    made = results(
        Outcome("single-2", "pgflow", "best", {"rate": 200.0}),
        Outcome("task-2", "pgflow", "best", {"rate": 300.0}),
        Outcome("task-2", "DBOS", "best", {"rate": 50.0}),
        Outcome("task-2", "DBOS", "default", {"rate": 40.0}),
    )
    assert made.ratio("single-2", "DBOS", "best") == 4
    assert made.ratio("task-2", "DBOS", "best") == 6
    assert made.entrants("single-2") == [("pgflow", "best"), ("DBOS", "best")]


def test_the_runs_of_an_earlier_comparison_count_too() -> None:
    earlier = results(Outcome("task-2", "DBOS", "best", {"rate": 50.0}), Outcome("task-2", "oban-py", "best", {}, "it"))
    made = results(Outcome("task-2", "pgflow", "best", {"rate": 300.0}))
    made.take_over(json.loads(json.dumps(earlier.record())))
    assert made.ratio("task-2", "DBOS", "best") == 6
    assert made.failures == ["task-2, oban-py (best): it"]


def test_a_disturbed_run_is_repeated_and_the_least_disturbed_one_counts() -> None:
    shares = iter([0.6, 0.3, 0.5, 0.1, 0.9])

    class Quiet:
        def wait_for_quiet(self, patience: float) -> None:
            assert patience == 7

    def hold() -> Outcome:
        share = next(shares)
        return Outcome("start", "pgflow", "best", {"rate": 100 * share}, others=share)

    arena: Any = Quiet()
    assert _undisturbed(arena, hold, "", 3, 7).others == 0.3
    assert _undisturbed(arena, hold, "", 3, 7).others == 0.1  # no further runs
    assert next(shares) == 0.9


def test_a_failure_is_reported_and_has_no_figure() -> None:
    made = results(Outcome("task-2", "DBOS", "best", {}, "its worker\nhas ended"))
    assert made.entrants("task-2") == []
    assert "Not measured:\n\n- task-2, DBOS (best): its worker has ended" in markdown(made)


def test_a_peer_that_cannot_be_installed_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ancient = Peer("DBOS", "dbos", "dbos", {"task": (1, 1)}, 1, python=(4, 0))
    with pytest.raises(Missing, match=r"Python 4\.0"):
        environments.interpreter(ancient, tmp_path)
    monkeypatch.setattr("tests.bench.compare.command.PEERS", (OURS, ancient))
    options = [
        "enqueue",
        "--peer",
        "pgflow",
        "--peer",
        "DBOS",
        *QUICK,
        "--envs",
        str(tmp_path),
    ]
    done = CliRunner().invoke(command, options)

    assert done.exit_code == 1
    assert "- DBOS could not be installed: it needs Python 4.0" in done.stdout
    assert "| pgflow | best |" in done.stdout


def test_each_peer_has_a_program_and_pins_of_its_own() -> None:
    for peer in PEERS:
        tree = ast.parse((PROGRAMS / f"{peer.module}.py").read_text())
        assert any(isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ENGINE" for node in tree.body)
        assert set(peer.jobs) <= {"task", "workflow", "chain", "fan"}
        assert all(peer.count(kind, config) > 0 for kind in peer.jobs for config in CONFIGS)
        if peer.has_environment:
            pins = (environments.PINS / f"{peer.module}.txt").read_text().splitlines()
            assert f"{peer.package}==" in "\n".join(pins)
            assert [pin for pin in pins if not re.fullmatch(r"[\w.-]+==[\w.]+", pin)] == []
