"""Read instances and jobs from the tables directly."""

from __future__ import annotations

from typing import Any

from psycopg import sql

from pgflow import Instance, Workflow
from pgflow.database.connect import Connection
from tests.worker.waiting import PATIENCE, until

ENDED = ("completed", "failed", "cancelled")


def one(conn: Connection, query: str, *params: object) -> Any:
    """Return the first value of the first row, None without a row."""
    row = conn.execute(query.encode(), params).fetchone()
    return row[0] if row else None


def rows(conn: Connection, query: str, *params: object) -> list[tuple[Any, ...]]:
    """Return all rows."""
    return conn.execute(query.encode(), params).fetchall()


def until_status(workflow: type[Workflow[Any]], value: str, *statuses: str, patience: float = PATIENCE) -> Instance:
    """Wait until an instance has one of these statuses (by default: has ended) and return it."""
    wanted = statuses or ENDED

    def look() -> Instance | None:
        seen.append(workflow.get(value))
        return seen[-1] if seen[-1].status in wanted else None

    seen: list[Instance] = []
    found = until(look, f"{value} {' or '.join(wanted)}", patience=patience)
    assert found is not None
    return found


def until_all_ended(conn: Connection, *, patience: float = PATIENCE) -> dict[str, int]:
    """Wait until no instance is active and return how many ended in which status."""
    active = "select count(*) from pgflow.instances where status in ('pending', 'running', 'waiting')"
    until(lambda: one(conn, active) == 0, "the end of all instances", patience=patience, pause=0.05)
    return dict(rows(conn, "select status, count(*) from pgflow.instances group by status"))


def leftovers(conn: Connection) -> dict[str, list[tuple[Any, ...]]]:
    """Return what should not be there once everything has ended: tokens, and results that are not applied.

    In a failed instance the latter are those whose route failed.
    """
    found = {
        "tokens": rows(conn, "select run, step, kind, state, attempt from pgflow.jobs"),
        "unapplied": rows(
            conn,
            """select r.run, r.step from pgflow.step_results r join pgflow.instances i using (run)
            where not r.applied and i.status <> 'failed'""",
        ),
    }
    return {what: seen for what, seen in found.items() if seen}


def until_recorded(conn: Connection, number: float) -> None:
    """Wait until more than so many steps have been recorded."""
    until(lambda: one(conn, "select count(*) from pgflow.step_results") > number, "some work", pause=0.005)


def until_later(conn: Connection, seconds: float) -> None:
    """Wait until so much time has gone by on the database's clock."""
    moment = one(conn, "select now() + make_interval(secs => %s)", seconds)
    until(lambda: one(conn, "select now() > %s", moment), "a later moment")


def connections(conn: Connection, *roles: str) -> int:
    """Count the connections to this database that pgflow has in these roles."""
    query = "select count(*) from pg_stat_activity where datname = current_database() and application_name = any (%s)"
    return int(one(conn, query, [f"pgflow:{role}" for role in roles]))


def cut(conn: Connection, *roles: str) -> int:
    """End the connections to this database that pgflow has in these roles; returns how many there were."""
    query = """select count(pg_terminate_backend(pid)) from pg_stat_activity
        where datname = current_database() and application_name = any (%s)"""
    return int(one(conn, query, [f"pgflow:{role}" for role in roles]))


def steps(instance: Instance) -> list[str]:
    """Return the steps of its history, in order."""
    return [entry.step for entry in instance.history]


def everything(conn: Connection) -> str:
    """All tables as text."""
    names = conn.execute("select relname from pg_class where relnamespace = 'pgflow'::regnamespace and relkind = 'r'")
    dump = "select coalesce(string_agg(t::text, E'\\n'), '') from {} t"
    tables = [sql.SQL(dump).format(sql.Identifier("pgflow", name)) for (name,) in names.fetchall()]
    return "\n".join(str(conn.execute(table).fetchall()[0][0]) for table in tables)
