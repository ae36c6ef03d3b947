"""Group J, migrations: step by step, forward only, recorded in a ledger whose loss destroys nothing."""

from __future__ import annotations

import json
from collections.abc import Callable

import psycopg
import pytest
from click.testing import CliRunner, Result

from pgflow import Context, Done, Ok, Pgflow, Unique, Workflow, step
from pgflow.cli import cli
from pgflow.cli.error_reporting import report
from pgflow.database.connect import connect
from pgflow.database.migration_files import migrations
from pgflow.errors import ConfigError, PgflowError, SchemaError, SchemaForeign, SchemaOutdated, SchemaTooNew
from pgflow.migrations import migrate, script
from tests.conftest import Server
from tests.store.test_migrate import catalog, execute, migrate_up

NEWEST = len(migrations())
LOSSES = {
    "gone": ("drop table pgflow.migrations", "table pgflow.migrations is missing"),
    "emptied": ("delete from pgflow.migrations", "table pgflow.migrations is empty"),
    "without its first line": ("delete from pgflow.migrations where version = 1", "lacks the row 0001 engine"),
    "without its last lines": (
        "delete from pgflow.migrations where version > 1",
        "already contains objects of 0002 versions",
    ),
}


@pytest.fixture
def dsn(any_server: Server, new_database: Callable[..., str]) -> str:
    """The dsn of an empty database for one test."""
    return new_database(any_server)


def version(dsn: str, schema: str = "pgflow") -> int:
    with connect(dsn) as conn:
        return migrate.status(conn, schema).version


def pgflow(dsn: str, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["migrate", "--dsn", dsn, *arguments], standalone_mode=False)


def refusal(result: Result) -> PgflowError:
    assert isinstance(result.exception, PgflowError), result
    assert report(result.exception) == result.exception.exit_code
    return result.exception


@step
def only(ctx: Context[dict[str, int]]) -> Ok:
    return Ok("done")


class Lone(Workflow[dict[str, int]], unique=Unique("lone")):
    initial = only
    transitions = {only: {"done": Done}}


def test_j14_migrating_one_by_one_equals_migrating_at_once(
    any_server: Server, new_database: Callable[..., str], dsn: str
) -> None:
    """J14: migrating version by version ends with the same schema as a fresh install; each step is idempotent."""
    assert version(dsn) == 0
    for each in migrations():
        assert migrate_up(dsn, to=each.version)[0] == each.name
        assert migrate_up(dsn, to=each.version) == []
        assert version(dsn) == each.version
        if each.version < NEWEST:
            with connect(dsn) as conn, pytest.raises(SchemaOutdated, match=f"is at {each.version:04}"):
                migrate.check(conn)
    fresh = new_database(any_server)
    migrate_up(fresh)
    assert catalog(dsn) == catalog(fresh)
    with connect(dsn) as conn:
        migrate.check(conn)


def test_j14_instances_survive_an_upgrade(dsn: str) -> None:
    """J14: an upgrade keeps stored instances, which then run."""
    migrate_up(dsn, to=1)
    execute(
        dsn,
        "insert into pgflow.instances (id, workflow, version, unique_key, input) "
        "values ('lone::a', 'Lone', 1, 'w Lone lone::a', '{}');"
        "insert into pgflow.jobs (run, step) select run, 'only' from pgflow.instances",
    )
    migrate_up(dsn)
    app = Pgflow(dsn, workflows=[Lone])
    app.run_worker(drain=True)
    assert Lone.get("a").status == "completed"
    app.close()


def test_j14_there_is_no_downgrade_and_no_version_beyond_the_newest(dsn: str) -> None:
    """J14: a downgrade is refused with the alternative; migrating to the current version succeeds."""
    migrate_up(dsn)
    before = catalog(dsn)
    assert migrate_up(dsn, to=NEWEST) == []
    with pytest.raises(SchemaError, match=f"is at {NEWEST:04}, and there is no way back to 0001") as back:
        migrate_up(dsn, to=1)
    assert "An older pgflow runs on a newer schema" in str(back.value.hint)
    for beyond in (0, -1, NEWEST + 1):
        with pytest.raises(ConfigError, match=f"there is no migration {beyond}: this pgflow knows 1 to {NEWEST}"):
            migrate_up(dsn, to=beyond)
    assert catalog(dsn) == before
    assert version(dsn) == NEWEST


def test_j14_the_command_migrates_to_a_version(dsn: str) -> None:
    """J14: `pgflow migrate --to N`, with --dry-run, --json and --sql."""
    assert pgflow(dsn, "--to", "1", "--dry-run").output == "would apply 0001 engine\n"
    assert version(dsn) == 0
    assert json.loads(pgflow(dsn, "--to", "1", "--json").output)["applied"][0]["version"] == 1
    assert pgflow(dsn, "--to", "1").output == 'schema "pgflow" is already at 0001\n'
    script = pgflow(dsn, "--sql", "--after", "1", "--to", "2").output
    assert script.startswith('-- Brings schema "pgflow" of pgflow from 0001 to 0002.')
    execute(dsn, script)
    assert version(dsn) == 2
    assert pgflow(dsn).output.endswith("applied functions\n")
    assert version(dsn) == NEWEST
    assert refusal(pgflow(dsn, "--to", "1")).exit_code == 4
    assert refusal(pgflow(dsn, "--to", str(NEWEST + 1))).exit_code == 2


@pytest.mark.parametrize("schema", ["pgflow", "orders"])
@pytest.mark.parametrize("loss", LOSSES)
def test_j14_a_lost_ledger_is_refused_and_can_be_restored(dsn: str, loss: str, schema: str) -> None:
    """J14: without its ledger a schema is refused, also by a worker; the command in the hint restores it."""
    migrate_up(dsn, schema)
    whole = catalog(dsn, schema)
    how, expected = (text.replace("pgflow.", f"{schema}.") for text in LOSSES[loss])
    execute(dsn, how)
    before = catalog(dsn, schema)
    with pytest.raises(SchemaError, match=expected) as refused:
        migrate_up(dsn, schema)
    assert not isinstance(refused.value, SchemaForeign)
    assert "--sql --ledger --to N" in str(refused.value.hint)
    with connect(dsn) as conn, pytest.raises(SchemaError):
        migrate.check(conn, schema)
    assert catalog(dsn, schema) == before

    option = () if schema == "pgflow" else ("--schema", schema)
    execute(dsn, pgflow(dsn, *option, "--sql", "--ledger", "--to", str(NEWEST)).output)
    assert migrate_up(dsn, schema) in ([], ["functions"])
    assert catalog(dsn, schema) == whole
    with connect(dsn) as conn:
        migrate.check(conn, schema)


def test_j14_the_name_of_a_schema_is_checked(dsn: str) -> None:
    """J14: a schema name that is not a plain identifier is refused before anything is sent."""
    for name in ('a"; drop schema public; --', "Orders", "1a", ""):
        with pytest.raises(ConfigError, match="is not a valid schema name"):
            migrate_up(dsn, name, to=1)
        with pytest.raises(ConfigError, match="is not a valid schema name"):
            script.ledger(name)


def test_j14_older_code_refuses_a_breaking_migration(dsn: str) -> None:
    """J14: older code works with a newer schema, unless a migration declares itself breaking."""
    migrate_up(dsn)
    with connect(dsn) as conn:
        newer = "insert into pgflow.migrations (version, name, checksum, breaking) values ({}, 'x', '', {})"
        conn.execute(newer.format(NEWEST + 1, "false"))
        migrate.check(conn)
        assert migrate.up(conn) == []
        with pytest.raises(SchemaError, match="there is no way back"):
            migrate.up(conn, to=NEWEST)
        conn.execute(newer.format(NEWEST + 2, "true"))
        with pytest.raises(SchemaTooNew):
            migrate.check(conn)
        with pytest.raises(SchemaTooNew):
            migrate.up(conn, to=NEWEST)


def test_j14_a_foreign_table_of_migrations_is_recognized(dsn: str) -> None:
    """J14: foreign tables are distinguished from pgflow's schema without its ledger."""
    execute(dsn, "create schema pgflow; create table pgflow.instances (id int); create table pgflow.jobs (id int)")
    with connect(dsn) as conn, pytest.raises(SchemaForeign):
        migrate.up(conn, to=1)
    with psycopg.connect(dsn) as conn:
        assert conn.execute("select count(*) from pg_class where relnamespace = 'pgflow'::regnamespace").fetchone() == (
            2,
        )
