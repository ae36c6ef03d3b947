"""A program that has changed psycopg's global adapters before it loads pgflow; `test_global_adapters.py` runs it.

    python -m tests.worker.adapted_program DSN POOLER_DSN CHANGE…

It migrates through DSN and does the rest through POOLER_DSN, which is the same when there is no pooler. Prints its
instance as JSON.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import sys
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import psycopg
from psycopg.adapt import Dumper, Loader
from psycopg.pq import Format
from psycopg.rows import dict_row
from psycopg.types.json import JsonbDumper, set_json_dumps, set_json_loads


def reading(name: str, read: Callable[[bytes], Any]) -> None:
    """Read a type in another way, in both formats."""

    class Text(Loader):
        def load(self, data: Any) -> Any:
            return read(bytes(data))

    class Binary(Text):
        format = Format.BINARY

    for loader in (Text, Binary):
        psycopg.adapters.register_loader(name, loader)


class Shouting(Dumper):
    """Writes a string in capitals, and more."""

    def dump(self, obj: str) -> bytes:
        return f"{obj}!".upper().encode()


class Local(Dumper):
    """Writes a time as in German."""

    def dump(self, obj: datetime.datetime) -> bytes:
        return obj.strftime("%d.%m.%Y %H:%M:%S").encode()


def fail(*given: Any) -> Any:
    raise RuntimeError("the process's own JSON")


def own_json() -> None:
    set_json_loads(fail)
    set_json_dumps(fail)


CHANGES: dict[str, Callable[[], None]] = {
    "list": lambda: psycopg.adapters.register_dumper(list, JsonbDumper),
    "dict": lambda: psycopg.adapters.register_dumper(dict, JsonbDumper),
    "str": lambda: psycopg.adapters.register_dumper(str, Shouting),
    "datetime": lambda: psycopg.adapters.register_dumper(datetime.datetime, Local),
    "float8": lambda: reading("float8", lambda data: Decimal(len(data))),
    "text": lambda: reading("text", bytes),
    "name": lambda: reading("name", bytes),
    "int8": lambda: reading("int8", lambda data: str(data)),
    "int4": lambda: reading("int4", lambda data: str(data)),
    "bool": lambda: reading("bool", lambda data: "t" if data[0] else "f"),
    "timestamptz": lambda: reading("timestamptz", bytes),
    "json": own_json,
}


def main(direct: str, dsn: str, *changes: str) -> None:
    """Make the changes, then use pgflow as a program would."""
    for change in changes:
        CHANGES[change]()

    from pgflow import Context, Done, Ok, Pgflow, Unique, WaitForEvent, Workflow, step

    usual = psycopg.connect(direct, autocommit=True)
    (theirs,) = usual.execute("select 1::int8").fetchone() or (None,)

    @step(transactional=True)
    def book(ctx: Context[dict[str, Any]]) -> Ok:
        (number,) = ctx.conn.execute("select 1::int8").fetchone()
        assert number == theirs, "a step has the adapters of its process"
        return Ok("done", {"name": ctx.initial["name"]})

    @step(transactional=True)
    async def abook(ctx: Context[dict[str, Any]]) -> Ok:
        (number,) = await (await ctx.conn.execute("select 1::int8")).fetchone()
        assert number == theirs, "a step has the adapters of its process"
        return Ok("done", [1, 0.5, None])

    paid = WaitForEvent("paid").named("paid")

    class Guest(Workflow[dict[str, Any]], unique=Unique("guest")):
        initial = book
        transitions = {book: {"done": paid}, paid: {"received": abook}, abook: {"done": Done}}

    Pgflow(direct, workflows=[Guest]).migrate()
    app = Pgflow(dsn, workflows=[Guest], pooler=dsn != direct)
    usual.row_factory = dict_row  # type: ignore[assignment]
    usual.cursor_factory = psycopg.ClientCursor
    Guest.start("zoe", {"name": "Zoë"}, tags=["a"], conn=usual)
    Guest.resume("zoe", "paid", {"by": "card"}, conn=usual)
    app.run_worker(drain=True)

    async def ask() -> Any:
        async with await psycopg.AsyncConnection.connect(direct, autocommit=True) as conn:
            await app.astart(Guest, "bob", {"name": "Bob"}, delay=datetime.timedelta(hours=1), conn=conn)
            found = await app.aget(Guest, "zoe", conn=conn)
        await app.aclose()
        return found

    found = asyncio.run(ask())
    app.cancel(Guest, "bob")
    assert app.list(Guest, tags=["a"], conn=usual)[0].created_at == found.created_at
    assert app.get(Guest, "zoe", conn=usual) == found
    usual.close()
    print(json.dumps({"status": found.status, "error": found.error, "input": found.input, "steps": found.steps}))


if __name__ == "__main__":
    main(*sys.argv[1:])
