"""Commit points are recognized before the server gets the message, and the prediction is right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import psycopg
import pytest

from tests.torture.wire.active_rules import COMMIT_POINT, WireEvent
from tests.torture.wire.dialog import Dialog, messages
from tests.torture.wire.proxy import Proxy, upstream_of

Conn = psycopg.Connection[Any]
Events = list[WireEvent]


def message(kind: bytes, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return kind + (len(content) + 4).to_bytes(4) + content


@pytest.fixture
def events() -> Events:
    return []


@pytest.fixture
def conn(dsn: str, events: Events) -> Iterator[Conn]:
    """A connection through a proxy that records each commit point."""
    with (
        Proxy(upstream_of(dsn), notify=events.append) as proxy,
        psycopg.connect(proxy.door("d").through(dsn), autocommit=True) as conn,
    ):
        conn.execute("create temporary table t (n integer primary key)")
        events.clear()
        yield conn


def block(conn: Conn) -> None:
    with conn.transaction():
        conn.execute("insert into t values (1)")
        conn.execute("insert into t values (%s)", [2])


def undone(conn: Conn) -> None:
    with conn.transaction(force_rollback=True):
        conn.execute("insert into t values (1)")


def savepoints(conn: Conn) -> None:
    with conn.transaction():
        conn.execute("insert into t values (1)")
        with conn.transaction(force_rollback=True):
            conn.execute("insert into t values (2)")
        conn.execute("insert into t values (3)")


def pipeline(conn: Conn) -> None:
    with conn.pipeline():
        conn.execute("insert into t values (1)")
        conn.execute("insert into t values (2)")


def block_in_a_pipeline(conn: Conn) -> None:
    with conn.pipeline(), conn.transaction():
        conn.execute("insert into t values (1)")


def prepared(conn: Conn) -> None:
    for number in range(3):
        conn.execute("insert into t values (%s)", [number], prepare=True)


def prepared_end(conn: Conn) -> None:
    conn.execute("begin", prepare=True)
    conn.execute("insert into t values (1)")
    conn.execute("commit", prepare=True)


def copy(conn: Conn) -> None:
    with conn.cursor().copy("copy t from stdin") as lines:
        for number in range(1000):
            lines.write_row([number])


def copy_in_a_block(conn: Conn) -> None:
    with conn.transaction():
        copy(conn)


def copy_out(conn: Conn) -> None:
    with conn.cursor().copy("copy (select generate_series(1, 5000)) to stdout") as lines:
        assert sum(1 for _ in lines.rows()) == 5000


def several(conn: Conn) -> None:
    conn.execute("-- a comment\ninsert into t values (1); insert into t values (2);")


def several_with_a_block(conn: Conn) -> None:
    conn.execute("begin; insert into t values (1)")
    conn.execute("insert into t values (2); /* and */ commit")


def failure(conn: Conn) -> None:
    for _ in range(2):
        with suppress(psycopg.errors.UniqueViolation):
            conn.execute("insert into t values (1), (1)")
    conn.execute("insert into t values (1)")


def failure_in_a_block(conn: Conn) -> None:
    conn.execute("begin")
    with pytest.raises(psycopg.errors.DivisionByZero):
        conn.execute("select 1/0")
    conn.execute("commit")
    conn.execute("start transaction")
    conn.execute("insert into t values (1)")
    conn.execute("end")


def failed_begin(conn: Conn) -> None:
    with suppress(psycopg.errors.DivisionByZero), conn.pipeline():
        conn.execute("select 1/0")
        conn.execute("begin")
    conn.execute("insert into t values (1)")


def large(conn: Conn) -> None:
    row = conn.execute("select length(%s::text), repeat('y', 3000000)", ["x" * 3_000_000]).fetchone()
    assert row is not None
    assert (row[0], len(row[1])) == (3_000_000, 3_000_000)


@pytest.mark.parametrize(
    ("program", "points", "committed"),
    [
        (block, 1, 1),
        (undone, 0, 0),
        (savepoints, 1, 1),
        (pipeline, 1, 1),
        (block_in_a_pipeline, 1, 1),
        (prepared, 3, 3),
        (prepared_end, 1, 1),
        (copy, 1, 1),
        (copy_in_a_block, 1, 1),
        (copy_out, 1, 1),
        (several, 1, 1),
        (several_with_a_block, 1, 1),
        (failure, 3, 1),
        (failure_in_a_block, 2, 1),
        (failed_begin, 1, 1),
        (large, 1, 1),
    ],
)
def test_each_transaction_has_one_commit_point_however_it_is_sent(
    program: Callable[[Conn], None],
    points: int,
    committed: int,
    conn: Conn,
    events: Events,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done = []
    answered = Dialog.server_sent

    def watched(self: Dialog, data: bytes, start: int) -> Any:
        exchange = answered(self, data, start)
        if exchange is not None and exchange.is_committed:
            done.append(exchange)
        return exchange

    monkeypatch.setattr(Dialog, "server_sent", watched)
    program(conn)
    conn.execute("select 'the end'")
    assert [each.what for each in events] == [COMMIT_POINT] * (points + 1)
    assert events[-1].statements == ("select 'the end'",), "it is a transaction of its own"
    assert len(done) - 1 == committed


def test_a_commit_point_has_the_statements_that_it_commits(conn: Conn, events: Events) -> None:
    with conn.pipeline():
        conn.execute("-- What it does. => n\nselect 1", prepare=True)
        conn.execute("  select 2")
    conn.execute("-- What it does. => n\nselect 1", prepare=True)
    with conn.transaction():
        conn.execute("select 3")
        conn.execute("select 4")
    assert [each.statements for each in events] == [
        ("What it does. => n", "select 2"),
        ("What it does. => n",),
        ("BEGIN", "select 3", "select 4", "COMMIT"),
    ]
    assert {(each.door, each.role) for each in events} == {("d", "")}


def test_a_message_is_parsed_when_it_is_complete() -> None:
    data = message(b"Q", b"select 1\0") + message(b"X")
    cuts = [[data[start:end] for start, end in messages(data[:size])] for size in range(len(data) + 1)]
    assert cuts[-1] == [message(b"Q", b"select 1\0"), message(b"X")]
    assert [len(each) for each in cuts] == [0] * 14 + [1] * 5 + [2]


def test_messages_outside_of_an_exchange_commit_nothing() -> None:
    dialog = Dialog()
    for part in (message(b"p", b"secret\0"), message(b"d", b"data"), message(b"H"), message(b"X")):
        assert not dialog.client_sent(part, 0, len(part))
    assert dialog.awaited is None
    call = message(b"F", b"\0\0\0\1")
    assert dialog.client_sent(call, 0, len(call))
