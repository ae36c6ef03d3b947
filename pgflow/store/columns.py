"""Arrays that have one type whatever is in them: for the columns of a batch of rows.

psycopg takes an array's type from its elements, and gives one without any (empty, or all null) none. So a batch in
which nobody failed would be another prepared statement than one in which somebody did, with a plan of its own in the
memory of the server's process, up to a hundred of them. Each of these lists says what it is.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.types.array import ListBinaryDumper

__all__ = ["Booleans", "Doubles", "Int2s", "Int4s", "Int8s", "Texts"]


class Texts(list[str | None]):
    """A `text[]`."""


class Booleans(list[bool | None]):
    """A `boolean[]`."""


class Doubles(list[float | None]):
    """A `double precision[]`."""


class Int2s(list[int | None]):
    """A `smallint[]`."""


class Int4s(list[int | None]):
    """An `integer[]`."""


class Int8s(list[int | None]):
    """A `bigint[]`."""


def _introduce(kind: type[list[Any]], name: str) -> None:
    """Let every connection made from now on send lists of this kind as arrays of the type of that name."""
    info = psycopg.adapters.types[name]
    dumper = type(f"{kind.__name__}Dumper", (ListBinaryDumper,), {"oid": info.array_oid, "element_oid": info.oid})
    psycopg.adapters.register_dumper(kind, dumper)


_introduce(Texts, "text")
_introduce(Booleans, "bool")
_introduce(Doubles, "float8")
_introduce(Int2s, "int2")
_introduce(Int4s, "int4")
_introduce(Int8s, "int8")
