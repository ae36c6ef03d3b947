"""Lists as arrays in PostgreSQL's binary format, each made in one go.

psycopg asks each item of a list how to write it, which was a sixth of what a worker did for a step. Here the list says
what it holds: one loop writes its items, and a list of nothing but nulls, as most columns of a batch are, costs next to
nothing. The array is of that type whatever is in it, so that a statement stays one prepared statement.

The format is that of PostgreSQL's `array_send`: how many dimensions, whether there are nulls, the type of the items;
the length of the dimension and its lower bound; then each item after its length in bytes, -1 for a null.

Text is written in the `client_encoding` of the connection. The dumper is registered in pgflow's own map only (see
`adapters`): with psycopg's global one these are lists like any other.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from itertools import repeat
from operator import add
from struct import Struct
from typing import Any, NamedTuple

import psycopg
from psycopg.abc import AdaptContext
from psycopg.adapt import Dumper
from psycopg.pq import Format

from pgflow.database.encoding import missing_character

__all__ = ["KINDS", "Array", "Bigints", "Booleans", "Doubles", "Integers", "Smallints", "Texts"]

NULL = b"\xff\xff\xff\xff"
HEAD = Struct(">iiIii")
EMPTY_ARRAY = Struct(">iiI")
LENGTH = Struct(">i")

Writer = Callable[[Iterable[Any], str], Iterable[bytes]]


def _fixed(code: str) -> Writer:
    """Return a writer of numbers, each in the same number of bytes."""
    item = Struct(">i" + code)
    pack, size = item.pack, item.size - LENGTH.size
    return lambda items, encoding: map(pack, repeat(size), items)


def _texts(items: Iterable[str], encoding: str) -> Iterable[bytes]:
    written = [item.encode(encoding) for item in items]
    return map(add, map(LENGTH.pack, map(len, written)), written)


class Array(list[Any]):
    """A list that is written as an array of its type, nulls (None) included."""


class Smallints(Array):
    """A `smallint[]`."""


class Integers(Array):
    """An `integer[]`."""


class Bigints(Array):
    """A `bigint[]`."""


class Doubles(Array):
    """A `double precision[]`."""


class Booleans(Array):
    """A `boolean[]`."""


class Texts(Array):
    """A `text[]`."""


class Kind(NamedTuple):
    """What PostgreSQL calls an item and an array of them, and how items are written."""

    item: int
    array: int
    write: Writer


KINDS: Mapping[type[Array], Kind] = {
    Smallints: Kind(21, 1005, _fixed("h")),
    Integers: Kind(23, 1007, _fixed("i")),
    Bigints: Kind(20, 1016, _fixed("q")),
    Doubles: Kind(701, 1022, _fixed("d")),
    Booleans: Kind(16, 1000, _fixed("?")),
    Texts: Kind(25, 1009, _texts),
}


class ArrayDumper(Dumper):
    """Writes an `Array`."""

    format = Format.BINARY

    def __init__(self, cls: type[Array], context: AdaptContext | None = None) -> None:
        super().__init__(cls, context)
        self._kind = KINDS[cls]
        self._encoding = _encoding(context) if cls is Texts else ""
        self.oid = self._kind.array  # of the object only: by the class's psycopg would choose this one for others' COPY

    def dump(self, obj: Array) -> bytes:
        """Return the whole array. Raises `psycopg.DataError` for what its type cannot hold."""
        try:
            return self._dumped(obj)
        except UnicodeEncodeError as error:
            raise psycopg.DataError(f"client_encoding {error.encoding}: {missing_character(error)}") from error
        except struct.error as error:
            raise psycopg.DataError(str(error)) from error

    def _dumped(self, obj: Array) -> bytes:
        kind, length = self._kind, len(obj)
        if not length:
            return EMPTY_ARRAY.pack(0, 0, kind.item)
        nulls = obj.count(None)
        head = HEAD.pack(1, nulls > 0, kind.item, length, 1)
        if nulls == length:
            return head + NULL * length
        if not nulls:
            return head + b"".join(kind.write(obj, self._encoding))
        written = iter(kind.write([item for item in obj if item is not None], self._encoding))
        return head + b"".join([NULL if item is None else next(written) for item in obj])


def _encoding(context: AdaptContext | None) -> str:
    """Return Python's name of the connection's encoding. Raises `psycopg.NotSupportedError` where it has none."""
    if context is None or context.connection is None:
        return "utf-8"
    encoding = context.connection.info.encoding
    return "utf-8" if encoding == "ascii" else encoding  # SQL_ASCII: the server converts nothing, and stores UTF-8
