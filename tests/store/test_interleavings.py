"""Each pair of engine transactions that can run concurrently, in every interleaving of their statements.

After each schedule both workers continue until nothing is left to do. Then every instance has ended, each step is
recorded once, no result is unapplied, no job is left, and no signal was consumed twice: no deadlock, no lost wake-up,
no double apply.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from itertools import count
from typing import Any

import psycopg
import pytest

from pgflow import Async, Context, Done, Error, Ok, Pgflow, Retry, Step, Unique, Workflow, route, step
from pgflow.database.connect import Connection, connect
from pgflow.database.statement import run
from pgflow.store import bulk, job, retention, signal, worker
from pgflow.store.retention import Ages
from tests.store.driver import LEASE, Driver
from tests.store.explorer import Explorer, schedules
from tests.store.explorer import Step as Move


@step(events=("go",))
def first(ctx: Context[Any]) -> Ok:
    return Ok("go")


@step(events=("ok",))
def left(ctx: Context[Any]) -> Ok:
    return Ok("ok", {"side": "left"})


@step(events=("ok",))
def right(ctx: Context[Any]) -> Ok:
    return Ok("ok", {"side": "right"})


@step(events=("ok",))
def join(ctx: Context[Any]) -> Ok:
    assert set(ctx.steps) >= {"left", "right"}
    return Ok("ok")


@step(events=("ok",))
def meet(ctx: Context[Any]) -> Ok:
    return Ok("ok")


class AwaitPayment(Step):
    """Waits for a signal named "paid"."""

    events = ("paid",)

    def execute(self, ctx: Context[Any]) -> Async:
        return Async()


@step(events=("ok",))
def ship(ctx: Context[Any]) -> Ok:
    return Ok("ok")


class Pair(Workflow[dict[str, Any]], unique=Unique("pair")):
    initial = first
    transitions = {first: {"go": [left, right]}, left: {"ok": join}, right: {"ok": join}, join: {"ok": Done}}


class Paid(Workflow[dict[str, Any]], unique=Unique("paid")):
    initial = AwaitPayment
    transitions = {AwaitPayment: {"paid": ship}, ship: {"ok": Done}}


class Line(Workflow[dict[str, Any]], unique=Unique("line")):
    initial = left
    transitions = {left: {"ok": ship}, ship: {"ok": Done}}


@step(events=("ok",))
def guide(ctx: Context[Any]) -> Ok:
    RUNS[ctx.value] += 1
    return Ok("ok", {"runs": RUNS[ctx.value]})


RUNS: Counter[str] = Counter()
ASKED: Counter[str] = Counter()


def way(ctx: Context[Any]) -> Step:
    """Fail on the first call."""
    ASKED[ctx.value] += 1
    if ASKED[ctx.value] == 1:
        raise SystemExit("the route fails")
    return ship


class Guide(Workflow[dict[str, Any]], unique=Unique("guide")):
    initial = guide
    transitions = {guide: {"ok": route(way, ship, left)}, ship: {"ok": Done}, left: {"ok": Done}}


class Guided(Workflow[dict[str, Any]], unique=Unique("guided")):
    initial = first
    transitions = {
        first: {"go": [guide, right]},
        guide: {"ok": route(way, ship, left)},
        ship: {"ok": meet},
        left: {"ok": meet},
        right: {"ok": meet},
        meet: {"ok": Done},
    }


@step(events=("ok",), retry=Retry(max_attempts=1, on_exhausted="pause"))
def frail(ctx: Context[Any]) -> Error:
    return Error("it is broken")


@step(events=("ok",), retry=Retry(max_attempts=1, on_exhausted="skip"))
def spare(ctx: Context[Any]) -> Error:
    return Error("it is broken")


class Frail(Workflow[dict[str, Any]], unique=Unique("frail")):
    initial = first
    transitions = {first: {"go": [frail, spare]}, frail: {"ok": meet}, spare: {"ok": meet}, meet: {"ok": Done}}


class Brittle(Workflow[dict[str, Any]], unique=Unique("brittle")):
    initial = frail
    transitions = {frail: {"ok": ship}, ship: {"ok": Done}}


class Here(Workflow[dict[str, Any]], unique=Unique("place")):
    initial = left
    transitions = {left: {"ok": ship}, ship: {"ok": Done}}


class Everywhere(Workflow[dict[str, Any]], unique=Unique("place", scope="global")):
    """Conflicts with Here, whose key it has."""

    initial = left
    transitions = {left: {"ok": ship}, ship: {"ok": Done}}


WORKFLOWS = (Pair, Paid, Line, Guide, Guided, Here, Everywhere, Frail, Brittle)


@pytest.fixture
def database(migrated: str) -> Iterator[Connection]:
    with connect(migrated, "worker") as conn:
        app = Pgflow(migrated, workflows=WORKFLOWS)
        app.register()
        app.close()
        yield conn
        for table in ("instances", "step_results", "jobs", "signals", "scheduled_signals", "workers"):
            conn.execute(f"delete from pgflow.{table}")  # noqa: S608 -- the names stand one line above


@pytest.fixture
def explorer(migrated: str) -> Iterator[Explorer]:
    explorer = Explorer(migrated)
    yield explorer
    explorer.close()


Programs = tuple[Sequence[Move], Sequence[Move]]
Prepare = Callable[[Driver, Driver, str], Programs]

values = (f"v{number}" for number in count())


def transaction(*moves: Move) -> list[Move]:
    """Return a transaction of these statements: begin, each of them, commit."""
    return [lambda conn: conn.execute("begin"), *moves, lambda conn: conn.execute("commit")]


def settling(driver: Driver) -> list[Move]:
    """Return the transaction in which a driver settles its decisions."""
    driver.decide()
    return transaction(lambda conn: driver.send(conn))


def call(query: str, *params: object) -> Move:
    return lambda conn: conn.execute(query, params)


def start(driver: Driver, workflow: type[Workflow[Any]], value: str) -> None:
    driver.conn.execute("select pgflow.start(%s, %s)", [workflow.name, value])


def forked(a: Driver, b: Driver, value: str, workflow: type[Workflow[Any]] = Pair) -> None:
    """Start an instance whose first branch a has claimed, and b the second one."""
    start(a, workflow, value)
    a.settler._keep = lambda queue, needs_slot: False  # type: ignore[method-assign]  # both branches will be claimed
    a.claim()
    a.run_steps()
    a.settle()
    del a.settler._keep
    a.claim(1)
    b.claim(1)
    assert [len(driver.held_jobs.jobs) for driver in (a, b)] == [1, 1]


def siblings(a: Driver, b: Driver, value: str) -> Programs:
    forked(a, b, value)
    a.run_steps()
    b.run_steps()
    return settling(a), settling(b)


def settle_and_cancel(a: Driver, b: Driver, value: str) -> Programs:
    forked(a, b, value)
    a.run_steps()
    return settling(a), transaction(call("select pgflow.cancel('Pair', %s)", value))


def solo_settle_and_cancel(a: Driver, b: Driver, value: str) -> Programs:
    start(a, Pair, value)
    a.claim()
    a.run_steps()
    return settling(a), transaction(call("select pgflow.cancel('Pair', %s)", value))


def resume_and_park(a: Driver, b: Driver, value: str) -> Programs:
    start(a, Paid, value)
    a.claim()
    a.run_steps()
    return settling(a), transaction(call("select pgflow.resume('Paid', %s, 'paid', '{\"amount\": 3}')", value))


def resume_and_cancel(a: Driver, b: Driver, value: str) -> Programs:
    start(a, Paid, value)
    a.turn()
    a.settle()
    return (
        transaction(call("select pgflow.resume('Paid', %s, 'paid', '{\"amount\": 3}')", value)),
        transaction(call("select pgflow.cancel('Paid', %s)", value)),
    )


def rescue_and_settle(a: Driver, b: Driver, value: str) -> Programs:
    start(a, Paid, value)
    a.turn()
    a.settle()
    a.conn.execute("select pgflow.resume('Paid', %s, 'paid')", [value])
    a.claim()
    a.run_steps()
    a.conn.execute("update pgflow.workers set lease_expires_at = pgflow.now() where id = %s", [a.settler.worker])
    return settling(a), transaction(lambda conn: run(conn, job.rescue("pgflow")))


def rescue_and_settle_siblings(a: Driver, b: Driver, value: str) -> Programs:
    forked(a, b, value)
    a.run_steps()
    a.conn.execute("update pgflow.workers set lease_expires_at = pgflow.now() where id = %s", [a.settler.worker])
    return settling(a), transaction(lambda conn: run(conn, job.rescue("pgflow")))


def zombie_and_successor(a: Driver, b: Driver, value: str) -> Programs:
    start(a, Line, value)
    a.claim()
    a.run_steps()
    a.conn.execute("update pgflow.workers set lease_expires_at = pgflow.now() where id = %s", [a.settler.worker])
    return settling(a), [lambda conn: run(conn, job.rescue("pgflow")), lambda conn: b.claim(conn=conn)]


def starts(a: Driver, b: Driver, value: str) -> Programs:
    statement = call(
        "select created from pgflow.start_many('Pair', array[%s, %s], '{\"{}\",\"{}\"}')", value, value + "x"
    )
    other = call("select created from pgflow.start_many('Pair', array[%s, %s], '{\"{}\",\"{}\"}')", value + "x", value)
    return transaction(statement), transaction(other)


def claims(a: Driver, b: Driver, value: str) -> Programs:
    start(a, Pair, value)
    start(a, Pair, value + "x")
    return transaction(lambda conn: a.claim(conn=conn)), transaction(lambda conn: b.claim(conn=conn))


def timer_and_resume(a: Driver, b: Driver, value: str) -> Programs:
    start(a, Paid, value)
    a.turn()
    a.settle()
    a.conn.execute("update pgflow.jobs set run_at = pgflow.now() where state = 'parked'")
    return (
        transaction(lambda conn: run(conn, job.stage("pgflow"))),
        transaction(call("select pgflow.resume('Paid', %s, 'paid', '{\"amount\": 3}')", value)),
    )


def two_signals(a: Driver, b: Driver, value: str) -> Programs:
    start(a, Paid, value)
    a.turn()
    a.settle()
    paid = call("select pgflow.resume('Paid', %s, 'paid', '{\"amount\": 3}')", value)
    return transaction(paid), transaction(paid)


def orphaned_with_unapplied_result(a: Driver, b: Driver, value: str) -> None:
    """Start an instance of Pair with one branch recorded but not applied, and no job left."""
    forked(a, b, value)
    a.run_steps()
    a.decide()
    with a.conn.transaction():
        a.send()
    b.conn.execute("update pgflow.step_results set applied = false where step = 'left'")
    b.conn.execute("delete from pgflow.jobs")


def revive_twice(a: Driver, b: Driver, value: str) -> Programs:
    orphaned_with_unapplied_result(a, b, value)
    revival = transaction(lambda conn: run(conn, job.repair_orphaned("pgflow")))
    return revival, revival


def revive_and_cancel(a: Driver, b: Driver, value: str) -> Programs:
    orphaned_with_unapplied_result(a, b, value)
    return (
        transaction(lambda conn: run(conn, job.repair_orphaned("pgflow"))),
        transaction(call("select pgflow.cancel('Pair', %s)", value)),
    )


def revive_and_settle(a: Driver, b: Driver, value: str) -> Programs:
    forked(a, b, value)
    a.run_steps()
    return settling(a), transaction(lambda conn: run(conn, job.repair_orphaned("pgflow")))


def schedule_due_signal(a: Driver, value: str, *, waits: bool = True) -> None:
    """Start an instance of Paid with a scheduled signal that is due."""
    start(a, Paid, value)
    if waits:
        a.turn()
        a.settle()
    query = "select pgflow.schedule_resume('Paid', %s, 'await_payment', '0 s', payload => '{\"amount\": 3}')"
    a.conn.execute(query, [value])


def sending(driver: Driver) -> list[Move]:
    """Return the transaction in which a driver sends due signals."""
    return transaction(lambda conn: run(conn, signal.send_due("pgflow")))


def send_due_and_park(a: Driver, b: Driver, value: str) -> Programs:
    schedule_due_signal(a, value, waits=False)
    a.claim()
    a.run_steps()
    return settling(a), sending(b)


def send_due_and_cancel(a: Driver, b: Driver, value: str) -> Programs:
    schedule_due_signal(a, value)
    return sending(a), transaction(call("select pgflow.cancel('Paid', %s)", value))


def send_due_twice(a: Driver, b: Driver, value: str) -> Programs:
    schedule_due_signal(a, value)
    return sending(a), sending(b)


def send_due_and_unschedule(a: Driver, b: Driver, value: str) -> Programs:
    schedule_due_signal(a, value)
    schedule_due_signal(a, value + "x")
    whose = "pgflow.scheduled_signals s join pgflow.instances i using (run)"
    off = f"select pgflow.unschedule(s.id) from {whose} where i.id = %s"  # noqa: S608 -- the names stand one line above
    return sending(a), [
        *transaction(call(off, f"paid::{value}"))[:2],
        lambda conn: (conn.execute("commit"), conn.execute("select pgflow.resume('Paid', %s, 'paid')", [value])),
    ]


def send_due_and_timer(a: Driver, b: Driver, value: str) -> Programs:
    schedule_due_signal(a, value)
    a.conn.execute("update pgflow.jobs set run_at = pgflow.now() where state = 'parked'")
    return sending(a), transaction(lambda conn: run(conn, job.stage("pgflow")))


def settle_and_delete(a: Driver, b: Driver, value: str) -> Programs:
    forked(a, b, value)
    a.run_steps()
    return settling(a), transaction(call("select pgflow.delete_id('pair::' || %s)", value))


def solo_settle_and_delete(a: Driver, b: Driver, value: str) -> Programs:
    start(a, Line, value)
    a.claim()
    a.run_steps()
    return settling(a), transaction(call("select pgflow.delete_id('line::' || %s)", value))


def resume_and_delete(a: Driver, b: Driver, value: str) -> Programs:
    start(a, Paid, value)
    a.turn()
    a.settle()
    return (
        transaction(call("select pgflow.resume('Paid', %s, 'paid', '{\"amount\": 3}')", value)),
        transaction(call("select pgflow.delete_id('paid::' || %s)", value)),
    )


def solo_settle_and_put(a: Driver, b: Driver, value: str) -> Programs:
    start(a, Line, value)
    a.claim()
    a.run_steps()
    return settling(a), transaction(call(PUT, f"line::{value}"))


def settle_and_put(a: Driver, b: Driver, value: str) -> Programs:
    forked(a, b, value)
    a.run_steps()
    return settling(a), transaction(call(PUT, f"pair::{value}"))


def pruning() -> list[Move]:
    """Return the transaction that deletes ended instances."""
    return transaction(
        lambda conn: run(conn, retention.prune("pgflow", Ages(completed=timedelta(0), failed=timedelta(0))))
    )


def make_failed(a: Driver, value: str, workflow: type[Workflow[Any]] = Line) -> None:
    start(a, workflow, value)
    a.conn.execute("update pgflow.instances set status = 'failed', finished_at = pgflow.now(), revision = revision + 1")
    a.conn.execute("delete from pgflow.jobs")


def prune_and_start(a: Driver, b: Driver, value: str) -> Programs:
    make_failed(a, value)
    return pruning(), transaction(call("select pgflow.start('Line', %s)", value))


def prune_and_retry(a: Driver, b: Driver, value: str) -> Programs:
    make_failed(a, value)
    return pruning(), transaction(call("select pgflow.retry('Line', %s)", value))


def prune_twice(a: Driver, b: Driver, value: str) -> Programs:
    make_failed(a, value)
    return pruning(), pruning()


def prune_and_settle(a: Driver, b: Driver, value: str) -> Programs:
    start(a, Line, value)
    a.turn()
    a.settle()
    a.claim()
    a.run_steps()
    return pruning(), settling(a)


def prune_and_delete(a: Driver, b: Driver, value: str) -> Programs:
    make_failed(a, value)
    return pruning(), transaction(call("select pgflow.delete_id('line::' || %s)", value))


def bulk_move(action: str, document: dict[str, Any], **options: Any) -> list[Move]:
    """Return the transaction that works off a bulk operation in one batch."""

    def work_off(conn: Connection) -> None:
        operation = run(conn, bulk.begin("pgflow", action, document, options=options, text="", who=None))
        run(conn, bulk.batch("pgflow", operation, limit=100))

    return transaction(work_off)


def bulk_retry_and_start(a: Driver, b: Driver, value: str) -> Programs:
    make_failed(a, value)
    return bulk_move("retry", {"state": ["failed"]}), transaction(call("select pgflow.start('Line', %s)", value))


def bulk_retry_and_start_of_two_scopes(a: Driver, b: Driver, value: str) -> Programs:
    make_failed(a, value, Everywhere)
    return bulk_move("retry", {"state": ["failed"]}), transaction(call("select pgflow.start('Here', %s)", value))


def bulk_retry_twice(a: Driver, b: Driver, value: str) -> Programs:
    make_failed(a, value)
    return bulk_move("retry", {"state": ["failed"]}), bulk_move("retry", {"state": ["failed"]})


def bulk_cancel_and_settle(a: Driver, b: Driver, value: str) -> Programs:
    start(a, Line, value)
    a.claim()
    a.run_steps()
    return bulk_move("cancel", {"workflow": ["Line"]}), settling(a)


def bulk_cancel_and_cancel(a: Driver, b: Driver, value: str) -> Programs:
    start(a, Line, value)
    return bulk_move("cancel", {"workflow": ["Line"]}), transaction(call("select pgflow.cancel('Line', %s)", value))


def bulk_move_and_claim(a: Driver, b: Driver, value: str) -> Programs:
    start(a, Line, value)
    start(a, Line, value + "x")
    moving = bulk_move("reprioritise", {"workflow": ["Line"]}, priority=3)
    return moving, transaction(lambda conn: a.claim(conn=conn))


def bulk_delete_and_retry(a: Driver, b: Driver, value: str) -> Programs:
    make_failed(a, value)
    return bulk_move("delete", {"state": ["failed"]}), transaction(call("select pgflow.retry('Line', %s)", value))


def retry_and_cancel(a: Driver, b: Driver, value: str) -> Programs:
    make_failed(a, value)
    return (
        transaction(call("select pgflow.retry('Line', %s)", value)),
        transaction(call("select pgflow.cancel('Line', %s)", value)),
    )


def retry_twice(a: Driver, b: Driver, value: str) -> Programs:
    make_failed(a, value)
    retrial = transaction(call("select pgflow.retry('Line', %s)", value))
    return retrial, retrial


def same_start(a: Driver, b: Driver, value: str) -> Programs:
    one = transaction(call("select pgflow.start('Line', %s)", value))
    return one, one


def starts_of_two_scopes(a: Driver, b: Driver, value: str) -> Programs:
    return (
        transaction(call("select pgflow.start('Everywhere', %s)", value)),
        transaction(call("select pgflow.start('Here', %s)", value)),
    )


def batches_of_two_scopes(a: Driver, b: Driver, value: str) -> Programs:
    """Two starts in each transaction, so that each may hold a lock that the other needs."""
    start_many = 'select created from pgflow.start_many(%s, array[%s, %s], \'{"{}","{}"}\')'
    return (
        transaction(call(start_many, "Everywhere", value, value + "x")),
        transaction(call(start_many, "Here", value + "x", value)),
    )


def retry_and_start_of_two_scopes(a: Driver, b: Driver, value: str) -> Programs:
    make_failed(a, value, Everywhere)
    return (
        transaction(call("select pgflow.retry('Everywhere', %s)", value)),
        transaction(call("select pgflow.start('Here', %s)", value)),
    )


def put_and_start_of_two_scopes(a: Driver, b: Driver, value: str) -> Programs:
    make_failed(a, value, Here)
    return (
        transaction(call(PUT, f"place::{value}")),
        transaction(call("select pgflow.start('Everywhere', %s)", value)),
    )


def claim_and_cancel(a: Driver, b: Driver, value: str) -> Programs:
    start(a, Line, value)
    return transaction(lambda conn: a.claim(conn=conn)), transaction(call("select pgflow.cancel('Line', %s)", value))


def claim_and_stage(a: Driver, b: Driver, value: str) -> Programs:
    start(a, Line, value)
    start(a, Line, value + "x")
    a.conn.execute("update pgflow.jobs set state = 'scheduled' where id = (select min(id) from pgflow.jobs)")
    return transaction(lambda conn: a.claim(conn=conn)), transaction(lambda conn: run(conn, job.stage("pgflow")))


def rescue_and_cancel(a: Driver, b: Driver, value: str) -> Programs:
    start(a, Line, value)
    a.claim()
    a.conn.execute("update pgflow.workers set lease_expires_at = pgflow.now() where id = %s", [a.settler.worker])
    return (
        transaction(lambda conn: run(conn, job.rescue("pgflow"))),
        transaction(call("select pgflow.cancel('Line', %s)", value)),
    )


def rescue_twice(a: Driver, b: Driver, value: str) -> Programs:
    start(a, Line, value)
    a.claim()
    a.conn.execute("update pgflow.workers set lease_expires_at = pgflow.now() where id = %s", [a.settler.worker])
    rescue = transaction(lambda conn: run(conn, job.rescue("pgflow")))
    return rescue, rescue


def rescue_and_beat(a: Driver, b: Driver, value: str) -> Programs:
    start(a, Line, value)
    a.claim()
    a.conn.execute("update pgflow.workers set lease_expires_at = pgflow.now() where id = %s", [a.settler.worker])
    return (
        transaction(lambda conn: run(conn, job.rescue("pgflow"))),
        transaction(lambda conn: run(conn, worker.beat("pgflow", a.settler.worker, "", LEASE))),
    )


def reconcile_and_cancel(a: Driver, b: Driver, value: str) -> Programs:
    start(a, Line, value)
    a.claim()
    return (
        transaction(lambda conn: run(conn, job.reconcile("pgflow", a.settler.worker, ()))),
        transaction(call("select pgflow.cancel('Line', %s)", value)),
    )


def guided(a: Driver, b: Driver, value: str) -> None:
    """Start an instance of Guided: a has run the branch whose route fails, b has claimed the other one."""
    start(a, Guided, value)
    a.settler._keep = lambda queue, needs_slot: False  # type: ignore[method-assign]  # both branches will be claimed
    a.claim()
    a.run_steps()
    a.settle()
    a.claim(1)
    b.claim(1)
    del a.settler._keep
    if any(token.step == "guide" for token in b.held_jobs.jobs.values()):
        a.held_jobs.jobs, b.held_jobs.jobs = b.held_jobs.jobs, a.held_jobs.jobs
    a.run_steps()
    b.run_steps()


def route_and_sibling(a: Driver, b: Driver, value: str) -> Programs:
    guided(a, b, value)
    return settling(a), settling(b)


def route_and_cancel(a: Driver, b: Driver, value: str) -> Programs:
    guided(a, b, value)
    return settling(a), transaction(call("select pgflow.cancel('Guided', %s)", value))


def solo_route_and_cancel(a: Driver, b: Driver, value: str) -> Programs:
    start(a, Guide, value)
    a.claim()
    a.run_steps()
    return settling(a), transaction(call("select pgflow.cancel('Guide', %s)", value))


def retried_route(a: Driver, value: str) -> None:
    """Start an instance of Guide that was retried after its route failed; a has called the route again."""
    start(a, Guide, value)
    a.claim()
    a.run_steps()
    a.settle()
    a.conn.execute("select pgflow.retry('Guide', %s)", [value])
    a.turn()
    a.settle()
    a.claim()
    assert [(token.kind, token.step) for token in a.held_jobs.jobs.values()] == [("advance", "guide")]
    a.run_steps()


def retried_route_and_cancel(a: Driver, b: Driver, value: str) -> Programs:
    retried_route(a, value)
    return settling(a), transaction(call("select pgflow.cancel('Guide', %s)", value))


def retried_route_and_rescue(a: Driver, b: Driver, value: str) -> Programs:
    retried_route(a, value)
    a.conn.execute("update pgflow.workers set lease_expires_at = pgflow.now() where id = %s", [a.settler.worker])
    return settling(a), transaction(lambda conn: run(conn, job.rescue("pgflow")))


def retried_route_and_sibling(a: Driver, b: Driver, value: str) -> Programs:
    guided(a, b, value)
    a.settle()
    b.settle()
    a.conn.execute("select pgflow.retry('Guided', %s)", [value])
    for driver in (a, b):
        driver.settler._keep = lambda queue, needs_slot: False  # type: ignore[method-assign]
    a.turn()
    a.settle()
    a.claim(1)
    b.claim(1)
    for driver in (a, b):
        del driver.settler._keep
        driver.run_steps()
    return settling(a), settling(b)


def retry_twice_after_a_route(a: Driver, b: Driver, value: str) -> Programs:
    start(a, Guide, value)
    a.claim()
    a.run_steps()
    a.settle()
    retrial = transaction(call("select pgflow.retry('Guide', %s)", value))
    return retrial, retrial


def pause_and_skip(a: Driver, b: Driver, value: str) -> Programs:
    forked(a, b, value, Frail)
    a.run_steps()
    b.run_steps()
    return settling(a), settling(b)


def pause_and_cancel(a: Driver, b: Driver, value: str) -> Programs:
    forked(a, b, value, Frail)
    a.run_steps()
    return settling(a), transaction(call("select pgflow.cancel('Frail', %s)", value))


def paused(a: Driver, value: str) -> None:
    """Start an instance whose only step waits for an operator."""
    start(a, Brittle, value)
    a.claim()
    a.run_steps()
    a.settle()


def complete_and_fail(a: Driver, b: Driver, value: str) -> Programs:
    paused(a, value)
    return (
        transaction(call("select pgflow.complete_step('Brittle', %s, 'frail')", value)),
        transaction(call("select pgflow.fail_step('Brittle', %s, 'frail')", value)),
    )


def complete_and_retry(a: Driver, b: Driver, value: str) -> Programs:
    paused(a, value)
    return (
        transaction(call("select pgflow.complete_step('Brittle', %s, 'frail')", value)),
        transaction(call("select pgflow.retry('Brittle', %s)", value)),
    )


def complete_twice(a: Driver, b: Driver, value: str) -> Programs:
    paused(a, value)
    completion = transaction(call("select pgflow.complete_step('Brittle', %s, 'frail')", value))
    return completion, completion


def complete_and_cancel(a: Driver, b: Driver, value: str) -> Programs:
    paused(a, value)
    return (
        transaction(call("select pgflow.complete_step('Brittle', %s, 'frail')", value)),
        transaction(call("select pgflow.cancel('Brittle', %s)", value)),
    )


def completed_and_sibling(a: Driver, b: Driver, value: str) -> Programs:
    forked(a, b, value, Frail)
    for driver in (a, b):
        driver.run_steps()
    (first_step,) = {outcome.job.step for outcome in a.settler._outcomes}
    pausing, skipping = (a, b) if first_step == "frail" else (b, a)
    pausing.settle()
    return settling(skipping), transaction(call("select pgflow.complete_step('Frail', %s, 'frail')", value))


# Resets an instance to its start.
PUT = """
    select pgflow.put(
        run, id, workflow, version, 'running', unique_key, input, tags, metadata, null, created_at, null, '[]')
    from pgflow.instances where id = %s
"""

# Completes the steps that wait for an operator.
COMPLETE_PAUSED = """
    select pgflow.complete_step_run(run, step) from pgflow.jobs where state = 'parked' and kind = 'execute'
"""

# Retries instances that a route has failed.
RETRY_ROUTES = """
    select pgflow.retry_run(run) from pgflow.instances where status = 'failed' and error ->> 'type' = 'RouteError'
"""

PAIRS = [
    settle_and_delete, solo_settle_and_delete, resume_and_delete, solo_settle_and_put, settle_and_put,
    siblings, settle_and_cancel, solo_settle_and_cancel, resume_and_park, resume_and_cancel, rescue_and_settle,
    rescue_and_settle_siblings, zombie_and_successor, starts, claims, timer_and_resume, two_signals,
    revive_twice, revive_and_cancel, revive_and_settle,
    bulk_retry_and_start, bulk_retry_and_start_of_two_scopes, bulk_retry_twice, bulk_cancel_and_settle,
    bulk_cancel_and_cancel, bulk_move_and_claim, bulk_delete_and_retry,
    prune_and_start, prune_and_retry, prune_twice, prune_and_settle, prune_and_delete,
    retry_and_cancel, retry_twice, same_start, claim_and_cancel, claim_and_stage,
    rescue_and_cancel, rescue_twice, rescue_and_beat, reconcile_and_cancel,
    starts_of_two_scopes, batches_of_two_scopes, retry_and_start_of_two_scopes, put_and_start_of_two_scopes,
    send_due_and_park, send_due_and_cancel, send_due_twice, send_due_and_unschedule, send_due_and_timer,
    route_and_sibling, route_and_cancel, solo_route_and_cancel,
    retried_route_and_cancel, retried_route_and_rescue, retried_route_and_sibling, retry_twice_after_a_route,
    pause_and_skip, pause_and_cancel, complete_and_fail, complete_and_retry, complete_twice, complete_and_cancel,
    completed_and_sibling,
]  # fmt: skip


@pytest.mark.parametrize("prepare", PAIRS, ids=lambda prepare: prepare.__name__)
def test_every_order_of_two_transactions_is_correct(prepare: Prepare, database: Connection, explorer: Explorer) -> None:
    value = next(values)
    a, b = Driver(database, WORKFLOWS), Driver(database, WORKFLOWS)
    programs = prepare(a, b, value)
    for schedule in schedules([len(program) for program in programs]):
        errors = explorer.run(programs, schedule)

        assert not [error for error in errors if isinstance(error, psycopg.errors.DeadlockDetected)], schedule
        a.adopt()
        b.adopt()
        finish(database, a, b)
        for query in (RETRY_ROUTES, COMPLETE_PAUSED):
            if database.execute(query).fetchall():
                finish(database, a, b)
        faults = [*check(database), *(f"{error!r}" for error in errors if not is_refusal(error))]
        assert not faults, (prepare.__name__, schedule, faults)
        value = next(values)
        a, b = Driver(database, WORKFLOWS), Driver(database, WORKFLOWS)
        programs = prepare(a, b, value)


def is_refusal(error: BaseException | None) -> bool:
    """Return whether it is None, or an error that the second of two callers must expect."""
    return error is None or getattr(error, "sqlstate", None) in ("PF002", "PF003", "PF005", "PF009")


def finish(conn: Connection, a: Driver, b: Driver) -> None:
    """Run both workers as long as there is work, and a third one for the work of a crashed one."""
    alive = {row[0] for row in conn.execute("select id from pgflow.workers where lease_expires_at > pgflow.now()")}
    drivers = [
        driver for driver in (a, b) if driver.settler.worker in alive
    ]  # one that lost its lease discards its jobs
    drivers.append(Driver(conn, WORKFLOWS))
    for _ in range(30):
        run(conn, job.rescue("pgflow"))
        conn.execute("update pgflow.jobs set run_at = pgflow.now() where state = 'scheduled'")
        held = [driver.turn() for driver in drivers]
        if not any(held) and not conn.execute("select from pgflow.jobs where state <> 'parked'").fetchall():
            break
    # An instance that still waits got no signal in this schedule, or its signal was lost, which `check` detects.


def check(conn: Connection) -> list[str]:
    queries = {
        "an instance has not ended": """
            select id, status from pgflow.instances where status not in ('completed', 'cancelled', 'failed')""",
        "an instance has failed without a reason": """
            select id from pgflow.instances i where status = 'failed' and exists (
                select from pgflow.step_results r where r.run = i.run)""",
        "a job is left": "select run, step, kind, state from pgflow.jobs",
        "a result is unapplied": """
            select r.run, r.step from pgflow.step_results r join pgflow.instances i using (run) where not applied
            and i.status <> 'cancelled'""",
        "a result has no instance": """
            select r.run, r.step from pgflow.step_results r where not exists (
                select from pgflow.instances i where i.run = r.run)""",
        "a completed instance does not have each step once": """
            select i.id, count(*) from pgflow.instances i join pgflow.step_results r using (run)
            where i.status = 'completed' group by i.run
            having count(*) <> case
                when i.workflow in ('Pair', 'Frail') then 4 when i.workflow = 'Guided' then 5 else 2 end""",
        "a pause has lost its reason": """
            select r.run, r.errors from pgflow.step_results r
            where r.step in ('frail', 'spare') and r.errors -> -1 ->> 'reason' is distinct from 'it is broken'""",
        "a step ran again because of its route": """
            select r.run from pgflow.step_results r where r.step = 'guide' and r.output <> '{"runs": 1}'""",
        "one key has two instances": """
            select id from pgflow.instances where status <> 'failed' group by id having count(*) > 1""",
        "a signal was lost": """
            select s.run from pgflow.signals s join pgflow.instances i using (run)
            where i.status = 'completed' group by s.run having count(consumed_at) <> 1""",
        "an accepted signal was not consumed": """
            select s.run from pgflow.signals s join pgflow.instances i using (run)
            where i.status = 'completed' and s.consumed_at is null""",
        "a scheduled signal is left": "select run, step from pgflow.scheduled_signals",
    }
    faults = [f"{what}: {rows}" for what, query in queries.items() if (rows := conn.execute(query).fetchall())]
    for table in ("instances", "step_results", "jobs", "signals", "scheduled_signals", "workers"):
        conn.execute(f"delete from pgflow.{table}")  # noqa: S608 -- the names stand one line above
    return faults
