"""Any value given to any entry point round-trips, in a first run and after a crash, or is rejected with a message.

It never fails inside the engine, is changed silently, or loses a job. `--hypothesis-profile=long` tries more examples.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import psycopg
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from pgflow import Context, Done, Instance, Ok, Step, Unique, WaitForEvent, Workflow, step
from pgflow.cli.parameters import payload, read_json_argument
from pgflow.client.registration import registering
from pgflow.core.definition.registry import Registry
from pgflow.core.models.instance import Entry
from pgflow.core.models.instance_rules import checked
from pgflow.core.values.payload import decode, encode
from pgflow.database.connect import Connection, connect
from pgflow.database.statement import run
from pgflow.errors import InvalidPayload, PgflowError
from pgflow.store import instance, job, worker
from tests.store import commands
from tests.store.driver import Driver
from tests.store.edge_cases import ANYTHING, EDGE_TEXT, KEYS, PLAIN

T = TypeVar("T")

HELD: dict[str, Any] = {}
RECEIVED: list[Any] = []
FUZZ = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
AT = datetime(2030, 1, 1, tzinfo=UTC)
LARGEST = 10**4300  # more digits than Python converts to text


@step
def produce(ctx: Context[Any]) -> Ok:
    return Ok("done", HELD.get("output"), metadata=HELD.get("metadata"))


gate = WaitForEvent("go").named("gate")


@step
def receive(ctx: Context[Any]) -> Ok:
    RECEIVED.append([ctx.initial, dict(ctx.steps), dict(ctx.metadata)])
    return Ok("done")


class Echo(Workflow[Any], unique=Unique("echo")):
    initial = produce
    transitions = {produce: {"done": gate}, gate: {"received": receive}, receive: {"done": Done}}


@pytest.fixture(scope="module")
def shared(migrated: str) -> Iterator[Connection]:
    """A connection for many examples, each rolled back."""
    with connect(migrated, "test") as conn:
        run(conn, registering("pgflow", Registry([Echo])))
        yield conn


def same(one: Any, other: Any) -> bool:
    """Return whether two JSON values are equal in value and type, except for the order of keys."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(item, other[key]) for key, item in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and bool(one == other)


def is_json(value: Any) -> bool:
    """Return whether it consists of JSON types only, so that it must round-trip unchanged."""
    match value:
        case dict():
            return all(type(key) is str and is_json(item) for key, item in value.items())
        case list():
            return all(map(is_json, value))
    if type(value) is int:
        return abs(value) < LARGEST
    return value is None or type(value) in (bool, str) or (type(value) is float and math.isfinite(value))


def try_call(call: Callable[[], T]) -> tuple[T | None, str]:
    """Return the result of a call, or the message with which it is rejected."""
    try:
        return call(), ""
    except PgflowError as error:
        said = str(error)
    assert 0 < len(said) < 1000
    return None, said


def run_and_replay(conn: Connection, output: Any, metadata: Any, sent: Any, begun: Any = None) -> None:
    """Give an instance all values in a first run and after a crash; a rejected one fails it and names its place."""
    HELD.update(output=output, metadata=metadata)
    RECEIVED.clear()
    call, refused = try_call(lambda: commands.start(Echo, [("a", begun)]))
    if call is None:
        assert "input" in refused
        return
    run(conn, call.statement(True))
    first = Driver(conn, [Echo])
    first.turn()  # runs `produce`
    first.settle()
    found = run(conn, commands.get(Echo, "a"))
    if found.status == "failed":
        assert found.error is not None
        assert found.error["type"] in ("InvalidPayload", "UnencryptedSecret")
        assert found.error["attempt"] == 1
        assert "produce.output" in found.error["reason"] or "produce.metadata" in found.error["reason"]
        assert not conn.execute("select from pgflow.jobs").fetchall()
        return
    first.turn()
    first.settle()
    signal, refused = try_call(lambda: commands.signal(Echo, "a", "go", sent, None))
    if signal is None:
        assert "payload" in refused
        return
    assert run(conn, signal.statement(True)) == "delivered"
    while not RECEIVED:
        first.turn()
    # The worker dies and loses its memory.
    first.settler.abandon()
    run(conn, worker.leave("pgflow", first.settler.worker))
    run(conn, job.rescue("pgflow"))
    second = Driver(conn, [Echo])
    for _ in range(3):
        second.turn()
    done = run(conn, commands.get(Echo, "a"))
    assert (done.status, done.unreadable, done.error) == ("completed", None, None)
    assert len(RECEIVED) == 2
    assert same(RECEIVED[0], RECEIVED[1])
    initial, steps, known = RECEIVED[0]
    assert same(initial, done.input)
    assert same(steps, {key: done.steps[key] for key in steps})
    assert same(known, dict(done.metadata))
    for given_one, came in ((begun, initial), (output, steps["produce"]), (sent, steps["gate"])):
        if is_json(given_one):
            assert came == given_one


@FUZZ
@example({"a": 1e22}, [1e23, -0.0, 5e-324, 1.7976931348623157e308, 10**4000], {"b": 123456789012345680000.0})
@example("\u2028 ü \U0001f600 \\ \" '", {"": [], "a": {}}, "\ud7ff")
@given(ANYTHING, ANYTHING, ANYTHING)
def test_a_step_gets_the_same_values_in_a_first_run_and_after_a_crash(
    shared: Connection, begun: Any, output: Any, sent: Any
) -> None:
    with shared.transaction(force_rollback=True):
        run_and_replay(shared, output, None, sent, begun)


@FUZZ
@given(st.dictionaries(KEYS, PLAIN, max_size=4))
def test_metadata_of_a_step_is_the_same_after_a_crash(shared: Connection, metadata: Any) -> None:
    with shared.transaction(force_rollback=True):
        run_and_replay(shared, 1, metadata, 2)


@FUZZ
@given(PLAIN, PLAIN, PLAIN)
def test_options_of_a_start_round_trip_or_are_rejected(
    shared: Connection, metadata: Any, telemetry: Any, tag: Any
) -> None:
    options = {"metadata": metadata, "telemetry": telemetry, "tags": [tag]}
    for name, given_one in options.items():
        options_of_one = {name: given_one}
        call, refused = try_call(partial(commands.start, Echo, [("a", 1)], **options_of_one))
        if call is None:
            assert name.rstrip("s") in refused
            continue
        with shared.transaction(force_rollback=True):
            run(shared, call.statement(True))
            found = run(shared, commands.get(Echo, "a"))
            assert found.unreadable is None
            if name == "tags":
                assert list(found.tags) == [tag]
            if name == "metadata" and is_json(metadata):
                assert found.metadata == ({} if metadata is None else metadata)


class NoApp:
    def unschedule(self, id: int) -> bool:  # noqa: A002 -- as in Pgflow
        return False

    async def aunschedule(self, id: int) -> bool:  # noqa: A002
        return False


@FUZZ
@given(ANYTHING)
def test_a_scheduled_signal_keeps_its_payload(shared: Connection, sent: Any) -> None:
    call, refused = try_call(lambda: commands.schedule(Echo, "a", gate, timedelta(0), "go", sent, NoApp()))
    if call is None:
        assert "payload" in refused
        return
    with shared.transaction(force_rollback=True):
        run(shared, commands.start(Echo, [("a", 1)]).statement(True))
        run(shared, call.statement(True))
        (kept,) = run(shared, commands.get(Echo, "a")).signals
        if is_json(sent):
            assert kept.payload == sent
        assert same(kept.payload, None if sent is None else decode(encode(sent, what="payload", limit=99_999)))


ODD_JSON = [
    *('{"a":1,"a":2}', "[1e400]", "[1e5000]", "[1e-400]", "NaN", "-Infinity", '"\\u0000"', '{"\\u0000":1}', "1 2"),
    *('"\\ud800"', '"\\udc00\\ud800"', '"\\ud83d\\ude00"', "", "{", "[" * 65 + "]" * 65, "[" * 7000, "'a'"),
]
TEXTS = (
    PLAIN.filter(is_json).map(json.dumps)
    | st.sampled_from(ODD_JSON)
    | EDGE_TEXT
    | st.text('[]{}",:0123456789eE+-.\\untrfals ', max_size=12)
)


def _refused(conn: Connection, call: str, text: str) -> psycopg.Error | None:
    try:
        with conn.transaction():
            conn.execute(call.encode(), [text])
    except psycopg.Error as error:
        return error
    return None


@FUZZ
@given(TEXTS, st.sampled_from(["input", "payload", "metadata"]))
def test_json_written_in_sql_is_decoded_or_fails_its_instance_only(shared: Connection, text: str, where: str) -> None:
    assume("\0" not in text)
    try:
        text.encode()
    except UnicodeEncodeError:
        assume(False)
    HELD.update(output=1, metadata=None)
    RECEIVED.clear()
    calls = {
        "input": "select pgflow.start('Echo', 'a', %s::jsonb)",
        "metadata": "select pgflow.start('Echo', 'a', metadata => %s::jsonb)",
        "payload": "select pgflow.start('Echo', 'a'), pgflow.resume('Echo', 'a', 'go', %s::jsonb)",
    }
    with shared.transaction(force_rollback=True):
        refused = _refused(shared, calls[where], text)
        if refused is not None:
            known = (psycopg.DataError, psycopg.errors.StatementTooComplex)
            assert isinstance(refused, known) or refused.sqlstate == "PF006"
            return
        begun = Driver(shared, [Echo])
        for _ in range(6):
            begun.turn()
        found = run(shared, commands.get(Echo, "a"))
        if found.status == "failed":
            assert found.error is not None
            assert found.error["type"] in ("InvalidPayload", "InvalidInput")
            assert not shared.execute("select from pgflow.jobs").fetchall()
            return
        assert found.unreadable is None
        assert found.status == ("completed" if where == "payload" else "waiting")
        if where == "payload":
            assert same(RECEIVED[0][1]["gate"], found.steps["gate"])


@FUZZ
@given(ANYTHING, ANYTHING, PLAIN)
def test_an_instance_that_is_put_round_trips_or_is_rejected(
    shared: Connection, begun: Any, output: Any, metadata: Any
) -> None:
    one = Instance(
        run=1, id="echo::p", workflow="Echo", version=1, status="completed", input=begun, steps={"produce": output},
        history=(Entry("produce", "done", AT, output=output),), waiting_for=(), metadata={"m": metadata}, tags=(),
        error=None, created_at=AT, finished_at=AT,
    )  # fmt: skip
    given_one, refused = try_call(lambda: checked(one))
    if given_one is None:
        assert any(place in refused for place in ("input", "produce.output", "metadata"))
        return
    with shared.transaction(force_rollback=True):
        put = instance.put("pgflow", given_one, unique_key=None, due=None, queue="default", notify=False)
        run(shared, put)
        found = run(shared, commands.get(Echo, "p"))
        assert found.unreadable is None
        assert same(found.input, given_one.input)
        assert same(found.steps["produce"], given_one.steps["produce"])
        assert same(dict(found.metadata), dict(given_one.metadata))
        assert checked(replace(found, tags=("again",))).input == given_one.input


class Configured(Step):
    events = ("done",)
    what: Any = None

    def execute(self, ctx: Context[Any]) -> Ok:
        return Ok("done")


@given(PLAIN)
def test_a_configuration_round_trips_or_fails_the_definition(what: Any) -> None:
    def define() -> type[Workflow[Any]]:
        class Flow(Workflow[Any], unique=Unique("flow")):
            initial = Configured(what=what)
            transitions = {Configured(what=what): {"done": Done}}

        return Flow

    flow, refused = try_call(define)
    if flow is None:
        assert "what" in refused or "configuration" in refused
        return
    config = flow.graph.nodes["configured"].config
    back = Configured().with_config(json.loads(json.dumps(config)))
    assert same(back.what, json.loads(json.dumps(back.what)))
    assert back == Configured(what=what)


@given(TEXTS)
def test_json_on_the_command_line_is_accepted_whole_or_rejected(text: str) -> None:
    assume(not text.startswith(("@", "-")))
    stored, refused = try_call(lambda: payload(text, "payload"))
    if refused:
        assert refused.startswith(("payload", "a key of payload"))
        return
    value = read_json_argument(text, "input")
    assert is_json(value)
    assert stored is not None
    assert json.loads(text) == value == decode(stored)
    assert text.count('"a"') < 2 or "a" not in (value if isinstance(value, dict) else {})


def test_a_duplicate_key_is_rejected_in_json_that_people_write() -> None:
    for text in ('{"a": 1, "a": 2}', '[{"b": {"c": 1, "c": 1}}]'):
        with pytest.raises(InvalidPayload, match=r"an object has the key .* twice"):
            read_json_argument(text, "input")
