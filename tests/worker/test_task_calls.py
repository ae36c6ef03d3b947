"""Tasks and the caller's database: its transactions, its triggers, one statement for many calls, encryption."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from pgflow import Pgflow, task
from pgflow.contrib.encryption import AesGcm
from pgflow.database.connect import Connection
from tests.worker.db_helpers import everything, one, rows
from tests.worker.thread_worker import Inside
from tests.worker.waiting import PATIENCE

CANARY = "canary-4711"


@task(queue="mail")
def receipt(order_id: int, text: str = "") -> str:
    return f"{order_id}: {text}"


WORKFLOWS = ()


class Undo(Exception):
    """Rolls a transaction back."""


@pytest.fixture
def app(dsn: str, conn: Connection) -> Iterator[Pgflow]:
    app = Pgflow(dsn, tasks=[receipt])
    app.register()
    yield app
    app.close()


@contextmanager
def rolled_back() -> Iterator[None]:
    with pytest.raises(Undo):
        yield


def test_an_enqueue_takes_part_in_the_callers_transaction(app: Pgflow, dsn: str, conn: Connection) -> None:
    with psycopg.connect(dsn) as own:
        with rolled_back(), own.transaction():
            receipt.options(conn=own).enqueue(1)
            raise Undo
        with own.transaction():
            receipt.options(conn=own).enqueue(2)
            assert rows(conn, "select id from pgflow.jobs") == []

    async def twice() -> None:
        async with await psycopg.AsyncConnection.connect(dsn) as own:
            with rolled_back():
                async with own.transaction():
                    await receipt.options(conn=own).aenqueue(3)
                    raise Undo
            async with own.transaction():
                await receipt.options(conn=own).aenqueue_many([receipt.call(4), receipt.call(5)])

    asyncio.run(twice())
    assert sorted(each.args["order_id"] for each in receipt.list()) == [2, 4, 5]


def test_a_trigger_enqueues(app: Pgflow, conn: Connection) -> None:
    conn.execute(
        "create table public.orders (id integer, note text);"
        "create function public.note_order() returns trigger language plpgsql as $$ begin perform"
        " pgflow.enqueue('receipt', jsonb_build_object('order_id', new.id, 'text', new.note)); return null; end $$;"
        "create trigger receipt after insert on public.orders for each row execute function public.note_order()"
    )
    try:
        conn.execute("insert into public.orders select n, 'thanks' from generate_series(1, 3) n")
        with rolled_back(), conn.transaction():
            conn.execute("insert into public.orders values (4, 'never')")
            raise Undo
    finally:
        conn.execute("drop table public.orders; drop function public.note_order")
    jobs = receipt.list(order="oldest")
    assert [(each.queue, each.status) for each in jobs] == [("mail", "pending")] * 3
    with Inside(app, {"mail": 5}):
        assert [receipt.job(each.id).result(timeout=PATIENCE) for each in jobs] == [f"{n}: thanks" for n in (1, 2, 3)]


def test_a_thousand_calls_are_one_statement(
    app: Pgflow, dsn: str, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []
    execute = psycopg.Cursor.execute

    def note(cursor: Any, query: Any, *args: Any, **options: Any) -> Any:
        if cursor.connection is own:
            sent.append(query)
        return execute(cursor, query, *args, **options)

    with psycopg.connect(dsn) as own:
        monkeypatch.setattr(psycopg.Cursor, "execute", note)
        handles = receipt.options(conn=own).enqueue_many((number,) for number in range(1000))
    assert len(sent) == 1
    assert one(conn, "select count(*) from pgflow.jobs") == len({each.id for each in handles}) == 1000


def test_a_codec_encrypts_the_arguments_and_the_output_of_a_task(dsn: str, conn: Connection) -> None:
    app = Pgflow(dsn, tasks=[receipt], codec=AesGcm({"k1": os.urandom(32)}, current="k1"))
    app.register()
    job = receipt.enqueue(1, CANARY)
    assert CANARY not in everything(conn)
    with Inside(app, {"mail": 1}):
        assert job.result(timeout=PATIENCE) == f"1: {CANARY}"
    assert job.get().args == {"order_id": 1, "text": CANARY}
    assert CANARY not in everything(conn)
    app.close()
