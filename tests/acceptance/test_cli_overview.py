"""The commands that show a running system, and the exit codes and messages of errors."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from tenacity import Retrying, stop_after_delay, wait_fixed

from pgflow.database.connect import connect
from pgflow.migrations import grants
from pgflow.migrations.migrate import up
from tests.acceptance.command import PROGRAM, environment
from tests.acceptance.deployment import APP, ORDER, TIMEOUT, Deployment
from tests.conftest import Server

ROLE = "pgflow cli overview"


def test_top_prints_one_frame_without_a_terminal(idle: Deployment) -> None:
    for arguments in (["top"], ["top", "--once"]):
        lines = idle.ok(*arguments).splitlines()
        assert lines[0].startswith("pgflow  ")
        assert lines[1] == "0 workers, 0 jobs running, 1 ready"
        assert lines[4].split() == ["QUEUE", "STATE", "WORKERS", "READY", "RUNNING", "OLDEST", "LIMITS"]
        assert "\x1b" not in "".join(lines)
    frame = json.loads(idle.ok("top", "--json"))
    assert [(each["name"], each["ready"]) for each in frame["queues"] if each["ready"]] == [("default", 1)]
    assert {each["name"] for each in frame["throughput"]} >= {"OrderFlow"}


def test_why_explains_an_instance_and_a_job(idle: Deployment) -> None:
    text = "validate_order: no worker is running: start one that serves queue default\n"
    assert idle.ok("why", "OrderFlow", "first") == idle.ok("instance", "why", "OrderFlow", "first") == text
    assert idle.ok("show", "OrderFlow", "first").endswith(f"\n{text}")
    (reason,) = json.loads(idle.ok("why", "--run", "1", "--json"))["reasons"]
    assert (reason["step"], reason["kind"], reason["queue"]) == ("validate_order", "unserved", "default")
    assert idle.ok("job", "why", reason["job"]) == idle.ok("why", "--job", reason["job"]) == text
    assert idle.ok("why", "--run", "1", "--jsonl") == json.dumps(reason) + "\n"


def test_events_are_printed_and_followed_to_the_end_of_an_instance(live: Deployment, value: str) -> None:
    live.ok("start", "OrderFlow", value, "--input", ORDER)
    live.until_status(value, "waiting")
    with subprocess.Popen(
        [*PROGRAM, "events", "OrderFlow", value, "--follow", "--jsonl"],
        env=environment(PGFLOW_DSN=live.dsn),
        stdout=subprocess.PIPE,
        text=True,
    ) as follow:
        assert follow.stdout is not None
        first = json.loads(follow.stdout.readline())
        live.ok("cancel", "OrderFlow", value, "--reason", "twice")
        rest = [json.loads(line) for line in follow.stdout]
        assert follow.wait(TIMEOUT) == 0
    assert (first["event"], first["id"], first["number"]) == ("started", f"orderid::{value}", str(live.get(value).run))
    assert [(each["subject"], each["name"]) for each in rest[:-1]] == [("step", "validate_order")]
    assert (rest[-1]["event"], rest[-1]["detail"]) == ("cancelled", "twice")

    lines = live.ok("events", "--limit", "1000").splitlines()
    assert any(line.endswith(f"workflow OrderFlow  started  orderid::{value} {first['number']}") for line in lines)
    assert any(line.endswith(f"orderid::{value} {first['number']}: twice") for line in lines)
    assert lines == sorted(lines, key=lambda line: line[:20])


def test_events_of_the_whole_database_are_followed(live: Deployment, value: str) -> None:
    follow = subprocess.Popen(
        [*PROGRAM, "events", "--follow", "--jsonl", "--limit", "1"],
        env=environment(PGFLOW_DSN=live.dsn),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert follow.stdout is not None
    try:
        live.ok("start", "OrderFlow", value, "--input", ORDER)
        assert any(json.loads(line)["id"] == f"orderid::{value}" for line in follow.stdout)
    finally:
        follow.send_signal(signal.SIGINT)
        assert follow.wait(TIMEOUT) == 130
        follow.stdout.close()
        live.ok("cancel", "OrderFlow", value)


def test_the_backlog_of_queues_is_one_number(idle: Deployment) -> None:
    assert idle.ok("queue", "backlog", "default", "mail") == "1\n"
    assert json.loads(idle.ok("queue", "backlog", "default", "mail", "--json"))["queues"] == {"default": 1, "mail": 0}


def test_workers_and_tasks_are_listed(live: Deployment) -> None:
    (worker,) = json.loads(live.ok("worker", "list", "--json"))["workers"]
    assert (worker["is_alive"], worker["queues"]) == (True, ["default"])
    assert worker["node"] in live.ok("worker", "list", "--all")
    assert live.ok("task", "list", "--jsonl").count("\n") == len(json.loads(live.ok("task", "list", "--json"))["tasks"])


def test_a_worker_is_checked_without_a_trace(idle: Deployment) -> None:
    assert "OrderFlow" in json.loads(idle.ok("worker", "--check", "--app", APP, "--json"))["workflows"]
    assert idle.ok("worker", "run", "--check", "--app", APP).splitlines()[-1] == "queues default=10"
    assert idle.count("workers") == 0


def test_a_worker_ends_after_its_jobs_or_its_lifetime(
    server: Server, migrated_database: Callable[[Server], str], tmp_path: Path
) -> None:
    deployment = Deployment.create(server, migrated_database)
    deployment.ok("start", "OrderFlow", "a", "--input", ORDER, "--app", APP)
    ended = deployment.pgflow("worker", "--app", APP, "--max-jobs", "1", "--json")
    assert (ended.returncode, json.loads(ended.stdout)["steps"]) == (0, 1)
    assert "ran 1 jobs (--max-jobs 1): shutting down gracefully" in ended.stderr

    log = tmp_path / "log"
    arguments = ["worker", "--app", APP, "--processes", "2", "--max-lifetime", "1s"]
    with log.open("w") as out:
        parent = subprocess.Popen([*PROGRAM, *arguments], env=environment(PGFLOW_DSN=deployment.dsn), stderr=out)
    try:
        for attempt in Retrying(stop=stop_after_delay(TIMEOUT), wait=wait_fixed(0.1), reraise=True):
            with attempt:
                assert log.read_text().count("has ended as it should; it is started again") >= 2
    finally:
        parent.terminate()
        assert parent.wait(TIMEOUT) == 0


@pytest.fixture(scope="module")
def stranger(idle: Deployment) -> Iterator[Deployment]:
    """The deployment as a role without any right sees it."""
    name = sql.Identifier(ROLE)
    with connect(idle.dsn, "test") as conn:
        conn.execute(sql.SQL("create role {} login").format(name))
        try:
            yield Deployment(make_conninfo(idle.dsn, user=ROLE))
        finally:
            conn.execute(sql.SQL("drop owned by {}").format(name))
            conn.execute(sql.SQL("drop role {}").format(name))


def test_a_role_without_rights_gets_the_name_of_those_it_needs(stranger: Deployment, idle: Deployment) -> None:
    for arguments in (["list"], ["top"], ["events"], ["why", "OrderFlow", "first"], ["worker", "list"]):
        line = stranger.refused(3, *arguments)
        assert line.startswith(f"pgflow: the role {ROLE} may not do this: permission denied")
        assert "the rights of a dashboard" in line
    assert "the rights of a client, or of an operator" in stranger.refused(3, "cancel", "OrderFlow", "first")
    assert "permission denied" in stranger.refused(3, "worker", "--check", "--app", APP, "--dsn", stranger.dsn)
    with connect(idle.dsn, "test") as conn:
        grants.apply(conn, {"dashboard": [ROLE]})
    assert stranger.ok("why", "OrderFlow", "first")
    assert stranger.ok("top")
    assert "permission denied" in stranger.refused(3, "cancel", "OrderFlow", "first")


@pytest.mark.parametrize("arguments", ["top", "events", "why --run 1", "worker list", "queue list"])
def test_a_schema_that_is_too_old_is_named_with_the_command(
    arguments: str, server: Server, new_database: Callable[..., str]
) -> None:
    dsn = new_database(server)
    assert "Run: pgflow migrate" in Deployment(dsn).refused(4, *arguments.split())
    with connect(dsn, "migrate") as conn:
        up(conn, to=20)
    assert "is at 0020, this pgflow needs" in Deployment(dsn).refused(4, *arguments.split())


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ("queue pause defualt", "Did you mean default?"),
        ("limit set defualt --concurrency 3", "Did you mean default?"),
        ("events OrderFlo", "Did you mean OrderFlow?"),
        ("why OrderFlo first", "Did you mean OrderFlow?"),
        ("why --run 999", "The newest is 1."),
        ("job why 999", "List them: pgflow job list"),
        ("events OrderFlow nowhere", "List them: pgflow list OrderFlow"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(arguments: str, hint: str, idle: Deployment) -> None:
    assert hint in idle.refused(5, *arguments.split())


def test_the_exit_codes_are_those_of_the_guide(idle: Deployment) -> None:
    assert idle.pgflow("list").returncode == 0
    assert idle.pgflow("events", "--follow", "--json").returncode == 2
    assert idle.refused(2, "list", "--dsn", "mysql://x")
    assert idle.refused(3, "list", "--dsn", "postgresql://localhost:1/x")
    assert idle.refused(4, "list", "--schema", "elsewhere")
    assert idle.refused(5, "show", "OrderFlow", "nowhere")
    assert idle.refused(6, "start", "OrderFlow", "x", "--input", "{")
    assert idle.refused(7, "retry", "OrderFlow", "first")


@pytest.mark.slow
def test_a_newcomer_creates_a_project_runs_it_and_changes_it(tmp_path: Path) -> None:
    """`init`, `dev`, a start, a change that is reloaded, and Ctrl-C, which leaves no process behind."""
    shop, log = tmp_path / "shop", tmp_path / "log"
    clean = environment(PYTHONDONTWRITEBYTECODE="1")
    subprocess.run([*PROGRAM, "init", str(shop)], env=clean, check=True, capture_output=True)
    subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"], cwd=shop, env=clean, check=True)

    def in_shop(dsn: str, *arguments: str) -> str:
        done = subprocess.run(
            [*PROGRAM, *arguments],
            cwd=shop,
            env={**clean, "PGFLOW_DSN": dsn},
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout

    def until(text: str) -> str:
        for attempt in Retrying(stop=stop_after_delay(2 * TIMEOUT), wait=wait_fixed(0.1), reraise=True):
            with attempt:
                assert dev.poll() is None, log.read_text()
                assert text in log.read_text()
        return log.read_text()

    with log.open("w") as out:
        dev = subprocess.Popen([*PROGRAM, "dev", "--no-web"], cwd=shop, env=clean, stdout=out, stderr=out)
    try:
        dsn = until("worker 1 is ready").partition("export PGFLOW_DSN='")[2].partition("'")[0]
        in_shop(dsn, "start", "OrderFlow", "a", "--input", '{"item_count": 3}')
        until("[orderid::a] Workflow completed")
        assert json.loads(in_shop(dsn, "show", "OrderFlow", "a", "--json"))["instance"]["steps"]["price"] == {
            "euros": 15
        }
        (shop / "flows.py").write_text((shop / "flows.py").read_text().replace("5 *", "7 *"))
        until("worker 2 is ready")
        in_shop(dsn, "start", "OrderFlow", "b", "--input", '{"item_count": 3}')
        until("[orderid::b] Workflow completed")
        assert json.loads(in_shop(dsn, "show", "OrderFlow", "b", "--json"))["instance"]["steps"]["price"] == {
            "euros": 21
        }
    finally:
        dev.send_signal(signal.SIGINT)
        assert dev.wait(2 * TIMEOUT) == 0
    assert "worker 2 stops" in log.read_text()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(dsn)
