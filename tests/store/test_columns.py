"""Arrays have one type whatever is in them: a batch is the same prepared statement whatever came of its tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from pgflow.store import job
from pgflow.store.columns import Booleans, Doubles, Int2s, Int4s, Int8s, Texts
from pgflow.store.connect import Connection, connect
from pgflow.store.job import Branch, Change, Verdict
from pgflow.store.migrate import up
from pgflow.store.statement import run
from tests.conftest import Server

KINDS = [
    (Texts, "text[]", ["a", '"{\\,}"', ""]),
    (Booleans, "boolean[]", [True, False]),
    (Doubles, "double precision[]", [0.1, 3, -1e300]),
    (Int2s, "smallint[]", [1, -32768, 32767]),
    (Int4s, "integer[]", [1, -(2**31), 2**31 - 1]),
    (Int8s, "bigint[]", [1, -(2**63), 2**63 - 1]),
]
PREPARED = "select count(*) from pg_prepared_statements where statement like '-- Records what%'"


@pytest.fixture(scope="module")
def conn(server: Server, new_database: Callable[..., str]) -> Iterator[Connection]:
    """A connection to a database with pgflow in it."""
    with connect(new_database(server), "migrate") as conn:
        up(conn)
        yield conn


@pytest.mark.parametrize(("kind", "name", "values"), KINDS, ids=lambda each: getattr(each, "__name__", None))
def test_an_array_has_its_type_whatever_is_in_it(
    conn: Connection, kind: type[list[Any]], name: str, values: list[Any]
) -> None:
    for content in (values, [], [None], [None, *values, None]):
        ((typed, came),) = conn.execute("select pg_typeof(%b)::text, %b", [kind(content)] * 2).fetchall()
        assert (typed, came) == (name, content)


def test_a_settle_is_one_prepared_statement_whatever_came_of_its_tokens(conn: Connection) -> None:
    plain = partial(Verdict, id=1, run=1, attempt=1, step="a", kind="execute")
    verdicts = [
        plain(op="move", event="done", output="{}", next_step="b", next_priority=1, next_max=3),
        plain(op="end", event="done", targets="[]", metadata="{}", guarded=True),
        plain(op="retry", errors="[]", delay=1.0, backoff="fixed", base=1.0, cap=2.0, jitter=0.1),
        plain(op="park", awaits="go", signal=7, orchestration="default", next_solo=False, next_queue="q"),
    ]
    for verdict in verdicts:
        run(conn, job.settle("pgflow", 1, [verdict]))
        run(conn, job.settle("pgflow", 1, [verdict], [Change(1, 1, "completed", "{}")]))
        run(conn, job.settle("pgflow", 1, [verdict], [Change(1, None)], [Branch(1, "b", None, "default", 1, 3)]))
    assert conn.execute(PREPARED).fetchall() == [(1,)]
