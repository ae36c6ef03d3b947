"""Group J: how instances are stored, read and found; J14 is in test_j14_migrations.py."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from enum import Enum
from typing import Any

import psycopg
import pytest
from pydantic import BaseModel

from pgflow import Async, Context, Done, Instance, Ok, Pgflow, Retry, Step, Unique, Wait, Workflow, step
from pgflow.core.models.instance import Entry
from pgflow.errors import Conflict, InstanceNotFound, InvalidInput, InvalidPayload, InvalidValue
from tests.conformance.conftest import OnPostgres, Stack

Input = dict[str, Any]
AT = datetime(2030, 1, 1, 12, 0, 0, 5, tzinfo=UTC)


@step
def work(ctx: Context[Any]) -> Ok:
    return Ok("done", {"n": 1, "seen": ctx.initial}, metadata={"by": "work"})


@step(retry=Retry(max_attempts=1))
def fail(ctx: Context[Input]) -> Ok:
    if ctx.initial.get("fails"):
        raise ValueError("it cannot be")
    return Ok("done")


class Plain(Workflow[Input], unique=Unique("plain"), tags=["stored"], metadata={"team": "a"}):
    initial = work
    transitions = {work: {"done": fail}, fail: {"done": Done}}


class PlainOther(Workflow[Input], unique=Unique("other")):
    initial = work
    transitions = {work: {"done": Done}}


@step(events=("go",))
def hold(ctx: Context[Input]) -> Async:
    return Async()


class Held(Workflow[Input], unique=Unique("held")):
    initial = hold
    transitions = {hold: {"go": Done}}


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Typed(BaseModel):
    at: datetime
    day: date
    colour: Colour
    pair: tuple[int, str]
    colours: set[Colour]
    lasts: timedelta


class Loose(BaseModel):
    what: Any


@step(output=Typed)
def echo(ctx: Context[Typed]) -> Ok:
    return Ok("done", ctx.initial)


class Echo(Workflow[Typed], unique=Unique("echo")):
    initial = echo
    transitions = {echo: {"done": Done}}


class LooseInput(Workflow[Loose], unique=Unique("loose")):
    initial = work
    transitions = {work: {"done": Done}}


class Evolving(Workflow[Input], unique=Unique("evolving"), current=2):
    class V1(Workflow[Input], version=1):
        initial = work
        transitions = {work: {"done": Done}}

    class V2(Workflow[Input], version=2):
        initial = work
        transitions = {work: {"done": fail}, fail: {"done": Done}}

    versions = {1: V1, 2: V2}


def instance(value: str, run: int, **more: Any) -> Instance:
    known: dict[str, Any] = {
        "workflow": "Plain", "version": 1, "status": "completed", "input": {}, "steps": {}, "history": (),
        "waiting_for": (), "metadata": {}, "tags": (), "error": None, "created_at": AT, "finished_at": AT,
    }  # fmt: skip
    return Instance(run=run, id=f"plain::{value}", **{**known, **more})


def test_j1_every_field_is_read_back(stack: Stack) -> None:
    """J1: every field of a stored instance is read back, also after a restart and after put."""
    app = stack.run(Plain)
    Plain.start("a", {"fails": True, "n": [1, 2.5, None, "ü"]}, tags=["gift"], metadata={"tenant": "t1"})
    found = stack.until(Plain, "a")
    assert (found.id, found.workflow, found.version, found.status) == ("plain::a", "Plain", 1, "failed")
    assert found.input == {"fails": True, "n": [1, 2.5, None, "ü"]}
    assert (set(found.tags), found.metadata) == ({"stored", "gift"}, {"team": "a", "tenant": "t1", "by": "work"})
    assert found.steps == {"work": {"n": 1, "seen": found.input}}
    assert [(each.step, each.event, each.attempt, each.output) for each in found.history] == [
        ("work", "done", 1, found.steps["work"])
    ]
    assert found.error is not None
    assert (found.error["step"], found.error["reason"]) == ("fail", "it cannot be")
    assert found.created_at <= found.history[0].at <= (found.finished_at or AT)
    app = stack.restart()
    assert app.get(Plain, "a") == app.storage.get("plain::a") == found
    app.storage.delete("plain::a")
    app.storage.put(found)
    assert app.storage.get("plain::a") == found


SPOILING = {
    "input": "update pgflow.instances set input = '{deep}' where run = {run}",
    "metadata": "update pgflow.instances set metadata = '[1]' where run = {run}",
    "error": "update pgflow.instances set error = '\"boom\"' where run = {run}",
    "created_at": "update pgflow.instances set created_at = 'infinity' where run = {run}",
    "output of step work": "update pgflow.step_results set output = '{deep}' where run = {run} and step = 'work'",
}


@pytest.mark.parametrize("what", SPOILING)
def test_j2_an_unreadable_instance_does_not_affect_others(postgres: OnPostgres, what: str) -> None:
    """J2: the other instances of a page are complete, and the unreadable one states what is unreadable."""
    app = postgres.run(Plain)
    runs = [Plain.start(value, {"v": value}).run for value in "abc"]
    for value in "abc":
        postgres.until(Plain, value)
    with psycopg.connect(postgres.dsn, autocommit=True) as conn:
        conn.execute(SPOILING[what].format(run=runs[1], deep="[" * 70 + "]" * 70).encode())
    c, b, a = app.storage.query()
    assert (a.input, c.input, a.unreadable, c.unreadable) == ({"v": "a"}, {"v": "c"}, None, None)
    assert b.unreadable is not None
    assert b.unreadable.startswith(f"{what}: ")
    assert (b.input is None) == (what == "input")
    assert len(Plain.list()) == 3
    assert (Plain.get("b").unreadable, Plain.get("a").unreadable) == (b.unreadable, None)


def test_j3_typed_values_come_back_typed(stack: Stack) -> None:
    """J3: datetimes, dates, enums, tuples, sets and durations come back as declared, as input and as output."""
    stack.run(Echo)
    given = Typed(
        at=AT, day=date(2030, 1, 2), colour=Colour.RED, pair=(1, "a"), colours=set(Colour), lasts=timedelta(hours=1.5)
    )
    Echo.start("a", given)
    found = stack.until(Echo, "a")
    assert found.status == "completed"
    assert found.output(echo) == given
    assert type(found.output(echo).pair) is tuple


@pytest.mark.parametrize("what", [date(2030, 1, 1), (1, 2), {"a": {1}}, Colour.RED, object()])
def test_j3_a_value_that_would_change_is_refused_before_the_start(stack: Stack, what: Any) -> None:
    """J3: a value that would be read back differently is refused, with its path, before anything is stored."""
    stack.run(LooseInput)
    with pytest.raises((InvalidInput, InvalidPayload), match=r"input\.what"):
        LooseInput.start("a", Loose(what=what))
    assert LooseInput.list() == []


class Counted(Step):
    """A step whose configuration has keys that are not strings."""

    events = ("done",)
    prices: dict[int, timedelta] = {}

    def execute(self, ctx: Context[Input]) -> Ok:
        return Ok("done", {"keys": [type(key).__name__ for key in self.prices], "is": self.prices[7].total_seconds()})


class Pausing(Workflow[Input], unique=Unique("pausing")):
    initial = Wait(timedelta(milliseconds=300))
    transitions = {
        Wait(timedelta(milliseconds=300)): {"timeout": Counted(prices={7: timedelta(hours=1)})},
        Counted(prices={7: timedelta(hours=1)}): {"done": Done},
    }


def test_j4_a_configuration_keeps_its_types_across_a_restart(stack: Stack) -> None:
    """J4: after a restart a step's configuration has its key types and durations; the wait continues."""
    stack.run(Pausing)
    Pausing.start("a")
    stack.until(Pausing, "a", "waiting")
    stack.restart()
    found = stack.until(Pausing, "a")
    assert (found.status, found.steps["counted"]) == ("completed", {"keys": ["int"], "is": 3600.0})


def test_j5_sets_are_stored_as_sorted_lists(stack: Stack) -> None:
    """J5: a set is stored as a sorted list, at any depth."""
    app = stack.run(Plain, Echo)
    Plain.start("a", {"letters": {"c", "a", "b"}, "numbers": frozenset({20, 3, 100})})
    assert stack.until(Plain, "a").input == {"letters": ["a", "b", "c"], "numbers": [3, 20, 100]}
    given = Typed(
        at=AT, day=AT.date(), colour=Colour.RED, pair=(1, "a"), colours={Colour.RED, Colour.BLUE}, lasts=timedelta(1)
    )
    Echo.start("a", given)
    assert stack.until(Echo, "a").steps["echo"]["colours"] == ["blue", "red"]
    assert app.storage.get("echo::a").input["colours"] == ["blue", "red"]


def test_j6_rows_of_earlier_releases_load_with_defaults(postgres: OnPostgres) -> None:
    """J6: a row with only the required columns is read, with defaults for all others."""
    app = postgres.run(Plain)
    postgres.rows(
        "insert into pgflow.instances (id, workflow, version, status, input, finished_at)"
        " values ('plain::old', 'Plain', 1, 'completed', '{}', now()) returning run"
    )
    with psycopg.connect(postgres.dsn, autocommit=True) as conn:
        conn.execute(
            "insert into pgflow.step_results (run, step, event, attempt, started_at)"
            " select run, 'work', 'done', 1, now() from pgflow.instances where id = 'plain::old'"
        )
    found = app.storage.get("plain::old")
    assert found == Plain.get("old")
    assert (found.tags, found.metadata, found.error, found.unreadable) == ((), {}, None, None)
    entry = found.history[0]
    assert (entry.output, entry.metadata, entry.errors, entry.targets, entry.worker) == ({}, {}, (), None, None)


def test_j7_put_replaces_get_may_not_find_and_delete_may_be_repeated(stack: Stack) -> None:
    """J7: put is an upsert by run, get raises for an unknown id, delete is idempotent."""
    storage = stack.run(Plain).storage
    storage.put(instance("a", 900))
    storage.put(instance("a", 900, status="cancelled"))
    assert [each.status for each in storage.query(id="plain::a")] == ["cancelled"]
    storage.delete("plain::a")
    storage.delete("plain::a")
    with pytest.raises(InstanceNotFound, match="plain::a"):
        storage.get("plain::a")


def put_four(storage: Any) -> None:
    storage.put(instance("a", 901, tags=("x",)))
    storage.put(instance("b", 902, status="failed", tags=("x", "y"), metadata={"m": {"n": 1}}))
    storage.put(instance("c", 903, status="cancelled", input={"items": [{"sku": "s", "n": 2}]}))
    storage.put(replace(instance("d", 904), id="other::d", workflow="PlainOther"))


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"id": "plain::b"}, "b"),
        ({"status": "failed"}, "b"),
        ({"status_in": ["failed", "cancelled"]}, "cb"),
        ({"workflow": "Plain"}, "cba"),
        ({"workflow": PlainOther}, "d"),
        ({"workflow_version": 1}, "dcba"),
        ({"workflow_version": 2}, ""),
        ({"workflow_family": "Plain"}, "dcba"),
        ({"workflow_family": "PlainO"}, "d"),
        ({"workflow_family": "Pl%"}, ""),
        ({"workflow_family": "Pl_in"}, ""),
        ({"workflow_family": "Pl\\"}, ""),
        ({"tags": ["x"]}, "ba"),
        ({"metadata": {"m": {"n": 1}}}, "b"),
        ({"input": {"items": [{"sku": "s"}]}}, "c"),
        ({"status_in": ["failed", "completed"], "workflow": Plain, "tags": ["x"], "workflow_family": "Pl"}, "ba"),
    ],
)
def test_j8_filters_are_anded_and_have_no_wildcards(stack: Stack, filters: dict[str, Any], found: str) -> None:
    """J8: id, status, status_in, workflow, version and family are ANDed; `%`, `_` and the backslash are plain."""
    storage = stack.run(Plain, PlainOther).storage
    put_four(storage)
    assert "".join(each.id[-1] for each in storage.query(**filters)) == found


def test_j9_the_version_is_that_of_the_run(stack: Stack) -> None:
    """J9: each run keeps the version it started with, and is found by it; an id means the newest run."""
    app = stack.run(Evolving)
    old = Evolving.start("a", version=1)
    assert stack.until(Evolving, "a").version == 1
    new = Evolving.start("a")
    assert stack.until(Evolving, "a").version == 2
    assert app.storage.get("evolving::a").version == 2
    assert [each.run for each in app.storage.query(workflow_version=1)] == [old.run]
    assert [each.run for each in Evolving.list(version=2)] == [new.run]


def test_j10_cancelled_is_a_status_like_the_others(stack: Stack) -> None:
    """J10: a cancelled instance is stored as cancelled, and found as such."""
    app = stack.run(Held)
    Held.start("a")
    stack.until(Held, "a", "waiting")
    Held.cancel("a", reason="no need")
    assert [each.id for each in Held.list(status="cancelled")] == ["held::a"]
    found = app.storage.get("held::a")
    assert (found.status, found.error) == ("cancelled", {"reason": "no need"})
    app.storage.put(found)
    assert app.storage.get("held::a") == found


def test_j10_the_database_refuses_a_status_that_does_not_exist(postgres: OnPostgres) -> None:
    """J10: the check of the column accepts exactly the six statuses."""
    postgres.run(Held)
    with pytest.raises(psycopg.errors.CheckViolation):
        postgres.rows("insert into pgflow.instances (id, workflow, version, status, input) values ('a','A',1,'x','{}')")


@pytest.mark.parametrize(
    "wrong",
    [
        {"status": "done"}, {"run": -1}, {"input": {"a": "\0"}}, {"finished_at": None},
        {"created_at": AT.replace(tzinfo=None)}, {"unreadable": "input: too deep"},
    ],
)  # fmt: skip
def test_j11_an_invalid_put_raises(stack: Stack, wrong: dict[str, Any]) -> None:
    """J11: an invalid put raises and changes nothing; no error is swallowed."""
    storage = stack.run(Plain).storage
    storage.put(instance("a", 900))
    with pytest.raises((InvalidValue, InvalidPayload)):
        storage.put(replace(instance("a", 900, tags=("new",)), **wrong))
    with pytest.raises(Conflict):
        storage.put(instance("b", 900))
    assert storage.query() == [instance("a", 900)]


def test_j12_ten_concurrent_puts_with_readers(stack: Stack) -> None:
    """J12: of ten concurrent puts none is lost, and concurrent reads see whole instances."""
    storage = stack.run(Plain).storage
    with ThreadPoolExecutor(12) as pool:
        puts = [pool.submit(storage.put, instance(f"v{n}", 900 + n, input={"n": n})) for n in range(10)]
        reads = [pool.submit(storage.query) for _ in range(5)]
        for each in puts:
            each.result()
        for each in reads:
            assert all(one.input == {"n": one.run - 900} for one in each.result())
    assert {each.run for each in storage.query()} == {900 + n for n in range(10)}


def test_j12_ten_concurrent_puts_of_one_run(stack: Stack) -> None:
    """J12: of ten concurrent puts of one run exactly one is stored, whole."""
    storage = stack.run(Plain).storage
    entry = Entry("work", "done", AT)
    given = [
        instance("a", 900, input={"n": n}, history=(replace(entry, output={"n": n}),), steps={"work": {"n": n}})
        for n in range(10)
    ]
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(storage.put, given))
    (found,) = storage.query()
    assert found in given


@pytest.fixture
def side_by_side(postgres: OnPostgres) -> Iterator[tuple[Pgflow, Pgflow]]:
    """Two apps in one database, each with its own schema."""
    apps = tuple(
        Pgflow(postgres.dsn, workflows=[kind], schema=schema, name=schema)
        for kind, schema in ((Plain, "left_side"), (PlainOther, "right_side"))
    )
    for app in apps:
        app.migrate()
    yield apps[0], apps[1]
    for app in apps:
        app.close()
    with psycopg.connect(postgres.dsn, autocommit=True) as conn:
        conn.execute("drop schema left_side cascade; drop schema right_side cascade")


def test_j13_schemas_are_separate(postgres: OnPostgres, side_by_side: tuple[Pgflow, Pgflow]) -> None:
    """J13: storages of two schemas in one database are independent in every call."""
    left, right = side_by_side
    assert (left.storage.name, right.storage.name) == ("left_side", "right_side")
    started = left.start("Plain", "a", {})
    left.run_worker(drain=True)
    assert left.storage.get("plain::a").status == "completed"
    assert right.storage.query() == right.list() == []
    left.storage.put(instance("b", 900))
    assert [each.run for each in left.list(tags=[], order="oldest")] == [started.run, 900]
    left.storage.delete("plain::b")
    assert [each.run for each in left.storage.query(steps={"work": {"n": 1}})] == [started.run]
    assert right.storage.query() == []
    assert postgres.rows("select count(*) from pgflow.instances") == [(0,)]


def test_j13_storages_in_memory_are_separate() -> None:
    """J13: storages in memory have their own names and are independent."""
    from pgflow.local import Storage

    left, right = Storage("left"), Storage("right")
    left.put(instance("a", 1))
    assert ([each.run for each in left.query()], right.query()) == ([1], [])
    assert (repr(left), repr(right)) == ("Storage('left')", "Storage('right')")


@pytest.mark.parametrize(
    ("filters", "index"),
    [
        ({"input": {"customer": 77}}, "instances_by_content"),
        ({"metadata": {"tenant": "t77"}}, "instances_by_content"),
        ({"tags": ["tag77"]}, "instances_by_content"),
        ({"steps": {"work": {"receipt": "r77"}}}, "step_results_by_output"),
    ],
)
def test_j15_containment_uses_an_index(postgres: OnPostgres, filters: dict[str, Any], index: str) -> None:
    """J15: filters by JSON in inputs, metadata and outputs, and by tags, are planned with an index."""
    from pgflow.core.models.filters import Filters
    from pgflow.store import instance as statements

    postgres.run(Plain)
    with psycopg.connect(postgres.dsn, autocommit=True) as conn:
        conn.execute(
            "insert into pgflow.instances (id, workflow, version, status, finished_at, input, metadata, tags)"
            " select 'plain::' || g, 'Plain', 1, 'completed', now(), jsonb_build_object('customer', g),"
            " jsonb_build_object('tenant', 't' || g), array['tag' || g] from generate_series(1, 5000) g;"
            "insert into pgflow.step_results (run, step, event, attempt, started_at, output)"
            " select run, 'work', 'done', 1, now(), jsonb_build_object('receipt', replace(tags[1], 'tag', 'r'))"
            " from pgflow.instances"
        )
        conn.execute(
            "vacuum analyze pgflow.instances"
        )  # like autovacuum: moves new entries from the pending list into the index
        conn.execute("vacuum analyze pgflow.step_results")
        statement = statements.list("pgflow", Filters.of(filters, Plain))
        plan = conn.execute(f"explain (format json) {statement.query}".encode(), statement.params).fetchone()
    assert plan is not None
    assert f'"Index Name": "{index}"' in json.dumps(plan[0])
    assert [each.id for each in Plain.list(**filters)] == ["plain::77"]


def test_j16_lists_have_an_order_a_limit_and_pages(stack: Stack) -> None:
    """J16: newest or oldest first, page after page, without gaps or duplicates."""
    app = stack.run(Held)
    started = sorted(each.run for each in Held.start_many((f"v{n}", {}) for n in range(25)))
    assert [each.run for each in Held.list()] == started[::-1]
    assert [each.run for each in Held.list(limit=3)] == started[:-4:-1]
    for order, cursor, expected in (("newest", "before", started[::-1]), ("oldest", "after", started)):
        seen: list[int] = []
        page: Any = {"order": order, "limit": 10}
        while found := app.list(Held, **page):
            seen += [each.run for each in found]
            page[cursor] = seen[-1]
        assert seen == expected
    with pytest.raises(InvalidValue, match="a page has 1 to 10,000 instances"):
        Held.list(limit=0)
