"""Lists that are written as arrays in one go come back as they were, in the type that they say."""

from functools import partial
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgflow.database.arrays import KINDS, Array, ArrayDumper, Bigints, Booleans, Doubles, Integers, Smallints, Texts
from pgflow.database.connect import connect
from pgflow.database.statement import run
from pgflow.migrations.migrate import up
from pgflow.store import job
from pgflow.store.job import Branch, Change, Verdict

PREPARED = "select count(*) from pg_prepared_statements where statement like '-- Records what%'"
ITEMS: dict[type[Array], st.SearchStrategy[Any]] = {
    Smallints: st.integers(-(2**15), 2**15 - 1),
    Integers: st.integers(-(2**31), 2**31 - 1),
    Bigints: st.integers(-(2**63), 2**63 - 1),
    Doubles: st.floats(allow_nan=False),
    Booleans: st.booleans(),
    Texts: st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
}


@pytest.mark.parametrize("kind", ITEMS)
def test_an_array_comes_back_as_it_was(dsn: str, kind: type[Array]) -> None:
    with connect(dsn, "test") as conn:

        @given(st.lists(st.none() | ITEMS[kind]))
        @settings(deadline=None)
        def there_and_back(items: list[Any]) -> None:
            row = conn.execute("select %(a)b, pg_typeof(%(a)b)::oid", {"a": kind(items)}, binary=True).fetchone()
            assert row == (items, KINDS[kind].array)

        there_and_back()


def test_an_array_keeps_its_type_whatever_is_in_it(dsn: str) -> None:
    with connect(dsn, "test") as conn:
        for items in ((), (None,), (None, None), (1,), (None, 1), (2**40,)):
            conn.execute("select cardinality(%(a)b)", {"a": Bigints(items)}, prepare=True)
        (count,) = conn.execute("select count(*) from pg_prepared_statements").fetchone() or (None,)
        assert count == 1


def test_what_does_not_fit_the_type_is_refused(dsn: str) -> None:
    with connect(dsn, "test") as conn, pytest.raises(psycopg.DataError, match="-32768 <= number"):
        conn.execute("select %(a)b", {"a": Smallints([2**15])})


def test_others_lists_are_written_as_before() -> None:
    for way in psycopg.pq.Format:
        assert not issubclass(psycopg.adapters.get_dumper_by_oid(KINDS[Texts].array, way), ArrayDumper)


def test_a_settle_is_one_prepared_statement_whatever_came_of_its_tokens(dsn: str) -> None:
    plain = partial(Verdict, id=1, run=1, attempt=1, step="a", kind="execute")
    verdicts = [
        plain(op="move", event="done", output="{}", next_step="b", next_priority=1, next_max=3),
        plain(op="end", event="done", targets="[]", metadata="{}", guarded=True),
        plain(op="retry", errors="[]", delay=1.0, backoff="fixed", base=1.0, cap=2.0, jitter=0.1),
        plain(op="park", awaits="go", signal=7, orchestration="default", next_solo=False, next_queue="q"),
    ]
    with connect(dsn, "migrate") as conn:
        up(conn)
        for verdict in verdicts:
            run(conn, job.settle("pgflow", 1, [verdict]))
            run(conn, job.settle("pgflow", 1, [verdict], [Change(1, 1, "completed", "{}")]))
            run(conn, job.settle("pgflow", 1, [verdict], [Change(1, None)], [Branch(1, "b", None, "default", 1, 3)]))
        assert conn.execute(PREPARED).fetchall() == [(1,)]
