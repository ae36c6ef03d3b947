"""The hot statements use their indexes: plans over a hundred thousand jobs, results and instances."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from pgflow.database.connect import Connection, connect
from pgflow.database.statement import Statement, run
from pgflow.store import doctor, instance, job, schedule, signal, worker
from pgflow.store.job_updates import Advance, End, InstanceUpdate, JobUpdate, Move, Park, Result, Retry, Snooze
from tests.conftest import Server

ROWS = 120_000
LARGE = ("jobs", "instances", "step_results", "signals", "scheduled_signals", "task_results", "schedules")

FILL = """
    insert into pgflow.workers (node, pid, queues, version, lease_expires_at)
    select 'n', g, '{}', '0', now() + interval '1 hour' from generate_series(1, 50) g;
    insert into pgflow.instances (id, workflow, version, input, unique_key)
    select 'k::' || g, 'W', 1, '{}', 'k::' || g from generate_series(1, %(rows)s) g;
    insert into pgflow.step_results (run, step, event, attempt, started_at)
    select g, 'a', 'ok', 1, now() from generate_series(1, %(rows)s) g;
    insert into pgflow.jobs (run, step, queue, priority, state, run_at, worker)
    select
        g, 'b', 'q' || g %% 10, g %% 3, s.state,
        now() - interval '1 hour' + g * case when s.state = 'ready' then 1 else 100 end * interval '1 ms',
        case when s.state = 'running' then 1 + g %% 50 end
    from generate_series(1, %(rows)s) g
    cross join lateral (
        select case g %% 100 when 0 then 'running' when 1 then 'parked' when 2 then 'scheduled' else 'ready' end state
    ) s;
    insert into pgflow.scheduled_signals (run, step, name, due_at)
    select g, 'b', 's', now() + (g - 5) * interval '1 minute' from generate_series(1, %(rows)s) g;
    insert into pgflow.schedules
        (name, target, kind, cron, value, overlap, catch_up, handled_at, next_at, last_run, declared_by)
    select
        'schedule ' || g, 'target ' || g %% 100, 'workflow', '@daily', '{instant}', 'skip', 'last',
        now() - interval '1 day', now() + (g - 5000) * interval '1 minute', g, case when g < 100 then 'app' end
    from generate_series(1, %(rows)s) g;
    insert into pgflow.signals (run, name) select g, 's' from generate_series(1, %(rows)s) g where g %% 10 = 0;
"""


@pytest.fixture(scope="module")
def full(server: Server, migrated_database: Callable[[Server], str]) -> Iterator[Connection]:
    """A worker's connection to a database with many rows."""
    dsn = migrated_database(server)
    with connect(dsn, "migrate") as conn:
        for statement in FILL.replace("%(rows)s", str(ROWS)).replace("%%", "%").split(";")[:-1]:
            conn.execute(statement)
        conn.execute("vacuum analyze")
    with connect(dsn, "worker") as conn:
        yield conn


CHECKS: dict[str, Statement[Any]] = {
    "workers": doctor.workers("pgflow"),
    "queues": doctor.queues("pgflow"),
    "missing_jobs": doctor.missing_jobs("pgflow", 1000),
    "unapplied": doctor.unapplied("pgflow", 1000),
    "overdue": doctor.overdue("pgflow"),
    "signals": doctor.signals("pgflow"),
    "orphans": doctor.orphans("pgflow", 1000),
}


@pytest.mark.parametrize("name", CHECKS)
def test_the_doctor_reads_few_rows_of_a_large_table(name: str, full: Connection) -> None:
    full.execute("set plan_cache_mode = force_custom_plan")
    query = f"explain (analyze, timing off, summary off, format json) {CHECKS[name].query}"
    row = full.execute(query, CHECKS[name].params).fetchone()
    full.execute("reset plan_cache_mode")

    assert row is not None
    nodes = list(walk(row[0][0]["Plan"]))
    assert not any(is_large(node) for node in nodes), json.dumps(row[0], indent=1)[:4000]
    read = [(node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"] for node in nodes]
    assert max(read) < ROWS / 8, json.dumps(row[0], indent=1)[:6000]  # ten queues, 1001 jobs of each


def test_a_page_of_orphans_reads_a_page_of_each_table(full: Connection) -> None:
    statement = instance.prune_orphans("pgflow", after=ROWS // 2, limit=500)
    with full.transaction(force_rollback=True):
        full.execute("delete from pgflow.instances where run between %s and %s", [ROWS // 2 + 100, ROWS // 2 + 200])
        query = f"explain (analyze, timing off, summary off, format json) {statement.query}"
        row = full.execute(query, statement.params).fetchone()
    assert row is not None
    nodes = list(walk(row[0][0]["Plan"]))
    assert not any(is_large(node) for node in nodes), json.dumps(row[0], indent=1)[:4000]
    read = [(node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"] for node in nodes]
    assert max(read) < 5000, json.dumps(row[0], indent=1)[:6000]


EFFECTS = (
    Move("c", None, "q0", 0, 5, solo=True, keep=True),
    Move("c", None, "q0", 0, 5, solo=True, keep=True),
    End(),
    Park(None, '{"go": "done"}', 60.0),
    Retry("[]", "exponential", 1.0, 60.0, 0.1),
    Snooze(60.0),
)


def updates(number: int, *, every_effect: bool = False) -> list[JobUpdate]:
    """The outcomes of so many jobs, every other one guarded: moves, or every effect in turn."""
    return [
        JobUpdate(
            id=100 * n, run=100 * n, attempt=0, step="b", kind="execute",
            effect=EFFECTS[n % len(EFFECTS)] if every_effect else EFFECTS[0],
            result=Result("ok"), advance=Advance(keeps_result=True) if n % 2 == 0 else None,
        )
        for n in range(1, number + 1)
    ]  # fmt: skip


def instance_updates(number: int) -> list[InstanceUpdate]:
    """The updates of the instances whose jobs are guarded."""
    return [InstanceUpdate(100 * n, 0) for n in range(2, number + 1, 2)]


STATEMENTS: dict[str, Statement[Any]] = {
    "claim": job.claim("pgflow", 1, {"q1": 100, "q2": 100}),
    "settle one": job.settle("pgflow", 1, updates(1)),
    "settle many": job.settle("pgflow", 1, updates(300), instance_updates(300)),
    "stage": job.stage("pgflow", 1000),
    "rescue": job.rescue("pgflow", 1000),
    "repair orphaned": job.repair_orphaned("pgflow", 1000),
    "reconcile": job.reconcile("pgflow", 1, range(100)),
    "revoked": job.revoked("pgflow", 1, dict.fromkeys(range(100), 1)),
    "beat": worker.beat("pgflow", 1, "", timedelta(seconds=30)),
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_hot_statement_scans_no_large_table(name: str, full: Connection) -> None:
    statement = STATEMENTS[name]
    if statement.prepare is False:
        full.execute("set plan_cache_mode = force_custom_plan")
    with full.transaction(force_rollback=True):
        row = full.execute(f"explain (format json) {statement.query}", statement.params).fetchone()
    full.execute("reset plan_cache_mode")

    assert row is not None
    scans = [f"{node['Node Type']} on {node['Relation Name']}" for node in walk(row[0][0]["Plan"]) if is_large(node)]
    assert not scans, json.dumps(row[0], indent=1)[:4000]


def walk(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from walk(child)


def is_large(node: dict[str, Any]) -> bool:
    """Return whether a node scans a whole large table."""
    return node["Node Type"] == "Seq Scan" and node["Relation Name"] in LARGE


def test_a_claim_reads_only_the_jobs_that_it_claims(full: Connection) -> None:
    statement = job.claim("pgflow", 1, {"q1": 100})
    with full.transaction(force_rollback=True):
        query = f"explain (analyze, timing off, summary off, format json) {statement.query}"
        row = full.execute(query, statement.params).fetchone()
    assert row is not None
    ready = [node for node in walk(row[0][0]["Plan"]) if node.get("Index Name") == "jobs_ready"]
    assert [node["Actual Rows"] for node in ready] == [100]


def test_a_search_for_orphaned_instances_reads_a_page_of_them(full: Connection) -> None:
    statement = job.repair_orphaned("pgflow", 0, 1000)
    with full.transaction(force_rollback=True):
        query = f"explain (analyze, timing off, summary off, format json) {statement.query}"
        row = full.execute(query, statement.params).fetchone()
    assert row is not None
    nodes = [node for node in walk(row[0][0]["Plan"]) if node.get("Relation Name") == "instances"]
    read = [(node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"] for node in nodes]
    assert sum(read) <= 1000, json.dumps(row[0], indent=1)[:4000]  # all are running, none is pending or waiting


def test_sending_due_signals_reads_few_other_rows(full: Connection) -> None:
    statement = signal.send_due("pgflow")
    with full.transaction(force_rollback=True):
        query = f"explain (analyze, buffers, timing off, summary off, format json) {statement.query}"
        row = full.execute(query, statement.params).fetchone()
    assert row is not None
    plan = row[0][0]["Plan"]
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 1000  # the table alone has more than that
    assert not any(is_large(node) for node in walk(plan))


def test_reading_due_schedules_reads_few_other_rows(full: Connection) -> None:
    scope = schedule.ScheduleScope(["target 1", "target 2"], ["schedule 1", "schedule 101"])
    statement = schedule.due("pgflow", scope, limit=20)
    query = f"explain (analyze, buffers, timing off, summary off, format json) {statement.query}"
    row = full.execute(query, statement.params).fetchone()
    assert row is not None
    plan = row[0][0]["Plan"]
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 300
    assert not any(is_large(node) for node in walk(plan))


def test_the_explained_statements_run(full: Connection) -> None:
    with full.transaction(force_rollback=True):
        assert len(run(full, job.claim("pgflow", 1, {"q1": 100, "q2": 50}))) == 150
