"""The views and functions for people: their answers, and how little of a large database they read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from pgflow import Context, Done, Ok, Pgflow, Retry, Unique, WaitForEvent, Workflow, step, task
from pgflow.core.models.overview import Reason
from pgflow.database.connect import Connection, connect
from pgflow.database.statement import run
from pgflow.errors import InstanceNotFound, InvalidValue, JobNotFound
from pgflow.store import overview, queue, worker
from tests.conftest import Server
from tests.store.granted_roles import GrantedRoles

ROWS = 40_000


@step(events=("all", "one"))
def split(ctx: Context[object]) -> Ok:
    return Ok("all")


@step(events=("ok",))
def left(ctx: Context[object]) -> Ok:
    return Ok("ok")


@step(events=("ok",), queue="mail", retry=Retry(on_exhausted="pause"))
def right(ctx: Context[object]) -> Ok:
    return Ok("ok")


@step(events=("ok",))
def other(ctx: Context[object]) -> Ok:
    return Ok("ok")


@step(events=("ok",))
def join(ctx: Context[object]) -> Ok:
    return Ok("ok")


GATE = WaitForEvent("paid", timeout=timedelta(hours=2)).named("gate")


class Joined(Workflow[object], unique=Unique("joined")):
    """A join of three branches, one of which is never taken."""

    initial = split
    transitions = {
        split: {"all": (left, right, GATE), "one": other},
        left: {"ok": join},
        right: {"ok": join},
        GATE: {"received": join, "timeout": join},
        other: {"ok": join},
        join: {"ok": Done},
    }


@task(queue="mail")
def greet(name: str) -> None:
    """Do nothing."""


@pytest.fixture(scope="module")
def shared(server: Server, migrated_database: Callable[[Server], str]) -> str:
    """The dsn of a database that knows the workflow and the task."""
    dsn = migrated_database(server)
    app = Pgflow(dsn, workflows=[Joined], tasks=[greet])
    app.register()
    app.close()
    return dsn


@pytest.fixture
def conn(shared: str) -> Iterator[Connection]:
    """A connection to it, in a transaction that is rolled back."""
    with connect(shared, "test") as conn, conn.transaction(force_rollback=True):
        yield conn


def one(conn: Connection, query: str, *values: Any) -> Any:
    row = conn.execute(query.encode(), values).fetchone()
    assert row is not None
    return row[0]


def start_instance(conn: Connection) -> int:
    return int(one(conn, "select pgflow.start('Joined', 'a', '{}')"))


def enqueue(conn: Connection) -> int:
    return int(one(conn, "select pgflow.enqueue('greet', '{\"name\": \"x\"}')"))


def serve(conn: Connection, *queues: str, node: str = "n1", expired: bool = False) -> int:
    return int(
        one(
            conn,
            "insert into pgflow.workers (node, pid, queues, version, lease, lease_expires_at) values"
            " (%s, 7, %s, '1', '30 s', pgflow.now() + case when %s then '-1 s' else '30 s' end::interval) returning id",
            node,
            list(queues),
            expired,
        )
    )


def why_job(conn: Connection, job: int) -> Reason:
    (reason,) = run(conn, overview.why_job("pgflow", job))
    return reason


def change(conn: Connection, job: int, changes: str) -> Reason:
    """Change the job's row, and explain it."""
    conn.execute(f"update pgflow.jobs set {changes} where id = {job}".encode())  # noqa: S608 -- texts of this module
    return why_job(conn, job)


def test_a_ready_job_waits_for_a_worker_that_serves_its_queue(conn: Connection) -> None:
    job = enqueue(conn)
    assert why_job(conn, job).reason == "no worker is running: start one that serves queue mail"
    serve(conn, "default")
    serve(conn, "mail", expired=True)
    found = why_job(conn, job)
    assert (found.kind, found.reason) == ("unserved", "no worker serves queue mail: start one with --queue mail")
    serve(conn, "mail")
    assert why_job(conn, job).reason == "ready: the next in queue mail, which 1 worker serves"
    later = enqueue(conn)
    assert (why_job(conn, later).kind, why_job(conn, later).since is None) == ("queue", False)
    assert why_job(conn, later).reason == "ready: 1 job is before it in queue mail, which 1 worker serves"


def test_a_pause_is_explained_with_its_time_and_name(conn: Connection) -> None:
    job = enqueue(conn)
    serve(conn, "mail")
    conn.execute("select pgflow.pause_queue('mail', 'n1', 'bob')")
    assert why_job(conn, job).reason.startswith("queue mail is paused on each node that serves it: n1 since 20")
    serve(conn, "mail", node="n2")
    assert why_job(conn, job).kind == "queue"
    conn.execute("select pgflow.pause_queue('mail', by => 'ada')")
    found = why_job(conn, job)
    assert found.kind == "paused"
    assert found.reason.startswith("queue mail is paused since 20")
    assert found.reason.endswith("Z by ada")


def test_limits_and_rates_are_explained(conn: Connection) -> None:
    job = enqueue(conn)
    busy = serve(conn, "mail")
    conn.execute("select pgflow.set_limit('mail', concurrency => 2)")
    assert why_job(conn, job).kind == "queue"
    for _ in range(2):
        running = enqueue(conn)
        change(conn, running, f"state = 'running', worker = {busy}, key = 't1'")
    found = why_job(conn, job)
    assert (found.kind, found.reason) == (
        "concurrency",
        "the limit of queue mail is reached: 2 of 2 places are taken",
    )
    conn.execute("select pgflow.clear_limit('mail'), pgflow.set_limit('mail', key_concurrency => 1)")
    assert why_job(conn, job).kind == "queue"
    assert change(conn, job, "key = 't1'").reason == (
        "the limit of key t1 in queue mail is reached: 2 of 1 places are taken"
    )
    conn.execute("select pgflow.clear_limit('mail'), pgflow.set_limit('mail', rate => 0.1)")
    assert why_job(conn, job).kind == "queue"
    conn.execute("update pgflow.queues set tat = pgflow.now() + interval '10 s' where name = 'mail'")
    found = why_job(conn, job)
    assert found.kind == "rate"
    assert found.until is not None
    assert found.reason.startswith("the rate of queue mail is used up: the next start is at 20")
    conn.execute("select pgflow.clear_limit('mail'), pgflow.set_limit('mail', key_rate => 0.1)")
    conn.execute("insert into pgflow.rates values ('mail', 't1', pgflow.now() + interval '10 s')")
    assert why_job(conn, job).reason.startswith("the rate of key t1 in queue mail is used up")


def test_the_states_of_a_job_are_explained(conn: Connection) -> None:
    job = enqueue(conn)
    failed = """errors = '[{"type": "ValueError", "reason": "no\\nmail"}]', attempt = 2"""
    retry = change(conn, job, f"state = 'scheduled', run_at = pgflow.now() + interval '1 hour', {failed}")
    assert retry.kind == "retry"
    assert retry.reason.endswith("Z, after attempt 2 of 5: ValueError: no mail")
    parked = change(conn, job, "state = 'parked', run_at = null")
    assert parked.reason == "waits for an operator, after attempt 2 of 5: ValueError: no mail"
    conn.execute("update pgflow.jobs set state = 'scheduled', run_at = pgflow.now() + interval '1 hour'")
    assert change(conn, job, "errors = null").kind == "delay"
    due = change(conn, job, "run_at = pgflow.now() - interval '1 s'")
    assert due.kind == "unserved"
    holder = serve(conn, "mail")
    assert why_job(conn, job).reason.startswith("due since 20")
    running = change(conn, job, f"""state = 'running', worker = {holder}, progress = '{{"at": 0.4, "note": "p 2"}}'""")
    assert running.reason == f"runs on worker {holder} (n1, process 7), attempt 2 of 5, 40 % p 2"
    conn.execute("update pgflow.workers set lease_expires_at = pgflow.now() - interval '1 s'")
    assert why_job(conn, job).kind == "lost"
    conn.execute("delete from pgflow.workers")
    assert why_job(conn, job).reason.endswith("whose lease has expired: another worker that sweeps frees it")
    serve(conn, "mail")
    assert change(conn, job, "state = 'ready', worker = null, crashes = 3").kind == "quarantine"
    conn.execute(b"select pgflow.cancel_task(%d, 'not needed')" % job)
    ended = why_job(conn, job)
    assert (ended.step, ended.kind) == ("greet", "cancelled")
    assert ended.reason.endswith("Z: not needed")


def test_an_instance_is_explained_branch_by_branch_and_a_join_with_what_is_missing(conn: Connection) -> None:
    instance = start_instance(conn)
    (first,) = run(conn, overview.why("pgflow", instance))
    assert (first.step, first.kind) == ("split", "unserved")
    conn.execute(f"delete from pgflow.jobs where run = {instance}".encode())  # noqa: S608 -- a number
    assert [each.kind for each in run(conn, overview.why("pgflow", instance))] == ["orphaned"]
    conn.execute(
        f"insert into pgflow.step_results (run, step, event, attempt, started_at) values"  # noqa: S608 -- a number
        f" ({instance}, 'split', 'all', 1, pgflow.now()), ({instance}, 'left', 'ok', 1, pgflow.now());"
        "insert into pgflow.jobs (run, step, kind, state, queue, run_at, awaits, parked_at, errors, attempt) values"
        f" ({instance}, 'right', 'execute', 'parked', 'mail', null, null, pgflow.now(), '[{{\"reason\": \"no\"}}]', 5),"
        f" ({instance}, 'gate', 'resume', 'parked', 'default', pgflow.now() + interval '2 h',"
        ' \'{"paid": "received"}\', pgflow.now(), null, 1)'.encode()
    )
    conn.execute(f"select pgflow.schedule_resume_run({instance}, 'gate', '1 hour', event => 'paid')".encode())
    operator, signal, joins = run(conn, overview.why("pgflow", instance))
    assert operator.reason == "waits for an operator, after attempt 5 of 5: no"
    assert signal.reason.startswith("waits for signal paid until 20")
    assert ", which is scheduled for 20" in signal.reason
    assert (joins.step, joins.kind, joins.job) == ("join", "join", None)
    assert joins.reason == "joins branches: left arrived, waiting for gate, right"  # not `other`: it is dead
    row = conn.execute(
        "select active_steps, queues, needs_operator, completed_steps, error_reason, next_at is null"
        " from pgflow.instance_overview where run = %s",
        [instance],
    ).fetchone()
    assert row == (["gate", "right"], ["default", "mail"], True, 2, "no", False)
    conn.execute(f"select pgflow.cancel_run({instance}, 'twice')".encode())
    (ended,) = run(conn, overview.why("pgflow", instance))
    assert ended.kind == "cancelled"
    assert ended.reason.endswith("Z: twice")


def test_unknown_ids_and_periods_are_refused(conn: Connection) -> None:
    with pytest.raises(InstanceNotFound, match="no instance has the run id 77"), conn.transaction():
        run(conn, overview.why("pgflow", 77))
    with pytest.raises(JobNotFound, match="no job has the id 77"), conn.transaction():
        run(conn, overview.why_job("pgflow", 77))
    for period in (timedelta(0), timedelta(days=4000)):
        with pytest.raises(InvalidValue, match="period must be above zero"), conn.transaction():
            run(conn, overview.throughput("pgflow", period))


def test_a_backlog_does_not_fall_when_a_worker_takes_a_job(conn: Connection) -> None:
    def backlog(name: str = "mail") -> int:
        return run(conn, overview.backlog("pgflow", name))

    jobs = [enqueue(conn) for _ in range(4)]
    assert (backlog(), backlog("default"), backlog("unknown")) == (4, 0, 0)
    holder = serve(conn, "mail")
    change(conn, jobs[0], f"state = 'running', worker = {holder}")
    change(conn, jobs[1], "key = 't1'")
    change(conn, jobs[2], "state = 'scheduled', run_at = pgflow.now() - interval '1 s'")
    assert backlog() == 4
    change(conn, jobs[2], "run_at = pgflow.now() + interval '1 h'")
    assert backlog() == 3
    conn.execute("select pgflow.set_limit('mail', concurrency => 2)")
    assert backlog() == 2  # more workers would not help
    conn.execute("select pgflow.pause_queue('mail')")
    assert backlog() == 1  # what still runs


def test_throughput_counts_what_ended_in_the_period(conn: Connection) -> None:
    instance, job = start_instance(conn), enqueue(conn)
    conn.execute(f"select pgflow.cancel_run({instance}), pgflow.cancel_task({job})".encode())
    conn.execute("update pgflow.instances set finished_at = finished_at - interval '10 min'")
    (both, greeted), (recent, _) = (
        [
            (each.name, each.completed, each.failed, each.cancelled, round(each.per_second * period.total_seconds()))
            for each in run(conn, overview.throughput("pgflow", period))
        ][::-1]
        for period in (timedelta(hours=1), timedelta(minutes=1))
    )
    assert (both, greeted) == (("Joined", 0, 0, 1, 1), ("greet", 0, 0, 1, 1))
    assert recent == ("Joined", 0, 0, 0, 0)


def test_workers_and_queues_are_listed(conn: Connection) -> None:
    live, lost = serve(conn, "mail"), serve(conn, "default", expired=True)
    change(conn, enqueue(conn), f"state = 'running', worker = {live}")
    enqueue(conn)
    assert [(each.id, each.running, each.is_alive) for each in run(conn, worker.list("pgflow"))] == [(live, 1, True)]
    assert [each.id for each in run(conn, worker.list("pgflow", only_alive=False))] == [lost, live]
    (mail,) = run(conn, queue.list("pgflow", "mail"))
    assert (mail.workers, mail.ready, mail.running, mail.oldest_ready_at is None) == (1, 1, 1, False)


def test_a_dashboard_reads_them_and_a_role_for_an_autoscaler_needs_one_right(parts: GrantedRoles) -> None:
    with parts.connect("dashboard") as conn:
        conn.execute("select * from pgflow.instance_overview, pgflow.queue_overview, pgflow.throughput()")
        assert one(conn, "select pgflow.backlog('mail')") == 0
    with parts.connect("client") as conn:
        for query in ("select pgflow.backlog('mail')", "select * from pgflow.queue_overview"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(query.encode())


# The rows of a large database: most instances have ended, the jobs of two queues are ready, others wait.
FILL = f"""
    insert into pgflow.definitions (workflow, version, hash, graph)
    values ('Old', 1, '', '{{"edges": [], "steps": {{}}}}');
    insert into pgflow.instances (id, workflow, version, status, finished_at, input)
    select 'o::' || g, 'Old', 1, case when g % 50 = 0 then 'waiting' else 'completed' end,
        case when g % 50 > 0 then pgflow.now() - make_interval(secs => {ROWS} - g) end, '{{}}'
    from generate_series(1, {ROWS}) g;
    insert into pgflow.step_results (run, step, event, attempt, started_at)
    select g, s, 'ok', 1, pgflow.now() from generate_series(1, {ROWS}) g cross join unnest('{{a,b}}'::text[]) s;
    insert into pgflow.jobs (run, step, kind, state, run_at, awaits)
    select run, 'c', 'resume', 'parked', null, '{{"go": "go"}}' from pgflow.instances where status = 'waiting';
    insert into pgflow.jobs (step, kind, queue, key, priority, enqueued_at)
    select 'old', 'task', case when g % 3 = 0 then 'keyed' else 'plain' end,
        case when g % 3 = 0 then 'k' || g % 100 end, g % 4, pgflow.now()
    from generate_series(1, {ROWS}) g;
    insert into pgflow.jobs (step, kind, state, run_at, enqueued_at)
    select 'old', 'task', 'scheduled', pgflow.now() + interval '1 hour', pgflow.now()
    from generate_series(1, {ROWS}) g;
    insert into pgflow.task_results (id, task, queue, status, priority, attempt, max_attempts, finished_at)
    select g + 1000000, 'old', 'plain', 'completed', 0, 1, 5, pgflow.now() - make_interval(secs => g)
    from generate_series(1, {ROWS}) g;
    insert into pgflow.tasks (name, hash, options) values ('old', '', '{{}}');
    insert into pgflow.workers (node, pid, queues, version, lease, lease_expires_at)
    values ('n', 1, '{{plain,keyed}}', '1', '1 h', pgflow.now() + interval '1 h')
"""  # noqa: S608 -- the constant above

# Rows that each may read at most: what it returns or counts, and a few.
READS = {
    "select * from pgflow.instance_overview order by run desc limit 20": 20 * 6,
    "select * from pgflow.instance_overview where status = 'waiting' order by run desc limit 20": 20 * 6,
    "select * from pgflow.instance_overview where run = 100": 10,
    "select * from pgflow.queue_overview": 2 * 1001 + 1001 + 100,
    "select pgflow.backlog('plain')": 10_100,
    "select pgflow.backlog('keyed')": 10_100,
    "select pgflow.backlog('none')": 20,
    "select * from pgflow.throughput('5 minutes')": 2 * 300 + 50,
    "select * from pgflow.why(100)": 20,
    "select * from pgflow.why_job(40800)": 250,  # the last one of the queue plain
    "select * from pgflow.why_job(40799)": 250,  # of the queue keyed
}
READ = """
    select coalesce(sum(seq_tup_read), 0) + coalesce(sum(idx_tup_fetch), 0)
    from pg_stat_xact_user_tables where schemaname = 'pgflow'
"""
INDEX_READ = """
    select coalesce(sum(pg_stat_get_xact_tuples_returned(i.indexrelid)), 0)
    from pg_index i join pg_class c on c.oid = i.indrelid where c.relnamespace = 'pgflow'::regnamespace
"""


@pytest.fixture(scope="module")
def large(server: Server, migrated_database: Callable[[Server], str]) -> Iterator[Connection]:
    """A connection to a large database."""
    with connect(migrated_database(server), "migrate") as conn:
        for statement in FILL.split(";\n"):
            conn.execute(statement.encode())
        conn.execute("vacuum analyze")
        yield conn


@pytest.mark.parametrize("query", READS)
def test_it_reads_few_rows_of_a_large_database(query: str, large: Connection) -> None:
    with large.transaction():
        before = one(large, READ), one(large, INDEX_READ)
        large.execute(query.encode()).fetchall()
        tuples, entries = one(large, READ) - before[0], one(large, INDEX_READ) - before[1]
    assert tuples <= READS[query]
    assert entries <= READS[query]


@pytest.mark.parametrize("seconds", [3600, 86_400])
def test_events_read_few_rows_of_a_large_database(seconds: int, large: Connection) -> None:
    with large.transaction():
        before = one(large, READ), one(large, INDEX_READ)
        found = run(large, overview.events("pgflow", timedelta(seconds=seconds), limit=50))
        tuples, entries = one(large, READ) - before[0], one(large, INDEX_READ) - before[1]
    assert len(found) == 50
    assert found == sorted(found, key=lambda each: (each.at, each.number), reverse=True)
    assert max(tuples, entries) <= 4 * 50 + 50
