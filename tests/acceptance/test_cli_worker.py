"""What `pgflow worker --json` prints in the end is what it has done."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pgflow import Pgflow
from tests.acceptance.shop import OrderFlow

CHECKOUT = Path(__file__).parents[2]
RUN = "from pgflow.cli import main; main()"
STATS = {"steps", "retries", "round_trips", "claimed", "conflicts", "fenced", "rescued"}


@pytest.mark.slow
def test_it_tells_its_counters_when_it_stops(dsn: str) -> None:
    app = Pgflow(dsn, workflows=[OrderFlow])
    app.migrate()
    for number in range(3):
        app.start(OrderFlow, f"w-{number}", {"item_count": 1})
    app.close()
    options = ["worker", "--app", "tests.acceptance.shop:app", "--json", "--log-level", "warning"]
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PG", "DATABASE_URL"))}
    done = subprocess.run(
        [sys.executable, "-c", RUN, *options, "--drain"],
        capture_output=True,
        check=False,
        cwd=CHECKOUT,
        env={**kept, "PYTHONPATH": str(CHECKOUT), "PGFLOW_DSN": dsn},
        text=True,
        timeout=60,
    )

    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert set(told) == {"schema_version", "worker", "abandoned", *STATS}
    assert (told["claimed"], told["steps"], told["abandoned"]) == (3, 3, 0)  # then each waits for its payment
    assert told["round_trips"] > 1
