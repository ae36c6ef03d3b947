"""What a transactional step leaves in its session does not reach the next step, nor another client of a pooler."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.adapt import Loader
from psycopg.rows import dict_row

from pgflow import Context, Done, Ok, Pgflow, Retry, Unique, Workflow, step
from pgflow.database.connect import Connection
from tests.torture.wire.proxy import upstream_of
from tests.worker.conftest import Work
from tests.worker.db_helpers import rows, until_status
from tests.worker.fake_pooler import StandIn
from tests.worker.thread_worker import Inside

Input = dict[str, Any]

# All that one step may find of another in a session.
PROBE = """
    select 'setting' as what, name, setting from pg_settings
        where source = 'session' or name in ('role', 'session_authorization', 'search_path', 'statement_timeout',
            'default_transaction_read_only', 'transaction_isolation', 'transaction_read_only', 'client_encoding',
            'application_name', 'datestyle', 'timezone', 'enable_seqscan', 'plan_cache_mode')
    union all select 'user', session_user, current_user
    union all select 'custom', 'mine.own', nullif(current_setting('mine.own', true), '')
    union all select 'prepared', name, statement from pg_prepared_statements where from_sql
    union all select 'listening', channel, null from pg_listening_channels() channel
    union all select 'locked', objid::text, mode from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()
    union all select 'temporary', relname, null from pg_class
        where relpersistence = 't' and relnamespace = pg_my_temp_schema()
    union all select 'cursor', name, statement from pg_cursors where name <> ''
    order by 1, 2, 3
"""
LEAVINGS = {
    "path": "set search_path = nowhere",
    "path by set_config": "select set_config('search_path', 'nowhere', false)",
    "custom setting": "set mine.own = 'secret'",
    "statement timeout": "set statement_timeout = '1ms'; set lock_timeout = 1",
    "read-only default": "set session characteristics as transaction read only",
    "isolation default": "set session characteristics as transaction isolation level serializable",
    "role": "set role {role}",
    "session authorization": "set session authorization {role}",
    "transaction lock": "select pg_advisory_xact_lock(7)",
    "advisory lock": "select pg_advisory_lock(7)",
    "shared advisory locks": "select pg_advisory_lock_shared(7), pg_advisory_lock_shared(7)",
    "listen": "listen mine",
    "temporary table": "create temporary table mine (x int)",
    "temporary view": "create temporary view mine as select 1 as x",
    "prepared": "prepare mine as select 1",
    "held cursor": "declare mine cursor with hold for select generate_series(1, 10)",
    "encoding": "set client_encoding = latin1",
    "dates": "set datestyle = german; set timezone = 'Asia/Kathmandu'; set intervalstyle = iso_8601",
    "planner": "set enable_indexscan = off; set enable_seqscan = on; set plan_cache_mode = auto",
    "name": "set application_name = 'mine'",
    "byte format": "set bytea_output = escape; set extra_float_digits = -3",
    "everything": """set search_path = nowhere; set mine.own = 'secret'; set statement_timeout = 1000; listen mine;
        select pg_advisory_lock(7); create temporary table mine (x int); prepare mine as select 1;
        prepare "Odd ""name"" of mine" as select 2; set default_transaction_read_only = on; set role {role}""",
}


class Seen:
    """What steps have found."""

    probes: list[list[Any]]
    pids: list[int]
    objects: list[dict[str, Any]]


class Shouting(Loader):
    """Loads text as an unexpected value."""

    def load(self, data: Any) -> str:
        return bytes(data).decode().upper()


def spoil(conn: Any) -> None:
    """Change all of a connection object that there is to change."""
    conn.row_factory = dict_row
    is_async = isinstance(conn, psycopg.AsyncConnection)
    conn.cursor_factory = psycopg.AsyncClientCursor if is_async else psycopg.ClientCursor
    conn.adapters.register_loader("text", Shouting)
    conn.adapters.register_loader("int8", Shouting)
    conn.prepare_threshold = 0
    conn.prepared_max = 3
    conn.add_notice_handler(lambda notice: None)
    conn.add_notify_handler(lambda notify: None)


def object_state(conn: Any) -> dict[str, Any]:
    """What one step may find of another in the connection object."""
    return {
        "rows": conn.row_factory,
        "cursors": conn.cursor_factory,
        "loader": conn.adapters.get_loader(25, psycopg.pq.Format.TEXT),
        "threshold": conn.prepare_threshold,
        "most": conn.prepared_max,
        "notice handlers": list(conn._notice_handlers),
        "notify handlers": list(conn._notify_handlers),
        "autocommit": conn.autocommit,
        "isolation": conn.isolation_level,
        "read only": conn.read_only,
        "encoding": conn.info.encoding,
    }


@step(transactional=True, retry=Retry(max_attempts=1))
def leave(ctx: Context[Input]) -> Ok:
    if ctx.initial.get("leave"):
        ctx.conn.execute(ctx.initial["leave"])
    if ctx.initial.get("spoil"):
        spoil(ctx.conn)
    if ctx.initial.get("fail"):
        raise RuntimeError("after it")
    return Ok("done", {"text": "ä"})


@step(transactional=True, retry=Retry(max_attempts=1))
async def aleave(ctx: Context[Input]) -> Ok:
    if ctx.initial.get("leave"):
        await ctx.conn.execute(ctx.initial["leave"])
    if ctx.initial.get("spoil"):
        spoil(ctx.conn)
    if ctx.initial.get("fail"):
        raise RuntimeError("after it")
    return Ok("done", {"text": "ä"})


@step(transactional=True)
def look(ctx: Context[Input]) -> Ok:
    Seen.objects.append(object_state(ctx.conn))
    Seen.pids.append(ctx.conn.execute("select pg_backend_pid()").fetchone()[0])
    Seen.probes.append(ctx.conn.execute(PROBE).fetchall())
    return Ok("done")


@step(transactional=True)
async def alook(ctx: Context[Input]) -> Ok:
    Seen.objects.append(object_state(ctx.conn))
    Seen.pids.append((await (await ctx.conn.execute("select pg_backend_pid()")).fetchone())[0])
    Seen.probes.append(await (await ctx.conn.execute(PROBE)).fetchall())
    return Ok("done")


class Leaving(Workflow[Input], unique=Unique("leaving")):
    """Leaves something."""

    initial = leave
    transitions = {leave: {"done": Done}}


class ALeaving(Workflow[Input], unique=Unique("aleaving")):
    """The same, async."""

    initial = aleave
    transitions = {aleave: {"done": Done}}


class Looking(Workflow[Input], unique=Unique("looking")):
    """Looks what there is."""

    initial = look
    transitions = {look: {"done": Done}}


class ALooking(Workflow[Input], unique=Unique("alooking")):
    """The same, async."""

    initial = alook
    transitions = {alook: {"done": Done}}


WORKFLOWS = (Leaving, ALeaving, Looking, ALooking)
Kind = type[Workflow[Any]]
both = pytest.mark.parametrize(("kind", "looking"), [(Leaving, Looking), (ALeaving, ALooking)], ids=["sync", "async"])
ends = pytest.mark.parametrize("fail", [False, True], ids=["completed", "failed"])


@pytest.fixture(autouse=True)
def role(conn: Connection) -> Iterator[str]:
    """A role that may do nothing with pgflow."""
    Seen.probes, Seen.pids, Seen.objects = [], [], []
    name = f"pgflow_reset_{conn.info.backend_pid}"
    conn.execute(f"create role {name}".encode())
    yield name
    conn.execute(f"drop role {name}".encode())


def go(kind: Kind, value: str, **given: Any) -> str:
    kind.start(value, given)
    return str(until_status(kind, value).status)


@both
@ends
@pytest.mark.parametrize("what", list(LEAVINGS))
def test_what_a_step_leaves_in_its_session_does_not_reach_the_next(
    app: Pgflow, conn: Connection, work: Work, role: str, kind: Kind, looking: Kind, what: str, *, fail: bool
) -> None:
    work({"default": 1})
    assert go(looking, "before") == "completed"
    assert go(kind, "v", leave=LEAVINGS[what].format(role=role), fail=fail) == ("failed" if fail else "completed")
    assert go(looking, "after") == "completed"
    before, after = Seen.probes
    assert after == before
    assert Seen.objects[0] == Seen.objects[1]
    assert len(set(Seen.pids)) == 1, "a session is reset, not replaced"
    assert rows(conn, "select objid from pg_locks where locktype = 'advisory' and objid = 7") == []


@both
@ends
def test_what_a_step_changes_on_its_connection_object_ends_with_it(
    app: Pgflow, work: Work, kind: Kind, looking: Kind, *, fail: bool
) -> None:
    work({"default": 1})
    assert go(looking, "before") == "completed"
    assert go(kind, "v", spoil=True, fail=fail) == ("failed" if fail else "completed")
    assert go(looking, "after") == "completed"
    assert Seen.objects[0] == Seen.objects[1]
    assert Seen.probes[0] == Seen.probes[1]
    assert len(set(Seen.pids)) == 1


@both
def test_statements_that_are_prepared_on_a_session_serve_the_next_step(
    app: Pgflow, work: Work, kind: Kind, looking: Kind
) -> None:
    work({"default": 1})
    for number in range(8):  # psycopg prepares the probe at the sixth time
        assert go(looking, f"v{number}") == "completed"
        assert go(kind, f"v{number}", leave="prepare mine as select 1") == "completed"
    assert len(set(Seen.pids)) == 1


@both
def test_a_step_that_deallocates_all_costs_the_session_and_no_other_step(
    app: Pgflow, work: Work, kind: Kind, looking: Kind
) -> None:
    work({"default": 1})
    assert go(looking, "before") == "completed"
    for number in range(3):  # psycopg notices it now and then, and prepares again what it needs
        go(kind, f"v{number}", leave="deallocate all")
        assert go(looking, f"v{number}") == "completed"
    assert go(kind, "hidden", leave="do $$ begin execute 'deallocate all'; end $$") == "failed"
    assert go(looking, "after") == "completed"
    assert Seen.probes[0] == Seen.probes[-1]


@pytest.mark.parametrize("kind", [Leaving, ALeaving], ids=["sync", "async"])
@pytest.mark.parametrize("what", list(LEAVINGS))
def test_nothing_of_a_step_is_left_in_a_poolers_session(
    app: Pgflow, dsn: str, conn: Connection, role: str, kind: Kind, what: str
) -> None:
    looking = Looking if kind is Leaving else ALooking
    with StandIn(str(upstream_of(dsn)), size=1) as pooler:
        through = Pgflow(pooler.through(dsn), workflows=WORKFLOWS, pooler=True)
        try:
            with Inside(through, {"default": 1}):
                assert go(looking, "before") == "completed"
                assert go(kind, "v", leave=LEAVINGS[what].format(role=role)) == "completed"
                assert go(kind, "w", leave=LEAVINGS[what].format(role=role), fail=True) == "failed"
                assert go(looking, "after") == "completed"
            before, after = Seen.probes
            assert after == before
            with psycopg.connect(pooler.through(dsn), prepare_threshold=None) as other:
                found = other.execute(PROBE).fetchall()
            assert [row for row in found if row[0] in ("prepared", "listening", "locked", "temporary", "cursor")] == []
            assert ("custom", "mine.own", None) in found
            assert not [row for row in found if "nowhere" in str(row) or role in str(row)]
        finally:
            through.close()
