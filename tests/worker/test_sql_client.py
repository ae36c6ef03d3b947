"""psql and nothing else starts, resumes, cancels and retries what the workers run."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from pgflow import Context, Done, Ok, Pgflow, Retry, Unique, WaitForEvent, Workflow, step
from pgflow.store.connect import Connection
from pgflow.store.embedded import find_installations
from tests.worker.conftest import Work
from tests.worker.sight import leftovers, one, steps, until_all_ended, until_status

Sql = Callable[[str], str]

BROKEN: set[str] = set()


class Refused(Exception):
    """What the database said."""


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


WORKFLOWS = (Selling,)


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
    ("statement", "said"),
    [
        ("select pgflow.start('Nothing', 'a1')", "no workflow named 'Nothing' is registered here"),
        ("select pgflow.start('Selling', 'a b')", "cannot be a business value"),
        ("select pgflow.start('Selling', 'a1', version => 9)", "in version 9"),
        ("select pgflow.resume('Selling', 'a1', 'paid')", "has no instance 'a1'"),
        ("select pgflow.cancel('Selling', 'a1')", "has no instance 'a1'"),
        ("select pgflow.retry('Selling', 'a1')", "has no instance 'a1'"),
        ("select pgflow.start('Selling', 'a1', jsonb_build_object('n', repeat('x', 70000)))", "over the limit"),
    ],
)
def test_psql_is_told_what_is_wrong_and_what_to_do(
    app: Pgflow, conn: Connection, sql: Sql, statement: str, said: str
) -> None:
    with pytest.raises(Refused, match=said) as refusal:
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
