"""A codec seals what users store, at every door; what it cannot open fails its own instance, or waits for a key."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pydantic import BaseModel, SecretStr

from pgflow import Async, Context, Done, Instance, Ok, Pgflow, Unique, Wait, WaitForEvent, Workflow, step
from pgflow.cli import cli
from pgflow.contrib.encryption import AesGcm
from pgflow.core.values.payload import ENCRYPTED_MARKER
from pgflow.database.connect import Connection
from pgflow.errors import DecryptionUnavailable, InvalidValue
from pgflow.local import Local
from tests.worker.db_helpers import everything
from tests.worker.thread_worker import Inside
from tests.worker.waiting import until

CANARY = "canary-4711"
OLD, NEW = os.urandom(32), os.urandom(32)
ONE = AesGcm({"k1": OLD}, current="k1")
BOTH = AesGcm({"k1": OLD, "k2": NEW}, current="k2")
SEEN: list[Any] = []


class Order(BaseModel):
    card: SecretStr
    note: str = CANARY


class Receipt(BaseModel):
    token: SecretStr
    euros: int


@step(events=("paid",), output=Receipt)
def charge(ctx: Context[Order]) -> Ok:
    SEEN.append(ctx.initial.card.get_secret_value())
    return Ok("paid", Receipt(token=SecretStr(f"token-{CANARY}"), euros=3), metadata={"bank": "b-1"})


@step(events=("stored",), transactional=True)
def store(ctx: Context[Order]) -> Ok:
    return Ok("stored", {"of": ctx.output(charge).token.get_secret_value()})


class Approval(BaseModel):
    by: SecretStr


@step(events=("approved", "rejected"), output=Approval)
def approval(ctx: Context[Order]) -> Async:
    SEEN.append(ctx.steps["charge"])
    return Async()


@step(events=("sent",))
async def send(ctx: Context[Order]) -> Ok:
    SEEN.append(ctx.output(approval).by.get_secret_value())
    return Ok("sent", [ctx.output(charge).token.get_secret_value(), ctx.steps["store"]["of"]])


class Buy(Workflow[Order], unique=Unique("buy"), tags=["shop"]):
    """Every kind of value that is encrypted: an input, outputs of each kind of step, and payloads."""

    initial = charge
    transitions = {
        charge: {"paid": [store, approval]},
        store: {"stored": send},
        approval: {"approved": send, "rejected": Done},
        send: {"sent": Done},
    }


@step
def echo(ctx: Context[Any]) -> Ok:
    return Ok("done", {"told": ctx.initial})


gate = WaitForEvent("go").named("gate")


@step
def after(ctx: Context[Any]) -> Ok:
    return Ok("done", [ctx.steps["echo"]["told"], ctx.steps["gate"]])


class Visit(Workflow[Any], unique=Unique("visit", scope="none")):
    initial = echo
    transitions = {echo: {"done": gate}, gate: {"received": after}, after: {"done": Done}}


class Line(Workflow[Any], unique=Unique("line")):
    """Its input and its first output are read by a step of another worker."""

    initial = echo
    transitions = {
        echo: {"done": Wait(timedelta(milliseconds=10))},
        Wait(timedelta(milliseconds=10)): {"timeout": gate},
        gate: {"received": after},
        after: {"done": Done},
    }


WORKFLOWS = (Buy, Visit, Line)


@pytest.fixture
def app(dsn: str, conn: Connection) -> Iterator[Pgflow]:
    """An app with the codec that has one key."""
    SEEN.clear()
    app = Pgflow(dsn, workflows=WORKFLOWS, codec=ONE)
    yield app
    app.close()


@pytest.fixture
def others(dsn: str) -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def other(others: ExitStack, dsn: str, codec: Any, *workflows: Any) -> Pgflow:
    """Another app on the same database, with another codec."""
    made = Pgflow(dsn, workflows=workflows or WORKFLOWS, codec=codec, name=str(codec))
    others.callback(made.close)
    return made


def ended(app: Pgflow, workflow: Any, value: str) -> Instance:
    found = until(lambda: each if (each := app.get(workflow, value)).finished_at else None, f"{value} ends")
    assert found is not None
    return found


def test_every_door_opens_and_the_database_holds_nothing_in_plain(app: Pgflow, conn: Connection) -> None:
    Buy.start("a", Order(card=SecretStr(CANARY)), tags=["gift"], metadata={"tenant": "t"})
    with Inside(app):
        until(lambda: Buy.get("a").status == "waiting", "it waits")
    waiting = Buy.get("a")
    assert waiting.input == {"card": CANARY, "note": CANARY}
    assert waiting.steps["store"] == {"of": f"token-{CANARY}"}
    Buy.schedule_resume("a", approval, timedelta(hours=1), "rejected", {"by": CANARY})
    Buy.resume("a", "approved", Approval(by=SecretStr(CANARY)))
    assert [each.payload for each in Buy.get("a").signals] == [{"by": CANARY}, {"by": CANARY}]
    assert CANARY not in everything(conn)
    assert len(json.loads(json.dumps(app.jobs(Buy)[0].meta))) > 3  # what is in plain can be read
    with Inside(app):  # another worker, which has to read all of it
        done = ended(app, Buy, "a")
    assert done.error is None
    assert done.output(send) == [f"token-{CANARY}", f"token-{CANARY}"]
    assert done.output(approval).by.get_secret_value() == CANARY
    assert [SEEN[0], SEEN[-1]] == [CANARY, CANARY]
    assert SEEN[1]["token"] == f"token-{CANARY}"
    assert CANARY not in everything(conn)
    for read in (Buy.list(tags=["gift"], metadata={"bank": "b-1"}), Buy.runs("a"), app.storage.query(tags=["shop"])):
        assert [each.input for each in read] == [{"card": CANARY, "note": CANARY}]
        assert [each.unreadable for each in read] == [None]
    whole = app.storage.get("buy::a")
    assert whole.steps == done.steps
    assert Buy.list(input={"note": CANARY}) == []  # encrypted values cannot be searched
    app.storage.put(replace(whole, tags=("again",)))
    assert CANARY not in everything(conn)
    assert app.storage.get("buy::a") == replace(whole, tags=("again",))


def test_a_business_value_with_many_instances_seals_as_well(app: Pgflow, conn: Connection) -> None:
    one, two = Visit.start("ann", {"n": CANARY}), Visit.start("ann", [CANARY])
    with Inside(app):
        until(lambda: all(Visit.get(each.id).status == "waiting" for each in (one, two)), "both wait")
        Visit.resume(one.id, "go", CANARY)
        assert ended(app, Visit, one.id).steps["after"] == [{"n": CANARY}, CANARY]
    assert CANARY not in everything(conn)


def test_in_memory_the_same_workflow_has_the_same_secrets() -> None:
    SEEN.clear()
    with Local(workflows=[Buy], codec=ONE, allow_transactional=True) as local:
        local.start(Buy, "a", Order(card=SecretStr(CANARY)))
        local.settle(timeout=10)
        local.resume(Buy, "a", "approved", {"by": CANARY})
        local.drain(timeout=10)
        done = local.get(Buy, "a")
    assert done.error is None
    assert done.output(send) == [f"token-{CANARY}", f"token-{CANARY}"]
    assert done.input["card"] == SEEN[0] == SEEN[-1] == CANARY


def test_keys_rotate_while_jobs_are_under_way(app: Pgflow, dsn: str, conn: Connection, others: ExitStack) -> None:
    Line.start("a", {"x": CANARY})
    with Inside(app):
        until(lambda: Line.get("a").status == "waiting" and Line.get("a").active_steps == {"gate"}, "the old key")
    newer = other(others, dsn, BOTH)
    newer.start(Line, "b", {"x": CANARY})
    for value in "ab":
        until(lambda value=value: newer.get(Line, value).input == {"x": CANARY}, "both read")  # type: ignore[misc]
    newer.resume(Line, "a", "go", 1)
    with Inside(newer):
        assert ended(newer, Line, "a").steps["after"] == [{"x": CANARY}, 1]
        until(lambda: newer.get(Line, "b").active_steps == {"gate"}, "the new one waits")
    stored = conn.execute(
        "select step, output ->> %s from pgflow.step_results r join pgflow.instances i using (run)"
        " where i.id = 'line::a' and output is not null order by seq",
        [ENCRYPTED_MARKER],
    ).fetchall()
    assert [(name, text.partition(".")[0]) for name, text in stored] == [
        ("echo", "k1"),
        ("gate", "k2"),
        ("after", "k2"),
    ]
    assert Line.get("b").unreadable is None  # calls on the class go to the newest app
    found = app.get(Line, "b")  # which has no such key
    assert found.unreadable == (
        "the encrypted output of echo cannot be decrypted here: it is encrypted with the key 'k2'; "
        "the encrypted input cannot be decrypted here: it is encrypted with the key 'k2'"
    )
    assert set(found.input) == {ENCRYPTED_MARKER}
    with pytest.raises(InvalidValue, match="could not be read completely"):
        app.storage.put(replace(app.storage.get("line::b"), tags=("x",)))


@pytest.mark.parametrize("codec", [None, AesGcm({"k9": NEW}, current="k9")], ids=["no codec", "another key"])
def test_who_has_not_the_key_leaves_it_to_who_has(
    codec: Any, app: Pgflow, dsn: str, conn: Connection, others: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    poor = other(others, dsn, codec, Line)
    app.start(Line, "a", {"x": CANARY})
    poor.start(Line, "b", {"x": 1})
    with Inside(poor):
        until(lambda: poor.get(Line, "b").active_steps == {"gate"}, "what it can read goes on")
        until(lambda: conn.execute("select from pgflow.jobs where state = 'scheduled'").fetchall(), "it is left")
    left = conn.execute(
        "select state, attempt, errors, run_at > pgflow.now() from pgflow.jobs where run_at is not null"
    )
    assert ("scheduled", 0, None, True) in left.fetchall()  # no attempt is burned
    assert app.get(Line, "a").status == "running"
    assert "is left to another worker" in caplog.text
    assert "is left to another worker" in caplog.text
    conn.execute("update pgflow.jobs set run_at = pgflow.now() where state = 'scheduled'")
    app.resume(Line, "a", "go", CANARY)
    with Inside(app):
        assert ended(app, Line, "a").steps["after"] == [{"x": CANARY}, CANARY]
        if codec is not None:  # and the other way round: the app reads plain values, not those encrypted with k9
            return
        app.resume(Line, "b", "go")
        assert ended(app, Line, "b").steps["after"] == [{"x": 1}, {}]


SWAPS = {
    "the input of another instance": (
        "update pgflow.instances i set input = b.input from a, b where i.run = a.run",
        "stored data cannot be read: the encrypted input cannot be decrypted: it was changed",
    ),
    "an output as the input": (
        "update pgflow.instances i set input = a.output from a where i.run = a.run",
        "the encrypted input cannot be decrypted",
    ),
    "the output of another instance": (
        "update pgflow.step_results r set output = b.output from a, b where r.run = a.run and step = 'echo'",
        "the encrypted output of echo cannot be decrypted",
    ),
    "the payload of another instance": (
        "update pgflow.signals s set payload = b.payload from a, b where s.run = a.run",
        "the encrypted payload of go cannot be decrypted",
    ),
    "a letter changed": (
        "update pgflow.instances set input = (left(input::text, -6) || 'AAA=\"}')::jsonb where id = 'line::a'",
        "the encrypted input cannot be decrypted",
    ),
}  # fmt: skip
# Of the two instances a and b: the input, and the values of their first step and their signal.
BOTH_OF_THEM = """
with found as (
    select i.id, i.run, i.input, r.output, s.payload
    from pgflow.instances i join pgflow.step_results r using (run) join pgflow.signals s using (run)
    where r.step = 'echo'
),
a as (select * from found where id = 'line::a'), b as (select * from found where id = 'line::b')
"""


@pytest.mark.parametrize("what", SWAPS)
def test_what_is_put_into_another_place_fails_its_instance_alone(what: str, app: Pgflow, conn: Connection) -> None:
    for value in "abc":
        Line.start(value, {"of": f"{CANARY}-{value}"})
    with Inside(app):
        until(lambda: all(Line.get(value).active_steps == {"gate"} for value in "abc"), "all wait")
    for value in "abc":
        Line.resume(value, "go", f"{CANARY}-{value}")
    statement, message = SWAPS[what]
    assert conn.execute((BOTH_OF_THEM + statement).encode()).rowcount == 1
    with Inside(app):
        failed = ended(app, Line, "a")
        others = [ended(app, Line, value) for value in "bc"]
    assert failed.status == "failed"
    assert failed.error is not None
    assert message in failed.error["reason"]
    assert CANARY not in json.dumps(dict(failed.error))
    assert [each.status for each in others] == ["completed", "completed"]
    assert others[0].steps["after"] == [{"of": f"{CANARY}-b"}, f"{CANARY}-b"]


def test_what_was_stored_in_plain_is_read_unless_the_codec_is_strict(
    app: Pgflow, dsn: str, conn: Connection, others: ExitStack
) -> None:
    plain = other(others, dsn, None, Line)
    plain.start(Line, "a", {"x": 1})
    conn.execute("select pgflow.start('Line', 'b', '{\"x\": 2}'), pgflow.start('Line', 'c', '{\"x\": 3}')")
    conn.execute("select pgflow.resume('Line', 'b', 'go', '[4]')")
    with Inside(app):
        assert ended(app, Line, "b").steps["after"] == [{"x": 2}, [4]]
        until(lambda: app.get(Line, "a").active_steps == {"gate"}, "the first waits")
    strict = other(others, dsn, AesGcm({"k1": OLD}, current="k1", strict=True), Line)
    app.resume(Line, "a", "go")
    app.start(Line, "d", {"x": 5})
    app.resume(Line, "d", "go")
    with Inside(strict):
        assert ended(strict, Line, "d").status == "completed"
        failed = ended(strict, Line, "a")
    assert failed.error is not None
    assert failed.error["reason"] == "stored data cannot be read: the input is not encrypted, and the codec is strict"
    assert failed.unreadable == "the input is not encrypted, and the codec is strict"


def test_an_app_without_the_codec_can_put_what_it_cannot_read(
    app: Pgflow, dsn: str, conn: Connection, others: ExitStack
) -> None:
    Line.start("a", {"x": CANARY})
    with Inside(app):
        until(lambda: Line.get("a").active_steps == {"gate"}, "it waits")
    poor = other(others, dsn, None, Line)
    found = poor.storage.get("line::a")
    assert (set(found.input), found.unreadable) == ({ENCRYPTED_MARKER}, None)
    poor.storage.put(replace(found, tags=("moved",)))
    app.resume(Line, "a", "go", CANARY)
    with Inside(app):
        done = ended(app, Line, "a")
    assert (done.steps["after"], done.tags) == ([{"x": CANARY}, CANARY], ("moved",))


def test_the_commands_report_encrypted_values(app: Pgflow, dsn: str, conn: Connection) -> None:
    Line.start("a", {"x": CANARY})
    with Inside(app):
        until(lambda: Line.get("a").active_steps == {"gate"}, "it waits")
    Line.resume("a", "go", CANARY)
    results = {
        words: CliRunner().invoke(cli, [*words.split(), "--dsn", dsn], catch_exceptions=False)
        for words in ("show Line a", "show Line a --json", "list Line", "list --json", "jobs", "jobs --json")
    }
    assert {done.exit_code for done in results.values()} == {0}
    assert all(CANARY not in done.output for done in results.values())
    assert "input     (encrypted with key k1)" in results["show Line a"].output
    assert "echo" in results["show Line a"].output
    document = json.loads(results["show Line a --json"].stdout)["instance"]
    assert document["input"][ENCRYPTED_MARKER].startswith("k1.")
    assert document["history"][0]["output"][ENCRYPTED_MARKER].startswith("k1.")
    assert document["signals"][0]["payload"][ENCRYPTED_MARKER].startswith("k1.")
    assert json.loads(results["list --json"].stdout)["instances"][0]["unreadable"] is None


def test_the_command_start_seals_with_the_codec_of_the_app(
    app: Pgflow, dsn: str, conn: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.worker.test_encryption.APP", app, raising=False)
    start = ["start", "Buy", "--app", "tests.worker.test_encryption:APP", "--dsn", dsn]
    lines = tmp_path / "orders.jsonl"
    lines.write_text(f'{{"value": "b", "input": {{"card": "{CANARY}"}}}}\n')
    for given in (["a", "--input", f'{{"card": "{CANARY}"}}'], ["--from", str(lines)]):
        done = CliRunner().invoke(cli, [*start, *given], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        assert CANARY not in done.output
    assert CANARY not in everything(conn)
    assert [each.input["card"] for each in app.list(Buy)] == [CANARY, CANARY]


def test_a_value_as_large_as_may_be_is_sealed_as_well(app: Pgflow, conn: Connection) -> None:
    large = "x" * 65_534
    Line.start("a", large)
    with Inside(app):
        until(lambda: Line.get("a").active_steps == {"gate"}, "it waits")
        Line.resume("a", "go", large)
        assert ended(app, Line, "a").steps["after"] == [large, large]
    assert "x" * 20 not in everything(conn)


def test_only_reading_an_encrypted_value_raises(app: Pgflow, others: ExitStack, dsn: str) -> None:
    from pgflow.core.values.codec import Location, decrypt

    Line.start("a", {"x": CANARY})
    found = other(others, dsn, None, Line).get(Line, "a")
    with pytest.raises(DecryptionUnavailable, match="the input is encrypted, and this app has no codec"):
        decrypt(None, found.input, Location("Line", found.id, "input"))
