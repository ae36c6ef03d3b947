"""The soak runs, reports its measurements and compares them with the budgets. So short a run proves nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.torture.soak import BUDGETS, Figures, broken, format_figures, growth

ROOT = Path(__file__).parents[2]
HEALTHY = Figures(worker_growth=0.2, backends_growth=-1.0, trips=1.5, statements=4.0, cpu=0.3)


@pytest.mark.slow
def test_a_short_soak_reports_load_and_idleness() -> None:
    options = ["--minutes", "0.1", "--idle", "2", "--every", "1", "--rate", "20"]
    line = [sys.executable, "-m", "tests.torture.soak", *options]
    done = subprocess.run(line, capture_output=True, check=False, cwd=ROOT, text=True, timeout=100)
    assert done.returncode in (0, 1), done.stderr
    assert done.stderr == ""
    samples, _, figures = done.stdout.partition("\n\n")
    heads, *rows = [line.split() for line in samples.splitlines()]
    assert heads == ["SECONDS", "WORKER,", "MB", "BACKENDS,", "MB", "STEPS", "DONE", "QUEUE"]
    assert len(rows) == 7  # one a second, and one when all has ended
    _, worker, backends, steps, waiting = map(float, rows[-1])
    assert 10 < worker < 500
    assert 1 < backends < 200
    assert steps > 100
    assert waiting == 0
    seen = {title: line for title, _, _ in BUDGETS.values() for line in figures.splitlines() if line.startswith(title)}
    assert len(seen) == len(BUDGETS)
    asked = [float(seen[title].removeprefix(title).split()[0]) for title in list(seen)[2:4]]
    assert 0 < asked[0] <= asked[1] < 100


def test_growth_is_from_the_tenth_after_the_warm_up_to_the_last_tenth() -> None:
    assert growth([1, 1, 100, 100, *[0] * 14, 110, 110]) == pytest.approx(10)
    assert growth([100]) == 0
    assert growth([0, 0]) == 0


def test_a_broken_budget_is_reported() -> None:
    assert broken(HEALTHY) == []
    assert "BROKEN" not in format_figures(HEALTHY)
    bad = Figures(worker_growth=5.0, backends_growth=5.1, trips=3.2, statements=99.0, cpu=1.01)
    assert broken(bad) == ["worker_growth", "backends_growth", "trips", "cpu"]
    assert format_figures(bad).count("BROKEN") == 4
