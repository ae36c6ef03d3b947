"""A worker in a container: as PID 1, with a uid that has no passwd entry, without HOME, on a read-only root."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pgflow import Pgflow
from pgflow.cli.operations import init_process
from tests.worker.db_helpers import until_status
from tests.worker.flows import Line
from tests.worker.processes import CHECKOUT
from tests.worker.waiting import PATIENCE, until

WORKFLOWS = (Line,)

# Orphans below a subreaper go to it, as those of a container go to PID 1; anybody may be one (Linux, prctl(2)).
AS_SUBREAPER = """
import ctypes, sys
PR_SET_CHILD_SUBREAPER = 36
assert ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
from pgflow.cli.operations.init_process import fork_under_init
fork_under_init()
"""
ORPHAN = "import subprocess; subprocess.run(['sh', '-c', 'sleep 0.01 & echo $!'])"


def start(code: str, *words: str) -> subprocess.Popen[str]:
    """Start a program under the init process."""
    return subprocess.Popen(
        [sys.executable, "-c", AS_SUBREAPER + code, *words],
        cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def children(pid: int) -> dict[int, str]:
    """The children of a process, with the letter of their state (Z: ended, and not reaped)."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {int(each): Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()[0] for each in found}


def test_orphans_are_reaped_and_the_programs_own_children_are_not() -> None:
    program = f"""{ORPHAN}
own = subprocess.run([sys.executable, "-c", "raise SystemExit(7)"])
print("own", own.returncode, flush=True)
sys.stdin.read()
"""
    with start(program) as init:
        assert init.stdout is not None
        orphan = int(init.stdout.readline())
        assert init.stdout.readline() == "own 7\n"
        until(lambda: not Path(f"/proc/{orphan}").exists(), "the orphan's reaping")
        assert len(children(init.pid)) == 1
        init.communicate("", PATIENCE)
    assert init.returncode == 0


@pytest.mark.parametrize(("end", "code"), [("sys.exit(0)", 0), ("sys.exit(75)", 75), ("os.kill(os.getpid(), 9)", 137)])
def test_the_exit_code_is_the_workers(end: str, code: int) -> None:
    with start(f"import os\n{end}") as init:
        assert init.wait(PATIENCE) == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_are_forwarded(number: signal.Signals) -> None:
    program = f"""import signal
signal.signal({int(number)}, lambda *_: sys.exit(3))
print("ready", flush=True)
while True:
    signal.pause()
"""
    with start(program) as init:
        assert init.stdout is not None
        assert init.stdout.readline() == "ready\n"
        init.send_signal(number)
        assert init.wait(PATIENCE) == 3


@pytest.mark.parametrize(("pid", "forks"), [(1, True), (7, False)])
def test_only_pid_1_forks(pid: int, forks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    forked: list[bool] = []
    monkeypatch.setattr("os.getpid", lambda: pid)
    monkeypatch.setattr(init_process, "fork_under_init", lambda: forked.append(True))
    init_process.fork_if_pid_1()
    assert bool(forked) is forks


def test_a_worker_under_the_init_process_works_and_stops_in_order(app: Pgflow, dsn: str) -> None:
    Line.start("v", {})
    words = ["worker", "--app", "tests.worker.flows:app", "-q", "default=2", "--dsn", dsn]
    with start("from pgflow.cli import main; main()", *words) as init:
        assert until_status(Line, "v").status == "completed"
        init.send_signal(signal.SIGTERM)
        assert init.wait(PATIENCE) == 0


def test_a_worker_needs_no_home_and_no_writable_folder(app: Pgflow, dsn: str, tmp_path: Path) -> None:
    folder = tmp_path / "read-only"
    folder.mkdir(mode=0o500)
    bare = {"PATH": os.defpath, "PYTHONPATH": str(CHECKOUT), "TMPDIR": "/nowhere", "PGFLOW_DSN": dsn}
    Line.start("v", {})
    command = ["worker", "--app", "tests.worker.flows:app", "-q", "default=2", "--drain"]
    done = subprocess.run(
        [sys.executable, "-c", "from pgflow.cli import main; main()", *command],
        cwd=folder, env=bare, capture_output=True, text=True, timeout=PATIENCE * 2, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert Line.get("v").status == "completed"
