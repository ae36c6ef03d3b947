"""Dump typed lists as PostgreSQL arrays in binary format, in one pass.

psycopg looks up a dumper for each item of a list, which took a sixth of a worker's time per step. Here the list's class
is the type of its items: one loop packs them, and a list of nulls only, as are most columns of a batch, costs almost
nothing. The type of the array does not depend on its items, so a statement stays one prepared statement.

The format is that of PostgreSQL's `array_send`: number of dimensions, whether there are nulls, type of the items;
length and lower bound of the dimension; then each item preceded by its length in bytes, -1 for a null.

Text uses the `client_encoding` of the connection. The dumper is registered in pgflow's own adapters only (see
`adapters`): for psycopg's global ones these classes are plain lists.
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
    """Return a writer of fixed-size numbers."""
    item = Struct(">i" + code)
    pack, size = item.pack, item.size - LENGTH.size
    return lambda items, encoding: map(pack, repeat(size), items)


def _texts(items: Iterable[str], encoding: str) -> Iterable[bytes]:
    written = [item.encode(encoding) for item in items]
    return map(add, map(LENGTH.pack, map(len, written)), written)


class Array(list[Any]):
    """A list that is dumped as an array of its class's type; None is null."""


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
    """The oids of an item type and its array type, and the function that writes items."""

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
    """Dumps an `Array`."""

    format = Format.BINARY

    def __init__(self, cls: type[Array], context: AdaptContext | None = None) -> None:
        super().__init__(cls, context)
        self._kind = KINDS[cls]
        self._encoding = _encoding(context) if cls is Texts else ""
        self.oid = self._kind.array  # not a class attribute: psycopg would use this dumper for other code's COPY

    def dump(self, obj: Array) -> bytes:
        """Return the whole array. Raises `psycopg.DataError` for an item that its type cannot represent."""
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
    """Return Python's name of the connection's encoding. Raises `psycopg.NotSupportedError` if Python lacks it."""
    if context is None or context.connection is None:
        return "utf-8"
    encoding = context.connection.info.encoding
    return "utf-8" if encoding == "ascii" else encoding  # SQL_ASCII: the server stores the bytes unconverted
