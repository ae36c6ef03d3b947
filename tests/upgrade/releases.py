"""Releases of pgflow that run side by side: this one, two possible next ones, and the previous one in the history.

Each has its own tree and processes: a worker, command or application of one release does not know the others.
"""

from __future__ import annotations

import compileall
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from tests.worker.processes import RUN
from tests.worker.waiting import PATIENCE

CHECKOUT = Path(__file__).parents[2]
HERE = Path(__file__).parent
MIGRATIONS = "sql/migrations"
Answers = dict[str, str]

# Columns that only new code uses, one of them in the hot path, and an index.
NOTE = """-- A note on each job, signal and instance.
alter table pgflow.jobs add column note text;
alter table pgflow.signals add column note text;
alter table pgflow.instances add column note text;
"""
NOTED = """-- An index over it.
-- pgflow: no transaction
drop index concurrently if exists pgflow.jobs_noted;
create index concurrently jobs_noted on pgflow.jobs (run) where note is not null;
"""
# Removes columns that old workers use in the hot path and old applications read.
RENAME = """-- Renames the revision to edition, and created_at to begun_at.
-- pgflow: breaking
drop view if exists pgflow.instance_overview;  -- the functions create it again, with the new names
alter table pgflow.instances rename column revision to edition;
alter table pgflow.instances rename column created_at to begun_at;
drop function if exists pgflow.cancel(text, text, text, boolean);
drop function if exists pgflow.expired_runs(interval, interval, interval, bigint, boolean, integer);
"""


@dataclass(frozen=True, slots=True)
class Release:
    """One release: its name, and the directory of its code."""

    name: str
    tree: Path

    @property
    def migrations(self) -> list[str]:
        """The names of its migrations, in order."""
        return sorted(path.stem for path in (self.tree / "sql" / "migrations").iterdir())

    def environment(self, dsn: str, steps: Path) -> dict[str, str]:
        """Return the environment of its processes."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PG", "DATABASE_URL"))}
        ours = {"PYTHONPATH": str(self.tree), "PGFLOW_DSN": dsn, "RELEASE": self.name, "STEPS": str(steps)}
        return {**kept, **ours, "PYTHONDONTWRITEBYTECODE": "1"}

    def edit(self, path: str, before: str, after: str) -> None:
        """Change a file; fails if `before` is not in it."""
        file = self.tree / path
        text, times = re.subn(before, after, file.read_text())
        assert times, f"{path} has no {before}"
        file.write_text(text)

    def add_migration(self, noun: str, text: str) -> None:
        """Add the next migration."""
        (self.tree / "sql" / "migrations" / f"{len(self.migrations) + 1:04}_{noun}.sql").write_text(text)


@dataclass(slots=True)
class Site:
    """A database that processes of several releases use; `steps` is the log of the steps that ran."""

    dsn: str
    folder: Path
    steps: Path = field(init=False)
    _started: list[subprocess.Popen[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.steps = self.folder / "steps.log"
        self.steps.touch()

    def runs(self) -> list[list[str]]:
        """Return value, step, attempt and release of each run of a step."""
        return [line.split() for line in self.steps.read_text().splitlines()]

    def pgflow(self, release: Release, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of a release to its end."""
        started = self.begin(release, *arguments)
        out, err = started.communicate(timeout=2 * PATIENCE)
        return subprocess.CompletedProcess(arguments, started.returncode, out, err)

    def begin(self, release: Release, *arguments: str) -> subprocess.Popen[str]:
        """Start a command of a release."""
        return self.popen(release, [sys.executable, "-c", RUN, *arguments])

    def calls(self, release: Release, value: str, *names: str) -> Answers:
        """Make these calls in an application of a release; returns the result of each."""
        return Caller(self, release, value, *names).answers()

    def caller(self, release: Release) -> Caller:
        """Start an application of a release that starts instances until it is stopped."""
        return Caller(self, release, f"{release.name}{len(self._started)}")

    def reap(self) -> None:
        """Kill the running processes."""
        for each in self._started:
            each.kill()
            each.communicate()

    def popen(self, release: Release, command: list[str]) -> subprocess.Popen[str]:
        """Start a program of a release."""
        popen = subprocess.Popen(
            command,
            cwd=release.tree,
            env=release.environment(self.dsn, self.steps),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._started.append(popen)
        return popen


class Caller:
    """An application of one release, which has made its first calls when the constructor returns."""

    def __init__(self, site: Site, release: Release, prefix: str, *names: str) -> None:
        self._stop = site.folder / f"{prefix}.stop"
        self._popen = site.popen(
            release, [sys.executable, "-m", "tests.upgrade.caller", prefix, str(self._stop), *names]
        )
        assert self._popen.stdout is not None
        self._stdout: IO[str] = self._popen.stdout
        assert self._stdout.readline() == "begun\n", self._popen.communicate()

    def stop(self, *but: tuple[str, str]) -> int:
        """Stop it; returns how many instances it has started. Fails if a call failed, except those in `but`.

        `but` are pairs of a call and the beginning of its error.
        """
        self._stop.touch()
        counts = self._counts()
        failed = {(name, answer) for name, answer, _ in counts if answer != "ok"}
        assert not [
            each for each in failed if not any(each[0] == name and each[1].startswith(how) for name, how in but)
        ]
        return sum(count for name, answer, count in counts if (name, answer) == ("start", "ok"))

    def answers(self) -> Answers:
        """Return the result of each call, after the last one."""
        return {name: answer for name, answer, _ in self._counts()}

    def _counts(self) -> list[tuple[str, str, int]]:
        output = self._stdout.read()
        _, err = self._popen.communicate(timeout=PATIENCE)
        assert self._popen.returncode == 0, err
        counts: list[tuple[str, str, int]] = json.loads(output)
        return counts


def present(folder: Path, name: str = "present") -> Release:
    """This release."""
    for each in ("pgflow", "sql"):
        shutil.copytree(CHECKOUT / each, folder / each)
    return _equipped(Release(name, folder))


def compatible(folder: Path) -> Release:
    """A next release whose migrations are compatible with older code, but required by its own."""
    release = present(folder, "compatible")
    release.add_migration("note", NOTE)
    release.add_migration("noted", NOTED)
    release.edit("sql/queries/job/claim.sql", r"set state = 'running',", "set state = 'running', note = 'taken',")
    release.edit("sql/queries/instance/get.sql", r"'attempt', j\.attempt,", "'attempt', j.attempt, 'note', j.note,")
    release.edit("sql/functions/channel.sql", r"^-- ", "-- Changed. ")
    return release


def breaking(folder: Path) -> Release:
    """A next release with a breaking migration."""
    release = present(folder, "breaking")
    release.add_migration("rename", RENAME)
    for file in sorted((release.tree / "sql").rglob("*.sql")):
        if file.parent.name == "migrations":
            continue
        text = file.read_text()
        if "schedule" not in f"{file.parent.name}/{file.name}":  # those have a revision of their own
            text = re.sub(r"(?<![(\w])revision\b", "edition", text)
        file.write_text(re.sub(r"\b(i|r|due|excluded)\.created_at\b", r"\1.begun_at", text))
    release.edit(
        "sql/functions/put.sql",
        r"metadata, error, created_at, finished_at, deadline\)",
        "metadata, error, begun_at, finished_at, deadline)",
    )
    release.edit("sql/functions/put.sql", r" created_at = excluded", " begun_at = excluded")
    arguments = "reason text default null, notify boolean default true"
    swapped = "notify boolean default true, reason text default null"
    release.edit(
        "sql/functions/cancel.sql",
        rf"cancel\(workflow text, value text, {arguments}",
        f"cancel(workflow text, value text, {swapped}",
    )
    release.edit("sql/functions/cancel.sql", r"cancel\(text, text, text, boolean", "cancel(text, text, boolean, text")
    release.edit("sql/queries/instance/cancel.sql", r", %\(reason\)s", ", reason => %(reason)s")
    return release


def earlier(folder: Path, commit: str) -> Release:
    """The release of a commit."""
    with tarfile.open(fileobj=io.BytesIO(_git("archive", commit, "pgflow", "sql"))) as tar:
        tar.extractall(folder, filter="data")
    return _equipped(Release("earlier", folder))


def previous_commit() -> str | None:
    """Return the last commit with an older schema; None without the history."""
    ours = [path.read_bytes() for path in sorted((CHECKOUT / MIGRATIONS).iterdir())]
    for commit in _git("log", "--first-parent", "--format=%H", "--", MIGRATIONS).decode().split():
        names = _git("ls-tree", "--name-only", f"{commit}^", f"{MIGRATIONS}/").decode().split()
        theirs = [_git("show", f"{commit}^:{name}") for name in names]
        if theirs and len(theirs) < len(ours) and theirs == ours[: len(theirs)]:
            return f"{commit}^"
    return None


def _equipped(release: Release) -> Release:
    place = release.tree / HERE.relative_to(CHECKOUT)
    place.mkdir(parents=True)
    for name in ("flow.py", "caller.py"):
        shutil.copy(HERE / name, place)
    compileall.compile_dir(release.tree / "pgflow", quiet=2)  # else each process would compile it again
    return release


def _git(*arguments: str) -> bytes:
    """Return the output of git, empty if git is missing or fails."""
    try:
        done = subprocess.run(["git", *arguments], cwd=CHECKOUT, capture_output=True, check=False)
    except OSError:
        return b""
    return done.stdout if done.returncode == 0 else b""
