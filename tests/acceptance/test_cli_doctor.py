"""`pgflow doctor` reports each fault, provoked on a real server, and none of a healthy one."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import psycopg
import pytest
from click.testing import CliRunner
from psycopg.conninfo import make_conninfo

from pgflow.cli import cli
from pgflow.database.connect import connect
from pgflow.database.migration_files import migrations
from pgflow.doctor import checks, finding, maintenance, server, work
from pgflow.doctor.checks import CHECKS
from pgflow.doctor.finding import Check, Result, Target, ok
from pgflow.embedded import EmbeddedPostgres
from pgflow.errors import PgflowError
from pgflow.migrations.migrate import up
from tests.acceptance.fake_pooler import run_fake_pooler
from tests.acceptance.shop import app as shop
from tests.conftest import Server
from tests.worker.waiting import until

LIVE = """
    insert into pgflow.workers (node, pid, queues, version, lease_expires_at)
    values ('n', 1, '{default}', '0', now() + interval '1 hour')
"""
LOST = """
    insert into pgflow.workers (node, pid, queues, version, lease_expires_at)
    values ('n', 1, '{default}', '0', now() - interval '90 seconds');
    insert into pgflow.jobs (run, step, state, worker) select 1, 'a', 'running', max(id) from pgflow.workers;
    insert into pgflow.jobs (run, step, state, worker) select 2, 'a', 'running', max(id) from pgflow.workers
"""
READY = """
    insert into pgflow.jobs (run, step, queue, run_at)
    select g, 'a', {}, now() - interval '{}' from generate_series(1, {}) g
"""
ACTIVE = "insert into pgflow.instances (id, workflow, version, input) values ('k::1', 'W', 1, '{}')"
UNAPPLIED = """
    insert into pgflow.jobs (run, step, kind, queue) values (1, 'a', 'advance', 'default');
    insert into pgflow.step_results (run, step, event, attempt, started_at, finished_at, applied)
    values (1, 'a', 'ok', 1, now(), now() - interval '3 minutes', false)
"""
TIMER = "insert into pgflow.jobs (run, step, state, run_at) values (1, 'a', 'scheduled', now() - interval '{}')"
SCHEDULE = """
    insert into pgflow.schedules
        (name, target, kind, cron, value, overlap, catch_up, declared_by, handled_at, next_at,
            undeclared_at, last_error)
    values ('nightly', 'Report', 'task', '@daily', '-', 'skip', 'last', 'shop', now() - interval '1 day', {}, {}, {})
"""
SIGNAL = "insert into pgflow.scheduled_signals (run, step, name, due_at) values (1, 'a', 's', now() - interval '{}')"
ORPHANS = """
    insert into pgflow.jobs (run, step) values (7, 'a'), (7, 'b'), (9, 'a')
"""
PAUSED = "insert into pgflow.queues (name, paused_at) values ('default', now())"
GRAPH = """
    insert into pgflow.definitions (workflow, version, hash, graph)
    values ('W', 1, 'h', '{"orchestration_queue": "o"}')
"""


class Findings(dict[str, list[dict[str, Any]]]):
    """The findings, by check."""

    exit_code = 0

    def one(self, check: str, state: str) -> str:
        """Return the text and the fix of the one finding of a check that has this state."""
        (found,) = [each for each in self[check] if each["state"] == state]
        assert found["why"]
        return f"{found['what']} => {found['fix']}"

    @property
    def not_ok(self) -> set[tuple[str, str]]:
        """The checks with a finding that is not ok, with its state."""
        return {(name, each["state"]) for name, found in self.items() for each in found if each["state"] != "ok"}


@pytest.fixture(scope="module")
def postgres() -> Iterator[EmbeddedPostgres]:
    """A healthy server on which tests break databases; the database "model" has the schema."""
    with EmbeddedPostgres(settings={"max_prepared_transactions": "5", "wal_level": "logical"}) as postgres:
        with connect(postgres.create_database("model"), "migrate") as conn:
            up(conn)
        yield postgres


NUMBERS = count(1)
NEWEST = len(migrations())


@pytest.fixture
def dsn(postgres: EmbeddedPostgres) -> Iterator[str]:
    """A migrated database of the test's own."""
    name = f"examined_{next(NUMBERS)}"
    yield postgres.create_database(name, "model")
    postgres.drop_database(name)


@pytest.fixture
def conn(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(dsn, autocommit=True) as conn:
        yield conn


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("PGFLOW_DSN", "DATABASE_URL", "PGFLOW_SCHEMA", "PGFLOW_APP"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)  # no pyproject.toml that names an app


def look(dsn: str, *arguments: str) -> Findings:
    done = CliRunner().invoke(cli, ["doctor", "--json", "--dsn", dsn, *arguments])
    assert done.exit_code in (0, 1), done.output
    report = json.loads(done.stdout)
    found = Findings()
    found.exit_code = done.exit_code
    for each in report["findings"]:
        found.setdefault(each["check"], []).append(each)
    assert (report["healthy"], report["problems"]) == (not found.exit_code, states(report).count("problem"))
    return found


def states(report: dict[str, Any]) -> list[str]:
    return [each["state"] for each in report["findings"]]


def test_every_finding_of_a_healthy_database_is_ok(dsn: str, conn: psycopg.Connection[Any]) -> None:
    conn.execute(LIVE)
    conn.execute(READY.format("'default'", "1 second", 3).encode())
    for _ in range(3):
        conn.execute(ACTIVE)
    found = look(dsn)
    assert (found.exit_code, found.not_ok) == (0, set())
    assert list(found) == [check.name for check in CHECKS if check.name != "definitions"]
    done = CliRunner().invoke(cli, ["doctor", "--dsn", dsn])
    assert done.stdout.splitlines()[0].split() == ["CHECK", "STATE", "FOUND"]
    assert done.stdout.endswith("\n0 problems, 0 notes.\n")


def test_every_check_runs_on_every_version(any_server: Server, new_database: Callable[..., str]) -> None:
    given = new_database(any_server)
    with connect(given, "migrate") as conn:
        up(conn)
        conn.execute(LIVE)
    assert {check for check, _ in look(given).not_ok} <= {"settings"}  # a server for tests may do without fsync


@pytest.mark.parametrize(
    ("made", "check", "state", "words"),
    [
        ([READY.format("'default'", "1 s", 1)], "workers", "problem", "no worker is alive, and work is ready"),
        ([], "workers", "note", "no worker is alive; no work is ready => pgflow worker"),
        ([LOST], "workers", "problem", "1 worker held 2 running jobs when its lease expired 90 s ago, and no worker"),
        ([LIVE, LOST], "workers", "problem", "expired 90 s ago, and no worker has rescued them"),
        ([LIVE, LOST.replace("90 s", "9 s")], "workers", "note", "expired 9 s ago; a live worker will rescue them"),
        ([LIVE, READY.format("'a''s'", "3 hours", 2)], "queues", "problem", """queue "a's": 2 jobs ready or due"""),
        (
            [LIVE, READY.format("'b'", "3 hours", 2)],
            "queues",
            "problem",
            "oldest for 3 h, and no live worker serves it",
        ),
        ([LIVE, READY.format("'b c'", "1 s", 1)], "queues", "problem", "pgflow worker --app module:name --queue 'b c="),
        ([LIVE, READY.format("'mail'", "3 hours", 1200)], "queues", "problem", "1000+ jobs"),
        ([LIVE, GRAPH, READY.format("'o'", "1 s", 1)], "queues", "problem", "signals, timers and joins: 1 job"),
        ([LIVE, TIMER.format("1 s"), "update pgflow.jobs set queue = 'z'"], "queues", "problem", 'queue "z": 1 job'),
        ([LIVE, PAUSED, READY.format("'default'", "1 s", 1)], "queues", "note", "=> pgflow queue resume default"),
        ([LIVE, PAUSED, READY.format("'default'", "1 s", 1)], "queues", "note", "and the queue is paused for"),
        ([LIVE, READY.format("'k'", "1 s", 3), "update pgflow.jobs set key = 'a'"], "queues", "problem", '"k": 3 jobs'),
        ([LIVE, READY.format("'default'", "3 hours", 1)], "queues", "note", "the oldest for 3 h"),
        ([LIVE, ACTIVE], "missing-jobs", "note", "1 active instance without a job, the first is run 1"),
        ([ACTIVE], "missing-jobs", "problem", "without a job"),
        (
            [LIVE, ORPHANS],
            "orphans",
            "problem",
            "pgflow.jobs has rows of 2 runs that are not in pgflow.instances",
        ),
        ([LIVE, ACTIVE, UNAPPLIED], "unapplied", "problem", "1 result not applied for 3 min, the first in run 1"),
        ([LIVE, TIMER.format("3 hours")], "overdue", "problem", "1 timer or retry is overdue, the oldest for 3 h"),
        ([TIMER.format("3 hours")], "overdue", "problem", "no worker is alive => pgflow worker"),
        (
            [LIVE, SCHEDULE.format("now() - interval '2 h'", "null", "null")],
            "schedules",
            "problem",
            'schedule "nightly" is overdue: no live worker knows Report and declares it (shop) => pgflow worker',
        ),
        (
            [LIVE, SCHEDULE.format("now() + interval '2 h'", "now()", "null")],
            "schedules",
            "note",
            'schedule "nightly" is no longer declared by the app shop => pgflow schedule remove nightly',
        ),
        (
            [LIVE, SCHEDULE.format("now() + interval '2 h'", "null", """'{"reason": "no input"}'""")],
            "schedules",
            "problem",
            'schedule "nightly": the last start was refused: no input => correct it',
        ),
        ([LIVE, SIGNAL.format("3 hours")], "signals", "problem", "1 scheduled signal is overdue, the oldest for 3 h"),
    ],
)
def test_a_fault_of_the_work_is_reported(
    made: list[str], check: str, state: str, words: str, dsn: str, conn: psycopg.Connection[Any]
) -> None:
    for each in made:
        conn.execute(each.encode())
    found = look(dsn)
    assert words in found.one(check, state)
    assert found.exit_code == (1 if state == "problem" else found.exit_code)


@pytest.mark.parametrize("table", ["jobs", "step_results", "signals", "scheduled_signals"])
def test_rows_left_by_a_raw_delete_are_reported_and_their_fix_removes_them(
    table: str, dsn: str, conn: psycopg.Connection[Any]
) -> None:
    rows = {
        "jobs": "(run, step) select run, 'a' from pgflow.instances",
        "step_results": "(run, step, event, attempt, started_at) select run, 'a', 'ok', 1, now() from pgflow.instances",
        "signals": "(run, name) select run, 's' from pgflow.instances",
        "scheduled_signals": "(run, step, name, due_at) select run, 'a', 's', now() + '1 h' from pgflow.instances",
    }
    conn.execute(LIVE)
    conn.execute(ACTIVE)
    conn.execute("insert into pgflow.jobs (run, step) select run, 'a' from pgflow.instances")  # its own job
    conn.execute(ACTIVE)
    conn.execute(f"insert into pgflow.{table} {rows[table]}".encode())
    assert look(dsn)["orphans"][0]["state"] == "ok"
    conn.execute("delete from pgflow.instances where run = 2")
    found = look(dsn)
    assert found.one("orphans", "problem").startswith(
        f"pgflow.{table} has rows of 1 run that is not in pgflow.instances, the first is run 2 => pgflow prune --orph"
    )
    done = CliRunner().invoke(cli, ["prune", "--orphans", "--dsn", dsn])
    assert (done.exit_code, done.stdout) == (0, "deleted 1\n")
    assert look(dsn).not_ok == set()
    query = f"select distinct run from pgflow.{table}"  # noqa: S608 -- the names stand above
    left = conn.execute(query.encode()).fetchall()
    assert left == [(1,)], "what has an instance stays"


def test_work_overdue_by_less_than_a_minute_or_in_a_paused_queue_is_ok(dsn: str, conn: psycopg.Connection[Any]) -> None:
    for each in (LIVE, PAUSED, ACTIVE, UNAPPLIED, TIMER.format("30 s"), SIGNAL.format("30 s")):
        conn.execute(each.encode())
    assert look(dsn).not_ok == {("queues", "note")}
    conn.execute("delete from pgflow.queues; update pgflow.step_results set finished_at = now() - interval '30 s'")
    assert look(dsn).not_ok == set()


@pytest.mark.parametrize(
    ("name", "value", "check", "state", "words"),
    [
        ("synchronous_commit", "off", "settings", "problem", "synchronous_commit is off => alter system"),
        ("track_counts", "off", "settings", "problem", "track_counts is off => alter system set track_counts = on"),
        ("default_transaction_isolation", "serializable", "settings", "note", "isolation is serializable"),
        ("default_transaction_read_only", "on", "server", "problem", "default_transaction_read_only is on"),
        ("log_statement", "all", "logs", "note", "parameters: log_parameter_max_length is -1 => alter system"),
        ("log_min_duration_statement", "1s", "logs", "note", "log_parameter_max_length = 0; select pg_reload_conf()"),
        ("log_parameter_max_length_on_error", "100", "logs", "note", "log_parameter_max_length_on_error is 100B =>"),
    ],
)  # fmt: skip
def test_a_setting_of_the_database_is_reported(
    name: str, value: str, check: str, state: str, words: str, dsn: str, conn: psycopg.Connection[Any]
) -> None:
    conn.execute(LIVE)
    conn.execute(f"alter database {conn.info.dbname} set {name} = '{value}'".encode())
    found = look(dsn)
    assert words in found.one(check, state)
    assert (check, state) in found.not_ok


def test_statements_may_be_logged_without_their_parameters(dsn: str, conn: psycopg.Connection[Any]) -> None:
    conn.execute(LIVE)
    for name, value in (("log_statement", "all"), ("log_parameter_max_length", "0")):
        conn.execute(f"alter database {conn.info.dbname} set {name} = '{value}'".encode())
    assert [each["what"] for each in look(dsn)["logs"]] == ["the server logs no statement parameters"]


def test_settings_of_the_server_are_reported(dsn: str, conn: psycopg.Connection[Any]) -> None:
    names = ("fsync", "full_page_writes", "autovacuum")

    def turn(value: str) -> None:
        for name in names:
            conn.execute(f"alter system set {name} = {value}".encode())
        conn.execute("select pg_reload_conf()")
        for name in names:
            until(lambda name=name: conn.execute(f"show {name}".encode()).fetchone() == (value,))  # type: ignore[misc]

    turn("off")
    try:
        found = look(dsn)
    finally:
        turn("on")
    assert [each["what"] for each in found["settings"]] == [f"{name} is off" for name in names]


def test_too_few_connections_are_reported(dsn: str, conn: psycopg.Connection[Any]) -> None:
    for _ in range(8):
        conn.execute(LIVE)
    found = look(dsn).one("connections", "note")
    assert "8 workers may need up to 104 for transactional steps, 10 at once on each, or as many" in found
    conn.execute("delete from pgflow.workers")
    with ExitStack() as stack:
        for _ in range(85):
            stack.enter_context(psycopg.connect(dsn))
        assert "one worker may need up to 13 for transactional steps, 10 at once" in look(dsn).one(
            "connections", "note"
        )
        for _ in range(8):
            stack.enter_context(psycopg.connect(dsn))
        assert "of 97 connections are in use, and a worker needs 3" in look(dsn).one("connections", "problem")


def test_a_standby_is_reported_and_the_other_checks_run() -> None:
    with EmbeddedPostgres() as own:
        with connect(own.dsn, "migrate") as conn:
            up(conn)
            conn.execute(LIVE)
            row = conn.execute("show data_directory").fetchone()
        assert row is not None
        own.crash()
        Path(row[0], "standby.signal").touch()
        own.start()
        found = look(own.dsn)
    assert "this is a standby" in found.one("server", "problem")
    assert found.not_ok == {("server", "problem"), ("pooler", "note")}


def test_a_server_newer_than_the_tested_versions_is_reported(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "NEWEST_TESTED", 14)
    assert "is newer than 14" in look(dsn).one("server", "note")


@pytest.mark.parametrize("kinds", [{"delivers": True}, {"delivers": False}, {"takes_options": False}])
def test_an_undeclared_pooler_is_reported(kinds: dict[str, bool], postgres: EmbeddedPostgres, dsn: str) -> None:
    with run_fake_pooler(socket_of(postgres), **kinds) as port:
        text = look(through(dsn, port)).one("pooler", "problem")
    assert text.startswith("there is an undeclared pooler")
    assert "=> PGFLOW_POOLER=1, --pooler or Pgflow(…, pooler=True)" in text


def test_with_a_declared_pooler_the_check_reports_whether_notifications_arrive(
    postgres: EmbeddedPostgres, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with run_fake_pooler(socket_of(postgres), takes_options=False) as port:
        text = look(through(dsn, port), "--pooler").one("pooler", "ok")
        assert "a declared pooler; notifications do not arrive: workers find work by polling" in text
    monkeypatch.setenv("PGFLOW_POOLER", "1")
    with run_fake_pooler(socket_of(postgres), delivers=True) as port:
        assert "notifications arrive, so workers may --listen" in look(through(dsn, port)).one("pooler", "ok")


def test_a_declared_pooler_that_does_not_exist_is_ok(dsn: str) -> None:
    assert "a direct connection; notifications arrive" in look(dsn, "--pooler").one("pooler", "ok")


def socket_of(postgres: EmbeddedPostgres) -> str:
    found = re.search(r"host=([^&]+)", postgres.dsn)
    assert found
    return f"{unquote(found[1])}/.s.PGSQL.5432"


def through(dsn: str, port: int) -> str:
    return make_conninfo(dsn, host="127.0.0.1", port=port, sslmode="disable", gssencmode="disable")


def test_a_clock_that_is_wrong_is_reported(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    late = SimpleNamespace(time=lambda: time.time() - 3600, monotonic_ns=time.monotonic_ns)
    monkeypatch.setattr(server, "time", late)
    assert re.search(r"this machine's clock is 3\d{3} s behind the database's", look(dsn).one("clock", "note"))


def test_an_old_transaction_is_reported_with_its_process(
    dsn: str, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "LONG", timedelta(0))
    with psycopg.connect(dsn, application_name="report") as other:
        other.execute("select txid_current()")
        text = look(dsn).one("transactions", "note")
        assert f"process {other.info.backend_pid} (report) has been in a transaction" in text
        assert "idle in transaction" in text
        assert f"=> select pg_terminate_backend({other.info.backend_pid}); and set idle_in" in text
        monkeypatch.setattr(maintenance, "TOO_LONG", timedelta(0))
        assert look(dsn).exit_code == 1
        other.rollback()


def test_a_transaction_in_another_database_is_ignored(
    postgres: EmbeddedPostgres, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "LONG", timedelta(0))
    with psycopg.connect(postgres.dsn) as other:
        other.execute("select txid_current()")
        assert [each["state"] for each in look(dsn)["transactions"]] == ["ok"]
        other.rollback()


def test_a_prepared_transaction_is_reported(
    dsn: str, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "LONG", timedelta(0))
    conn.execute("begin")
    conn.execute("select txid_current()")
    conn.execute("prepare transaction 'it''s'")
    try:
        assert "=> commit prepared 'it''s', or rollback prepared 'it''s'" in look(dsn).one("prepared", "problem")
    finally:
        conn.execute("rollback prepared 'it''s'")


def test_a_replication_slot_without_a_consumer_is_reported(
    dsn: str, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    conn.execute("select pg_create_logical_replication_slot('slot_1', 'pgoutput')")
    try:
        assert 'replication slot "slot_1" keeps rows' in look(dsn).one("slots", "note")
        monkeypatch.setattr(maintenance, "OLD_SLOT", 0)
        assert "pg_drop_replication_slot('slot_1')" in look(dsn).one("slots", "problem")
    finally:
        conn.execute("select pg_drop_replication_slot('slot_1')")


def test_dead_rows_are_reported(dsn: str, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "MANY_DEAD", 50)
    with psycopg.connect(dsn, autocommit=True) as other:  # reports its statistics when it ends
        other.execute(READY.format("'default'", "1 s", 100).encode())
        other.execute("delete from pgflow.jobs")
    until(lambda: ("dead-rows", "problem") in look(dsn).not_ok)
    assert "100 dead rows beside 0 live ones, never vacuumed" in look(dsn).one("dead-rows", "problem")
    conn.execute("vacuum pgflow.jobs")
    until(lambda: ("dead-rows", "problem") not in look(dsn).not_ok)


def test_rows_that_are_not_frozen_in_time_are_reported(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "LATE_FREEZE", 0)
    assert "autovacuum should have frozen it at 200,000,000" in look(dsn).one("wraparound", "note")
    monkeypatch.setattr(maintenance, "LAST_FREEZE", 1)
    assert "vacuum freeze" in look(dsn)["wraparound"][0]["fix"]
    assert look(dsn).exit_code == 1


def test_an_index_whose_build_failed_is_reported(dsn: str, conn: psycopg.Connection[Any]) -> None:
    for _ in range(2):
        conn.execute(LIVE)
    with pytest.raises(psycopg.errors.UniqueViolation):
        conn.execute("create unique index concurrently one_node on pgflow.workers (node)")
    text = look(dsn).one("indexes", "problem")
    assert text.endswith('on workers is invalid => reindex index concurrently "pgflow"."one_node"')
    conn.execute("delete from pgflow.workers where id = 1")
    conn.execute(text.partition(" => ")[2].encode())
    assert look(dsn).not_ok == set()


def test_a_sequence_behind_its_table_is_reported_with_the_statement_that_repairs_it(
    dsn: str, conn: psycopg.Connection[Any]
) -> None:
    conn.execute(ACTIVE)
    conn.execute(
        "insert into pgflow.jobs (id, run, step, state, run_at) overriding system value"
        " values (123, 1, 'a', 'parked', null)"
    )
    conn.execute("select setval('pgflow.jobs_id_seq', 7)")
    found = look(dsn)
    assert found.exit_code == 1
    text = found.one("sequences", "problem")
    assert text == (
        "sequence pgflow.jobs_id_seq is behind pgflow.jobs: max id 123, last value 7"
        " => select setval('pgflow.jobs_id_seq', 123)"
    )
    conn.execute(text.partition(" => ")[2].encode())
    assert ("sequences", "problem") not in look(dsn).not_ok


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (
            "delete from pgflow.migrations where version = (select max(version) from pgflow.migrations)",
            f'schema "pgflow" is at {NEWEST - 1:04}, this pgflow needs {NEWEST:04}',
        ),
        ("update pgflow.migrations set checksum = 'x' where version = 0", "the functions in schema"),
    ],
)
def test_an_outdated_schema_is_reported_and_the_other_checks_run(
    made: str, words: str, dsn: str, conn: psycopg.Connection[Any]
) -> None:
    conn.execute(LIVE)
    conn.execute(made.encode())
    found = look(dsn)
    assert words in found.one("schema", "problem")
    assert found.one("schema", "problem").endswith("=> pgflow migrate")
    assert found.not_ok == {("schema", "problem")}


def test_a_missing_table_does_not_abort_the_run(dsn: str, conn: psycopg.Connection[Any]) -> None:
    conn.execute("drop table pgflow.scheduled_signals")
    assert look(dsn).one("signals", "note") == "the table to check is missing => pgflow migrate"


def test_a_missing_schema_and_a_missing_server_have_their_own_exit_codes(postgres: EmbeddedPostgres) -> None:
    missing = CliRunner().invoke(cli, ["doctor", "--dsn", postgres.dsn])
    assert (missing.exit_code, missing.stdout) == (4, "")
    assert missing.stderr == 'pgflow: pgflow is not installed in schema "pgflow". Run: pgflow migrate\n'
    nowhere = CliRunner().invoke(cli, ["doctor", "--dsn", postgres.database_dsn("nowhere")])
    assert (nowhere.exit_code, nowhere.stdout) == (3, "")


def test_a_check_that_the_role_may_not_run_is_a_note(dsn: str, conn: psycopg.Connection[Any]) -> None:
    conn.execute(LIVE)
    conn.execute("create role reader login")
    try:
        found = look(make_conninfo(dsn, user="reader"))
        assert found.exit_code == 0
        assert "reader may not read this: permission denied for schema pgflow" in found.one("queues", "note")
        assert "may not read the table of migrations" in found.one("schema", "note")
        conn.execute("grant usage on schema pgflow to reader; grant select on all tables in schema pgflow to reader")
        found = look(make_conninfo(dsn, user="reader"))
        assert found.not_ok == {("transactions", "note"), ("sequences", "note")}
        text = found.one("sequences", "note")
        assert text.startswith("this role may not read 6 sequences")
        conn.execute(text.partition(" => ")[2].encode())
        assert found.one("transactions", "note").endswith('=> grant pg_read_all_stats to "reader"')
        conn.execute("grant pg_read_all_stats to reader")
        assert look(make_conninfo(dsn, user="reader")).not_ok == set()
    finally:
        conn.execute("drop owned by reader; drop role reader")


def test_a_check_cannot_write(dsn: str, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def write(target: Target) -> Iterator[Result]:
        target.conn.execute(LIVE)
        yield ok("written")

    monkeypatch.setattr(checks, "CHECKS", [Check("write", "it must not", write)])
    done = CliRunner().invoke(cli, ["doctor", "--dsn", dsn])
    assert done.exit_code == 0
    assert "could not be checked: cannot execute INSERT in a read-only transaction" in done.stdout


def test_an_error_of_a_check_does_not_abort_the_run_but_a_lost_connection_does(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(target: Target) -> Iterator[Result]:
        raise PgflowError("no answer")
        yield

    def disconnect(target: Target) -> Iterator[Result]:
        target.conn.execute("select pg_terminate_backend(pg_backend_pid())")
        yield ok("connected")

    monkeypatch.setattr(
        checks, "CHECKS", [Check("failing", "it fails", fail), Check("next", "it runs", lambda _: iter([]))]
    )
    assert look(dsn).one("failing", "note").startswith("could not be checked: no answer")
    monkeypatch.setattr(checks, "CHECKS", [Check("lost", "it disconnects", disconnect)])
    assert CliRunner().invoke(cli, ["doctor", "--dsn", dsn]).exit_code == 3


def test_a_check_that_takes_too_long_does_not_abort_the_run(
    dsn: str, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "LIMITS", "set local lock_timeout = 10")
    with psycopg.connect(dsn) as other:
        other.execute("lock table pgflow.scheduled_signals")
        text = look(dsn).one("signals", "note")
        other.rollback()
    assert "could not be checked: canceling statement due to lock timeout" in text


def test_with_an_app_its_definitions_are_compared(dsn: str, conn: psycopg.Connection[Any]) -> None:
    conn.execute(LIVE)
    app = ("--app", "tests.acceptance.shop:app")
    found = look(dsn, *app)
    assert all(each["state"] == "note" for each in found["definitions"])
    assert "is not in the database yet" in found["definitions"][0]["what"]
    type(shop)(dsn, shop.workflows).register()
    assert [each["state"] for each in look(dsn, *app)["definitions"]] == ["ok"]
    conn.execute("update pgflow.definitions set hash = 'x'")
    found = look(dsn, *app)
    assert found.exit_code == 1
    assert "has another graph in the database" in found["definitions"][0]["what"]
    assert "give the changed workflow version=" in found["definitions"][0]["fix"]


def test_stored_text_cannot_control_the_terminal(dsn: str, conn: psycopg.Connection[Any]) -> None:
    conn.execute(READY.format("E'a\\x1b[2J'", "1 s", 1).encode())
    done = CliRunner().invoke(cli, ["doctor", "--dsn", dsn])
    assert done.exit_code == 1
    assert "\x1b" not in done.stdout
    assert "problem: queues: queue" in done.stdout
    assert "    why: a queue without a worker makes no progress\n    fix: pgflow worker" in done.stdout


def test_only_a_page_of_the_instances_is_examined(
    dsn: str, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "PAGE", 1)
    conn.execute(LIVE)
    conn.execute(ACTIVE)
    conn.execute(READY.format("'default'", "1 s", 1).encode())
    assert "(of the 1 oldest in each active status)" in look(dsn).one("missing-jobs", "ok")
