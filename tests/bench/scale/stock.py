"""Fill a schema with any number of instances, by one statement each time, then vacuum and analyze."""

from __future__ import annotations

from typing import Any, LiteralString

import psycopg
from psycopg import sql

__all__ = ["STATES", "fill", "tidy"]

BULKY = 200_000  # rows from which rebuilding the indexes is faster

# How instances and jobs differ between the kinds of work, by the job's state: the instance's status and workflow; the
# job's kind, state, step, time and signals. Every second parked job has a timer.
STATES: dict[str, tuple[LiteralString, LiteralString]] = {
    "ready": (
        "'running', 'Single'",
        "'execute', 'ready', 'only', now() - interval '1 hour' + b.run * interval '1 microsecond', null",
    ),
    "scheduled": (
        "'pending', 'Single'",
        "'execute', 'scheduled', 'only', now() + interval '10 days' + b.run * interval '1 millisecond', null",
    ),
    "parked": (
        "'waiting', 'Signalled'",
        """'resume', 'parked', 'go',
        case when b.run %% 2 = 0 then now() + interval '10 days' + b.run * interval '1 millisecond' end,
        '{"go": "received"}'::jsonb""",
    ),
}
FILL: LiteralString = """
    with born as (
        insert into pgflow.instances (status, workflow, version, id, unique_key, input)
        select {instance}, 1, 'stock::' || g, 'w stock::' || g, '{{"sent": 0}}'
        from generate_series(%(before)s::bigint + 1, %(before)s::bigint + %(count)s::bigint) g
        returning run
    )
    insert into pgflow.jobs (kind, state, step, run_at, awaits, run, queue)
    select {job}, b.run, case when %(queues)s::integer > 0 then 'q' || b.run %% %(queues)s::integer else 'default' end
    from born b
"""
INDEXES: LiteralString = """
    select i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid)
    from pg_index i
    where i.indrelid in ('pgflow.instances'::regclass, 'pgflow.jobs'::regclass) and not i.indisprimary
"""


def fill(conn: psycopg.Connection[Any], state: str, count: int, *, queues: int = 0) -> None:
    """Add `count` instances, each with one job in a state, spread over the queues q0, q1, … if a number is given."""
    if count <= 0:
        return
    instance, job = STATES[state]
    statement = sql.SQL(FILL).format(instance=sql.SQL(instance), job=sql.SQL(job))
    row = conn.execute("select count(*) from pgflow.instances").fetchone()
    assert row is not None
    indexes = conn.execute(INDEXES).fetchall() if count >= BULKY else []
    for name, _ in indexes:
        conn.execute(sql.SQL("drop index " + name))
    conn.execute(statement, {"before": row[0], "count": count, "queues": queues})
    conn.execute("set maintenance_work_mem = '1GB'")
    for _, definition in indexes:
        conn.execute(sql.SQL(definition))


def tidy(conn: psycopg.Connection[Any]) -> None:
    """Vacuum and analyze, as autovacuum does soon after."""
    conn.execute("vacuum (analyze) pgflow.instances, pgflow.jobs")
