"""Typed lists that are dumped as arrays in one pass round-trip with their type."""

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
def test_an_array_round_trips(dsn: str, kind: type[Array]) -> None:
    with connect(dsn, "test") as conn:

        @given(st.lists(st.none() | ITEMS[kind]))
        @settings(deadline=None)
        def round_trip(items: list[Any]) -> None:
            row = conn.execute("select %(a)b, pg_typeof(%(a)b)::oid", {"a": kind(items)}, binary=True).fetchone()
            assert row == (items, KINDS[kind].array)

        round_trip()


def test_an_array_keeps_its_type_with_any_items(dsn: str) -> None:
    with connect(dsn, "test") as conn:
        for items in ((), (None,), (None, None), (1,), (None, 1), (2**40,)):
            conn.execute("select cardinality(%(a)b)", {"a": Bigints(items)}, prepare=True)
        (count,) = conn.execute("select count(*) from pg_prepared_statements").fetchone() or (None,)
        assert count == 1


def test_an_item_out_of_range_is_rejected(dsn: str) -> None:
    with connect(dsn, "test") as conn, pytest.raises(psycopg.DataError, match="-32768 <= number"):
        conn.execute("select %(a)b", {"a": Smallints([2**15])})


def test_psycopg_dumps_other_lists_as_before() -> None:
    for way in psycopg.pq.Format:
        assert not issubclass(psycopg.adapters.get_dumper_by_oid(KINDS[Texts].array, way), ArrayDumper)


def test_a_settle_is_one_prepared_statement_for_any_outcomes(dsn: str) -> None:
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
