"""The view of live jobs: one row per job, tags as in Python, and filters with the same meaning as in memory."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgflow.core.models.job import JobFilters, job_tags
from pgflow.database.connect import Connection
from pgflow.database.statement import run
from pgflow.store import job

NAMES = st.text("ABCabc12_-.", min_size=1, max_size=12)
WITH_ONE_CONNECTION = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


def insert(conn: Connection, name: str, tags: list[str], **columns: Any) -> int:
    row = conn.execute(
        "insert into pgflow.instances (id, workflow, version, input, tags)"
        " values ('k::v', %s, 1, '{}', %s) returning run",
        [name, tags],
    ).fetchone()
    assert row is not None
    names, values = ["run", *columns], [row[0], *columns.values()]
    conn.execute(
        f"insert into pgflow.jobs ({', '.join(names)}) values ({', '.join(['%s'] * len(names))})".encode(),  # noqa: S608 -- names above
        values,
    )
    return int(row[0])


@WITH_ONE_CONNECTION
@given(NAMES, st.lists(NAMES, max_size=4))
def test_the_database_and_python_derive_the_same_tags(conn: Connection, name: str, tags: list[str]) -> None:
    with conn.transaction(force_rollback=True):
        number = insert(conn, name, tags, step="s")
        row = conn.execute("select tags from pgflow.job_details where run = %s", [number]).fetchone()
    assert row is not None
    assert tuple(row[0]) == job_tags(name, tags)


def test_a_job_without_a_step_has_none_in_its_metadata(conn: Connection) -> None:
    number = insert(conn, "Flow", [], step="", kind="advance", errors='[{"reason": "lost"}]', state="running", worker=7)
    conn.execute('update pgflow.instances set metadata = \'{"step": "mine"}\'')
    (found,) = run(conn, job.list("pgflow", JobFilters.of({}), workflow="Flow"))
    assert (found.step, found.worker, found.errors) == ("", 7, ({"reason": "lost"},))
    assert found.meta == {"workflow": "Flow", "instance_id": "k::v", "run": number, "workflow_version": 1}


def test_a_page_of_jobs_is_read_in_key_order(conn: Connection) -> None:
    """With any number of jobs, a page reads only the rows that it returns."""
    conn.execute(
        "insert into pgflow.instances (id, workflow, version, input)"
        " select 'k::' || g, 'W', 1, '{}' from generate_series(1, 20000) g;"
    )
    conn.execute("insert into pgflow.jobs (run, step) select run, 's' from pgflow.instances")
    conn.execute("analyze pgflow.jobs, pgflow.instances")
    statement = job.list("pgflow", JobFilters.of({"after": 0}))
    row = conn.execute(f"explain (analyze, timing off, format json) {statement.query}", statement.params).fetchone()
    assert row is not None
    assert row[0][0]["Plan"]["Node Type"] == "Limit"
    assert "Seq Scan" not in json.dumps(row[0])
