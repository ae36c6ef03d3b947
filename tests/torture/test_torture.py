"""The short form of `python -m tests.torture`: every fault of this machine once, and nothing lost or doubled.

A run ends when each fault has come about. Workers have to be killed and stopped at each point that has a name, one
after the other, or none would be left to take over; that alone takes about two and a half minutes. So no shorter run
has them all, however few `--minutes` it is given, and this one is given as few as may be.
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
from tests.torture.faults import HARMS

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
SEED = "1"
# Ours may be a Python that nobody else can read. With this the kernel lets its heir read it all the same: a right of
# root's, but not one to make a network or a disk with.
READ_ONLY = "-all,+dac_read_search"


@pytest.fixture
def anybodys() -> Iterator[Path]:
    """A folder that everybody may write to; pytest's own are for us alone."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)


def torture(*options: str, prefix: tuple[str, ...] = (), seconds: float = 100.0) -> subprocess.CompletedProcess[str]:
    line = [*prefix, sys.executable, "-m", "tests.torture", *options]
    return subprocess.run(line, capture_output=True, check=False, cwd=ROOT, text=True, timeout=seconds)


def as_a_normal_user() -> tuple[str, ...]:
    """What goes before a command that is to run as somebody who is not root."""
    account = unprivileged()
    if account.user is None:
        return ()
    rights = [f"--{kind}={READ_ONLY}" for kind in ("inh-caps", "ambient-caps", "bounding-set")]
    return ("setpriv", f"--reuid={account.user}", f"--regid={account.group}", "--clear-groups", *rights)


def verdict_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    verdict: dict[str, Any] = json.loads(done.stdout)
    return verdict


def rows_of(told: str) -> dict[str, str]:
    """The rows of the table of faults, by the names of the faults."""
    _, _, told = told.partition("FAULT ")
    names = sorted((harm.name for harm in HARMS), key=len, reverse=True)
    rows = {}
    for line in told.partition("\n\n")[0].splitlines()[1:]:
        name = next(name for name in names if line.startswith(name))
        rows[name] = " ".join(line.removeprefix(name).split())
    return rows


def test_every_fault_of_this_machine_comes_once_and_nothing_is_lost_or_done_twice(tmp_path: Path) -> None:
    folder = str(tmp_path / "run")
    done = torture("--minutes", "0.1", "--seed", SEED, "--folder", folder, "--json", seconds=400)
    said = f"{done.stdout[-3000:]}\n{done.stderr[-1000:]}"
    verdict = verdict_of(done)
    assert verdict["violations"] == [], said
    assert verdict["missing"] == [], said
    assert done.returncode == 0, said
    assert verdict["green"] is True
    assert verdict["drained"] < 60
    assert min(verdict["counters"].values()) > 0
    came = {row["fault"] for row in verdict["faults"] if row["times"]}
    assert came == {harm.name for harm in HARMS} - verdict["impossible"].keys()
    assert all(len(reason) > 10 for reason in verdict["impossible"].values())

    again = torture("--check", folder, "--json")
    assert again.returncode == 0
    assert verdict_of(again) == verdict


def test_who_is_not_root_is_told_what_is_left_out_and_can_repeat_the_rest(anybodys: Path) -> None:
    user = as_a_normal_user()
    run, replayed = anybodys / "run", anybodys / "replayed"
    few = ["--only", "kill a worker that", "--only", "cut replies", "--only", "disk full"]
    done = torture("--minutes", "0.1", "--seed", SEED, *few, "--folder", str(run), prefix=user)
    assert done.returncode == 2, done.stdout + done.stderr  # what it never saw makes it prove nothing
    rows = rows_of(done.stdout)
    assert rows.keys() == {"kill a worker that starts", "cut replies", "disk full"}
    assert int(rows["kill a worker that starts"].split()[0]) > 0
    assert rows["cut replies"] == rows["disk full"] == "left out - -"
    assert "not here: cut replies: only root can make a network namespace" in done.stdout
    assert "not here: disk full: only root can mount a file system" in done.stdout
    assert " 0 violations in " in done.stdout
    assert (run / "schedule.jsonl").stat().st_uid != 0

    schedule = (run / "schedule.jsonl").read_text()
    options = ["--replay", str(run / "schedule.jsonl"), "--seed", SEED, "--folder", str(replayed), "--json"]
    again = torture(*options, prefix=user)
    assert again.returncode == 2, again.stdout + again.stderr
    assert verdict_of(again)["violations"] == []
    assert [row["fault"] for row in verdict_of(again)["faults"]] == ["kill a worker that starts"]
    assert (replayed / "schedule.jsonl").read_text() == schedule
