"""SQL and Python accept the same business values, on each PostgreSQL version and for any locale of the database."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from itertools import count
from typing import Any

import psycopg
import pytest
from psycopg import sql

from pgflow import Context, Done, Ok, Pgflow, Unique, Workflow, step
from pgflow.core.definition.unique import validate_value
from pgflow.database.connect import Connection, connect
from pgflow.errors import InvalidValue
from pgflow.migrations.migrate import up
from tests.conftest import Server

NUMBERS = count(1)
# White space, control and format characters (some of zero width), separators; private use, unassigned, the largest.
SUSPECTS = [
    chr(point)
    for point in (*range(1, 0xD800), *range(0xE000, 0x10000), 0xE0001, 0xE0020, 0xE0100, 0x1F600, 0x10FFFF)
    if chr(point).isspace()
    or unicodedata.category(chr(point)) in ("Cc", "Cf", "Zs", "Zl", "Zp")
    or point in (0x200B, 0x180E, 0xFEFF, 0xE000, 0xFFFE, 0xFFFF)
    or point > 0xFFFF
]

LENGTHS = ["x" * 200, "x" * 201, "é" * 200, "\U0001f600" * 200, "\U0001f600" * 201, "a::b", "a:b", "a:", ":::", ""]


@step
def only(ctx: Context[Any]) -> Ok:
    return Ok("done")


class Lone(Workflow[Any], unique=Unique("lone")):
    initial = only
    transitions = {only: {"done": Done}}


@pytest.fixture(params=["C", "C.UTF-8"])
def client(request: pytest.FixtureRequest, any_server: Server) -> Iterator[Connection]:
    """A connection to a database whose locale covers ASCII only, or all of Unicode."""
    name = f"pgflow_test_locale_{os.getpid()}_{next(NUMBERS)}"
    create = sql.SQL("create database {} template template0 encoding 'UTF8' lc_collate {locale} lc_ctype {locale}")
    with psycopg.connect(any_server.dsn, autocommit=True) as conn:
        conn.execute(create.format(sql.Identifier(name), locale=request.param))
    try:
        dsn = any_server.database_dsn(name)
        with connect(dsn, "migrate") as conn:
            up(conn)
        app = Pgflow(dsn, workflows=[Lone])
        app.register()
        app.close()
        with connect(dsn, "test") as conn, conn.transaction(force_rollback=True):
            yield conn
    finally:
        any_server.drop_database(name)


def is_accepted_by_python(value: Any) -> bool:
    try:
        validate_value(value)
    except InvalidValue:
        return False
    return True


def accepted_by_sql(conn: Connection, values: list[str]) -> set[str]:
    """Return the values that `pgflow.start` accepts: each in a subtransaction, in one call."""
    conn.execute(
        """
        create function pg_temp.accepted(given text[]) returns setof text language plpgsql as $$
        declare
            each text;
        begin
            foreach each in array given loop
                begin
                    perform pgflow.start('Lone', each);
                    return next each;
                exception when sqlstate 'PF008' then
                    null;
                end;
            end loop;
        end
        $$
        """
    )
    return {value for (value,) in conn.execute("select pg_temp.accepted(%s::text[])", [values]).fetchall()}


def test_sql_and_python_accept_the_same_values(client: Connection) -> None:
    values = [form.format(each) for each in SUSPECTS for form in ("a{}b", "{}")] + LENGTHS
    accepted = accepted_by_sql(client, values)
    wrong = {value: value in accepted for value in values if is_accepted_by_python(value) is not (value in accepted)}
    assert wrong == {}


def test_only_white_space_and_control_characters_are_rejected() -> None:
    refused = {each for each in SUSPECTS if not is_accepted_by_python(f"a{each}b")}
    assert refused == {each for each in SUSPECTS if each.isspace() or unicodedata.category(each) == "Cc"}
    assert {0x0B, 0x1C, 0x85, 0xA0, 0x1680, 0x2003, 0x2028, 0x202F, 0x3000} <= {ord(each) for each in refused}
    assert {0x200B, 0x200D, 0x180E, 0xFEFF, 0x1F600} <= {ord(each) for each in SUSPECTS} - {
        ord(each) for each in refused
    }


def test_length_counts_characters_and_the_separator_is_rejected() -> None:
    accepted = {"x" * 200, "é" * 200, "\U0001f600" * 200, "a:b", "a:"}
    assert {value for value in LENGTHS if is_accepted_by_python(value)} == accepted


def test_python_rejects_values_that_postgresql_cannot_store() -> None:
    assert not any(map(is_accepted_by_python, ["\0", "a\0b", "\ud800", "a\udfff", None, 7, b"a"]))
