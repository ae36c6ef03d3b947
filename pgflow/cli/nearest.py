"""Suggest the nearest name for one that the database does not know."""

import difflib
import re
from collections.abc import Sequence
from contextlib import suppress

import psycopg

from pgflow.database.connect import Connection
from pgflow.database.statement import run
from pgflow.errors import NotFound, PgflowError, UnknownQueue, UnknownSchedule, UnknownTask, UnknownWorkflow
from pgflow.store import definition, overview, queue, schedule

__all__ = ["nearest", "with_nearest"]

QUOTED = re.compile(r"'((?:[^']|'')+)'")


def nearest(name: str, known: Sequence[str]) -> list[str]:
    """Return up to two of the known names that are similar.

    nearest("mial", ["default", "mail"])    # ["mail"]
    """
    return difflib.get_close_matches(name, known, n=2) or [each for each in known if each.lower() == name.lower()]


def with_nearest(error: NotFound, conn: Connection, schema: str) -> NotFound:
    """Return the error with similar names in its hint, or as it is without any, or without the right to read names.

    The database quotes the unknown name in its message.
    """
    found = QUOTED.search(str(error))
    if found is None:
        return error
    name, near = found[1].replace("''", "'"), list[str]()
    with suppress(psycopg.Error, PgflowError):
        near = nearest(name, _known(error, conn, schema))
    if not near:
        return error
    return type(error)(str(error), hint=f"Did you mean {' or '.join(near)}?")


def _known(error: NotFound, conn: Connection, schema: str) -> list[str]:
    match error:
        case UnknownQueue():
            return [each.name for each in run(conn, queue.list(schema))]
        case UnknownTask():
            return [each.name for each in run(conn, overview.tasks(schema))]
        case UnknownSchedule():
            return run(conn, schedule.names(schema))
        case UnknownWorkflow():
            return run(conn, definition.names(schema))
        case _:
            return []
