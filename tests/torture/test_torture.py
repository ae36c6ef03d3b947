"""The short form of `python -m tests.torture`: faults of every kind, and nothing lost or doubled.

A run ends when each of its faults has happened. Workers are killed and stopped at each named point one after the other,
so that enough of them are left to take over; all of them take about three minutes. Without `--long`, the run has one or
two faults of each kind.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pgflow.embedded.installation import unprivileged
from tests.torture.faults.injector import FAULTS

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
SEED = "1"
SLACK = ("--slack", "60")  # other tests run at the same time
SHORT = (
    *("kill a worker", "stop a worker beyond its lease", "drain a worker that runs again"),
    *("kill at transaction.settled", "stop at claimer.sending", "fail at claimer.sent"),
    *("a step that kills its worker", "a step that holds the interpreter's lock"),
    *("steps that leave their sessions changed", "a client that forks"),
    *("end sessions: worker", "cancel statements", "commit lost", "reply lost", "drop notifications"),
    *("crash of the server", "failover", "disk full", "cut replies", "no connections"),
    *("lock jobs", "sequences behind", "refusals", "clock ahead"),
)
# The Python installation may be readable by root only. This capability lets an unprivileged process read it, but not
# create a network or mount a disk.
READ_ONLY = "-all,+dac_read_search"


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """A folder that every user may write to; pytest's own are private."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)


def torture(*options: str, prefix: tuple[str, ...] = (), seconds: float = 100.0) -> subprocess.CompletedProcess[str]:
    line = [*prefix, sys.executable, "-m", "tests.torture", *options]
    return subprocess.run(line, capture_output=True, check=False, cwd=ROOT, text=True, timeout=seconds)


def as_a_normal_user() -> tuple[str, ...]:
    """Return the prefix that runs a command as an unprivileged user."""
    account = unprivileged()
    if account.user is None:
        return ()
    rights = [f"--{kind}={READ_ONLY}" for kind in ("inh-caps", "ambient-caps", "bounding-set")]
    return ("setpriv", f"--reuid={account.user}", f"--regid={account.group}", "--clear-groups", *rights)


def verdict_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.stdout, done.stderr[-3000:]
    verdict: dict[str, Any] = json.loads(done.stdout)
    return verdict


def rows_of(printed: str) -> dict[str, str]:
    """The rows of the table of faults, by the names of the faults."""
    _, _, printed = printed.partition("FAULT ")
    names = sorted((fault.name for fault in FAULTS), key=len, reverse=True)
    rows = {}
    for line in printed.partition("\n\n")[0].splitlines()[1:]:
        name = next(name for name in names if line.startswith(name))
        rows[name] = " ".join(line.removeprefix(name).split())
    return rows


def test_faults_of_every_kind_lose_and_double_nothing(tmp_path: Path, is_long: bool) -> None:
    folder = str(tmp_path / "run")
    chosen = {fault.name for fault in FAULTS if is_long or any(each in fault.name for each in SHORT)}
    only = [] if is_long else [option for each in SHORT for option in ("--only", each)]
    done = torture("--minutes", "0.1", "--seed", SEED, *SLACK, *only, "--folder", folder, "--json", seconds=400)
    output = f"{done.stdout[-3000:]}\n{done.stderr[-1000:]}"
    verdict = verdict_of(done)
    assert verdict["violations"] == [], output
    assert verdict["missing"] == [], output
    assert done.returncode == 0, output
    assert verdict["green"] is True
    assert verdict["drained"] < 60
    assert not is_long or min(verdict["counters"].values()) > 0
    happened = {row["fault"] for row in verdict["faults"] if row["times"]}
    assert happened == chosen - verdict["impossible"].keys()
    assert all(len(reason) > 10 for reason in verdict["impossible"].values())

    again = torture("--check", folder, "--json")
    assert again.returncode == 0
    assert verdict_of(again) == verdict


def test_without_root_unsupported_faults_are_listed_and_the_others_can_be_replayed(shared_folder: Path) -> None:
    user = as_a_normal_user()
    run, replayed = shared_folder / "run", shared_folder / "replayed"
    few = ["--only", "kill a worker that", "--only", "cut replies", "--only", "disk full"]
    done = torture("--minutes", "0.1", "--seed", SEED, *SLACK, *few, "--folder", str(run), prefix=user)
    assert done.returncode == 2, done.stdout + done.stderr  # faults that never happened make it invalid
    rows = rows_of(done.stdout)
    assert rows.keys() == {"kill a worker that starts", "cut replies", "disk full"}
    assert int(rows["kill a worker that starts"].split()[0]) > 0
    assert rows["cut replies"] == rows["disk full"] == "unsupported - -"
    assert "unsupported: cut replies: only root can create a network namespace" in done.stdout
    assert "unsupported: disk full: only root can mount a file system" in done.stdout
    assert " 0 violations in " in done.stdout
    assert (run / "schedule.jsonl").stat().st_uid != 0

    schedule = (run / "schedule.jsonl").read_text()
    options = ["--replay", str(run / "schedule.jsonl"), "--seed", SEED, *SLACK, "--folder", str(replayed), "--json"]
    again = torture(*options, prefix=user)
    assert again.returncode == 2, again.stdout + again.stderr
    assert verdict_of(again)["violations"] == []
    assert [row["fault"] for row in verdict_of(again)["faults"]] == ["kill a worker that starts"]
    assert (replayed / "schedule.jsonl").read_text() == schedule
