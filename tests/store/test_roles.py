"""Privileges of `pgflow roles`: each part may do what it needs, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import psycopg
import pytest
from psycopg import sql

from pgflow.database.connect import Connection, connect
from pgflow.errors import ConfigError, SchemaError, SchemaMissing
from pgflow.migrations import grants
from tests.conftest import Server
from tests.store.granted_roles import GrantedRoles

CLIENT_API = {
    *("start", "start_many", "resume", "resume_run", "schedule_resume", "schedule_resume_run", "unschedule"),
    *("cancel", "cancel_run", "retry", "retry_run", "find", "once", "begin_request", "answered"),
    *("take_place", "renew_places", "release_place"),
    *("enqueue", "enqueue_many", "cancel_task", "retry_task", "await_tasks"),
    *("update_task", "complete_task", "fail_task"),
    *("add_schedule", "pause_schedule", "resume_schedule", "remove_schedule", "run_schedule", "start_instants"),
    *("retry_step", "retry_step_run", "complete_step", "complete_step_run", "fail_step", "fail_step_run"),
}
HARMLESS = {
    *("now", "channel", "backoff", "is_leased", "json_fault", "allowed_starts", "partition_key", "job_key"),
    *("identify", "in_range", "failed_attempt", "instant_text", "ended_channel", "task_key", "contains_error"),
    *("shown_time", "shown_error"),
}  # they read no tables, so PUBLIC may call them
INTERNAL = {
    *("admit_signal", "put", "delete_id", "answer", "lock_business_ids", "excluding_run", "require_queue"),
    *("task_status", "audit", "prune_runs", "end_tasks", "rerun_jobs", "paused_task", "delete_tasks", "apply_declared"),
    "audit_person",
    *("start_instant", "end_instance", "enqueue_hook", "paused_job", "run_paused_again"),
    *("cancel_runs", "retry_runs", "delete_runs", "change_jobs", "skipped_runs"),
    *("cancel_jobs", "retry_jobs", "revive_jobs", "change_tasks", "delete_results", "skipped_tasks"),
    "why_ready",
}
QUEUES = {"pause_queue", "resume_queue", "drain_queue", "scale_queue", "set_limit", "clear_limit", "known_queues"}
PRUNING = {
    *("prune", "prune_archived", "prune_archived_tasks", "expired_runs", "expired_tasks", "forget_audit"),
}
MATCHING = {"matching_runs", "has_error", "failed_queue", "matching_tasks"}
OPERATOR_ONLY = {"run_step_now"}
BULK = {"bulk_count", "bulk_begin", "bulk_batch"}
WORKER_API = {
    *("send_due", "claim_limited", "take_place", "renew_places", "release_place", "payload_references"),
    "task_references",
    *("declare_queues", "declare_schedules", "fire_schedules", "end_expired", "instance_hook", "task_hook"),
    *PRUNING,
}
OVERVIEW = {"why", "why_job", "backlog", "throughput"}
VIEWS = {"job_details", "instance_overview", "queue_overview"}
ALL = (
    {"delete_task"}
    | OPERATOR_ONLY
    | OVERVIEW
    | CLIENT_API
    | HARMLESS
    | INTERNAL
    | QUEUES
    | WORKER_API
    | MATCHING
    | BULK
)
READ = {
    *("instances", "step_results", "jobs", "signals", "scheduled_signals", "workers", "queues"),
    *("definitions", "migrations", "requests", "node_queues", "limits", "rates", "places", "stale_payloads"),
    *("task_results", "tasks", "schedules", "audit", "waiters"),
}
MAY_CALL = {
    "client": CLIENT_API | HARMLESS,
    "worker": WORKER_API | HARMLESS,
    "dashboard": {"find", "known_queues"} | OVERVIEW | MATCHING | HARMLESS,
    "operator": {
        *("cancel", "cancel_run", "retry", "retry_run", "cancel_task", "retry_task", "find"),
        *("update_task", "complete_task", "fail_task", "delete_task"),
        *("retry_step", "retry_step_run", "complete_step", "complete_step_run", "fail_step", "fail_step_run"),
        *("run_step_now", "resume_run"),
        *("once", "begin_request", "answered", "prune"),
        *("pause_schedule", "resume_schedule", "remove_schedule"),
        *BULK,
        *QUEUES,
        *OVERVIEW,
        *HARMLESS,
    },
}
MAY_TOUCH: dict[str, set[tuple[str, str]]] = {
    "client": {("migrations", "select"), ("schedules", "select")},
    "worker": {
        *((table, "select") for table in READ - {"audit"}),
        *(("instances", f"update {column}") for column in ("status", "revision", "metadata", "error", "finished_at")),
        ("step_results", "insert"),
        ("step_results", "update applied"),
        ("step_results", "update targets"),
        ("jobs", "insert"),
        ("jobs", "delete"),
        *(("jobs", f"update {column}") for column in ("kind", "state", "step", "config", "queue", "priority")),
        *(("jobs", f"update {column}") for column in ("max_attempts", "solo", "worker", "attempt", "run_at")),
        *(("jobs", f"update {column}") for column in ("awaits", "parked_at", "errors", "crashes", "key")),
        *(("jobs", f"update {column}") for column in ("progress", "checkpoint", "expires_at")),
        ("signals", "update consumed_at"),
        ("task_results", "insert"),
        ("tasks", "insert"),
        *(("tasks", f"update {column}") for column in ("hash", "options", "registered_at")),
        ("workers", "insert"),
        *(("workers", f"update {column}") for column in ("lease_expires_at", "backend", "attached_at")),
        ("requests", "delete"),
        ("requests", "update made_at"),
        ("workers", "delete"),
        ("stale_payloads", "delete"),
        ("definitions", "insert"),
        ("definitions", "update graph"),
        ("definitions", "update current_since"),
        ("rates", "delete"),
        ("rates", "update tat"),
        ("places", "delete"),
        ("places", "update expires_at"),
    },
    "dashboard": {(table, "select") for table in READ | VIEWS | {"business_ids"}},
    "operator": {("audit", "select"), ("migrations", "select"), ("schedules", "select")},
}
COLUMNS = """
select c.relname, array_agg(a.attname::text order by a.attnum)
from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
where c.relnamespace = %s::text::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'f')
group by c.relname
"""
FUNCTIONS = """
select p.proname, array(select format_type(t.oid, null) from unnest(p.proargtypes) with ordinality a (oid, ord)
    join pg_type t on t.oid = a.oid order by a.ord)
from pg_proc p where p.pronamespace = %s::text::regnamespace
"""
SEQUENCES = "select c.relname from pg_class c where c.relnamespace = %s::text::regnamespace and c.relkind = 'S'"
REFUSALS = (
    psycopg.errors.InsufficientPrivilege,
    psycopg.errors.WrongObjectType,  # nothing can truncate a view,
    psycopg.errors.ObjectNotInPrerequisiteState,  # nor write into one that joins
)


def may(conn: Connection, statement: sql.Composed) -> bool:
    """Return whether we have the privilege for a statement, which may fail for other reasons; rolled back."""
    try:
        with conn.transaction(force_rollback=True):
            conn.execute(statement)
    except REFUSALS:
        return False
    except psycopg.Error:
        return True
    return True


def attempts(name: sql.Identifier, columns: list[str]) -> Iterator[tuple[str, sql.Composed]]:
    """Yield every operation on a table, by column where privileges are."""
    yield "select", sql.SQL("select * from {} where false").format(name)
    yield "insert", sql.SQL("insert into {} default values").format(name)
    for column in columns:
        assign = sql.SQL("update {} set {} = default where false")
        yield f"update {column}", assign.format(name, sql.Identifier(column))
    yield "delete", sql.SQL("delete from {} where false").format(name)
    yield "truncate", sql.SQL("truncate {}").format(name)


def table_privileges(parts: GrantedRoles, part: str) -> set[tuple[str, str]]:
    """Return what a part may do to the tables, by trying everything."""
    with parts.connect("admin") as conn:
        tables: dict[str, list[str]] = dict(conn.execute(COLUMNS, [parts.schema]).fetchall())
    assert set(tables) == READ | VIEWS | {"business_ids"}, "a new table: grant it above and in sql/roles"
    with parts.connect(part) as conn:
        return {
            (table, what)
            for table, columns in tables.items()
            for what, statement in attempts(sql.Identifier(parts.schema, table), columns)
            if may(conn, statement)
        }


def callable_functions(parts: GrantedRoles, part: str) -> set[str]:
    """Return which functions a part may call, by calling each with nulls."""
    with parts.connect("admin") as conn:
        functions = conn.execute(FUNCTIONS, [parts.schema]).fetchall()
    assert {name for name, _ in functions} == ALL, "a new function: grant it above and in sql/roles"
    found: dict[str, set[bool]] = {}
    with parts.connect(part) as conn:
        for name, types in functions:
            values = sql.SQL(", ").join(sql.SQL(f"null::{each}") for each in types)
            call = sql.SQL("select {}({})").format(sql.Identifier(parts.schema, name), values)
            found.setdefault(name, set()).add(may(conn, call))
    assert all(len(answers) == 1 for answers in found.values()), found  # the same for all overloads
    return {name for name, answers in found.items() if True in answers}


@pytest.mark.parametrize("part", grants.PARTS)
def test_a_part_has_the_table_privileges_that_it_needs_and_no_others(parts: GrantedRoles, part: str) -> None:
    assert table_privileges(parts, part) == MAY_TOUCH[part]


@pytest.mark.parametrize("part", grants.PARTS)
def test_a_part_may_call_the_functions_that_it_needs_and_no_others(parts: GrantedRoles, part: str) -> None:
    assert callable_functions(parts, part) == MAY_CALL[part]


@pytest.mark.parametrize("part", grants.PARTS)
def test_a_part_can_neither_create_objects_nor_use_sequences(parts: GrantedRoles, part: str) -> None:
    with parts.connect("admin") as conn:
        sequences = [name for (name,) in conn.execute(SEQUENCES, [parts.schema]).fetchall()]
    assert sequences
    schema = sql.Identifier(parts.schema)
    with parts.connect(part) as conn:
        assert not may(conn, sql.SQL("create table {}.mine (id integer)").format(schema))
        assert not may(conn, sql.SQL("create function {}.mine() returns int return 1").format(schema))
        for name in sequences:
            assert not may(conn, sql.SQL("select nextval({})").format(sql.Literal(f"{parts.schema}.{name}")))


def test_the_owner_has_every_privilege_and_is_not_a_superuser(parts: GrantedRoles) -> None:
    assert {("instances", "update input"), ("jobs", "truncate"), ("queues", "insert")} <= table_privileges(
        parts, "owner"
    )
    assert callable_functions(parts, "owner") == ALL
    with parts.connect("owner") as conn:
        assert conn.execute("select rolsuper from pg_roles where rolname = current_user").fetchone() == (False,)


def test_any_schema_works_and_a_role_may_have_two_parts(server: Server, new_database: Callable[..., str]) -> None:
    with ExitStack() as ends:
        parts = GrantedRoles.create(new_database(server), ends, "user")
        client, worker = parts.names["client"], parts.names["worker"]
        with parts.connect("owner") as conn:
            grants.apply(conn, {"client": [client], "worker": [client, worker]}, "user")
        assert table_privileges(parts, "client") == table_privileges(parts, "worker") == MAY_TOUCH["worker"]
        assert callable_functions(parts, "client") == MAY_CALL["client"] | MAY_CALL["worker"]
        assert callable_functions(parts, "worker") == MAY_CALL["worker"]


def test_applying_again_revokes_privileges_granted_by_hand(parts: GrantedRoles) -> None:
    name = sql.Identifier(parts.names["client"])
    with parts.connect("owner") as conn:
        conn.execute(sql.SQL("grant all on all tables in schema pgflow to {}").format(name))
        conn.execute(sql.SQL("grant update (input) on pgflow.instances to {}").format(name))
        conn.execute(sql.SQL("grant all on all functions in schema pgflow to {}").format(name))
        conn.execute(sql.SQL("grant all on schema pgflow to {}").format(name))
        assert ("instances", "update input") in table_privileges(parts, "client")
        for _ in range(2):
            grants.apply(conn, {"client": [parts.names["client"]]})
            assert table_privileges(parts, "client") == MAY_TOUCH["client"]
            assert callable_functions(parts, "client") == MAY_CALL["client"]


def test_the_printed_script_does_the_same(parts: GrantedRoles) -> None:
    name = parts.names["dashboard"]
    with parts.connect("owner") as conn, conn.transaction():
        conn.execute(sql.SQL("grant delete on pgflow.jobs to {}").format(sql.Identifier(name)))
        conn.execute(grants.sql({"dashboard": [name]}), prepare=False)
    assert table_privileges(parts, "dashboard") == MAY_TOUCH["dashboard"]


def test_a_role_name_can_be_anything_and_is_not_interpreted(parts: GrantedRoles) -> None:
    name = "x\"; drop schema pgflow cascade; --{role}'%s"
    with parts.connect("admin") as conn, conn.transaction(force_rollback=True):
        conn.execute(sql.SQL("create role {}").format(sql.Identifier(name)))
        grants.apply(conn, {"client": [name]})
        answers = conn.execute("select has_schema_privilege(%s, 'pgflow', 'usage')", [name]).fetchone()
        assert answers == (True,)


@pytest.mark.parametrize("given", [{}, {"client": []}, {"owner": ["a"]}, {"client": [""]}, {"worker": ["public"]}])
def test_no_roles_unknown_parts_and_invalid_names_are_rejected(given: dict[str, list[str]]) -> None:
    with pytest.raises(ConfigError):
        grants.sql(given)


def test_each_obstacle_is_reported(parts: GrantedRoles, empty: str) -> None:
    def apply(part: str, *names: str) -> None:
        with parts.connect(part) as conn:
            grants.apply(conn, {"client": names})

    with pytest.raises(ConfigError, match="no such role: unknown role"):
        apply("owner", "unknown role")
    with pytest.raises(ConfigError, match="may act as its owner"):  # it would lose its own privileges
        apply("owner", parts.names["owner"])
    with pytest.raises(ConfigError, match="only the owner"):
        apply("dashboard", parts.names["client"])
    with connect(empty, "test") as conn, pytest.raises(SchemaMissing):
        grants.apply(conn, {"client": ["a"]})


def test_a_role_that_may_create_objects_through_another_role_is_rejected(parts: GrantedRoles) -> None:
    client, dashboard = (sql.Identifier(parts.names[part]) for part in ("client", "dashboard"))
    with parts.connect("admin") as conn, conn.transaction(force_rollback=True):
        conn.execute(sql.SQL("grant create on schema pgflow to {}").format(dashboard))
        conn.execute(sql.SQL("grant {} to {}").format(dashboard, client))
        with pytest.raises(SchemaError, match="through another role"):
            grants.apply(conn, {"client": [parts.names["client"]]})
