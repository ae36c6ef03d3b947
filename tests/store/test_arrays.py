"""Typed lists that are dumped as arrays in one pass round-trip with their type."""

from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgflow.database.arrays import (
    KINDS,
    Array,
    ArrayDumper,
    Bigints,
    Booleans,
    Doubles,
    Integers,
    Smallints,
    Texts,
)
from pgflow.database.connect import connect
from pgflow.database.statement import run
from pgflow.migrations.migrate import up
from pgflow.store import job
from pgflow.store.job_updates import (
    Advance,
    Branch,
    Effect,
    End,
    Fail,
    InstanceUpdate,
    JobUpdate,
    Move,
    Park,
    Result,
    Retry,
    Snooze,
)

PREPARED = "select count(*) from pg_prepared_statements where statement like '-- Writes the outcomes%'"
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


def test_a_settle_is_one_prepared_statement_whatever_its_effects(dsn: str) -> None:
    effects: list[Effect] = [
        Move("b", None, "default", 1, 3, solo=True, keep=True),
        End(),
        Fail(),
        Park(None, "{}", 1.0),
        Retry("[]", "constant", 1.0, 2.0, 0.1),
        Snooze(1.0, "[]"),
        Snooze(),
    ]
    results = [None, Result("done"), Result("done", "[]", "{}", "{}", "[]", 1.0)]
    with connect(dsn, "migrate") as conn:
        up(conn)
        for effect in effects:
            for result in results:
                for advance, signal in ((None, None), (Advance(), 7), (Advance("q", "{}", keeps_result=True), None)):
                    update = JobUpdate(1, 1, 1, "a", "execute", effect, result, advance, signal)
                    run(conn, job.settle("pgflow", 1, [update]))
                    run(conn, job.settle("pgflow", 1, [update], [InstanceUpdate(1, 1, "completed", "{}")]))
                    branches = [Branch(1, "b", None, "default", 1, 3)]
                    run(conn, job.settle("pgflow", 1, [update], [InstanceUpdate(1, None)], branches))
        assert conn.execute(PREPARED).fetchall() == [(1,)]
