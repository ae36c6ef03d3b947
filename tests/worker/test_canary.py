"""Inputs, outputs and payloads get into no log, no notification and no word of ours; nor do passwords."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from psycopg.conninfo import make_conninfo

from pgflow import Pgflow
from pgflow.cli import cli
from pgflow.contrib.encryption import AesGcm
from pgflow.database.connect import connect
from pgflow.embedded import EmbeddedPostgres
from pgflow.errors import PgflowError
from tests.worker.db_helpers import everything
from tests.worker.event_recorder import recording
from tests.worker.processes import CHECKOUT, RUN
from tests.worker.secret_flows import CANARY, KEY, WORKFLOWS, WRONG, Leaky, Typed, ask
from tests.worker.thread_worker import Inside
from tests.worker.waiting import until

# All that a server can log except parameters, which an operator has to enable (docs/security.md).
TALKATIVE = {
    "log_statement": "all",
    "log_min_duration_statement": "0",
    "log_error_verbosity": "verbose",
    "log_parameter_max_length": "0",
}
NUMBERS = "[1e5000]"


@pytest.fixture(scope="module")
def talkative() -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(settings=TALKATIVE, durable=False) as server:
        yield server


@contextmanager
def overheard(dsn: str) -> Iterator[list[str]]:
    """Gather what is notified, and the queries that the server shows to everybody."""
    heard: list[str] = []
    is_over = threading.Event()

    def listen() -> None:
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute(b"listen " + conn.execute("select pgflow.channel()").fetchone()[0].encode())  # type: ignore[index]
            while not is_over.is_set():
                heard.extend(each.payload for each in conn.notifies(timeout=0.02))
                seen = conn.execute("select query from pg_stat_activity where pid <> pg_backend_pid()").fetchall()
                heard.extend(query for (query,) in seen)

    thread = threading.Thread(target=listen, name="overhear")
    thread.start()
    try:
        yield heard
    finally:
        is_over.set()
        thread.join()


def work_until_done(dsn: str, codec: bool, log: Path) -> None:
    """Run a real worker, as talkative as it can be."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PG", "DATABASE_URL"))}
    env = {**kept, "PYTHONPATH": str(CHECKOUT), "PGFLOW_DSN": dsn, **({"LEAKY_KEY": "1"} if codec else {})}
    arguments = ["worker", "--app", "tests.worker.secret_flows:app", "--drain", "--log-level", "debug"]
    with log.open("wb") as file:
        command = [sys.executable, "-c", RUN, *arguments]
        subprocess.run(command, env=env, cwd=CHECKOUT, stdout=file, stderr=file, timeout=60, check=True)


def refusals(app: Pgflow) -> Iterator[str]:
    """The errors that a client gets for invalid values."""
    bad: list[Any] = [
        lambda: app.start(Typed, "x", {"number": CANARY}),
        lambda: app.start(Leaky, "x", {"a": [CANARY, "\0" + CANARY]}),
        lambda: app.start(Leaky, "x", {"a": CANARY, "b": object()}),
        lambda: app.start(Leaky, "x", CANARY * 200_000),
        lambda: app.start(Leaky, "x", {"a": CANARY}, metadata=[CANARY]),  # type: ignore[arg-type]
        lambda: app.start(Leaky, "x", {}, telemetry=CANARY),  # type: ignore[arg-type]
        lambda: app.resume(Leaky, "ok", "answered", {"a": {CANARY, object()}}),
        lambda: app.resume(Leaky, "ok", "answered", CANARY * 200_000),
    ]
    for call in bad:
        with pytest.raises(PgflowError) as caught:
            call()
        yield f"{caught.value} {caught.value.hint}"


@pytest.mark.slow
@pytest.mark.parametrize("has_codec", [False, True], ids=["plain", "sealed"])
def test_no_value_gets_about(has_codec: bool, talkative: EmbeddedPostgres, tmp_path: Path) -> None:
    dsn = talkative.create_database(f"canary_{has_codec}".lower())
    app = Pgflow(dsn, workflows=WORKFLOWS, codec=AesGcm({"k1": KEY}, current="k1") if has_codec else None)
    app.migrate()
    app.register()
    before = len(talkative.log)
    with overheard(dsn) as heard, recording() as recorder, connect(dsn, "test") as conn:
        for how in ("ok", "shown", *WRONG):
            app.start(Leaky, how.replace(" ", "-"), {"how": how, "card": CANARY})
        app.start(Leaky, "spoiled", {"how": "ok", "card": CANARY})
        conn.execute("update pgflow.instances set input = %s::jsonb where id = 'leaky::spoiled'", [NUMBERS])
        if not has_codec:  # what plain SQL writes is in plain
            conn.execute("select pgflow.start('Typed', 'sql', %s::jsonb)", [json.dumps({"number": CANARY})])
            conn.execute("select pgflow.start('Typed', 'deep', %s::jsonb)", ["[" * 60 + f'"{CANARY}"' + "]" * 60])
        messages = list(refusals(app))
        work_until_done(dsn, has_codec, tmp_path / "log")
        app.resume(Leaky, "ok", "answered", {"card": CANARY})
        app.schedule_resume(Leaky, "shown", ask, timedelta(hours=1), "answered", CANARY)
        with Inside(app):
            until(lambda: app.get(Leaky, "ok").finished_at, "it ends")
    failed = {each.id: each for each in app.list(status="failed")}
    wrong = {f"leaky::{how.replace(' ', '-')}" for how in (*WRONG, "spoiled")}
    assert set(failed) == wrong | (set() if has_codec else {"typed::sql", "typed::deep"})
    assert app.get(Leaky, "ok").steps["work"]["card"] == CANARY  # it was there all the time
    log = (tmp_path / "log").read_text()
    assert "Step work started" in log
    assert "input_value" not in log
    lines = [f"{event.name} {event.measurements} {event.metadata}" for event in recorder.events]
    assert len(lines) > 5
    assert len(heard) > 10
    shown = CliRunner().invoke(cli, ["show", "Leaky", "pydantic", "--json", "--dsn", dsn]).stdout
    error = json.loads(shown)["instance"]["error"]
    assert "age: Input should be a valid integer" in error["reason"]
    assert "Traceback" in error["trace"]
    with connect(dsn, "test") as conn:
        dumped = everything(conn)
    assert (CANARY in dumped) != has_codec
    places = {
        "refusals": messages,
        "worker": [log],
        "server": [talkative.log[before:]],
        "heard": heard,
        "telemetry": lines,
        "errors": [json.dumps(dict(each.error or {})) for each in failed.values()],
        "the database": [dumped] if has_codec else [],
    }
    found = {name: [text for text in texts if CANARY in text] for name, texts in places.items()}
    assert {name: texts for name, texts in found.items() if texts} == {}
    app.close()


def test_each_line_of_a_workers_log_is_one_event_whatever_its_text() -> None:
    code = (
        "import logging, sys; from pgflow.cli.operations.worker_logging import OneLineFormatter\n"
        "handler = logging.StreamHandler(sys.stderr)\n"
        "handler.setFormatter(OneLineFormatter('%(levelname)s %(message)s'))\n"
        "log = logging.getLogger('x'); log.addHandler(handler)\n"
        "log.error('no\\n2030 INFO all is well\\x1b[2J %s', 'a\\rb\\u2028c')\n"
        "try: 1 / 0\n"
        "except ZeroDivisionError: log.exception('broken')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    lines = done.stderr.splitlines()
    assert lines[0] == "ERROR no\\n2030 INFO all is well\\x1b[2J a\\rb\\u2028c"
    assert len(lines) == 2
    assert lines[1].startswith("ERROR broken\\nTraceback (most recent call last):\\n")


PASSWORD = "hunter2-4711"  # noqa: S105 -- opens nothing


def run(*arguments: str, **env: str) -> str:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PG", "DATABASE_URL"))}
    done = subprocess.run(
        [sys.executable, "-c", RUN, *arguments],
        env={**kept, "PYTHONPATH": str(CHECKOUT), **env},
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    "dsn",
    [
        f"postgresql://ann:{PASSWORD}@127.0.0.1:1/shop",
        f"postgresql://ann:{PASSWORD}@@127.0.0.1:1/shop",
        f"host=127.0.0.1 port=1 password={PASSWORD} user=ann dbname=shop nonsense={PASSWORD}",
        f"postgresql://ann:{PASSWORD}@127.0.0.1:port/shop",
        f"mysql://ann:{PASSWORD}@db/shop",
    ],
)
def test_a_password_is_in_no_message_and_no_traceback(dsn: str) -> None:
    for command in (["worker", "--app", "tests.worker.secret_flows:app"], ["list"], ["migrate"], ["doctor"]):
        output = run(*command, "--debug", PGFLOW_DSN=dsn)
        assert "Traceback" in output
        assert PASSWORD not in output


def test_a_password_on_the_command_line_is_warned_of_and_else_it_is_seen_nowhere(
    server: Any, new_database: Any
) -> None:
    dsn = make_conninfo(new_database(server), password=PASSWORD)
    with connect(dsn, "migrate") as conn:
        from pgflow.migrations.migrate import up

        up(conn)
        worker = ["worker", "--app", "tests.worker.secret_flows:app", "--drain"]
        warned = run(*worker, "--dsn", dsn)
        assert "the password in --dsn is visible to all users of this machine" in warned
        silent = run(*worker, PGFLOW_DSN=dsn)
        assert "is ready" in silent
        assert "password" not in silent
        assert PASSWORD not in warned + silent
        seen = conn.execute("select string_agg(a::text, ' ') from pg_stat_activity a").fetchone()
        assert PASSWORD not in str(seen)
    app = Pgflow(dsn)
    assert PASSWORD not in f"{app!r} {app.worker()!r} {app._transport!r} {app.storage!r}"
    assert re.search(PASSWORD, app.dsn)
