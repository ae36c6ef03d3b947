"""The SQL client API needs only EXECUTE, and its errors have the messages of the Python exceptions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from pgflow import Context, Done, Ok, Pgflow, Unique, Workflow, step
from pgflow.database.connect import Connection, connect
from pgflow.database.statement import run
from pgflow.errors import InvalidPayload
from pgflow.store import signal

NAME = "pgflow_test_client"


@step(events=("ok",))
def only(ctx: Context[Any]) -> Ok:
    return Ok("ok")


class Lone(Workflow[dict[str, Any]], unique=Unique("lone")):
    initial = only
    transitions = {only: {"ok": Done}}


@pytest.fixture
def client(migrated: str) -> Iterator[Connection]:
    """A connection for a role that may only call the API; rolled back."""
    app = Pgflow(migrated, workflows=[Lone])
    app.register()
    app.close()
    with connect(migrated, "test") as conn, conn.transaction(force_rollback=True):
        conn.execute(f"create role {NAME}")
        conn.execute(f"grant usage on schema pgflow to {NAME}")
        yield conn


def test_a_role_with_execute_alone_starts_signals_and_cancels(client: Connection) -> None:
    client.execute(f"grant execute on all functions in schema pgflow to {NAME}")
    client.execute(f"set local role {NAME}")

    client.execute("select pgflow.start('Lone', 'a', '{\"n\": 1}')")
    assert client.execute("select pgflow.resume('Lone', 'a', 'ok', '{}')").fetchone() == ("kept",)
    client.execute("select pgflow.cancel('Lone', 'a')")

    for table in ("instances", "jobs", "step_results", "signals", "definitions"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege), client.transaction():
            client.execute(f"select from pgflow.{table}")


def test_a_role_without_execute_can_do_nothing(client: Connection) -> None:
    client.execute(f"set local role {NAME}")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        client.execute("select pgflow.start('Lone', 'a')")


def test_a_temporary_table_does_not_shadow_ours(client: Connection) -> None:
    """The functions do not resolve names in the caller's schemas. (The attack on an unpinned search_path.)"""
    client.execute(f"grant execute on all functions in schema pgflow to {NAME}")
    client.execute(f"set local role {NAME}")
    client.execute("create temporary table instances (like pg_class)")
    client.execute("set local search_path = pg_temp, public")

    assert client.execute("select pgflow.start('Lone', 'b')").fetchone() is not None
    assert client.execute("select count(*) from pg_temp.instances").fetchone() == (0,)


def test_a_payload_over_the_limit_is_rejected(client: Connection) -> None:
    client.execute("select pgflow.start('Lone', 'c')")
    statement = signal.send(
        "pgflow", workflow="Lone", value="c", event="ok", payload='"' + 17_000_000 * "x" + '"', step=None, notify=True
    )
    with pytest.raises(InvalidPayload, match="over the limit of 16777216"):
        run(client, statement)
