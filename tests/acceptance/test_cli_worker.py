"""`pgflow worker --json` prints its counters on exit."""

from __future__ import annotations

import json
import subprocess

import pytest

from pgflow import Pgflow
from tests.acceptance.command import CHECKOUT, PROGRAM, environment
from tests.acceptance.shop import OrderFlow

STATS = {"steps", "tasks", "retries", "round_trips", "claimed", "conflicts", "fenced", "rescued"}


@pytest.mark.slow
def test_it_prints_its_counters_on_exit(dsn: str) -> None:
    app = Pgflow(dsn, workflows=[OrderFlow])
    app.migrate()
    for number in range(3):
        app.start(OrderFlow, f"w-{number}", {"item_count": 1})
    app.close()
    options = ["worker", "--app", "tests.acceptance.shop:app", "--json", "--log-level", "warning"]
    done = subprocess.run(
        [*PROGRAM, *options, "--drain"],
        capture_output=True,
        check=False,
        cwd=CHECKOUT,
        env=environment(PGFLOW_DSN=dsn),
        text=True,
        timeout=60,
    )

    assert done.returncode == 0, done.stderr
    counters = json.loads(done.stdout)
    assert set(counters) == {"schema_version", "worker", "abandoned", *STATS}
    # Each order then waits for its payment.
    assert (counters["claimed"], counters["steps"], counters["abandoned"]) == (3, 3, 0)
    assert counters["round_trips"] > 1
