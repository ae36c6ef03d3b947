"""`pgflow doctor` tells each sickness, made on a real server, and nothing of a healthy one."""

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
from pgflow.cli.operations import doctor
from pgflow.cli.operations.doctor import CHECKS
from pgflow.database.connect import connect
from pgflow.database.migration_files import migrations
from pgflow.doctor import finding, server, upkeep, work
from pgflow.doctor.finding import Check, Result, Target, ok
from pgflow.embedded import EmbeddedPostgres
from pgflow.migrations.migrate import up
from tests.acceptance.fake_pooler import run_fake_pooler
from tests.acceptance.shop import app as shop
from tests.conftest import Server
from tests.worker.patience import until

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
SIGNAL = "insert into pgflow.scheduled_signals (run, step, name, due_at) values (1, 'a', 's', now() - interval '{}')"
ORPHANS = """
    insert into pgflow.jobs (run, step) values (7, 'a'), (7, 'b'), (9, 'a')
"""
PAUSED = "insert into pgflow.queues (name, paused_at) values ('default', now())"
GRAPH = """
    insert into pgflow.definitions (workflow, version, hash, graph)
    values ('W', 1, 'h', '{"orchestration_queue": "o"}')
"""


class Told(dict[str, list[dict[str, Any]]]):
    """What doctor said, by check."""

    exit_code = 0

    def one(self, check: str, state: str) -> str:
        """Return what the one finding of a check and a state says, with its mend."""
        (found,) = [each for each in self[check] if each["state"] == state]
        assert found["why"]
        return f"{found['what']} => {found['mend']}"

    @property
    def sick(self) -> set[tuple[str, str]]:
        """Everything that is not ok."""
        return {(name, each["state"]) for name, found in self.items() for each in found if each["state"] != "ok"}


@pytest.fixture(scope="module")
def postgres() -> Iterator[EmbeddedPostgres]:
    """A server with all that a healthy one has, whose databases may be made sick; one of them has the schema."""
    with EmbeddedPostgres(settings={"max_prepared_transactions": "5", "wal_level": "logical"}) as postgres:
        with connect(postgres.create_database("model"), "migrate") as conn:
            up(conn)
        yield postgres


NUMBERS = count(1)
NEWEST = len(migrations())


@pytest.fixture
def dsn(postgres: EmbeddedPostgres) -> Iterator[str]:
    """A migrated database of the test's own."""
    name = f"patient_{next(NUMBERS)}"
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


def look(dsn: str, *arguments: str) -> Told:
    done = CliRunner().invoke(cli, ["doctor", "--json", "--dsn", dsn, *arguments])
    assert done.exit_code in (0, 1), done.output
    said = json.loads(done.stdout)
    told = Told()
    told.exit_code = done.exit_code
    for each in said["findings"]:
        told.setdefault(each["check"], []).append(each)
    assert (said["healthy"], said["problems"]) == (not told.exit_code, sum(s == "problem" for _, s in _states(said)))
    return told


def _states(said: dict[str, Any]) -> list[tuple[str, str]]:
    return [(each["check"], each["state"]) for each in said["findings"]]


def test_of_a_healthy_database_nothing_but_ok_is_told(dsn: str, conn: psycopg.Connection[Any]) -> None:
    conn.execute(LIVE)
    conn.execute(READY.format("'default'", "1 second", 3).encode())
    for _ in range(3):
        conn.execute(ACTIVE)
    told = look(dsn)
    assert (told.exit_code, told.sick) == (0, set())
    assert list(told) == [check.name for check in CHECKS if check.name != "definitions"]
    done = CliRunner().invoke(cli, ["doctor", "--dsn", dsn])
    assert done.stdout.splitlines()[0].split() == ["CHECK", "STATE", "FOUND"]
    assert done.stdout.endswith("\n0 problems, 0 notes.\n")


def test_every_check_runs_on_every_version(any_server: Server, new_database: Callable[..., str]) -> None:
    given = new_database(any_server)
    with connect(given, "migrate") as conn:
        up(conn)
        conn.execute(LIVE)
    assert {check for check, _ in look(given).sick} <= {"settings"}  # a server for tests may do without fsync


@pytest.mark.parametrize(
    ("made", "check", "state", "words"),
    [
        ([READY.format("'default'", "1 s", 1)], "workers", "problem", "no worker is alive, and work is ready"),
        ([], "workers", "note", "no worker is alive; nothing is ready for one => pgflow worker"),
        ([LOST], "workers", "problem", "1 worker held 2 running tokens when its lease ended 90 s ago, and no worker"),
        ([LIVE, LOST], "workers", "problem", "ended 90 s ago, and nobody has rescued them"),
        ([LIVE, LOST.replace("90 s", "9 s")], "workers", "note", "ended 9 s ago; a live worker will rescue them"),
        ([LIVE, READY.format("'a''s'", "3 hours", 2)], "queues", "problem", """queue "a's": 2 tokens ready or due"""),
        (
            [LIVE, READY.format("'b'", "3 hours", 2)],
            "queues",
            "problem",
            "oldest for 3 h, and no live worker serves it",
        ),
        ([LIVE, READY.format("'b c'", "1 s", 1)], "queues", "problem", "pgflow worker --app module:name --queue 'b c="),
        ([LIVE, READY.format("'mail'", "3 hours", 1200)], "queues", "problem", "1000+ tokens"),
        ([LIVE, GRAPH, READY.format("'o'", "1 s", 1)], "queues", "problem", "signals, timers and joins: 1 token"),
        ([LIVE, TIMER.format("1 s"), "update pgflow.jobs set queue = 'z'"], "queues", "problem", 'queue "z": 1 token'),
        ([LIVE, PAUSED, READY.format("'default'", "1 s", 1)], "queues", "note", "the queue is paused => update"),
        ([LIVE, PAUSED, READY.format("'default'", "1 s", 1)], "queues", "note", "= null where name = 'default'"),
        ([LIVE, READY.format("'default'", "3 hours", 1)], "queues", "note", "the oldest for 3 h"),
        ([LIVE, ACTIVE], "adrift", "note", "1 active instance without a token, the first is run 1"),
        ([ACTIVE], "adrift", "problem", "without a token"),
        (
            [LIVE, ORPHANS],
            "orphans",
            "problem",
            "pgflow.jobs has rows of 2 runs that are not in pgflow.instances",
        ),
        ([LIVE, ACTIVE, UNAPPLIED], "unapplied", "problem", "1 result not applied for 3 min, the first in run 1"),
        ([LIVE, TIMER.format("3 hours")], "overdue", "problem", "1 timer or retry is overdue, the oldest for 3 h"),
        ([TIMER.format("3 hours")], "overdue", "problem", "no worker is alive => pgflow worker"),
        ([LIVE, SIGNAL.format("3 hours")], "signals", "problem", "1 scheduled signal is overdue, the oldest for 3 h"),
    ],
)
def test_sick_work_is_told(
    made: list[str], check: str, state: str, words: str, dsn: str, conn: psycopg.Connection[Any]
) -> None:
    for each in made:
        conn.execute(each.encode())
    told = look(dsn)
    assert words in told.one(check, state)
    assert told.exit_code == (1 if state == "problem" else told.exit_code)


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
    conn.execute("insert into pgflow.jobs (run, step) select run, 'a' from pgflow.instances")  # not adrift
    conn.execute(ACTIVE)
    conn.execute(f"insert into pgflow.{table} {rows[table]}".encode())
    assert look(dsn)["orphans"][0]["state"] == "ok"
    conn.execute("delete from pgflow.instances where run = 2")
    told = look(dsn)
    assert told.one("orphans", "problem").startswith(
        f"pgflow.{table} has rows of 1 run that is not in pgflow.instances, the first is run 2 => pgflow prune --orph"
    )
    done = CliRunner().invoke(cli, ["prune", "--orphans", "--dsn", dsn])
    assert (done.exit_code, done.stdout) == (0, "deleted 1\n")
    assert look(dsn).sick == set()
    query = f"select distinct run from pgflow.{table}"  # noqa: S608 -- the names stand above
    left = conn.execute(query.encode()).fetchall()
    assert left == [(1,)], "what has an instance stays"


def test_what_is_late_by_less_than_a_minute_or_stands_in_a_paused_queue_is_no_sickness(
    dsn: str, conn: psycopg.Connection[Any]
) -> None:
    for each in (LIVE, PAUSED, ACTIVE, UNAPPLIED, TIMER.format("30 s"), SIGNAL.format("30 s")):
        conn.execute(each.encode())
    assert look(dsn).sick == {("queues", "note")}
    conn.execute("delete from pgflow.queues; update pgflow.step_results set finished_at = now() - interval '30 s'")
    assert look(dsn).sick == set()


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
def test_a_setting_of_the_database_is_told(
    name: str, value: str, check: str, state: str, words: str, dsn: str, conn: psycopg.Connection[Any]
) -> None:
    conn.execute(LIVE)
    conn.execute(f"alter database {conn.info.dbname} set {name} = '{value}'".encode())
    told = look(dsn)
    assert words in told.one(check, state)
    assert (check, state) in told.sick


def test_statements_may_be_logged_without_their_parameters(dsn: str, conn: psycopg.Connection[Any]) -> None:
    conn.execute(LIVE)
    for name, value in (("log_statement", "all"), ("log_parameter_max_length", "0")):
        conn.execute(f"alter database {conn.info.dbname} set {name} = '{value}'".encode())
    assert [each["what"] for each in look(dsn)["logs"]] == ["the server logs no parameters of statements"]


def test_settings_of_the_server_are_told(dsn: str, conn: psycopg.Connection[Any]) -> None:
    names = ("fsync", "full_page_writes", "autovacuum")

    def turn(value: str) -> None:
        for name in names:
            conn.execute(f"alter system set {name} = {value}".encode())
        conn.execute("select pg_reload_conf()")
        for name in names:
            until(lambda name=name: conn.execute(f"show {name}".encode()).fetchone() == (value,))  # type: ignore[misc]

    turn("off")
    try:
        told = look(dsn)
    finally:
        turn("on")
    assert [each["what"] for each in told["settings"]] == [f"{name} is off" for name in names]


def test_too_few_connections_are_told(dsn: str, conn: psycopg.Connection[Any]) -> None:
    for _ in range(8):
        conn.execute(LIVE)
    told = look(dsn).one("connections", "note")
    assert "8 workers may need up to 104 for transactional steps, 10 at once on each, or as many" in told
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


def test_a_standby_is_told_and_looked_at_all_the_same() -> None:
    with EmbeddedPostgres() as own:
        with connect(own.dsn, "migrate") as conn:
            up(conn)
            conn.execute(LIVE)
            row = conn.execute("show data_directory").fetchone()
        assert row is not None
        own.crash()
        Path(row[0], "standby.signal").touch()
        own.start()
        told = look(own.dsn)
    assert "this is a standby" in told.one("server", "problem")
    assert told.sick == {("server", "problem"), ("pooler", "note")}


def test_a_server_newer_than_the_tested_ones_is_told(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "NEWEST_TESTED", 14)
    assert "is newer than 14" in look(dsn).one("server", "note")


@pytest.mark.parametrize("kinds", [{"delivers": True}, {"delivers": False}, {"takes_options": False}])
def test_a_pooler_of_which_nobody_has_spoken_is_told(
    kinds: dict[str, bool], postgres: EmbeddedPostgres, dsn: str
) -> None:
    with run_fake_pooler(socket_of(postgres), **kinds) as port:
        said = look(through(dsn, port)).one("pooler", "problem")
    assert said.startswith("a pooler stands in between, and nothing says so")
    assert "=> PGFLOW_POOLER=1, --pooler or Pgflow(…, pooler=True)" in said


def test_of_a_pooler_that_is_known_it_is_told_whether_notifications_arrive(
    postgres: EmbeddedPostgres, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with run_fake_pooler(socket_of(postgres), takes_options=False) as port:
        said = look(through(dsn, port), "--pooler").one("pooler", "ok")
        assert "and pgflow knows; notifications do not arrive: workers find work by polling" in said
    monkeypatch.setenv("PGFLOW_POOLER", "1")
    with run_fake_pooler(socket_of(postgres), delivers=True) as port:
        assert "notifications arrive, so that workers may --listen" in look(through(dsn, port)).one("pooler", "ok")


def test_a_pooler_that_is_not_there_does_no_harm(dsn: str) -> None:
    assert "a direct connection; notifications arrive" in look(dsn, "--pooler").one("pooler", "ok")


def socket_of(postgres: EmbeddedPostgres) -> str:
    found = re.search(r"host=([^&]+)", postgres.dsn)
    assert found
    return f"{unquote(found[1])}/.s.PGSQL.5432"


def through(dsn: str, port: int) -> str:
    return make_conninfo(dsn, host="127.0.0.1", port=port, sslmode="disable", gssencmode="disable")


def test_another_clock_is_told(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    late = SimpleNamespace(time=lambda: time.time() - 3600, monotonic_ns=time.monotonic_ns)
    monkeypatch.setattr(server, "time", late)
    assert re.search(r"this machine's clock is 3\d{3} s behind the database's", look(dsn).one("clock", "note"))


def test_an_old_transaction_is_told_with_its_process(
    dsn: str, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "LONG", timedelta(0))
    with psycopg.connect(dsn, application_name="report") as other:
        other.execute("select txid_current()")
        said = look(dsn).one("transactions", "note")
        assert f"process {other.info.backend_pid} (report) has been in a transaction" in said
        assert "idle in transaction" in said
        assert f"=> select pg_terminate_backend({other.info.backend_pid}); and set idle_in" in said
        monkeypatch.setattr(upkeep, "TOO_LONG", timedelta(0))
        assert look(dsn).exit_code == 1
        other.rollback()


def test_a_transaction_in_another_database_is_none_of_ours(
    postgres: EmbeddedPostgres, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "LONG", timedelta(0))
    with psycopg.connect(postgres.dsn) as other:
        other.execute("select txid_current()")
        assert [each["state"] for each in look(dsn)["transactions"]] == ["ok"]
        other.rollback()


def test_a_prepared_transaction_is_told(
    dsn: str, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "LONG", timedelta(0))
    conn.execute("begin")
    conn.execute("select txid_current()")
    conn.execute("prepare transaction 'it''s'")
    try:
        assert "=> commit prepared 'it''s', or rollback prepared 'it''s'" in look(dsn).one("prepared", "problem")
    finally:
        conn.execute("rollback prepared 'it''s'")


def test_a_replication_slot_that_nobody_reads_is_told(
    dsn: str, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    conn.execute("select pg_create_logical_replication_slot('slot_1', 'pgoutput')")
    try:
        assert 'replication slot "slot_1" keeps rows' in look(dsn).one("slots", "note")
        monkeypatch.setattr(upkeep, "OLD_SLOT", 0)
        assert "pg_drop_replication_slot('slot_1')" in look(dsn).one("slots", "problem")
    finally:
        conn.execute("select pg_drop_replication_slot('slot_1')")


def test_dead_rows_are_told(dsn: str, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "MANY_DEAD", 50)
    with psycopg.connect(dsn, autocommit=True) as other:  # tells its counts as it ends
        other.execute(READY.format("'default'", "1 s", 100).encode())
        other.execute("delete from pgflow.jobs")
    until(lambda: ("dead-rows", "problem") in look(dsn).sick)
    assert "100 dead rows beside 0 live ones, never vacuumed" in look(dsn).one("dead-rows", "problem")
    conn.execute("vacuum pgflow.jobs")
    until(lambda: ("dead-rows", "problem") not in look(dsn).sick)


def test_rows_that_are_not_frozen_in_time_are_told(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "LATE_FREEZE", 0)
    assert "autovacuum should have frozen it at 200,000,000" in look(dsn).one("wraparound", "note")
    monkeypatch.setattr(upkeep, "LAST_FREEZE", 1)
    assert "vacuum freeze" in look(dsn)["wraparound"][0]["mend"]
    assert look(dsn).exit_code == 1


def test_an_index_whose_build_failed_is_told(dsn: str, conn: psycopg.Connection[Any]) -> None:
    for _ in range(2):
        conn.execute(LIVE)
    with pytest.raises(psycopg.errors.UniqueViolation):
        conn.execute("create unique index concurrently one_node on pgflow.workers (node)")
    said = look(dsn).one("indexes", "problem")
    assert said.endswith('on workers is invalid => reindex index concurrently "pgflow"."one_node"')
    conn.execute("delete from pgflow.workers where id = 1")
    conn.execute(said.partition(" => ")[2].encode())
    assert look(dsn).sick == set()


def test_a_sequence_behind_its_table_is_reported_with_the_statement_that_repairs_it(
    dsn: str, conn: psycopg.Connection[Any]
) -> None:
    conn.execute(ACTIVE)
    conn.execute(
        "insert into pgflow.jobs (id, run, step, state, run_at) overriding system value"
        " values (123, 1, 'a', 'parked', null)"
    )
    conn.execute("select setval('pgflow.jobs_id_seq', 7)")
    told = look(dsn)
    assert told.exit_code == 1
    said = told.one("sequences", "problem")
    assert said == (
        "sequence pgflow.jobs_id_seq is behind pgflow.jobs: max id 123, last value 7"
        " => select setval('pgflow.jobs_id_seq', 123)"
    )
    conn.execute(said.partition(" => ")[2].encode())
    assert ("sequences", "problem") not in look(dsn).sick


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
def test_an_outdated_schema_is_told_and_looked_at_all_the_same(
    made: str, words: str, dsn: str, conn: psycopg.Connection[Any]
) -> None:
    conn.execute(LIVE)
    conn.execute(made.encode())
    told = look(dsn)
    assert words in told.one("schema", "problem")
    assert told.one("schema", "problem").endswith("=> pgflow migrate")
    assert told.sick == {("schema", "problem")}


def test_a_table_that_is_not_there_yet_is_no_end(dsn: str, conn: psycopg.Connection[Any]) -> None:
    conn.execute("drop table pgflow.scheduled_signals")
    assert look(dsn).one("signals", "note") == "the schema lacks what is to be looked at => pgflow migrate"


def test_a_missing_schema_and_a_missing_server_have_their_own_exit_codes(postgres: EmbeddedPostgres) -> None:
    missing = CliRunner().invoke(cli, ["doctor", "--dsn", postgres.dsn])
    assert (missing.exit_code, missing.stdout) == (4, "")
    assert missing.stderr == 'pgflow: pgflow is not installed in schema "pgflow". Run: pgflow migrate\n'
    nowhere = CliRunner().invoke(cli, ["doctor", "--dsn", postgres.database_dsn("nowhere")])
    assert (nowhere.exit_code, nowhere.stdout) == (3, "")


def test_a_role_without_rights_is_told_what_it_may_not_see(dsn: str, conn: psycopg.Connection[Any]) -> None:
    conn.execute(LIVE)
    conn.execute("create role reader login")
    try:
        told = look(make_conninfo(dsn, user="reader"))
        assert told.exit_code == 0
        assert "reader may not look: permission denied for schema pgflow" in told.one("queues", "note")
        assert "may not read the ledger" in told.one("schema", "note")
        conn.execute("grant usage on schema pgflow to reader; grant select on all tables in schema pgflow to reader")
        told = look(make_conninfo(dsn, user="reader"))
        assert told.sick == {("transactions", "note"), ("sequences", "note")}
        said = told.one("sequences", "note")
        assert said.startswith("this role may not read 6 sequences")
        conn.execute(said.partition(" => ")[2].encode())
        assert told.one("transactions", "note").endswith('=> grant pg_read_all_stats to "reader"')
        conn.execute("grant pg_read_all_stats to reader")
        assert look(make_conninfo(dsn, user="reader")).sick == set()
    finally:
        conn.execute("drop owned by reader; drop role reader")


def test_a_check_cannot_write(dsn: str, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def write(patient: Target) -> Iterator[Result]:
        patient.conn.execute(LIVE)
        yield ok("written")

    monkeypatch.setattr(doctor, "CHECKS", [Check("write", "it must not", write)])
    done = CliRunner().invoke(cli, ["doctor", "--dsn", dsn])
    assert (done.exit_code, done.stdout) == (3, "")
    assert "cannot execute INSERT in a read-only transaction" in done.stderr


def test_a_check_that_takes_too_long_is_no_end(
    dsn: str, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "LIMITS", "set local lock_timeout = 10")
    with psycopg.connect(dsn) as other:
        other.execute("lock table pgflow.scheduled_signals")
        said = look(dsn).one("signals", "note")
        other.rollback()
    assert "could not be looked at: canceling statement due to lock timeout" in said


def test_with_an_app_its_definitions_are_compared(dsn: str, conn: psycopg.Connection[Any]) -> None:
    conn.execute(LIVE)
    app = ("--app", "tests.acceptance.shop:app")
    told = look(dsn, *app)
    assert all(each["state"] == "note" for each in told["definitions"])
    assert "is not known to the database yet" in told["definitions"][0]["what"]
    type(shop)(dsn, shop.workflows).register()
    assert [each["state"] for each in look(dsn, *app)["definitions"]] == ["ok"]
    conn.execute("update pgflow.definitions set hash = 'x'")
    told = look(dsn, *app)
    assert told.exit_code == 1
    assert "has another graph in the database" in told["definitions"][0]["what"]
    assert "give the changed workflow version=" in told["definitions"][0]["mend"]


def test_what_is_stored_cannot_steer_the_terminal(dsn: str, conn: psycopg.Connection[Any]) -> None:
    conn.execute(READY.format("E'a\\x1b[2J'", "1 s", 1).encode())
    done = CliRunner().invoke(cli, ["doctor", "--dsn", dsn])
    assert done.exit_code == 1
    assert "\x1b" not in done.stdout
    assert "problem: queues: queue" in done.stdout
    assert "    why:  a queue that nobody serves stands still\n    mend: pgflow worker" in done.stdout


def test_only_so_many_instances_are_looked_at(
    dsn: str, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "PAGE", 1)
    conn.execute(LIVE)
    conn.execute(ACTIVE)
    conn.execute(READY.format("'default'", "1 s", 1).encode())
    assert "(of the 1 oldest in each active status)" in look(dsn).one("adrift", "ok")
