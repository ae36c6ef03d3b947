"""Functions with their owner's privileges, and our views, never use objects that a caller has created."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pgflow import Context, Done, Ok, Pgflow, Retry, Unique, WaitForEvent, Workflow, step
from pgflow.database import files
from pgflow.database.connect import Connection, connect
from pgflow.migrations import script
from pgflow.migrations.migrate import up
from tests.conftest import Server
from tests.store.granted_roles import GrantedRoles
from tests.store.shadows import SHADOW_CALLED, create_shadows, shadow_tables
from tests.worker.thread_worker import Inside
from tests.worker.waiting import until


@step(events=("ok",), retry=Retry(on_exhausted="pause"))
def only(ctx: Context[object]) -> Ok:
    return Ok("ok")


class Held(Workflow[object], unique=Unique("held")):
    """Waits for a signal after its one step."""

    initial = only
    transitions = {only: {"ok": WaitForEvent("go").named("gate")}, WaitForEvent("go").named("gate"): {"received": Done}}


# A successful call of each: `{run}` is active, `{failed}` has failed, and a step of `{paused}` waits for an operator,
# of `{delayed}` for its time; `{task}` is the job of a task, `{ended}` of one that was cancelled, and `{waiting}` waits
# for an operator.
CALLS = {
    "add_schedule": "select pgflow.add_schedule('later', 'Held', '@daily', tz => 'Europe/Berlin', input => '{{}}')",
    "admit_signal": "select pgflow.admit_signal({run}, 'go', '{{}}', null)",
    "answered": "select pgflow.once('k', 'c'), pgflow.answered('k', 'c')",
    "await_tasks": "select pgflow.await_tasks('me', '{{1}}')",
    "bulk_batch": "select pgflow.bulk_batch(pgflow.bulk_begin('retry', '{{\"tag\": [[\"x\"]]}}'))",
    "bulk_begin": 'select pgflow.bulk_begin(\'move\', \'{{"state": ["waiting"]}}\', \'{{"queue": "q"}}\')',
    "bulk_count": 'select pgflow.bulk_count(\'{{"tag": [["x"]], "error": [["no"]]}}\')',
    "backlog": "select pgflow.backlog('default')",
    "begin_request": "select pgflow.begin_request('k', 'c')",
    "cancel": "select pgflow.cancel('Held', 'a', 'why')",
    "cancel_run": "select pgflow.cancel_run({run}, 'why')",
    "claim_limited": "select pgflow.claim_limited('default', 10, 1, '{{a}}')",
    "clear_limit": "select pgflow.clear_limit('default'), pgflow.clear_limit('default', 'a')",
    "cancel_task": "select pgflow.cancel_task({task}, 'why')",
    "complete_step": "select pgflow.complete_step('Held', 'p', 'only', 'ok', '{{}}')",
    "complete_step_run": "select pgflow.complete_step_run({paused}, 'only')",
    "declare_queues": """select pgflow.declare_queues('[{{"name": "default", "concurrency": 5}}]')""",
    "declare_schedules": """select pgflow.declare_schedules('app', '[{{"name": "mine", "target": "Held","""
    """ "kind": "workflow", "cron": "@daily", "tz": "UTC", "value": "{{instant}}", "overlap": "skip","""
    """ "catch_up": "last", "jitter": 0}}]', true)""",
    "delete_id": "select pgflow.delete_id('held::a')",
    "complete_task": "select pgflow.complete_task({waiting}, '{{}}')",
    "delete_task": "select pgflow.delete_task({task})",
    "end_expired": "select pgflow.end_expired(10)",
    "enqueue": "select pgflow.enqueue('plain', '{{\"n\": 1}}', tags => '{{x}}', delay => '1 hour')",
    "enqueue_many": "select pgflow.enqueue_many('plain', '{{\"{{}}\",\"{{}}\"}}', tags => '{{x}}')",
    "excluding_run": "select pgflow.excluding_run('held::a', 'Held', 'g held::a')",
    "drain_queue": "select pgflow.drain_queue('default'), pgflow.drain_queue('default', 'n', 'me')",
    "fail_task": "select pgflow.fail_task({waiting}, 'why')",
    "fail_step": "select pgflow.fail_step('Held', 'p', 'only', 'why')",
    "fail_step_run": "select pgflow.fail_step_run({paused}, 'only')",
    "find": "select pgflow.find('Held', 'a'), pgflow.find('Held', 'a', 1)",
    "fire_schedules": """select pgflow.fire_schedules('[{{"name": "due", "revision": 0, """
    """ "handled_at": "2030-01-01T00:00Z", "next_at": "2030-01-02T00:00Z", "skipped": 1, "missed": 1,"""
    """ "cancels_last": true, "starts": [{{"instant": "2030-01-01T00:00Z", "value": "z", "input": {{}}}}]}}]')""",
    "known_queues": "select pgflow.known_queues()",
    "instance_hook": "select pgflow.instance_hook({run}, 'failed', '{{}}', true)",
    "lock_business_ids": "select pgflow.lock_business_ids('{{held::a}}')",
    "once": "select pgflow.once('k', 'c')",
    "pause_queue": "select pgflow.pause_queue('default'), pgflow.pause_queue('default', 'n', 'me')",
    "pause_schedule": "select pgflow.pause_schedule('due', 'me')",
    "forget_audit": "select pgflow.forget_audit('1 year')",
    "prune": "select pgflow.prune(completed => '0', failed => '0', max_count => 3, overrides => true)",
    "prune_archived_tasks": "select pgflow.prune_archived_tasks(array[1]::bigint[], array['now'])",
    "prune_archived": "select pgflow.prune_archived(array[{failed}]::bigint[], array[0])",
    "put": "select pgflow.put({run}, 'held::a', 'Held', 1, 'running', 'w Held held::a', '{{}}', '{{x}}', '{{}}', null,"
    """ pgflow.now(), null, '[{{"step": "only", "event": "ok", "attempt": 1, "started_at": "now", "at": "now"}}]')""",
    "release_place": "select pgflow.release_place(1)",
    "renew_places": "select pgflow.renew_places('{{1}}')",
    "require_queue": "select pgflow.require_queue('default')",
    "remove_schedule": "select pgflow.remove_schedule('due')",
    "resume": "select pgflow.resume('Held', 'a', 'go', '{{}}')",
    "resume_queue": "select pgflow.resume_queue('default'), pgflow.resume_queue('default', 'n')",
    "resume_run": "select pgflow.resume_run({run}, 'go', '{{}}')",
    "resume_schedule": "select pgflow.pause_schedule('due'), pgflow.resume_schedule('due')",
    "retry": "select pgflow.retry('Held', 'b')",
    "retry_run": "select pgflow.retry_run({failed})",
    "scale_queue": "select pgflow.scale_queue('default', 5), pgflow.scale_queue('default', 5, 'n')",
    "retry_task": "select pgflow.retry_task({ended})",
    "run_schedule": "select pgflow.run_schedule('due')",
    "retry_step": "select pgflow.retry_step('Held', 'p', 'only')",
    "retry_step_run": "select pgflow.retry_step_run({paused}, 'only')",
    "run_step_now": "select pgflow.run_step_now({delayed}, 'only')",
    "schedule_resume": "select pgflow.schedule_resume('Held', 'a', 'gate', '1 minute')",
    "schedule_resume_run": "select pgflow.schedule_resume_run({run}, 'gate', '1 minute')",
    "send_due": "select pgflow.send_due(10)",
    "set_limit": "select pgflow.set_limit('default', 5, 1, 1.5, 2, 1.5, 2), pgflow.set_limit('default', 5, key => 'a')",
    "start": "select pgflow.start('Held', 'c', '{{}}', tags => '{{x}}', delay => '1 hour')",
    "start_instant": "select"
    " pgflow.start_instant('due', 'workflow', 'Held', '2030-01-01', 'y', null, 1, null, null, null),"
    " pgflow.start_instant('due', 'task', 'plain', '2030-01-01', '', '{{}}', null, null, null, null)",
    "start_instants": """select pgflow.start_instants('due', 'Held', '[{{"instant": "2030-01-01", "value": "x"}}]')""",
    "start_many": "select pgflow.start_many('Held', '{{d,a}}', '{{\"{{}}\",\"{{}}\"}}', tags => '{{x}}')",
    "take_place": "select pgflow.take_place('limited', 'a')",
    "task_status": "select pgflow.task_status({task}, 'plain')",
    "task_hook": "select pgflow.task_hook({task}, 'plain', 'failed', '{{}}', true)",
    "throughput": "select * from pgflow.throughput('1 hour')",
    "unschedule": "select pgflow.unschedule(1)",
    "update_task": "select pgflow.update_task({task}, 'other', delay => '1 hour')",
    "why": "select pgflow.why({run}), pgflow.why({paused}), pgflow.why({failed})",
    "why_job": "select pgflow.why_job({task}), pgflow.why_job({ended})",
    "why_ready": "select pgflow.why_ready({task})",
}
ENQUEUE = "select set_config('test.task', pgflow.enqueue('plain')::text, true)"
END = "select pgflow.cancel_task(set_config('test.ended', pgflow.enqueue('plain')::text, true)::bigint)"
WAIT = "select set_config('test.waiting', pgflow.enqueue('plain')::text, true)"
PARK = """update pgflow.jobs set state = 'parked', attempt = 5, errors = '[{"reason": "no"}]'
    where id = current_setting('test.waiting')::bigint"""
DEFINERS = """
select p.proname::text, p.oid::regprocedure::text, coalesce(p.proconfig, '{}'), o.rolsuper, p.prosrc,
    exists (select from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a where a.grantee = 0)
from pg_proc p join pg_roles o on o.oid = p.proowner
where p.pronamespace = 'pgflow'::regnamespace and p.prosecdef
"""
# The functions and operators in "public" that our views, defaults, checks and indexes depend on.
PLANTED = """
select d.classid::regclass::text, pg_describe_object(d.classid, d.objid, d.objsubid)
from pg_depend d
where (d.refclassid = 'pg_proc'::regclass
        and d.refobjid in (select oid from pg_proc where pronamespace = 'public'::regnamespace)
    or d.refclassid = 'pg_operator'::regclass
        and d.refobjid in (select oid from pg_operator where oprnamespace = 'public'::regnamespace))
    and d.classid in ('pg_rewrite'::regclass, 'pg_attrdef'::regclass, 'pg_constraint'::regclass, 'pg_class'::regclass)
"""


@contextmanager
def attacked(parts: GrantedRoles) -> Iterator[Connection]:
    """Return a connection of a role that may call everything and has created shadows in public and pg_temp."""
    app = Pgflow(parts.admin, workflows=[Held])
    app.register()
    app.close()
    with parts.connect("admin") as conn, conn.transaction(force_rollback=True):
        source = " ".join(row[4] for row in conn.execute(DEFINERS).fetchall())
        client = sql.Identifier(parts.names["client"])
        conn.execute("select pgflow.start('Held', 'a', '{}'), pgflow.start('Held', 'b', '{}')")
        conn.execute("select pgflow.start('Held', 'p', '{}'), pgflow.start('Held', 'd', '{}')")
        conn.execute(
            "update pgflow.jobs set state = 'scheduled', run_at = pgflow.now() + interval '1 hour'"
            " where run = pgflow.find('Held', 'd')"
        )
        conn.execute(
            "update pgflow.jobs set state = 'parked', run_at = null, attempt = 5, errors = '[{\"reason\": \"no\"}]'"
            " where run = pgflow.find('Held', 'p')"
        )
        conn.execute("update pgflow.instances set status = 'failed', finished_at = pgflow.now() where id = 'held::b'")
        conn.execute("select pgflow.schedule_resume('Held', 'a', 'gate', '0 seconds')")
        conn.execute("select pgflow.set_limit('limited', 5, 1, 1.5, 2, 1.5, 2, is_new => true)")
        conn.execute("select pgflow.take_place('limited')")
        conn.execute("insert into pgflow.tasks (name, hash, options) values ('plain', '', '{\"tags\": [\"t\"]}')")
        conn.execute(ENQUEUE)
        conn.execute(END)
        conn.execute(WAIT)
        conn.execute(PARK)
        conn.execute("select pgflow.add_schedule('due', 'Held', every => '1 minute')")
        conn.execute("update pgflow.schedules set last_run = pgflow.find('Held', 'a')")
        conn.execute(sql.SQL("grant create, usage on schema public to {}").format(client))
        conn.execute(sql.SQL("grant execute on all functions in schema pgflow to {}").format(client))
        conn.execute(sql.SQL("set local role {}").format(client))
        assert create_shadows(conn, source + " now trap concat") > 300
        shadow_tables(conn, "pgflow")
        yield conn


def call_with_shadows(conn: Connection, call: str) -> str | None:
    """Call it with every shadow before the built-in object; returns the error, if any. Rolled back."""
    runs = {
        name: conn.execute("select pgflow.find('Held', %s::text, null::integer)", [value]).fetchall()[0][0]
        for name, value in (("run", "a"), ("failed", "b"), ("paused", "p"), ("delayed", "d"))
    }
    for name in ("task", "ended", "waiting"):
        runs[name] = conn.execute("select pg_catalog.current_setting(%s)", [f"test.{name}"]).fetchall()[0][0]
    try:
        with conn.transaction(force_rollback=True):
            conn.execute("set local search_path = pg_temp, public, pg_catalog")
            conn.execute(call.format(**runs).encode())
    except psycopg.Error as error:
        return str(error)
    return None


def test_every_security_definer_function_pins_its_path_and_is_not_public(parts: GrantedRoles) -> None:
    with parts.connect("admin") as conn:
        found = conn.execute(DEFINERS).fetchall()
    assert {name for name, *_ in found} == set(CALLS), "a new function: add a call of it above"
    for _, signature, settings, is_super, _, is_public in found:
        paths = [each for each in settings if each.startswith("search_path=")]
        assert paths == ["search_path=pg_catalog, pg_temp"], signature
        assert not is_super, signature
        assert not is_public, signature


def test_none_of_them_resolves_names_to_objects_of_a_caller(parts: GrantedRoles) -> None:
    with attacked(parts) as conn:
        said = {name: call_with_shadows(conn, call) for name, call in CALLS.items()}
        assert {name: what for name, what in said.items() if what is not None} == {}
        for table in ("instances", "jobs", "signals", "step_results", "schedules"):
            count = sql.SQL("select pg_catalog.count(*) from {}").format(sql.Identifier("pg_temp", table))
            assert conn.execute(count).fetchall() == [(0,)]


def test_each_of_them_would_without_a_pinned_path(parts: GrantedRoles) -> None:
    with attacked(parts) as conn:
        conn.execute("reset role")
        for _, signature, *_ in conn.execute(DEFINERS).fetchall():
            conn.execute(f"alter function {signature} reset search_path".encode())
        conn.execute(sql.SQL("set local role {}").format(sql.Identifier(parts.names["client"])))
        said = {name: call_with_shadows(conn, call) for name, call in CALLS.items()}
        used = (SHADOW_CALLED, "count is not an aggregate function")  # a shadow, too, already while it is parsed
        assert {name: what for name, what in said.items() if not any(each in str(what) for each in used)} == {}


@pytest.fixture
def database_with_shadows(server: Server, new_database: Callable[..., str]) -> str:
    """The dsn of a database in which public contains shadows before pgflow is installed."""
    dsn: str = new_database(server)
    with connect(dsn, "test") as conn:
        assert create_shadows(conn, " ".join(files.load(path) for path in files.list_files())) > 300
    return dsn


def test_objects_in_public_get_neither_into_the_schema_nor_into_a_worker(database_with_shadows: str) -> None:
    app = Pgflow(database_with_shadows, workflows=[Held])
    app.migrate()
    with connect(database_with_shadows, "test") as conn:
        assert conn.execute(PLANTED).fetchall() == []
    app.start(Held, "a", {"n": 1}, tags=["x"])
    with Inside(app):
        until(lambda: app.get(Held, "a").status == "waiting", "the wait")
        assert [each.step for each in app.jobs(Held, tags=["x"])] == ["gate"]
        app.resume(Held, "a", "go")
        until(lambda: app.list(Held, status="completed", tags=["x"]), "the end")
    app.close()


def test_nothing_gets_in_through_the_script_and_its_tool_keeps_its_path(database_with_shadows: str) -> None:
    with connect(make_conninfo(database_with_shadows, options="-c search_path=public"), "test") as conn:
        with conn.transaction():
            conn.execute("create table applied (id integer)")  # the table of a migration tool
            conn.execute(script.sql(), prepare=False)
            conn.execute("insert into applied values (1)")
        assert conn.execute("show search_path").fetchall() == [("public",)]
        assert conn.execute(PLANTED).fetchall() == []


def test_they_would_with_the_default_path_of_a_connection(database_with_shadows: str, empty: str) -> None:
    app = Pgflow(database_with_shadows, workflows=[Held])
    app.migrate()
    app.start(Held, "a", tags=["x"])
    usual = Pgflow(make_conninfo(database_with_shadows, options='-c search_path="$user",public'))
    with pytest.raises(psycopg.errors.RaiseException, match=SHADOW_CALLED):
        usual.jobs(tags=["x"])
    usual.close()
    app.close()
    with connect(empty, "test") as conn:
        conn.execute("create function public.silent(text[], text[]) returns text[] return $1")
        conn.execute("create operator public.|| (function = public.silent, leftarg = text[], rightarg = text[])")
    with connect(make_conninfo(empty, options="-c search_path=public"), "migrate") as conn:
        up(conn)
        assert ("pg_rewrite", "rule _RETURN on view pgflow.job_details") in conn.execute(PLANTED).fetchall()
