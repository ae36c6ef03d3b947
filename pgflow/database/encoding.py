"""Require a database that can store any text, and explain which character a caller's connection cannot encode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import psycopg

from pgflow.database.settings import ENCODING
from pgflow.database.sqlstate import primary_message
from pgflow.errors import DatabaseError

__all__ = ["NEW_DATABASE_HINT", "encoding_errors", "missing_character", "require_utf8", "unsupported_encoding"]

AnyConnection: TypeAlias = psycopg.Connection[Any] | psycopg.AsyncConnection[Any]

NEW_DATABASE_HINT = "Use a database encoded in UTF8: createdb --template=template0 --encoding=UTF8 NAME"
CLIENT_HINT = 'Use a connection with client_encoding UTF8: psycopg.connect(…, client_encoding="utf8")'


def unsupported_encoding(encoding: str) -> str | None:
    """Return why a database with this `server_encoding` is not supported, None if it is supported.

    unsupported_encoding("LATIN1")    # "the database is encoded in LATIN1, which cannot hold every character"
    """
    match encoding:
        case "UTF8":
            return None
        case "SQL_ASCII":
            return "the database has the encoding SQL_ASCII, which stores bytes without checking or converting them"
        case _:
            return f"the database is encoded in {encoding}, which cannot hold every character"


def require_utf8(conn: AnyConnection) -> None:
    """Raise `DatabaseError` unless the database's encoding is UTF8. Costs no round trip."""
    reason = unsupported_encoding(_parameter(conn, b"server_encoding"))
    if reason:
        raise DatabaseError(f"{reason}; pgflow needs {ENCODING}", hint=NEW_DATABASE_HINT)


@contextmanager
def encoding_errors(conn: AnyConnection | None) -> Iterator[None]:
    """Raise `DatabaseError` for text that the `client_encoding` of a caller's connection cannot represent.

    The client encodes parameters, so such text is detected before anything is sent; for results the server reports the
    error. With UTF8, and without a connection (None), errors are raised unchanged.

        with encoding_errors(conn):
            run(conn, statement)
    """
    try:
        yield
    except (UnicodeError, psycopg.DataError, psycopg.NotSupportedError) as error:
        encoding = ENCODING if conn is None else _parameter(conn, b"client_encoding")
        reason = None if encoding == ENCODING else _reason(error)
        if reason is None:
            raise
        raise DatabaseError(f"client_encoding of this connection is {encoding}: {reason}", hint=CLIENT_HINT) from error


def missing_character(error: UnicodeEncodeError) -> str:
    """Return which character the encoding cannot represent: "it has no '€' (U+20AC)"."""
    character = error.object[error.start]
    return f"it has no {character!r} (U+{ord(character):04X})"


def _parameter(conn: AnyConnection, name: bytes) -> str:
    """Return a parameter that the server reports. `conn.info` fails for an encoding that Python lacks."""
    return (conn.pgconn.parameter_status(name) or ENCODING.encode()).decode()


def _reason(error: Exception) -> str | None:
    cause = error.__cause__ if isinstance(error.__cause__, UnicodeError) else error
    match cause:
        case UnicodeEncodeError():
            return missing_character(cause)
        case psycopg.errors.UntranslatableCharacter() | psycopg.errors.CharacterNotInRepertoire():
            return primary_message(cause)
        case UnicodeError():
            return "a value from the server cannot be decoded"
        case psycopg.NotSupportedError() if cause.sqlstate is None:
            return "Python has no codec for it"
        case _:
            return None
