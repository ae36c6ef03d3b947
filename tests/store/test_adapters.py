"""Values are converted by pgflow's own adapters, independent of process, connection and session."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from psycopg.types.json import JsonbDumper

from pgflow.database import adapters, files
from pgflow.database.arrays import Texts
from pgflow.database.connect import Connection, connect
from pgflow.database.statement import Statement, arun, run
from pgflow.migrations.migrate import up
from pgflow.worker.transactional.session import StepSession
from tests.conftest import Server
from tests.torture.install import audit, debug

PLACEHOLDER = re.compile(r"%\((\w+)\)[sb]")
# Types whose binary format is the same in every session, and which `adapters` loads as one Python type.
SETTING_INDEPENDENT = {
    "bool",
    "int2",
    "int4",
    "int8",
    "float8",
    "text",
    "name",
    "oid",
    "timestamptz",
    "void",
    "_text",
    "_name",
}
AT = datetime(2024, 2, 29, 23, 59, 58, 123456, tzinfo=UTC)
ALL = Statement(
    "test/all",
    """select true, 1::int2, 2::int4, 3::int8, 1::float8 / 3, 'Zo' || chr(235), 'n'::name,
        '2024-02-29 23:59:58.123456+00'::timestamptz, array['a', null], %(texts)b::text[], %(when)s::timestamptz,
        %(list)s::int[], %(text)s::text, %(float)s::float8, %(none)s::text""",
    {"texts": Texts(["Zoë", None]), "when": AT, "list": [1, 2], "text": "Zoë", "float": 1 / 3, "none": None},
    lambda rows: rows[0],
)
READ = (True, 1, 2, 3, 1 / 3, "Zoë", "n", AT, ["a", None], ["Zoë", None], AT, [1, 2], "Zoë", 1 / 3, None)
SETTINGS = {
    "DateStyle": "German",
    "IntervalStyle": "sql_standard",
    "TimeZone": "Asia/Kolkata",
    "extra_float_digits": "-15",
    "bytea_output": "escape",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "quote_all_identifiers": "on",
    "xmloption": "document",
    "backslash_quote": "off",
    "standard_conforming_strings": "off",
    "client_encoding": "LATIN1",
}


class Strange(psycopg.adapt.Loader):
    """Loads any value as another one."""

    def load(self, data: Any) -> Any:
        return ("strange", bytes(data))


class StrangeBinary(Strange):
    format = psycopg.pq.Format.BINARY


class StrangeDumper(psycopg.adapt.Dumper):
    """Dumps any value as another one."""

    def dump(self, obj: Any) -> bytes:
        return b"strange"


def change_adapters(context: psycopg.abc.AdaptContext) -> None:
    """Change the conversion of common types."""
    for name in ("bool", "int2", "int4", "int8", "float8", "text", "name", "timestamptz", "json", "jsonb"):
        oid = psycopg.adapters.types[name].oid
        for loader in (Strange, StrangeBinary):
            context.adapters.register_loader(oid, loader)
    for kind in (str, int, float, bool, datetime, type(None)):
        context.adapters.register_dumper(kind, StrangeDumper)
    context.adapters.register_dumper(list, JsonbDumper)


@pytest.fixture
def changed_process() -> Iterator[None]:
    """A process with changed global adapters; restored afterwards."""
    shared = psycopg.adapters
    loaders = [each.copy() for each in shared._loaders]
    dumpers = {key: each.copy() for key, each in shared._dumpers.items()}
    by_oid = [each.copy() for each in shared._dumpers_by_oid]
    change_adapters(shared)
    yield
    shared._loaders, shared._dumpers, shared._dumpers_by_oid = loaders, dumpers, by_oid
    assert shared.get_dumper(list, psycopg.adapt.PyFormat.AUTO) is not JsonbDumper


@pytest.mark.parametrize("cursor", [psycopg.Cursor, psycopg.ClientCursor, psycopg.RawCursor, psycopg.ServerCursor])
def test_adapters_of_a_connection_have_no_effect(migrated: str, cursor: Any) -> None:
    with psycopg.connect(migrated, row_factory=dict_row) as conn:
        conn.cursor_factory = cursor
        change_adapters(conn)
        assert run(conn, ALL) == READ
        assert conn.adapters.get_loader(20, psycopg.pq.Format.TEXT) is Strange, "the caller's map was changed"


@pytest.mark.usefixtures("changed_process")
def test_adapters_of_the_process_have_no_effect(migrated: str) -> None:
    for role in ("client", "worker", "step", "migrate"):
        with connect(migrated, role) as conn:
            assert run(conn, ALL) == READ
            assert conn.execute("select 1::int8").fetchone() == (1,), role
    with psycopg.connect(migrated) as conn:
        assert run(conn, ALL) == READ
    with connect(migrated, "step", pooler=True) as conn:
        assert run(conn, ALL) == READ


@pytest.mark.usefixtures("changed_process")
@pytest.mark.parametrize("pooler", [False, True])
def test_a_step_has_the_adapters_of_its_process(migrated: str, pooler: bool) -> None:
    with connect(migrated, "step", pooler=pooler) as line:
        session = StepSession(line)
        session.begin()
        assert session.conn.execute("select 1::int8").fetchone() == (("strange", b"1"),)
        assert run(session.conn, ALL) == READ
        session.rollback()
        assert session.is_clean


@pytest.mark.usefixtures("changed_process")
def test_adapters_built_in_a_changed_process_are_the_same(migrated: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapters, "ADAPTERS", adapters._build())
    with psycopg.connect(migrated) as conn:
        assert run(conn, ALL) == READ


@pytest.mark.parametrize(("name", "value"), SETTINGS.items())
def test_session_settings_have_no_effect(migrated: str, name: str, value: str) -> None:
    with psycopg.connect(migrated) as conn:
        conn.execute("select set_config(%s, %s, false)", [name, value])
        found = run(conn, ALL)
        assert found == READ
        assert found[7].utcoffset() == timedelta(), "times are in UTC"
        (kept,) = conn.execute("select current_setting(%s)", [name]).fetchone() or (None,)
        assert kept is not None
        assert kept.lower().startswith(value.lower()), "the caller's session was changed"


def test_an_async_connection_behaves_the_same(migrated: str) -> None:
    async def ask() -> tuple[object, ...]:
        async with await psycopg.AsyncConnection.connect(migrated, row_factory=dict_row) as conn:
            conn.cursor_factory = psycopg.AsyncClientCursor
            change_adapters(conn)
            for name, value in SETTINGS.items():
                await conn.execute(f"set {name} to '{value}'".encode(), prepare=False)
            return await arun(conn, ALL)

    assert asyncio.run(ask()) == READ


def test_no_statement_reads_a_type_that_a_session_can_change(server: Server, new_database: Callable[..., str]) -> None:
    with connect(new_database(server), "migrate") as conn:
        up(conn)
        audit.install(conn, "pgflow")
        debug.install_clock(conn)
        debug.install_refusals(conn)
        types = {int(oid): str(name) for oid, name in conn.execute("select oid, typname from pg_type")}
        met: set[str] = set()
        for path in files.list_files("queries"):
            found = columns(conn, files.load(path))
            assert {types[oid] for oid in found} <= SETTING_INDEPENDENT, path
            met |= {types[oid] for oid in found}
    assert {"timestamptz", "float8", "text"} <= met


def columns(conn: Connection, query: str) -> list[int]:
    """Return the type of each result column of a query."""
    names: list[str] = []

    def numbered(match: re.Match[str]) -> str:
        if match[1] not in names:
            names.append(match[1])
        return f"${names.index(match[1]) + 1}"

    text = PLACEHOLDER.sub(numbered, query).replace("%%", "%")
    for result in (conn.pgconn.prepare(b"", text.encode()), conn.pgconn.describe_prepared(b"")):
        assert result.status == psycopg.pq.ExecStatus.COMMAND_OK, f"{result.error_message!r}: {text}"
    return [result.ftype(number) for number in range(result.nfields)]
