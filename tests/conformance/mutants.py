"""Reintroduce each defect of group R, one at a time, and see its tests fail: `python -m tests.conformance.mutants R3`.

Each mutant is a change of one file in a copy of the tree; the item's tests run there, on the newest PostgreSQL. A
mutant that no test detects survives, and the exit code is 1. Without arguments all are tried, which takes minutes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.conformance.defects import MUTANTS, Mutant
from tests.conftest import VERSIONS

ROOT = Path(__file__).parents[2]
TESTS = "tests/conformance/test_r_repairs.py"
PYTEST = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:randomly", "-p", "no:cacheprovider"]
LIMIT = 300  # seconds for one item's tests


@dataclass(frozen=True, slots=True)
class Report:
    """The result of an item's tests: whether they passed, and pytest's message for the first failure."""

    passed: bool
    message: str


def copy(folder: Path) -> Path:
    """Copy the files that the tests need into a folder."""
    for name in ("pgflow", "sql", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder)
    return folder


def judge(tree: Path, tests: str) -> Report:
    """Run the tests with this prefix in a tree."""
    older = "".join(f" and not postgresql-{version}" for version in VERSIONS[1:])
    done = subprocess.run(
        [*PYTEST, TESTS, "-k", f"{tests}{older}"],
        capture_output=True,
        check=False,
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "300"},
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=LIMIT,
    )
    failed = [line.partition("::")[2] for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return Report(done.returncode == 0, failed[0] if failed else done.stdout.strip().splitlines()[-1])


def try_out(mutant: Mutant) -> Report:
    """Run the tests of a mutant's item with the defect in place."""
    with tempfile.TemporaryDirectory(prefix="pgflow-mutant-") as folder:
        tree = copy(Path(folder))
        path = tree / mutant.path
        path.write_text(mutant.apply(path.read_text()))
        return judge(tree, mutant.test)


def main(items: list[str]) -> int:
    """Try the mutants of these items, by default all, and print the result of each."""
    unknown = set(items) - {mutant.item for mutant in MUTANTS}
    if unknown:
        print(f"no mutants: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    chosen = [mutant for mutant in MUTANTS if not items or mutant.item in items]
    survivors = 0
    for item in dict.fromkeys(mutant.item for mutant in chosen):
        sound = judge(ROOT, f"test_{item.lower()}_")
        survivors += not sound.passed
        print(f"{item:4} {'unchanged':72} {'passes' if sound.passed else 'FAILS: ' + sound.message}", flush=True)
        for mutant in (each for each in chosen if each.item == item):
            report = try_out(mutant)
            survivors += report.passed
            print(f"{item:4} {mutant.defect:72} {'SURVIVES' if report.passed else 'found'}", flush=True)
            if not report.passed:
                print(f"     {report.message[:170]}", flush=True)
    print(f"{len(chosen)} mutants, {survivors} of them not found" if survivors else f"{len(chosen)} mutants, all found")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
