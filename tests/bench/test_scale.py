"""Each test of scale runs at a small size and yields its figures."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from pgflow.bench.environment import BenchEnvironment
from pgflow.cli.operations.progress_bar import ProgressBar
from pgflow.database.connect import connect
from tests.bench import scale
from tests.bench.plot import Chart, Series
from tests.bench.scale import claims, command, horizon, waiting
from tests.bench.scale.hand import BATCH, opened
from tests.bench.scale.stock import fill, tidy

TINY: dict[str, tuple[command.Measure, tuple[int, ...]]] = {
    "ready": (claims.ready, (800, 1600)),
    "scheduled": (claims.scheduled, (0, 3000)),
    "horizon": (horizon.horizon, (2000,)),
    "planned": (horizon.planned, (2000,)),
    "queues": (claims.queues, (1, 3)),
    "claimers": (partial(claims.claimers, seconds=0.1, stock=30_000), (1, 3)),
    "waiting": (partial(waiting.waiting, seconds=0.5), (0, 50)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_each_cost_is_measured_at_each_size(
    name: str, environment: BenchEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "READY", 10_000)
    monkeypatch.setattr(waiting, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(waiting, "STARTS", 5)
    measure, sizes = TINY[name]
    said: list[str] = []
    with environment.new_run(ProgressBar()) as bench_run:
        charts = measure(bench_run, sizes, said.append)

    assert charts
    for chart in charts:
        for series in chart.series:
            xs = [x for x, _ in series.points]
            assert len(xs) == (horizon.POINTS if measure in (horizon.horizon, horizon.planned) else len(sizes))
            assert xs == sorted(xs)
            assert all(value >= 0 for _, value in series.points)
    assert len(said) >= len(sizes)
    assert all(f"| {x:,.0f} |" in command.table(charts[0]) for x, _ in charts[0].series[0].points)


def test_the_list_of_tests_is_complete() -> None:
    assert set(TINY) == set(command.TESTS)


@pytest.mark.parametrize("bulky", [10, 1_000_000])
def test_the_rows_are_those_that_the_engine_writes(
    bulky: int, environment: BenchEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.bench.scale.stock.BULKY", bulky)
    with environment.new_run(ProgressBar()) as bench_run, connect(bench_run.app.dsn, "migrate") as conn:
        before = conn.execute("select indexname from pg_indexes where schemaname = 'pgflow' order by 1").fetchall()
        for state in ("ready", "scheduled", "parked"):
            fill(conn, state, 200)
        fill(conn, "ready", 20, queues=4)
        tidy(conn)

        after = conn.execute("select indexname from pg_indexes where schemaname = 'pgflow' order by 1").fetchall()
        assert after == before
        counted = conn.execute("select state, count(*) from pgflow.jobs group by state order by state").fetchall()
        assert counted == [("parked", 200), ("ready", 220), ("scheduled", 200)]
        queues = conn.execute("select distinct queue from pgflow.jobs order by 1").fetchall()
        assert [name for (name,) in queues] == ["default", "q0", "q1", "q2", "q3"]
        with opened(bench_run.app.dsn) as hand:
            rows = hand.claim()
            assert len(rows) == BATCH
            hand.settle(rows)
            hand.claim()
            hand.put_back()
        done = conn.execute("select status, count(*) from pgflow.instances group by status").fetchall()
        assert ("completed", BATCH) in done
        left = conn.execute("select count(*) from pgflow.jobs where state = 'running'").fetchone()
        assert left == (0,)


def test_it_prints_tables_and_draws(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, environment: BenchEnvironment
) -> None:
    chart = Chart("claim", "tokens", "ms", [Series("of 100", [(10, 1.0), (100, 2.0)])])
    monkeypatch.setattr(command, "TESTS", {"ready": command.Scale("x", lambda *given: [chart], (10, 100), (10,))})
    monkeypatch.setattr(command, "BenchEnvironment", lambda dsn, schema: BenchEnvironment(environment.dsn, "drawn"))
    drawn = tmp_path / "growth.svg"
    done = CliRunner().invoke(command.command, ["ready", "--quick", "--svg", str(drawn)])

    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[2:4] == ["| 10 | 1.00 |", "| 100 | 2.00 |"]
    ElementTree.parse(drawn)  # noqa: S314 -- our own
    assert scale.__name__ == "tests.bench.scale"
