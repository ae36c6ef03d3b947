"""Trace files, the meter, the server's CPU, percentiles and the progress bar show the truth."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from pgflow.bench import machine, trace
from pgflow.bench.environment import BenchEnvironment
from pgflow.bench.result import Line, Measurement, Range, percentiles, summarize
from pgflow.bench.trace import EVENT, TraceReader, TraceWriter
from pgflow.cli.operations.bench_report import number
from pgflow.cli.operations.progress_bar import ProgressBar
from pgflow.database.connect import connect
from pgflow.database.statement import run
from pgflow.store import bench
from tests.worker.waiting import until

COUNT_IN_A_PROCESS = "import trace, sys; [trace.count() for _ in range(int(sys.argv[1]))]"


def side_by_side(number_of: int, act: Callable[[], object]) -> None:
    """Run a function in several threads that start at once."""
    gate = threading.Barrier(number_of)
    threads = [threading.Thread(target=lambda: (gate.wait(), act())) for _ in range(number_of)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_traces_of_several_processes_and_threads_are_added_up(tmp_path: Path) -> None:
    beside = str(Path(trace.__file__).parent)
    for times in ("3", "4"):
        environment = {trace.FOLDER: str(tmp_path), "PYTHONPATH": beside, "PYTHONDONTWRITEBYTECODE": "1"}
        subprocess.run([sys.executable, "-S", "-c", COUNT_IN_A_PROCESS, times], check=True, env=environment)
    ours = TraceWriter(str(tmp_path))

    def count() -> None:
        for _ in range(500):
            ours.count()

    side_by_side(4, count)

    counted = TraceReader(tmp_path).read()
    assert counted.steps == 3 + 4 + 4 * 500
    assert 0 < counted.first < counted.last


def test_threads_that_count_the_first_step_at_once_open_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(trace.FOLDER, str(tmp_path))
    monkeypatch.setattr(trace, "OURS", [])
    side_by_side(8, trace.count)
    assert TraceReader(tmp_path).read().steps == 8
    assert len(trace.OURS) == 1


def test_events_are_read_in_order_and_a_partial_one_is_skipped(tmp_path: Path) -> None:
    ours, reader = TraceWriter(str(tmp_path)), TraceReader(tmp_path)
    assert reader.read() == (0, 0, 0)
    ours.record(7, 1)
    ours.record(8)
    (path,) = tmp_path.glob("*.events")
    with path.open("ab") as file:
        file.write(EVENT.pack(9, 0, 0)[:10])

    first, second = reader.events()
    assert (first.key, first.number, second.key, second.number) == (7, 1, 8, 0)
    assert first.at <= second.at
    assert reader.read().steps == 2


def test_the_meter_does_not_count_itself(environment: BenchEnvironment) -> None:
    with environment.new_run(ProgressBar()) as bench_run:
        bench_run.meter.begin()
        with connect(environment.dsn, "test") as conn:
            for number_of in range(20):
                conn.execute("insert into pgflow.jobs (run, step) values (%s, 'a')", [number_of])
            conn.execute("update pgflow.jobs set attempt = 1")
            conn.execute("delete from pgflow.jobs where run < 10")
        for _ in range(30):
            bench_run.query(bench.parked(environment.schema))
        cost = bench_run.meter.end(10)

    assert (cost.inserted, cost.updated, cost.deleted, cost.dead) == (2, 2, 1, 3)
    assert cost.in_place == 1  # no indexed column has changed, and pages have room
    assert cost.rows == 5
    assert 22 <= 10 * cost.commits < 40  # sessions and autovacuum commit, too; with those of the queries it would be 52
    assert cost.wal_bytes > 0
    assert (cost.round_trips, cost.worker_ms) == (None, None)


def test_an_empty_run_costs_nothing(environment: BenchEnvironment) -> None:
    def few_commits() -> bool:
        bench_run.meter.begin()
        cost = bench_run.meter.end(1, 0)
        assert cost.rows == 0
        assert cost.in_place is None
        return cost.commits <= 1

    with environment.new_run(ProgressBar()) as bench_run:
        until(few_commits, "a moment without autovacuum")


def test_the_cpu_of_a_server_on_this_machine_is_seen(dsn: str) -> None:
    with connect(dsn, "test") as conn:
        here = machine.local_server(conn.info, run(conn, bench.backend("pgflow")))
        if here is None:
            assert conn.info.host not in ("", *machine.LOOPBACK)
            return
        before = here.seconds()
        conn.execute("select count(*) from generate_series(1, 3000000)")
        assert here.seconds() - before > 0.05
        assert machine.local_server(conn.info, here.postmaster + 1_000_000) is None
    # Also after the session has ended; until the postmaster has reaped it, its CPU time is counted nowhere.
    until(lambda: here.seconds() >= before + 0.05, "the CPU time of the ended session")


def test_the_use_of_a_process_is_measured() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with closing(child.stdin or io.BytesIO()):
        assert machine.resident_bytes(child.pid) >= 0
    child.wait()
    assert machine.resident_bytes(child.pid) == 0
    assert machine.seconds_of(child.pid) == 0
    assert machine.describe()["python"] in sys.version


def test_other_load_is_distinguished_from_our_own() -> None:
    other_load = machine.OtherLoad()
    burn = "import time\nwhile time.process_time() < 0.5: pass\nprint('done', flush=True)\ninput()"
    other = subprocess.Popen([sys.executable, "-c", burn], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout is not None
    other.stdout.readline()
    theirs = other_load.share()
    other.communicate()  # an ended child counts as ours
    if not Path("/proc/stat").exists():
        assert theirs == 0
        return
    assert 0.1 < theirs <= 1
    assert other_load.share() < theirs


def test_percentiles_and_ranges() -> None:
    line = percentiles("x", [1_000_000 * value for value in range(101)])
    assert dict(line.values) == {"p50": 50, "p95": 95, "p99": 99, "max": 100}
    assert dict(percentiles("x", [5_000_000]).values) == dict.fromkeys(("p50", "p95", "p99", "max"), 5)
    summary = summarize("s", [Measurement([Line("n", "u", {"value": value})]) for value in (3.0, 1.0, 2.0)])
    assert summary.lines["n"] == ("u", {"value": Range(2.0, 1.0, 3.0)})
    assert summary.record()["measured"][0]["value"] == {"median": 2.0, "low": 1.0, "high": 3.0}
    assert summary.record()["cost_per_step"] == {}


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0123, "0.01"), (1.234, "1.23"), (12.34, "12.3"), (123.4, "123"), (1234.5, "1,230"), (123456.0, "123,000")],
)
def test_a_number_has_its_significant_digits(value: float, text: str) -> None:
    assert number(value) == text


class Terminal(io.StringIO):
    """A stream that reports to be a terminal."""

    def isatty(self) -> bool:
        return True


def test_the_bar_is_shown_on_a_terminal_only() -> None:
    for stream in (io.StringIO(), Terminal()):
        progress = ProgressBar(stream)
        progress.begin("chain, 1 of 3", 10)
        progress.advance(5)
        progress.end()
        if isinstance(stream, Terminal):
            assert "chain, 1 of 3  [###############---------------]  50%" in stream.getvalue()
            assert stream.getvalue().endswith("\r\x1b[K")
        else:
            assert stream.getvalue() == ""
