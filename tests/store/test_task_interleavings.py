"""Each pair of transactions on tasks, limited queues and schedules that can run at once, in every interleaving.

After each schedule two workers do the remaining work. Then every job that was enqueued has ended, with one result and
one hook; no limit was exceeded, no instant fired twice, and nothing ended in a deadlock.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from itertools import count
from typing import Any

import psycopg
import pytest

from pgflow import Ended, Pgflow, Retry, UniqueTask, task
from pgflow.database.connect import Connection, connect
from pgflow.database.statement import run, run_all
from pgflow.store import bulk, instance, job, limit, retention, worker
from pgflow.store.job import ClaimedRow, Report
from pgflow.store.job_updates import Finish
from pgflow.store.retention import Ages
from tests.store.explorer import Explorer, schedules
from tests.store.explorer import Step as Move

LEASE = timedelta(hours=1)
INSTANT, LATER = "2030-01-01T09:00:00+00:00", "2030-01-01T10:00:00+00:00"
LIMITED = 1  # jobs of the limited queue at once
TABLES = ("jobs", "task_results", "workers", "schedules", "places", "limits", "queues")


@task
def hook(end: Ended) -> None: ...


@task(retry=Retry(max_attempts=1), on_success=hook, on_failure=hook, on_cancel=hook)
def plain(number: str) -> None: ...


@task(unique=UniqueTask(["place"]), on_success=hook, on_failure=hook, on_cancel=hook)
def single(place: str) -> None: ...


@task(unique=UniqueTask(["place"], on_conflict="replace", replace=["args", "priority"]), on_success=hook)
def latest(place: str, number: int = 0) -> None: ...


@task(queue="limited", partition_by="tenant")
def limited(tenant: str) -> None: ...


@pytest.fixture
def database(migrated: str) -> Iterator[Connection]:
    with connect(migrated, "worker") as conn:
        app = Pgflow(migrated, tasks=[hook, plain, single, latest, limited])
        app.register()
        app.close()
        yield conn
        clear(conn)


@pytest.fixture
def explorer(migrated: str) -> Iterator[Explorer]:
    explorer = Explorer(migrated)
    yield explorer
    explorer.close()


class Hands:
    """A worker that a test drives: it claims all that it may, and completes what it holds."""

    def __init__(self, conn: Connection) -> None:
        self.conn = conn
        self.held: list[ClaimedRow] = []
        self.id = run(
            conn,
            worker.register("pgflow", node="test", pid=0, queues=["default"], version="0", nonce="", lease=LEASE),
        )

    def claim(self, conn: psycopg.Connection[Any] | None = None) -> None:
        """Claim in both queues."""
        rooms = {"limited": 10}
        statements = [job.claim_limited("pgflow", self.id, rooms), job.claim("pgflow", self.id, {"default": 10})]
        _, rows = run_all(conn or self.conn, statements)
        self.held += rows

    def finish(self, conn: psycopg.Connection[Any] | None = None) -> None:
        """Complete all jobs that are held; one that is locked is tried again at the end."""
        ends = [Finish(row.id, row.attempt, "completed", "null", hook=row.step != "hook") for row in self.held]
        done = run(conn or self.conn, job.settle("pgflow", self.id, [], finishes=ends))
        busy = {row.id for row in done if row.status == "busy"}
        self.held = [row for row in self.held if row.id in busy]

    def die(self) -> None:
        """Lose the lease."""
        self.conn.execute("update pgflow.workers set lease_expires_at = pgflow.now() where id = %s", [self.id])


Programs = tuple[Sequence[Move], Sequence[Move]]
Prepare = Callable[[Hands, Hands, str], Programs]
values = (f"v{number}" for number in count())
accepted: set[int] = set()  # ids of the jobs that an enqueue returned


def transaction(*moves: Move) -> list[Move]:
    return [lambda conn: conn.execute("begin"), *moves, lambda conn: conn.execute("commit")]


def call(query: str, *params: object) -> list[Move]:
    return transaction(lambda conn: conn.execute(query, params))


def enqueue(conn: psycopg.Connection[Any], name: str, *args: dict[str, Any]) -> list[int]:
    """Enqueue in SQL; what is returned within a transaction that fails is not accepted."""
    query = "select id from pgflow.enqueue_many(%s, %s)"
    return [row[0] for row in conn.execute(query, [name, [json.dumps(each) for each in args]]).fetchall()]


def enqueuing(name: str, *args: dict[str, Any]) -> list[Move]:
    """Return the transaction that enqueues a task for each of `args`."""
    made: list[int] = []

    def commit(conn: psycopg.Connection[Any]) -> None:
        conn.execute("commit")
        accepted.update(made)

    return [lambda conn: conn.execute("begin"), lambda conn: made.extend(enqueue(conn, name, *args)), commit]


def queued(hands: Hands, name: str, **args: Any) -> int:
    """Enqueue one; returns its id."""
    (made,) = enqueue(hands.conn, name, args)
    accepted.add(made)
    return made


def running(hands: Hands, name: str, **args: Any) -> int:
    """Enqueue one and claim it."""
    made = queued(hands, name, **args)
    hands.claim()
    return made


def failed(hands: Hands, name: str, **args: Any) -> int:
    """Enqueue one that fails."""
    made = running(hands, name, **args)
    (row,), hands.held = hands.held, []
    run(hands.conn, job.settle("pgflow", hands.id, [], finishes=[Finish(row.id, row.attempt, "failed", error="{}")]))
    return made


def finishing(hands: Hands) -> list[Move]:
    return transaction(hands.finish)


def claiming(hands: Hands) -> list[Move]:
    return transaction(hands.claim)


def rescuing() -> list[Move]:
    return transaction(lambda conn: run(conn, job.rescue("pgflow")))


def bulk_on_tasks(action: str, document: dict[str, Any], **options: Any) -> list[Move]:
    def work_off(conn: psycopg.Connection[Any]) -> None:
        begun = bulk.begin("pgflow", action, document, options=options, text="", who=None, kinds=("task",))
        run(conn, bulk.batch("pgflow", run(conn, begun), limit=100))

    return transaction(work_off)


# -- the pairs


def enqueue_twice(a: Hands, b: Hands, value: str) -> Programs:
    return enqueuing("single", {"place": value}), enqueuing("single", {"place": value})


def enqueue_two_batches(a: Hands, b: Hands, value: str) -> Programs:
    first, second = {"place": value}, {"place": value + "x"}
    return enqueuing("single", first, second), enqueuing("single", second, first)


def replace_two_batches(a: Hands, b: Hands, value: str) -> Programs:
    first, second = {"place": value}, {"place": value + "x"}
    for each in (first, second):
        queued(a, "latest", **each)
    return enqueuing("latest", first, second), enqueuing("latest", second, first)


def enqueue_and_finish(a: Hands, b: Hands, value: str) -> Programs:
    running(a, "single", place=value)
    return enqueuing("single", {"place": value}), finishing(a)


def enqueue_and_cancel(a: Hands, b: Hands, value: str) -> Programs:
    made = queued(a, "single", place=value)
    return enqueuing("single", {"place": value}), call("select pgflow.cancel_task(%s)", made)


def enqueue_and_retry(a: Hands, b: Hands, value: str) -> Programs:
    made = failed(a, "single", place=value)
    return enqueuing("single", {"place": value}), call("select pgflow.retry_task(%s)", made)


def replace_and_claim(a: Hands, b: Hands, value: str) -> Programs:
    queued(a, "latest", place=value)
    return enqueuing("latest", {"place": value, "number": 2}), claiming(a)


def replace_and_cancel(a: Hands, b: Hands, value: str) -> Programs:
    made = queued(a, "latest", place=value)
    return enqueuing("latest", {"place": value, "number": 2}), call("select pgflow.cancel_task(%s)", made)


def finish_and_cancel(a: Hands, b: Hands, value: str) -> Programs:
    made = running(a, "plain", number=value)
    return finishing(a), call("select pgflow.cancel_task(%s)", made)


def cancel_twice(a: Hands, b: Hands, value: str) -> Programs:
    made = queued(a, "plain", number=value)
    return call("select pgflow.cancel_task(%s)", made), call("select pgflow.cancel_task(%s)", made)


def retry_twice(a: Hands, b: Hands, value: str) -> Programs:
    made = failed(a, "plain", number=value)
    return call("select pgflow.retry_task(%s)", made), call("select pgflow.retry_task(%s)", made)


def finish_and_rescue(a: Hands, b: Hands, value: str) -> Programs:
    running(a, "plain", number=value)
    a.die()
    return finishing(a), rescuing()


def zombie_and_successor(a: Hands, b: Hands, value: str) -> Programs:
    running(a, "plain", number=value)
    a.die()
    return finishing(a), [lambda conn: run(conn, job.rescue("pgflow")), b.claim]


def report_and_finish(a: Hands, b: Hands, value: str) -> Programs:
    made = running(a, "plain", number=value)
    report = job.report("pgflow", a.id, [Report(made, 1, "plain", '{"at": 0.5}', "1")])
    return transaction(lambda conn: run(conn, report)), finishing(a)


def report_and_cancel(a: Hands, b: Hands, value: str) -> Programs:
    made = running(a, "plain", number=value)
    report = job.report("pgflow", a.id, [Report(made, 1, "plain", '{"at": 0.5}', "1")])
    return transaction(lambda conn: run(conn, report)), call("select pgflow.cancel_task(%s)", made)


def move_and_claim(a: Hands, b: Hands, value: str) -> Programs:
    made = queued(a, "plain", number=value)
    return call("select pgflow.update_task(%s, queue => 'limited')", made), claiming(a)


def expire_and_claim(a: Hands, b: Hands, value: str) -> Programs:
    expired(a, value)
    return transaction(lambda conn: run(conn, instance.end_expired("pgflow", 10))), claiming(a)


def expire_and_cancel(a: Hands, b: Hands, value: str) -> Programs:
    made = expired(a, value)
    expiring = transaction(lambda conn: run(conn, instance.end_expired("pgflow", 10)))
    return expiring, call("select pgflow.cancel_task(%s)", made)


def expired(hands: Hands, value: str) -> int:
    made = queued(hands, "plain", number=value)
    hands.conn.execute("update pgflow.jobs set expires_at = pgflow.now()")
    return made


def bulk_cancel_and_finish(a: Hands, b: Hands, value: str) -> Programs:
    running(a, "plain", number=value)
    return bulk_on_tasks("cancel", {"task": ["plain"]}), finishing(a)


def bulk_retry_and_enqueue(a: Hands, b: Hands, value: str) -> Programs:
    failed(a, "single", place=value)
    return bulk_on_tasks("retry", {"state": ["failed"]}), enqueuing("single", {"place": value})


def bulk_retry_and_retry(a: Hands, b: Hands, value: str) -> Programs:
    made = failed(a, "plain", number=value)
    return bulk_on_tasks("retry", {"state": ["failed"]}), call("select pgflow.retry_task(%s)", made)


def bulk_move_and_claim(a: Hands, b: Hands, value: str) -> Programs:
    for number in range(2):
        queued(a, "plain", number=f"{value}-{number}")
    return bulk_on_tasks("reprioritise", {"task": ["plain"]}, priority=3), claiming(a)


def prune_and_retry(a: Hands, b: Hands, value: str) -> Programs:
    made = failed(a, "plain", number=value)
    a.conn.execute("update pgflow.task_results set finished_at = finished_at - interval '1 day'")
    accepted.discard(made)  # it may be gone
    pruned = Ages(completed=timedelta(0), failed=timedelta(0))
    return (
        transaction(lambda conn: run(conn, retention.prune("pgflow", pruned))),
        call("select pgflow.retry_task(%s)", made),
    )


def two_claims_of_a_limited_queue(a: Hands, b: Hands, value: str) -> Programs:
    for number in range(3):
        queued(a, "limited", tenant=f"{value}-{number}")
    return claiming(a), claiming(b)


def limited_claim_and_finish(a: Hands, b: Hands, value: str) -> Programs:
    running(a, "limited", tenant=value)
    queued(a, "limited", tenant=value + "x")
    return finishing(a), claiming(b)


def limited_claim_and_rescue(a: Hands, b: Hands, value: str) -> Programs:
    running(a, "limited", tenant=value)
    queued(a, "limited", tenant=value + "x")
    a.die()
    return rescuing(), claiming(b)


def limited_claim_and_change(a: Hands, b: Hands, value: str) -> Programs:
    for number in range(3):
        queued(a, "limited", tenant=f"{value}-{number}")
    lower = limit.set("pgflow", "limited", concurrency=LIMITED, key_concurrency=1)
    return claiming(a), transaction(lambda conn: run(conn, lower))


def limited_claim_and_place(a: Hands, b: Hands, value: str) -> Programs:
    queued(a, "limited", tenant=value)
    taking = limit.take("pgflow", "limited", key=None, cost=1, lease=LEASE)
    return claiming(a), transaction(lambda conn: run(conn, taking))


def schedule_firing(a: Hands, value: str) -> list[Move]:
    """Return the transaction that fires an instant of a schedule, as it was decided on now."""
    a.conn.execute("select pgflow.add_schedule(%s, 'plain', every => interval '1 hour')", [value])
    ((revision,),) = a.conn.execute("select revision from pgflow.schedules where name = %s", [value]).fetchall()
    start = {"instant": INSTANT, "value": value, "version": None, "at": INSTANT, "input": {"number": value}}
    firing = {"name": value, "revision": revision, "handled_at": INSTANT, "next_at": LATER, "starts": [start]}
    counts = {"skipped": 0, "missed": 0, "cancels_last": False}
    return call("select pgflow.fire_schedules(%s)", json.dumps([{**firing, **counts}]))


def fire_twice(a: Hands, b: Hands, value: str) -> Programs:
    firing = schedule_firing(a, value)
    return firing, firing


def fire_and_pause(a: Hands, b: Hands, value: str) -> Programs:
    return schedule_firing(a, value), call("select pgflow.pause_schedule(%s)", value)


def fire_and_remove(a: Hands, b: Hands, value: str) -> Programs:
    return schedule_firing(a, value), call("select pgflow.remove_schedule(%s)", value)


PAIRS = [
    enqueue_twice, enqueue_two_batches, replace_two_batches, enqueue_and_finish, enqueue_and_cancel, enqueue_and_retry,
    replace_and_claim, replace_and_cancel,
    finish_and_cancel, cancel_twice, retry_twice, finish_and_rescue, zombie_and_successor,
    report_and_finish, report_and_cancel, move_and_claim, expire_and_claim, expire_and_cancel,
    bulk_cancel_and_finish, bulk_retry_and_enqueue, bulk_retry_and_retry, bulk_move_and_claim, prune_and_retry,
    two_claims_of_a_limited_queue, limited_claim_and_finish, limited_claim_and_rescue, limited_claim_and_change,
    limited_claim_and_place, fire_twice, fire_and_pause, fire_and_remove,
]  # fmt: skip


@pytest.mark.parametrize("prepare", PAIRS, ids=lambda prepare: prepare.__name__)
def test_every_order_of_two_transactions_on_tasks_is_correct(
    prepare: Prepare, database: Connection, explorer: Explorer
) -> None:
    orders: list[tuple[int, ...]] = []
    while not orders or len(orders) > 1:
        clear(database)
        run(database, limit.set("pgflow", "limited", concurrency=LIMITED, is_new=True))
        a, b = Hands(database), Hands(database)
        programs = prepare(a, b, next(values))
        orders = orders[1:] or [*schedules([len(program) for program in programs])]
        errors = explorer.run(programs, orders[0])
        assert not [each for each in errors if isinstance(each, psycopg.errors.DeadlockDetected)], orders[0]
        faults = [*faults_of(database, OVER), *(f"{error!r}" for error in errors if not is_refusal(error))]
        finish(database, a, b)
        faults += faults_of(database, FAULTS)
        ended = {row[0] for row in database.execute("select id from pgflow.task_results").fetchall()}
        assert not faults, (prepare.__name__, orders[0], faults)
        assert accepted <= ended, (prepare.__name__, orders[0])


def is_refusal(error: BaseException | None) -> bool:
    """Return whether it is None, or an error that the second of two callers must expect."""
    return error is None or getattr(error, "sqlstate", None) in ("PF005", "PF009", "PF017", "PF018", "PF019", "PF030")


def finish(conn: Connection, *hands: Hands) -> None:
    """Let both workers, and a third one, do the remaining work."""
    conn.execute("delete from pgflow.places")
    for _ in range(20):
        run(conn, job.rescue("pgflow"))
        conn.execute("update pgflow.jobs set state = 'ready', run_at = pgflow.now() where state = 'scheduled'")
        for each in (*hands, Hands(conn)):
            each.finish()
            each.claim()
            each.finish()
        if not conn.execute("select from pgflow.jobs").fetchall():
            return


def clear(conn: Connection) -> None:
    """Delete all jobs, results, workers, schedules and limits."""
    accepted.clear()
    for table in TABLES:
        conn.execute(f"delete from pgflow.{table}")  # noqa: S608 -- the names are in TABLES


OVER = {
    "a limit was exceeded": """
        select count(*) from (
            select j.id from pgflow.jobs j where j.state = 'running' and j.queue = 'limited'
            union all select 0 from pgflow.places p where p.queue = 'limited'
        ) taken having count(*) > 1""",
    "an instant has fired twice": """
        select metadata ->> 'schedule' from pgflow.jobs where metadata ? 'schedule' group by 1 having count(*) > 1""",
}
FAULTS = {
    "a job is left": "select id, step, state from pgflow.jobs",
    "an end does not have one hook": """
        select r.id, r.status, count(h.id) from pgflow.task_results r
        left join pgflow.task_results h on h.task = 'hook' and (h.args #>> '{end,job}')::bigint = r.id
            and h.args #>> '{end,status}' = r.status
        where r.task in ('plain', 'single') and r.error is distinct from '{}'
        group by r.id having count(h.id) <> 1""",
    "an instant has fired twice": """
        select metadata ->> 'schedule' from pgflow.task_results
        where metadata ? 'schedule' group by 1 having count(*) > 1""",
}


def faults_of(conn: Connection, queries: dict[str, str]) -> list[str]:
    return [f"{what}: {rows}" for what, query in queries.items() if (rows := conn.execute(query.encode()).fetchall())]
