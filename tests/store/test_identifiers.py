"""Any name round-trips unchanged, or is rejected with one of our errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pgflow import Async, Context, Done, Unique, Workflow, step
from pgflow.client.registration import registering
from pgflow.config import parse_queues
from pgflow.core.definition.registry import Registry
from pgflow.core.models.job import JobFilters
from pgflow.core.values.names import is_queue
from pgflow.database import files
from pgflow.database.connect import Connection, connect
from pgflow.database.statement import Statement, run
from pgflow.errors import BadQueue, ConfigError, PgflowError
from pgflow.store import job
from tests.store import commands
from tests.store.edge_cases import NAMES

CATALOG = """
select
    (select count(*) from pg_namespace where nspname !~ '^pg_(temp|toast_temp)'),
    (select count(*) from pg_class where relkind in ('r', 'v')),
    (select count(*) from pg_proc), (select count(*) from pg_roles), (select count(*) from pg_operator),
    (select md5(string_agg(p::text, '' order by p.oid)) from pg_proc p where pronamespace = 'pg_catalog'::regnamespace)
"""


@pytest.fixture(scope="module")
def shared(migrated: str) -> Iterator[Connection]:
    """A connection for many examples, each rolled back; checks that the server's catalog is unchanged at the end."""
    with connect(migrated, "test") as conn:
        before = conn.execute(CATALOG).fetchall()
        yield conn
        assert conn.execute(CATALOG).fetchall() == before


FUZZ = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def defined(name: str, key: str, unique: str, event: str, queue: str, tag: str) -> type[Workflow[Any]]:
    """Return a workflow with these names. Raises `DefinitionError`."""

    @step(name=key, events=(event,), queue=queue)
    def only(ctx: Context[Any]) -> Async:
        return Async()

    class Named(Workflow[Any], name=name, unique=Unique(unique), tags=[tag]):
        initial = only
        transitions = {only: {event: Done}}

    return Named


@FUZZ
@example("W'\"; --", "schlüssel", "key", "it's", "mail", "tag %s", "v'alue\"", "gift {}")
@example("\u202eW", "_", "k", "\u200bevent", "a.b-c", "\u202e", "ü" * 200, "😀" * 64)
@given(NAMES, NAMES, NAMES, NAMES, NAMES, NAMES, NAMES, NAMES)
def test_a_name_round_trips_or_is_rejected(
    shared: Connection, name: str, key: str, unique: str, event: str, queue: str, tag: str, value: str, own_tag: str
) -> None:
    _go_through(shared, name, key, unique, event, queue, tag, value, own_tag)


PLAIN_NAMES = ("Flow", "only", "k", "done_so", "mail", "tag", "v-1", "gift")


@FUZZ
@given(st.integers(0, len(PLAIN_NAMES) - 1), NAMES)
def test_an_odd_name_among_plain_ones_round_trips_or_is_rejected(shared: Connection, place: int, odd: str) -> None:
    names = [*PLAIN_NAMES]
    names[place] = odd
    _go_through(shared, *names)


def _go_through(conn: Connection, *names: str) -> None:
    name, key, unique, event, queue, tag, value, own_tag = names
    try:
        workflow = defined(name, key, unique, event, queue, tag)
        call = commands.start(workflow, [(value, {"a": 1})], tags=[own_tag])
    except PgflowError:
        return
    with conn.transaction(force_rollback=True):
        run(conn, registering("pgflow", Registry([workflow])))
        (started,) = run(conn, call.statement(True))
        assert started.id == f"{unique}::{value}"
        found = run(conn, commands.get(workflow, value))
        assert (found.id, found.workflow, found.tags) == (started.id, name, (tag, own_tag))
        assert found.active_steps == {key}
        assert [each.run for each in run(conn, commands.list_page(workflow, tags=[own_tag, tag]))] == [started.run]
        assert [each.run for each in run(conn, commands.list_page(None, family=name[:1]))] == [started.run]
        assert [each.run for each in run(conn, commands.runs(workflow, value, 9))] == [started.run]
        (token,) = run(conn, job.list("pgflow", JobFilters.of({"queue": queue}), workflow=name))
        assert (token.step, token.queue, token.meta["workflow"]) == (key, queue, name)
        assert run(conn, commands.signal(workflow, value, event, None, key).statement(True)) == "kept"
        assert [(each.event, each.step) for each in run(conn, commands.get(workflow, value)).signals] == [(event, key)]
        rows = conn.execute("select step, queue from pgflow.jobs").fetchall()
        assert rows == [(key, queue)]


@step
def waits(ctx: Context[Any]) -> Async:
    return Async()


class Plain(Workflow[Any], unique=Unique("plain")):
    initial = waits
    transitions = {waits: {"done": Done}}


@FUZZ
@given(NAMES, NAMES)
def test_a_call_with_an_unknown_name_raises_an_error_for_any_name(shared: Connection, value: str, other: str) -> None:
    asks: list[Callable[[], Statement[Any]]] = [
        lambda: commands.get(Plain, value),
        lambda: commands.signal(Plain, value, "done", None, None).statement(True),
        lambda: commands.signal(Plain, "a", value, None, None).statement(True),
        lambda: commands.signal(Plain, "a", "done", None, value).statement(True),
        lambda: commands.cancel(Plain, value, other).statement(True),
        lambda: commands.retry(Plain, value).statement(True),
    ]
    with shared.transaction(force_rollback=True):
        run(shared, registering("pgflow", Registry([Plain])))
        for ask in asks:
            with pytest.raises(PgflowError), shared.transaction():
                run(shared, ask())
        with suppress(PgflowError):
            assert run(shared, commands.list_page(Plain, id=value, tags=[other], family=other)) == []
        with suppress(PgflowError):
            assert run(shared, commands.runs(Plain, value, 9)) == []


@given(NAMES)
def test_a_schema_has_a_plain_name_or_is_rejected(name: str) -> None:
    is_plain = name.isascii() and name.isidentifier() and name == name.lower() and len(name) <= 63
    if is_plain and not name.startswith("pg_"):
        assert name == "pgflow" or f'"{name}".jobs' in files.load("queries/job/claim.sql", name)
        return
    with pytest.raises(ConfigError, match="is not a valid schema name") as caught:
        files.load("queries/job/claim.sql", name)
    assert caught.value.hint


@given(NAMES)
def test_a_queue_on_the_command_line_is_accepted_or_rejected(name: str) -> None:
    if is_queue(name.lstrip()):
        assert parse_queues([f"{name}=3"]) == {name.lstrip(): 3}
        return
    with pytest.raises(BadQueue) as caught:
        parse_queues([f"{name}=3"])
    assert caught.value.hint
