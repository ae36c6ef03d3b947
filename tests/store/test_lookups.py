"""No hot statement scans a whole table, however small the tables were when its plan was made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from pgflow.database.connect import Connection, connect
from pgflow.database.statement import Statement, run
from pgflow.store import job, limit, queue, schedule, signal
from tests.conftest import Server
from tests.store.test_plans import FILL, LARGE, instance_updates, updates

ROWS = 6000
CLAIMED = 50
SCHEDULES = schedule.ScheduleScope(["target 1", "target 2", "other"], ["schedule 1"])
# How many rows of the large tables each may read: a few per job.
STATEMENTS: dict[str, tuple[Statement[Any], int]] = {
    "claim": (job.claim("pgflow", 1, {"q3": CLAIMED // 2, "q4": CLAIMED // 2}), 8 * CLAIMED),
    "settle one": (job.settle("pgflow", 1, updates(1)), 20),
    "settle some": (
        job.settle("pgflow", 1, updates(16), instance_updates(16)),
        16 * 10,
    ),
    "peek": (job.peek("pgflow", ["default", "other"], SCHEDULES), 20),
    "due schedules": (schedule.due("pgflow", SCHEDULES, limit=50), 8 * 50),
    "stage": (job.stage("pgflow", 100), 300),
    "send due": (signal.send_due("pgflow"), 100),
    "repair orphaned": (job.repair_orphaned("pgflow", 0, 100), 600),
    "reconcile": (job.reconcile("pgflow", 1, range(100)), 400),
    "revoked": (job.revoked("pgflow", 1, dict.fromkeys(range(100), 1)), 200),
    "rescue": (job.rescue("pgflow", 100), 200 + CLAIMED),
    "claim limited": (job.claim_limited("pgflow", 1, {"q5": CLAIMED}), 8 * CLAIMED),
    "read queues": (queue.read("pgflow", ["q1", "q2", "none"], "n"), 20),
    "forget limits": (limit.forget("pgflow"), 20),
}
READ = """
    select relname, seq_scan, coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)
    from pg_stat_xact_user_tables where schemaname = 'pgflow'
"""
BLOCKS = "select pg_stat_get_xact_blocks_fetched(%s::regclass)"


def read(conn: Connection) -> dict[str, tuple[int, int]]:
    """Return how often each large table was scanned, and how many of its rows were read."""
    return {name: (scans, rows) for name, scans, rows in conn.execute(READ).fetchall() if name in LARGE}


@pytest.fixture(params=["empty", "never analyzed"])
def early(
    request: pytest.FixtureRequest, any_server: Server, migrated_database: Callable[[Server], str]
) -> Iterator[Connection]:
    """A worker's connection whose plans were made while the tables were empty; now they are not."""
    dsn = migrated_database(any_server)
    with connect(dsn, "migrate") as conn:
        for table in LARGE:
            conn.execute(f"alter table pgflow.{table} set (autovacuum_enabled = off)".encode())
        if request.param == "empty":
            conn.execute("vacuum analyze")
        with connect(dsn, "worker") as early:
            for statement, _ in STATEMENTS.values():
                run(early, replace(statement, prepare=True))
            for each in FILL.replace("%(rows)s", str(ROWS)).replace("%%", "%").split(";")[:-1]:
                conn.execute(each.encode())
            yield early


@contextmanager
def counted(conn: Connection) -> Iterator[dict[str, tuple[int, int]]]:
    """Yield a dict with, after the block, how often it scanned each large table and how many rows it read."""
    # No rollback: psycopg would prepare all its statements again.
    found: dict[str, tuple[int, int]] = {}
    with conn.transaction():
        before = read(conn)
        yield found
        for name, (scans, rows) in read(conn).items():
            found[name] = (scans - before.get(name, (0, 0))[0], rows - before.get(name, (0, 0))[1])


def test_a_plan_made_for_empty_tables_scans_none_of_them(early: Connection) -> None:
    for name, (statement, most) in STATEMENTS.items():
        with counted(early) as found:
            run(early, replace(statement, prepare=True))
        assert not any(scans for scans, _ in found.values()), (name, found)
        assert sum(rows for _, rows in found.values()) <= most, (name, found)
    plans = early.execute("select sum(generic_plans), sum(custom_plans) from pg_prepared_statements").fetchone()
    assert plans is not None
    assert plans[0] >= 2 * len(STATEMENTS)
    assert plans[1] == 0


def test_a_large_settle_reads_only_its_own_rows(early: Connection) -> None:
    settle = job.settle("pgflow", 1, updates(60, every_effect=True), instance_updates(60))
    with counted(early) as found:
        run(early, settle)
    assert not any(scans for scans, _ in found.values()), found
    assert sum(rows for _, rows in found.values()) <= 60 * 10, found


def test_no_job_of_a_batch_is_compared_with_each_other_one(early: Connection) -> None:
    found = early.execute(
        "select name, cardinality(parameter_types), statement from pg_prepared_statements where statement like '--%'"
    ).fetchall()
    assert len(found) >= len({statement.query for statement, _ in STATEMENTS.values()})
    for name, parameters, text in found:
        given = f"({', '.join(['null'] * parameters)})" if parameters else ""
        ((explained,),) = early.execute(f"explain (format json) execute {name} {given}".encode()).fetchall()
        crossed = [node for node in nodes(explained[0]["Plan"]) if is_cross(node)]
        assert crossed == [], text


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield all nodes of a plan."""
    yield plan
    for each in plan.get("Plans", ()):
        yield from nodes(each)


def is_cross(node: dict[str, Any]) -> bool:
    """Whether a node scans a whole list of jobs or instances for each row of another."""
    if node["Node Type"] != "Nested Loop" or any(
        each.get("Function Name") == "generate_series" for each in node["Plans"]
    ):
        return False
    inner = next(each for each in node["Plans"] if each["Parent Relationship"] == "Inner")
    return any(each["Node Type"] in ("CTE Scan", "Function Scan") for each in nodes(inner))


def test_replan_makes_a_claim_use_the_right_index(early: Connection) -> None:
    claim = job.claim("pgflow", 1, {"q3": CLAIMED})
    run(early, job.replan("pgflow"))
    assert len(run(early, claim)) == CLAIMED  # plans it
    with early.transaction():
        before = [fetched(early, f"instances_{name}") for name in ("pkey", "by_id", "by_workflow")]
        assert len(run(early, claim)) == CLAIMED
        after = [fetched(early, f"instances_{name}") for name in ("pkey", "by_id", "by_workflow")]
    assert 0 < after[0] - before[0] <= 4 * CLAIMED
    assert after[1:] == before[1:]


def fetched(conn: Connection, index: str) -> int:
    """Return how many blocks of an index the connection has fetched so far in its transaction."""
    row = conn.execute(BLOCKS, [f"pgflow.{index}"]).fetchone()
    assert row is not None
    return int(row[0])
