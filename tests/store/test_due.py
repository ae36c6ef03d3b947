"""Due timers and signals are handled in batches, and the next batch follows immediately while there are more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pgflow import Pgflow
from pgflow.database.connect import Connection, connect
from pgflow.database.statement import run
from pgflow.store import job, signal
from tests.store.test_interleavings import WORKFLOWS, Paid


@pytest.fixture
def database(migrated: str) -> Iterator[Connection]:
    with connect(migrated, "worker") as conn:
        app = Pgflow(migrated, workflows=WORKFLOWS)
        app.start_many(Paid, [(f"v{number}", {}) for number in range(5)])
        app.close()
        yield conn
        for table in ("instances", "jobs", "signals", "scheduled_signals"):
            conn.execute(f"delete from pgflow.{table}")  # noqa: S608 -- literals, one line above


def test_due_timers_are_staged_in_batches(database: Connection) -> None:
    database.execute("update pgflow.jobs set state = 'scheduled', run_at = pgflow.now() - interval '1 s'")
    seen = [run(database, job.stage("pgflow", limit=2)) for _ in range(3)]
    assert [(each.jobs, each.next_due) for each in seen] == [(2, 0.0), (2, 0.0), (1, None)]


def test_due_signals_are_sent_in_batches(database: Connection) -> None:
    query = "select pgflow.schedule_resume_run(i.run, 'await_payment', '0 s') from pgflow.instances i"
    database.execute(query)
    database.execute("select pgflow.cancel_run(min(i.run), 'it is past the step') from pgflow.instances i")
    database.execute(
        "insert into pgflow.scheduled_signals (run, step, name, due_at)"
        " select min(i.run), 'await_payment', 'paid', pgflow.now() from pgflow.instances i"
    )
    seen = [run(database, signal.send_due("pgflow", limit=2)) for _ in range(3)]
    assert [(each.signals, each.next_due) for each in seen] == [(2, 0.0), (2, 0.0), (1, None)]
    row = database.execute("select count(*) from pgflow.signals").fetchone()
    assert row == (4,)


def test_a_peek_finds_ready_jobs_in_its_queues_and_the_next_due_time(database: Connection) -> None:
    def seen(*queues: str) -> tuple[bool, Any]:
        found = run(database, job.peek("pgflow", queues))
        return found.ready, found.next_due

    assert seen("default") == (True, None)
    assert seen("another") == seen() == (False, None)
    database.execute("update pgflow.jobs set state = 'scheduled', run_at = 'infinity'")
    assert seen("default") == (False, None)
    database.execute("update pgflow.jobs set run_at = pgflow.now() + interval '1 hour'")
    assert seen("default") == (False, pytest.approx(3600, abs=10))
    query = "select pgflow.schedule_resume_run(min(i.run), 'await_payment', '5 min') from pgflow.instances i"
    database.execute(query)
    assert seen("default") == (False, pytest.approx(300, abs=10))
    database.execute("update pgflow.jobs set run_at = pgflow.now() - interval '1 hour'")
    assert seen("default") == (False, 0.0)
