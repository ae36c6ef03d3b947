"""psql and nothing else starts, resumes, cancels and retries what the workers run."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from pydantic import BaseModel

from pgflow import Async, Context, Done, Ok, Pgflow, Retry, Step, Unique, WaitForEvent, Workflow, step
from pgflow.database.connect import Connection
from pgflow.embedded import find_installations
from tests.worker.conftest import Work
from tests.worker.db_helpers import leftovers, one, steps, until_all_ended, until_status

Sql = Callable[[str], str]

BROKEN: set[str] = set()


class Refused(Exception):
    """The message of the database."""


@step
def first(ctx: Context[dict[str, Any]]) -> Ok:
    return Ok("done", {"n": ctx.initial.get("n")})


paid = WaitForEvent("paid").named("paid")


@step(retry=Retry(max_attempts=1))
def last(ctx: Context[dict[str, Any]]) -> Ok:
    if ctx.value in BROKEN:
        raise RuntimeError("broken")
    return Ok("done", ctx.steps["paid"])


class Selling(Workflow[dict[str, Any]], unique=Unique("sale"), tags=["sales"]):
    """A step, a wait, a step."""

    initial = first
    transitions = {first: {"done": paid}, paid: {"received": last}, last: {"done": Done}}


class Limits(BaseModel):
    most: int = 7


class Ask(Step):
    """Waits for an answer, which is its output."""

    events = ("sent",)

    def execute(self, ctx: Context[Any]) -> Async:
        return Async()


class AskOptional(Ask):
    output = Limits | None


class AskPlain(Ask):
    output = Limits


SEEN: dict[str, Any] = {}


@step(retry=Retry(max_attempts=3))
def see(ctx: Context[Any]) -> Ok:
    SEEN[ctx.value] = ctx.initial
    return Ok("done")


@step(retry=Retry(max_attempts=3))
def read(ctx: Context[Any]) -> Ok:
    (asked,) = (each for each in (Ask, AskOptional, AskPlain) if each().key in ctx.steps)
    SEEN[ctx.value] = ctx.output(asked)
    return Ok("done")


class AnyInput(Workflow[Any], unique=Unique("any_input")):
    initial = see
    transitions = {see: {"done": Done}}


class OptionalInput(Workflow[Limits | None], unique=Unique("optional_input")):
    initial = see
    transitions = {see: {"done": Done}}


class PlainInput(Workflow[Limits], unique=Unique("plain_input")):
    initial = see
    transitions = {see: {"done": Done}}


class Asking(Workflow[Any], unique=Unique("asking")):
    initial = Ask
    transitions = {Ask: {"sent": read}, read: {"done": Done}}


class AskingOptional(Workflow[Any], unique=Unique("asking_optional")):
    initial = AskOptional
    transitions = {AskOptional: {"sent": read}, read: {"done": Done}}


class AskingPlain(Workflow[Any], unique=Unique("asking_plain")):
    initial = AskPlain
    transitions = {AskPlain: {"sent": read}, read: {"done": Done}}


WORKFLOWS = (Selling, AnyInput, OptionalInput, PlainInput, Asking, AskingOptional, AskingPlain)

REFUSED = object()
# Declared type, the SQL value, what is stored of it, and what a step sees; NULL means that it is left out.
SQL_VALUES: list[tuple[str, str, Any, Any]] = [
    ("Any", "", {}, {}),
    ("Any", "null", {}, {}),
    ("Any", "'null'", None, None),
    ("Any", "'{}'", {}, {}),
    ("Optional", "", None, None),
    ("Optional", "null", None, None),
    ("Optional", "'null'", None, None),
    ("Optional", "'{}'", {}, Limits()),
    ("Plain", "", {}, Limits()),
    ("Plain", "'null'", None, REFUSED),
    ("Plain", "'{}'", {}, Limits()),
    ("Plain", '\'{"most": "many"}\'', {"most": "many"}, REFUSED),
]
ASKING = {"Any": Asking, "Optional": AskingOptional, "Plain": AskingPlain}
TAKING = {"Any": AnyInput, "Optional": OptionalInput, "Plain": PlainInput}


@pytest.fixture
def sql(dsn: str) -> Sql:
    """Run one statement as a client of another language would: with psql where there is one."""
    psql = next((path for each in find_installations() if (path := each.bindir / "psql").exists()), None)

    def over_psql(statement: str) -> str:
        assert psql is not None
        command = [str(psql), "--no-psqlrc", "-v", "ON_ERROR_STOP=1", "-At", "-d", dsn, "-c", statement]
        done = subprocess.run(command, capture_output=True, check=False, text=True, timeout=30)
        if done.returncode:
            raise Refused(done.stderr)
        return done.stdout.strip()

    def over_psycopg(statement: str) -> str:
        try:
            with psycopg.connect(dsn) as plain:
                return str(one(plain, statement))
        except psycopg.Error as error:
            raise Refused(f"{error}\nHINT: {error.diag.message_hint}") from error

    return over_psql if psql else over_psycopg


def test_psql_alone_takes_an_instance_from_start_to_end(app: Pgflow, conn: Connection, work: Work, sql: Sql) -> None:
    work()
    run = int(
        sql("""select pgflow.start('Selling', 'a1', '{"n": 7}', tags => '{web}', metadata => '{"by": "psql"}')""")
    )
    waiting = until_status(Selling, "a1", "waiting")
    assert (waiting.run, waiting.id, waiting.tags) == (run, "sale::a1", ("sales", "web"))
    assert sql("""select pgflow.resume('Selling', 'a1', 'paid', '{"amount": 3}')""") == "delivered"
    done = until_status(Selling, "a1")
    assert (done.status, steps(done)) == ("completed", ["first", "paid", "last"])
    assert (done.steps["first"], done.steps["last"]) == ({"n": 7}, {"amount": 3})
    assert done.metadata["by"] == "psql"
    assert leftovers(conn) == {}


def test_psql_cancels(app: Pgflow, conn: Connection, work: Work, sql: Sql) -> None:
    work()
    sql("select pgflow.start('Selling', 'a1')")
    until_status(Selling, "a1", "waiting")
    sql("select pgflow.cancel('Selling', 'a1', reason => 'the customer rang')")
    gone = Selling.get("a1")
    assert (gone.status, gone.error) == ("cancelled", {"reason": "the customer rang"})
    assert leftovers(conn) == {}
    with pytest.raises(Refused, match="takes no more signals"):
        sql("select pgflow.resume('Selling', 'a1', 'paid')")


def test_psql_retries_what_failed(app: Pgflow, conn: Connection, work: Work, sql: Sql) -> None:
    work()
    BROKEN.add("a1")
    sql("select pgflow.start('Selling', 'a1')")
    sql("select pgflow.resume('Selling', 'a1', 'paid', '7')")
    assert until_status(Selling, "a1").status == "failed"
    BROKEN.clear()
    sql("select pgflow.retry('Selling', 'a1')")
    done = until_status(Selling, "a1", "completed")
    assert (steps(done), done.steps["last"], done.error) == (["first", "paid", "last"], 7, None)


def test_psql_starts_many_in_its_own_transaction(app: Pgflow, conn: Connection, work: Work, sql: Sql) -> None:
    work()
    batch = """select count(*) from pgflow.start_many('Selling',
        array(select 'v' || n from generate_series(1, 100) n), array(select '{}' from generate_series(1, 100)))
        where created"""
    assert sql(batch) == "100"
    sql("select count(pgflow.resume('Selling', 'v' || n, 'paid', to_jsonb(n))) from generate_series(1, 100) n")
    assert until_all_ended(conn) == {"completed": 100}
    assert one(conn, "select sum(output::text::integer) from pgflow.step_results where step = 'last'") == 5050


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("select pgflow.start('Nothing', 'a1')", "no workflow named 'Nothing' is registered here"),
        ("select pgflow.start('Selling', 'a b')", "is not a valid business value"),
        ("select pgflow.start('Selling', 'a1', version => 9)", "Selling has no version 9"),
        ("select pgflow.resume('Selling', 'a1', 'paid')", "has no instance 'a1'"),
        ("select pgflow.cancel('Selling', 'a1')", "has no instance 'a1'"),
        ("select pgflow.retry('Selling', 'a1')", "has no instance 'a1'"),
        ("select pgflow.start('Selling', 'a1', jsonb_build_object('n', repeat('x', 17000000)))", "over the limit"),
    ],
)
def test_psql_shows_what_is_wrong_and_what_to_do(
    app: Pgflow, conn: Connection, sql: Sql, statement: str, message: str
) -> None:
    with pytest.raises(Refused, match=message) as refusal:
        sql(statement)
    assert "HINT: " in str(refusal.value)
    assert one(conn, "select count(*) from pgflow.instances") == 0


def test_a_second_start_of_an_active_key_is_refused(app: Pgflow, conn: Connection, sql: Sql) -> None:
    sql("select pgflow.start('Selling', 'a1')")
    with pytest.raises(Refused, match="is already running"):
        sql("select pgflow.start('Selling', 'a1')")
    sql("select pgflow.cancel('Selling', 'a1')")
    with pytest.raises(Refused, match="only a failed instance can be retried"):
        sql("select pgflow.retry('Selling', 'a1')")
    assert json.loads(sql("select json_agg(status) from pgflow.instances")) == ["cancelled"]


@pytest.mark.parametrize(("declared", "given", "stored", "seen"), SQL_VALUES)
def test_an_input_that_is_left_out_differs_from_null_and_an_empty_object(
    app: Pgflow, conn: Connection, work: Work, sql: Sql, declared: str, given: str, stored: Any, seen: Any
) -> None:
    work()
    workflow: type[Workflow[Any]] = TAKING[declared]
    SEEN.clear()
    sql(f"select pgflow.start('{workflow.name}', 'a1'{given and ', ' + given})")
    sql(f"select count(*) from pgflow.start_many('{workflow.name}', '{{a2}}', array[{given or 'null'}])")  # noqa: S608 -- the table above
    for value in ("a1", "a2"):
        found = until_status(workflow, value)
        assert (found.input, type(found.input)) == (stored, type(stored))
        if seen is REFUSED:
            assert (found.status, value in SEEN) == ("failed", False)
            assert found.error is not None
            assert (found.error["step"], found.error["type"], found.error["attempt"]) == ("see", "InvalidInput", 1)
            assert "PlainInput: the stored input does not fit Limits" in found.error["reason"]
        else:
            assert (found.status, SEEN[value]) == ("completed", seen)


@pytest.mark.parametrize("way", ["delivered", "kept", "scheduled"])
@pytest.mark.parametrize(("declared", "given", "stored", "seen"), SQL_VALUES)
def test_a_payload_is_checked_by_the_step_that_takes_it(
    app: Pgflow, conn: Connection, work: Work, sql: Sql, declared: str, given: str, stored: Any, seen: Any, way: str
) -> None:
    workflow, step_key = ASKING[declared], ASKING[declared].graph.initial
    SEEN.clear()
    sql(f"select pgflow.start('{workflow.name}', 'a1')")
    more = given and ", " + given
    match way:
        case "delivered":
            work()
            until_status(workflow, "a1", "waiting")
            assert sql(f"select pgflow.resume('{workflow.name}', 'a1', 'sent'{more})") == "delivered"
        case "kept":
            assert sql(f"select pgflow.resume('{workflow.name}', 'a1', 'sent'{more})") == "kept"
            work()
        case "scheduled":
            sql(f"select pgflow.schedule_resume('{workflow.name}', 'a1', '{step_key}', '1 millisecond', 'sent'{more})")
            work()
    found = until_status(workflow, "a1")
    if seen is not REFUSED:
        assert (found.status, found.steps[step_key], SEEN["a1"]) == ("completed", stored, seen)
        return
    assert (found.status, found.steps, SEEN) == ("failed", {}, {})
    assert found.error is not None
    assert (found.error["step"], found.error["type"], found.error["attempt"]) == (step_key, "InvalidPayload", 1)
    assert (
        "step ask_plain cannot accept the payload of the signal 'sent': step 'ask_plain' declares the output Limits"
        in (found.error["reason"])
    )
    assert leftovers(conn) == {}
    # The refused payload is consumed: the step that runs again waits for another one.
    workflow.retry("a1")
    until_status(workflow, "a1", "waiting")
    assert workflow.resume("a1", "sent", {"most": 3}) == "delivered"
    assert until_status(workflow, "a1").status == "completed"
    assert SEEN["a1"] == Limits(most=3)
