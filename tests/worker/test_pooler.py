"""Behind a connection pooler in transaction mode: without LISTEN, without prepared statements, leaving nothing behind.

On a stand-in in any case, and on a real PgBouncer where one is on the path or named in PGFLOW_TEST_PGBOUNCER.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from typing import Any, TypeAlias

import psycopg
import pytest
from click.testing import CliRunner

from pgflow import Context, Done, Ok, Pgflow, Unique, Workflow, step
from pgflow.cli import cli
from pgflow.database.connect import Connection, aconnect, connect
from pgflow.database.pooling.pool import Pool
from pgflow.database.statement import Statement, arun, arun_all, run, run_all
from pgflow.errors import PoolerDetected
from tests.acceptance.fake_pooler import run_fake_pooler
from tests.conftest import Server
from tests.torture import acts
from tests.torture.acts import ACTS, LEDGER, Asked, Chain, Fan, Scene, Timed, word
from tests.torture.wire.proxy import upstream_of
from tests.worker.db_helpers import connections, leftovers, one, rows, until_all_ended, until_status
from tests.worker.fake_pooler import StandIn
from tests.worker.pgbouncer import PROGRAM, Bouncer
from tests.worker.processes import Processes
from tests.worker.thread_worker import Inside
from tests.worker.waiting import until

POOLERS = ("stand-in", *(("PgBouncer",) if PROGRAM else ()))
SIZE = 3  # sessions that all clients share
SHOWN = ("statement_timeout", "lock_timeout", "search_path", "transaction_isolation")
OURS = ["30s", "2s", "pg_catalog,pg_temp", "read committed"]
STEPS = ["0", "2s", '"$user", public', "read committed"]
LEFT = """
    select 'setting', name, setting from pg_settings
        where source = 'session' and name not in ('application_name', 'transaction_isolation')
    union all select 'prepared', name, statement from pg_prepared_statements
    union all select 'listening', channel, null from pg_listening_channels() channel
    union all select 'locked', locktype, mode from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()
    union all select 'temporary', relname, null from pg_class where relpersistence = 't' and pg_table_is_visible(oid)
"""

Pooler: TypeAlias = StandIn | Bouncer
Input: TypeAlias = dict[str, Any]


@step(transactional=True)
def look(ctx: Context[Input]) -> Ok:
    prepared = ctx.conn.prepare_threshold
    return Ok("done", [prepared, *ctx.conn.execute(ASK, [list(SHOWN)]).fetchone()[0]])


@step(transactional=True)
async def alook(ctx: Context[Input]) -> Ok:
    prepared = ctx.conn.prepare_threshold
    cursor = await ctx.conn.execute(ASK, [list(SHOWN)])
    return Ok("done", [prepared, *(await cursor.fetchone())[0]])


class Look(Workflow[Input], unique=Unique("look")):
    """Steps that return the settings of their transactions."""

    initial = look
    transitions = {look: {"done": alook}, alook: {"done": Done}}


WORKFLOWS = (*acts.WORKFLOWS, Look)
ASK = "select array_agg(current_setting(n.name) order by n.nth) from unnest(%s::text[]) with ordinality n (name, nth)"


def show(*names: str) -> Statement[list[str]]:
    """Ask for settings."""
    query = ASK.replace("%s", "%(names)s")
    return Statement("test/show", query, {"names": list(names)}, lambda rows: list(rows[0][0]), prepare=True)


def pooler_before(name: str, dsn: str, *, takes_options: bool = False, size: int = SIZE) -> Pooler:
    """Make a pooler before the server that `dsn` leads to, as it comes, or one that passes over startup options."""
    if name == "stand-in":
        return StandIn(str(upstream_of(dsn)), size=size, takes_options=takes_options)
    return Bouncer(dsn, size=size, more="ignore_startup_parameters = options" if takes_options else "")


@pytest.fixture(scope="module", params=POOLERS)
def through(request: pytest.FixtureRequest, dsn: str) -> Iterator[str]:
    """The way to the module's database through a pooler."""
    with pooler_before(request.param, dsn) as pooler:
        yield pooler.through(dsn)


@pytest.fixture
def client(through: str, conn: Connection) -> Iterator[Pgflow]:
    """An app that goes through the pooler, and a table of the user's own."""
    conn.execute(LEDGER.replace("table", "table if not exists").encode())
    app = Pgflow(through, workflows=WORKFLOWS, pooler=True)
    app.register()
    yield app
    app.close()
    conn.execute("delete from ledger")
    conn.execute("delete from pgflow.requests")


def left_in_sessions(through: str) -> list[tuple[Any, ...]]:
    """Return what clients have left in the pooler's sessions; all of them are taken at once."""
    found: list[tuple[Any, ...]] = []
    seen = set()
    with ExitStack() as stack:
        for _ in range(SIZE):
            conn = stack.enter_context(psycopg.connect(through, prepare_threshold=None))
            seen |= set(conn.execute("select pg_backend_pid()").fetchall())
            found += conn.execute(LEFT).fetchall()
    assert len(seen) == SIZE, "each has another session"
    return found


# -- through a pooler


@pytest.mark.chaos
def test_every_kind_of_step_and_wait_comes_to_its_end_although_a_worker_is_killed(
    client: Pgflow, through: str, conn: Connection, processes: Processes
) -> None:
    options = ("--pooler", "--dsn", through, "-q", "default=20")
    workers = [processes.start(*options, app="tests.torture.acts") for _ in range(2)]
    assert rows(conn, "select backend from pgflow.workers") == [(None,)] * 2, "it serves others, too"
    client.start_many(Chain, [(f"c{number}",) for number in range(100)])
    client.start_many(Fan, [(f"f{number}",) for number in range(40)])
    client.start_many(Timed, [(f"t{number}",) for number in range(20)])
    asked = client.start_many(Asked, [(f"a{number}",) for number in range(30)])
    for each in asked[:10]:
        client.resume(Asked, each.id, "word", each.run)
    until(lambda: one(conn, "select count(*) from pgflow.step_results") > 150, "some work", pause=0.005)
    workers[0].kill()
    for each in asked[10:20]:
        client.schedule_resume(Asked, each.id, word, timedelta(seconds=0.1), payload=each.run)
    asyncio.run(send(client, {each.id: each.run for each in asked[20:]}))
    assert until_all_ended(conn) == {"completed": 190}
    whole = 100 * 3 + 40 * 5 + 20 * 2 + 30 * 3
    recorded = "select count(*), count(distinct (run, step)) from pgflow.step_results"
    assert rows(conn, recorded) == [(whole, whole)]
    assert rows(conn, "select count(*), count(distinct (run, step)) from ledger") == [(80, 80)]
    answers = "select run from pgflow.step_results where step = 'answer' and output = to_jsonb(run) order by run"
    assert rows(conn, answers) == [(each.run,) for each in asked]
    assert leftovers(conn) == {}
    assert workers[1].terminate() == 0, workers[1].log
    assert left_in_sessions(through) == []


async def send(app: Pgflow, payloads: dict[str, int]) -> None:
    async with asyncio.TaskGroup() as group:
        for whole, payload in payloads.items():
            group.create_task(app.aresume(Asked, whole, "word", payload))


@pytest.mark.parametrize("act", ACTS)
def test_an_act_ends_as_it_does_without_a_pooler(act: str, client: Pgflow, through: str, conn: Connection) -> None:
    scene = Scene(client, client.storage.get, act)
    with Inside(client):
        ACTS[act](scene)
        until_all_ended(conn)
    found = "select split_part(id, '::', 2), status from pgflow.instances"
    assert dict(rows(conn, found)) == {value: end.status for value, end in scene.expected.items()}
    assert leftovers(conn) == {}
    assert left_in_sessions(through) == []


def test_a_call_with_a_key_is_carried_out_once(client: Pgflow, conn: Connection) -> None:
    first = client.start(Chain, "v", idempotency_key="start")
    assert client.start(Chain, "v", idempotency_key="start") == first
    assert asyncio.run(client.astart(Chain, "v", idempotency_key="start")) == first
    for _ in range(2):
        client.cancel(Chain, first.id, idempotency_key="cancel")
    with psycopg.connect(client.dsn, prepare_threshold=None) as own:
        assert client.start(Chain, "v", idempotency_key="start", conn=own) == first
    assert rows(conn, "select id, status from pgflow.instances") == [(first.id, "cancelled")]


def test_each_transaction_of_ours_has_its_limits(through: str) -> None:
    with connect(through, pooler=True) as conn:
        assert run(conn, show(*SHOWN)) == OURS
        assert run_all(conn, [show("lock_timeout"), show(*SHOWN)]) == [["2s"], OURS]
        for _ in range(2):
            with pytest.raises(psycopg.errors.UndefinedObject):
                run(conn, show("nothing.of_that_name"))
        with conn.transaction():
            assert run(conn, show("statement_timeout")) == ["0"], "it is not ours"

    async def ask() -> list[list[str]]:
        async with await aconnect(through, pooler=True) as conn:
            return [await arun(conn, show(*SHOWN)), *await arun_all(conn, [show(*SHOWN)])]

    assert asyncio.run(ask()) == [OURS] * 2
    assert left_in_sessions(through) == []


def test_a_step_has_pgflows_settings_whatever_the_database_sets(
    server: Server, new_database: Callable[..., str], template: str
) -> None:
    dsn = new_database(server, template)
    with connect(dsn, "test") as conn:
        conn.execute(f"alter database {conn.info.dbname} set default_transaction_isolation = 'serializable'".encode())
    with pooler_before("stand-in", dsn) as pooler:
        app = Pgflow(pooler.through(dsn), workflows=WORKFLOWS, pooler=True)
        app.start(Look, "v")
        with Inside(app):
            steps = until_status(Look, "v").steps
        assert steps == {"look": [None, *STEPS], "alook": [None, *STEPS]}
        with connect(app.dsn, pooler=True) as conn:
            assert run(conn, show("transaction_isolation")) == ["read committed"]
        app.close()


def test_clients_that_do_nothing_keep_no_session(dsn: str) -> None:
    with pooler_before("stand-in", dsn, size=1) as pooler, ExitStack() as stack:
        for _ in range(30):
            conn = stack.enter_context(connect(pooler.through(dsn), pooler=True))
            assert run_all(conn, [show("lock_timeout")] * 3) == [["2s"]] * 3
        pool = Pool(pooler.through(dsn), pooler=True)
        stack.callback(pool.close)
        with pool.connection() as conn, pool.connection() as other:
            assert run(conn, show(*SHOWN)) == run(other, show(*SHOWN)) == OURS


# -- an undeclared pooler


@pytest.mark.parametrize("takes_options", [True, False], ids=["takes options", "refuses options"])
@pytest.mark.parametrize("kind", POOLERS)
def test_an_undeclared_pooler_is_refused_with_the_fix(
    kind: str, takes_options: bool, dsn: str, conn: Connection, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pooler_before(kind, dsn, takes_options=takes_options) as pooler:
        app = Pgflow(pooler.through(dsn), workflows=WORKFLOWS)
        refused: list[Callable[[], Any]] = [
            lambda: app.start(Chain, "v"),
            lambda: asyncio.run(app.astart(Chain, "v")),
            lambda: asyncio.run(app.worker().run()),
        ]
        for attempt in refused:
            with pytest.raises(PoolerDetected, match="a connection pooler is in front of PostgreSQL at 127") as error:
                attempt()
            assert "--pooler, PGFLOW_POOLER=1 or Pgflow(…, pooler=True)" in (error.value.hint or "")
        with pytest.raises(PoolerDetected) as error:
            app.migrate()
        assert "needs a direct connection" in (error.value.hint or "")
        app.close()
        monkeypatch.chdir(tmp_path)
        for command in (["list"], ["cancel", "Chain", "v"], ["migrate"], ["roles", "--apply", "--client", "c"]):
            done = CliRunner().invoke(cli, [*command, "--dsn", pooler.through(dsn)])
            assert (done.exit_code, done.stdout) == (3, "")
            assert done.stderr.startswith("pgflow: a connection pooler is in front of PostgreSQL")
            assert len(done.stderr.splitlines()) == 1
    assert rows(conn, "select from pgflow.instances") == []


def test_the_commands_work_through_a_declared_pooler(
    through: str, client: Pgflow, conn: Connection, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def call(*line: str, **environment: str) -> Any:
        done = CliRunner().invoke(cli, [*line, "--dsn", through, "--json"], env=environment)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    app = ("--app", "tests.torture.acts:app")
    started = call("start", "Asked", "v", "--pooler", "--idempotency-key", "k")
    assert call("start", "Asked", "v", "--pooler", "--idempotency-key", "k", *app) == started
    assert call("resume", "Asked", started["id"], "word", "--pooler")["signal"] == "kept"
    assert [each["id"] for each in call("list", "Asked", "--pooler")["instances"]] == [started["id"]]
    assert call("show", "Asked", started["id"], PGFLOW_POOLER="1")["instance"]["status"] == "running"
    assert call("validate", *app, "--pooler")["valid"] is True
    assert call("cancel", "Asked", started["id"], "--pooler")["status"] == "cancelled"
    assert left_in_sessions(through) == []


def test_a_migration_does_not_mind_that_the_others_go_through_one(
    server: Server, new_database: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGFLOW_POOLER", "1")
    done = CliRunner().invoke(cli, ["migrate", "--dsn", new_database(server)])
    assert done.exit_code == 0, done.output


# -- LISTEN


@pytest.mark.parametrize("kind", POOLERS)
def test_in_transaction_mode_a_worker_listens_only_on_request_and_logs_that_nothing_arrives(
    kind: str, dsn: str, conn: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    with pooler_before(kind, dsn) as pooler:
        app = Pgflow(pooler.through(dsn), workflows=WORKFLOWS, pooler=True)
        app.register()
        with Inside(app) as inside:
            until(lambda: inside.worker.stats.round_trips > 3, "some turns")
            assert connections(conn, "listen") == 0
        with Inside(app, listen=True):
            until(lambda: "notifications do not arrive here" in caplog.text, "the word")
            app.start(Chain, "v")
            assert until_all_ended(conn) == {"completed": 1}
        app.close()


def test_in_session_mode_notifications_arrive(dsn: str, conn: Connection) -> None:
    with run_fake_pooler(str(upstream_of(dsn)), delivers=True) as port:
        session = psycopg.conninfo.make_conninfo(
            dsn, host="127.0.0.1", port=port, sslmode="disable", gssencmode="disable"
        )
        app = Pgflow(session, workflows=WORKFLOWS, pooler=True)
        app.register()
        with Inside(app, listen=True, poll=timedelta(minutes=10)):
            until(lambda: connections(conn, "listen") == 1, "the listener")
            until(lambda: one(conn, "select count(*) from pg_stat_activity where query like 'listen%%'") == 1, "LISTEN")
            app.start(Chain, "v")
            until_all_ended(conn)
        app.close()
