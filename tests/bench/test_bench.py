"""`pgflow bench` measures, prints the results, leaves nothing behind and touches only its own schema."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from pgflow.bench.scenarios import SCENARIOS
from pgflow.bench.scratch_schema import MARK, ScratchSchema
from pgflow.cli import cli
from pgflow.cli.error_reporting import report
from pgflow.database.connect import Connection, connect
from pgflow.database.statement import run
from pgflow.errors import Conflict, SchemaForeign
from pgflow.migrations.migrate import up
from pgflow.store import bench
from tests.worker.waiting import PATIENCE, until

COUNT = 30
COSTS = {"steps", "wal_bytes", "commits", "inserted", "updated", "deleted", "dead"}
SCHEMAS = "select count(*) from pg_namespace where nspname = 'pgflow_bench'"
OTHERS = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"


def pgflow(dsn: str, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["bench", "--dsn", dsn, *arguments], standalone_mode=False)


def measured(dsn: str, *arguments: str) -> dict[str, Any]:
    """The results of a run by scenario."""
    done = pgflow(dsn, "--repeat", "1", "--workers", "1", "--json", *arguments)
    assert done.exception is None, (done.stderr, done.exception)
    document = json.loads(done.stdout)
    assert document["machine"]["cores"] >= 1
    assert document["server"]["settings"]["server_version"]
    assert not document["server"]["throwaway"]
    return {each["scenario"]: each for each in document["results"]}


def figures(result: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """The medians of a scenario, by what was measured."""
    return {
        line["name"]: {key: each["median"] for key, each in line.items() if isinstance(each, dict)}
        for line in result["measured"]
    }


def one(dsn: str, query: str) -> Any:
    with connect(dsn, "test") as conn:
        row = conn.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


@pytest.mark.slow
def test_each_drain_and_start_is_measured_with_what_it_costs(dsn: str) -> None:
    names = ["start", "start-many", "single", "chain", "fan", "timer"]
    results = measured(dsn, *names, "--count", str(COUNT))

    assert list(results) == names
    steps = {name: result["cost_per_step"]["steps"]["median"] for name, result in results.items()}
    assert steps == {
        **dict.fromkeys(("start", "start-many", "single"), COUNT),
        **{"chain": 5 * COUNT, "fan": 12 * COUNT, "timer": 3 * COUNT},
    }
    for name, result in results.items():
        cost = {key: each["median"] for key, each in result["cost_per_step"].items() if each is not None}
        assert cost.keys() >= COSTS
        assert cost["wal_bytes"] > 100, name
        assert all(value["value"] > 0 for value in figures(result).values() if "value" in value), name
    # Known exactly: a start writes three rows (its key too), and each step of a chain one result.
    start, chain = results["start"]["cost_per_step"], results["chain"]["cost_per_step"]
    assert start["inserted"]["median"] == 3
    assert start["round_trips"] is None
    assert chain["inserted"]["median"] == pytest.approx(1, abs=2 / (5 * COUNT))  # plus the worker's own row
    assert chain["deleted"]["median"] == pytest.approx(1 / 5)
    assert 0 < chain["round_trips"]["median"] < 1
    assert 0 < chain["commits"]["median"] < 1


@pytest.mark.slow
def test_each_latency_is_measured_in_percentiles(dsn: str) -> None:
    names = ["latency-start", "latency-chain", "latency-signal"]
    results = measured(dsn, *names, "--count", "10")

    lines = {name: values for result in results.values() for name, values in figures(result).items()}
    assert len(lines) == 6
    for name, values in lines.items():
        assert 0 < values["p50"] <= values["p95"] <= values["p99"] <= values["max"] < 60_000, name
    assert lines["start → fifth step"]["p50"] > lines["step → step"]["p50"]


@pytest.mark.slow
def test_timers_are_late_but_never_early_and_an_idle_worker_is_measured(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgflow.bench.latency.PENDING", 50)
    results = measured(dsn, "latency-timer", "idle", "--seconds", "1")

    timer, idle = figures(results["latency-timer"]), figures(results["idle"])
    assert timer["timer, the earliest"]["value"] > -1.0  # the accuracy of the comparison of the clocks
    assert timer["timer, late with 50 pending"]["p50"] > 0
    assert 10 < idle["idle worker, memory"]["value"] < 1000
    assert 0 < idle["worker comes up"]["value"] < 60
    assert idle["idle worker, round trips"]["value"] > 0


@pytest.mark.slow
def test_people_get_a_head_and_two_tables_and_the_database_is_left_as_it_was(dsn: str) -> None:
    done = pgflow(dsn, "single", "--repeat", "2", "--count", "10", "--workers", "3")  # one of them does all the work

    assert done.exception is None, done.stderr
    head = [line.split()[0] for line in done.stderr.splitlines() if line]
    assert head[:5] == ["machine", "versions", "server", "settings", "plan"]
    assert head[5:] in ([], ["Other"])  # when the machine has other load
    result, cost, footnote = (part.splitlines() for part in done.stdout.strip().split("\n\n"))
    assert result[0].split() == ["SCENARIO", "MEASURED", "UNIT", "RESULT"]
    assert result[1].startswith("single")
    assert " to " in result[1]
    assert cost[0].startswith("PER STEP  WAL BYTES  COMMITS")
    assert len(cost) == 2
    assert all(column in " ".join(footnote) for column in ("WAL BYTES", "COMMITS", "IN PLACE", "DEAD", "ROUND TRIPS"))
    assert one(dsn, SCHEMAS) == 0
    assert one(dsn, OTHERS) == 0


def test_a_schema_that_is_not_its_own_is_refused_and_stays(dsn: str) -> None:
    with connect(dsn, "migrate") as conn:
        up(conn, "precious")
        conn.execute("create schema bare; comment on schema bare is 'user''s'")
    for schema in ("precious", "bare"):
        refused = pgflow(dsn, "single", "--schema", schema).exception
        assert isinstance(refused, SchemaForeign)
        assert report(refused) == 4
    assert one(dsn, "select count(*) from precious.migrations") > 5
    assert one(dsn, "select count(*) from pg_namespace where nspname = 'bare'") == 1


def test_the_schema_of_a_killed_benchmark_is_reused(dsn: str) -> None:
    with connect(dsn, "migrate") as conn:
        conn.execute(f"create schema pgflow_bench; comment on schema pgflow_bench is '{MARK}'".encode())
        conn.execute("create table pgflow_bench.left_behind ()")
    with ScratchSchema(dsn, "pgflow_bench") as trial:
        trial.recreate()
        assert one(dsn, "select count(*) from pg_tables where tablename = 'left_behind'") == 0
        assert one(dsn, "select count(*) from pgflow_bench.jobs") == 0
    assert one(dsn, SCHEMAS) == 0


def test_two_benchmarks_do_not_share_a_schema(dsn: str) -> None:
    with connect(dsn, "test") as conn:
        assert run(conn, bench.lock_schema("pgflow_bench"))
        refused = pgflow(dsn, "single").exception
    assert isinstance(refused, Conflict)
    assert "another benchmark" in str(refused)


def test_a_schema_that_another_session_created_since_is_not_dropped(dsn: str) -> None:
    with pytest.raises(SchemaForeign), ScratchSchema(dsn, "pgflow_bench"), connect(dsn, "test") as conn:
        conn.execute("create schema pgflow_bench")
    assert one(dsn, SCHEMAS) == 1
    with connect(dsn, "test") as conn:
        conn.execute("drop schema pgflow_bench")


def registered(conn: Connection) -> list[int]:
    """The processes of the benchmark's workers."""
    try:
        return [pid for (pid,) in conn.execute("select pid from pgflow_bench.workers").fetchall()]
    except psycopg.errors.UndefinedTable:  # the tables do not exist yet
        return []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_benchmark_that_is_stopped_leaves_nothing_behind(number: signal.Signals, dsn: str) -> None:
    line = [sys.executable, "-c", "from pgflow.cli import main; main()", "bench", "latency-start", "--dsn", dsn]
    with (
        subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running,
        ExitStack() as ends,
        connect(dsn, "test") as conn,
    ):
        ends.callback(running.kill)
        workers = until(lambda: registered(conn), "a worker")
        running.send_signal(number)
        said, told = running.communicate(timeout=PATIENCE)
    assert (running.returncode, said) == (130, ""), told
    assert one(dsn, SCHEMAS) == 0
    assert [pid for pid in workers if Path(f"/proc/{pid}").exists()] == []


def test_count_and_seconds_are_mutually_exclusive(dsn: str) -> None:
    refused = pgflow(dsn, "--count", "1", "--seconds", "1").exception
    assert refused is not None
    assert report(refused) == 2  # type: ignore[arg-type]  # an exception, not an exit


def test_its_help_names_each_scenario() -> None:
    said = CliRunner().invoke(cli, ["bench", "--help"]).stdout
    assert all(f"  {name} " in said for name in SCENARIOS)
