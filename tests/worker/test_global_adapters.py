"""Workers and calls work in programs that have changed how psycopg converts values."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Server
from tests.torture.wire.proxy import upstream_of
from tests.worker.adapted_program import CHANGES
from tests.worker.fake_pooler import StandIn
from tests.worker.waiting import PATIENCE

CHECKOUT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "changes", [(), ("list", "dict"), ("float8",), ("text", "name"), ("int8",), ("json",), (*CHANGES,)]
)
def test_a_worker_and_calls_work_whatever_the_process_has_registered(
    server: Server, new_database: Callable[..., str], changes: tuple[str, ...]
) -> None:
    dsn = new_database(server)
    check(dsn, dsn, changes)


def test_behind_a_pooler_they_work_as_well(server: Server, new_database: Callable[..., str]) -> None:
    dsn = new_database(server)
    with StandIn(str(upstream_of(dsn)), size=3) as pooler:
        check(dsn, pooler.through(dsn), (*CHANGES,))


def check(dsn: str, pooler_dsn: str, changes: tuple[str, ...]) -> None:
    """Run the program with these changes, and look at its instance."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.worker.adapted_program", dsn, pooler_dsn, *changes],
        capture_output=True,
        check=False,
        cwd=CHECKOUT,
        text=True,
        timeout=4 * PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "status": "completed",
        "error": None,
        "input": {"name": "Zoë"},
        "steps": {"book": {"name": "Zoë"}, "paid": {"by": "card"}, "abook": [1, 0.5, None]},
    }
