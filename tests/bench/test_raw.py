"""The raw limit: pgbench does the same row operations, and leaves the same rows."""

from __future__ import annotations

import pytest

from pgflow.bench.environment import BenchEnvironment, Plan
from pgflow.cli.operations.progress_bar import ProgressBar
from pgflow.database.connect import connect
from tests.bench.raw import pgbench, script, workers

LEFT = """
    select i.status, count(*), sum((select count(*) from pgflow.step_results r where r.run = i.run))
    from pgflow.instances i group by i.status
"""
ROWS = ("inserted", "updated", "deleted")


@pytest.mark.slow
def test_pgbench_and_workers_write_the_same_rows(environment: BenchEnvironment) -> None:
    costs, left = [], []
    for who in ("pgbench", "pgflow"):
        with environment.new_run(ProgressBar()) as bench_run:
            raw = pgbench(bench_run, 2, 20, 200) if who == "pgbench" else workers(bench_run, Plan(workers=1), 200)
            with connect(bench_run.app.dsn, "test") as conn:
                left.append(conn.execute(LEFT).fetchall())
        assert raw.rate > 0
        costs.append(raw.cost)
    assert left[0] == left[1] == [("completed", 200, 1000)]
    for name in ROWS:
        theirs, ours = (getattr(cost, name) for cost in costs)
        assert ours == pytest.approx(theirs, abs=0.005), name  # a worker's own row, and its leases


def test_the_script_has_a_statement_for_the_claim_and_one_for_each_step() -> None:
    text = script(100)
    assert text.count("insert into pgflow.step_results") == 5
    assert text.count("limit 100 for no key update") == 1
    assert [f"'step{number}', 'done'" in text for number in range(1, 6)] == [True] * 5
