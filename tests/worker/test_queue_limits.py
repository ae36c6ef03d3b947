"""Limits over several workers: of a queue, of each partition key, of rates, and of code that takes places."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydantic import BaseModel

from pgflow import Context, Done, Error, Ok, Pgflow, Retry, Unique, Workflow, step, task
from pgflow.client import places
from pgflow.core.models.queue import Rate
from pgflow.database.connect import Connection
from pgflow.errors import InvalidValue, LimitReached, UnknownQueue
from tests.worker.conftest import Work
from tests.worker.db_helpers import leftovers, one, rows, until_all_ended
from tests.worker.waiting import PATIENCE, until

CHECKOUT = Path(__file__).parents[2]


class Order(BaseModel):
    tenant: str = ""
    seconds: float = 0.01


class Running:
    """What runs now and what ran at most at once, in all and by tenant."""

    now: Counter[str] = Counter()
    most: Counter[str] = Counter()
    most_in_all = 0
    order: list[str] = []
    hold = threading.Event()


async def mail(ctx: Context[Order]) -> Ok:
    await mail_to(ctx.initial)
    return Ok("done")


async def mail_to(order: Order) -> None:
    tenant = order.tenant
    Running.now[tenant] += 1
    Running.order.append(tenant)
    Running.most[tenant] = max(Running.most[tenant], Running.now[tenant])
    Running.most_in_all = max(Running.most_in_all, Running.now.total())
    await asyncio.sleep(order.seconds)
    while Running.hold.is_set():  # noqa: ASYNC110 -- an event of threads
        await asyncio.sleep(0.01)
    Running.now[tenant] -= 1


@step(queue="mail")
async def send(ctx: Context[Order]) -> Ok:
    return await mail(ctx)


@step(queue="mail")
async def again(ctx: Context[Order]) -> Ok:
    return await mail(ctx)


class Mail(Workflow[Order], unique=Unique("mail"), partition_by="tenant"):
    initial = send
    transitions = {send: {"done": again}, again: {"done": Done}}


class Plain(Workflow[Order], unique=Unique("plain")):
    initial = send
    transitions = {send: {"done": again}, again: {"done": Done}}


class Heavy(Workflow[Order], unique=Unique("heavy"), weight=3):
    initial = send
    transitions = {send: {"done": Done}}


@step(queue="mail", retry=Retry(max_attempts=1, on_exhausted="pause"))
async def refuse(ctx: Context[Order]) -> Error:
    return Error("no address")


class Refused(Workflow[Order], unique=Unique("refused")):
    initial = refuse
    transitions = {refuse: {"done": Done}}


WORKFLOWS = (Mail, Plain, Heavy, Refused)


@task(queue="mail", partition_by="order.tenant")
async def letter(order: Order) -> None:
    await mail_to(order)


@task(queue="mail", weight=2)
async def parcel(seconds: float = 0.05) -> None:
    await mail_to(Order(tenant="parcel", seconds=seconds))


TASKS = (letter, parcel)


@pytest.fixture(autouse=True)
def fresh() -> None:
    Running.now, Running.most, Running.most_in_all = Counter(), Counter(), 0
    Running.order.clear()
    Running.hold.clear()


def start(flow: type[Workflow[Order]], count: int, *tenants: str, seconds: float = 0.01) -> None:
    begun, names = time.time_ns(), tenants or ("",)
    flow.start_many(
        [(f"{begun}-{n}", Order(tenant=names[n % len(names)], seconds=seconds)) for n in range(count)],
    )


def test_a_queue_runs_no_more_than_its_concurrency_on_all_workers(app: Pgflow, conn: Connection, work: Work) -> None:
    start(Plain, 10)  # before the limit
    app.limits.set("mail", concurrency=3)
    work({"mail": 10})
    work({"mail": 10})
    start(Plain, 30)
    assert until_all_ended(conn) == {"completed": 40}
    assert Running.most_in_all == 3
    assert leftovers(conn) == {}
    assert app.limits.list()[0].used == 0


def test_each_partition_key_has_its_own_concurrency(app: Pgflow, conn: Connection, work: Work) -> None:
    app.limits.set("mail", key_concurrency=1)
    app.limits.set("mail", key="b", concurrency=2)
    work({"mail": 10})
    work({"mail": 10})
    start(Mail, 30, "a", "b", "c")
    assert until_all_ended(conn) == {"completed": 30}
    assert dict(Running.most) == {"a": 1, "b": 2, "c": 1}
    assert leftovers(conn) == {}


def test_a_weight_takes_several_places(app: Pgflow, conn: Connection, work: Work) -> None:
    app.limits.set("mail", concurrency=7)
    work({"mail": 10})
    start(Heavy, 10, seconds=0.05)
    assert until_all_ended(conn) == {"completed": 10}
    assert Running.most_in_all == 2


def test_tasks_have_partition_keys_and_weights(app: Pgflow, conn: Connection, work: Work) -> None:
    app.limits.set("mail", concurrency=5, key_concurrency=1)
    app.enqueue_many(letter, [{"order": Order(tenant=f"t-{n % 3}")} for n in range(15)])
    conn.execute('select pgflow.enqueue(\'letter\', \'{"order": {"tenant": "t-1"}}\')')
    app.enqueue_many(parcel, [{} for _ in range(6)])
    keys = dict(rows(conn, "select key, count(*) from pgflow.jobs group by 1"))
    assert keys == {"t-0": 5, "t-1": 6, "t-2": 5, None: 6}
    work({"mail": 10})
    work({"mail": 10})
    until(lambda: one(conn, "select count(*) from pgflow.jobs") == 0, "the end of all tasks")
    assert {key: most for key, most in Running.most.items() if key != "parcel"} == {"t-0": 1, "t-1": 1, "t-2": 1}
    assert Running.most["parcel"] <= 2  # of five places
    assert one(conn, "select count(*) from pgflow.task_results where status = 'completed'") == 22


def test_a_step_that_waits_for_an_operator_takes_no_place(app: Pgflow, conn: Connection, work: Work) -> None:
    app.limits.set("mail", concurrency=2)
    work({"mail": 10})
    start(Refused, 4)
    until(lambda: one(conn, "select count(*) from pgflow.jobs where state = 'parked'") == 4, "the operator's turn")
    assert one(conn, "select count(key) from pgflow.jobs") == 0  # the key of what runs without a partition key


def test_a_large_tenant_delays_others_by_one_batch_at_most(app: Pgflow, conn: Connection, work: Work) -> None:
    start(Mail, 500, "large")
    work({"mail": 10})
    until(lambda: len(Running.order) >= 20, "the large tenant")
    before = len(Running.order)
    start(Mail, 30, *(f"small-{n}" for n in range(30)))
    until(lambda: len({each for each in Running.order if each != "large"}) == 30, "the small ones")
    last = max(Running.order.index(f"small-{n}") for n in range(30))
    assert Running.order[before:last].count("large") < 100  # of the 980 that were before them
    app.queues.pause("mail")  # the rest need not run
    app.queues.drain("mail", timeout=timedelta(seconds=PATIENCE))


def test_a_changed_limit_holds_for_what_comes_and_a_cleared_one_no_longer(
    app: Pgflow, conn: Connection, work: Work
) -> None:
    Running.hold.set()
    app.limits.set("mail", concurrency=4)
    work({"mail": 10}, poll=timedelta(hours=1))
    start(Mail, 10, "a", "b")
    start(Plain, 10)
    until(lambda: Running.now.total() == 4, "four at once")
    app.limits.set("mail", concurrency=6)
    until(lambda: Running.now.total() == 6, "six at once")
    assert app.limits.list()[0].used == 6
    assert app.limits.clear("mail") is True
    until(lambda: Running.now.total() == 10, "all that one worker runs at once")
    assert app.limits.clear("mail") is False
    Running.hold.clear()
    assert until_all_ended(conn) == {"completed": 20}
    assert rows(conn, "select distinct is_limited from pgflow.queues") == [(False,)]


def test_a_rate_holds_in_every_window(app: Pgflow, conn: Connection, work: Work) -> None:
    conn.execute(
        "create table public.starts as select pgflow.now() as at where false;"
        "create function public.note_start() returns trigger language plpgsql as $$ begin"
        " if new.state = 'running' then insert into public.starts values (pgflow.now()); end if; return null; end $$;"
        "create trigger note after update on pgflow.jobs for each row execute function public.note_start()"
    )
    try:
        app.limits.set("mail", rate=Rate(40, burst=5))
        work({"mail": 10})
        work({"mail": 10})
        start(Plain, 20, seconds=0)
        assert until_all_ended(conn) == {"completed": 20}
        moments = [row[0].timestamp() for row in rows(conn, "select at from public.starts order by at")]
    finally:
        conn.execute("drop trigger note on pgflow.jobs; drop function public.note_start; drop table public.starts")
    assert len(moments) == 40
    for first, begin in enumerate(moments):
        for last in range(first, len(moments)):
            assert last - first + 1 <= 5 + 40 * (moments[last] - begin) + 1e-3


def test_what_runs_when_a_queue_is_limited_counts(app: Pgflow, conn: Connection, work: Work) -> None:
    Running.hold.set()
    work({"mail": 6})
    start(Plain, 12)
    until(lambda: Running.now.total() == 6, "six at once")
    app.limits.set("mail", concurrency=6)
    work({"mail": 6})
    until(lambda: one(conn, "select answer from pgflow.claim_limited('mail', 1, 0)") == "full", "a full limit")
    Running.hold.clear()
    assert until_all_ended(conn) == {"completed": 12}
    assert Running.most_in_all == 6


def test_the_places_of_a_killed_worker_are_free_when_its_jobs_are_rescued(
    app: Pgflow, conn: Connection, work: Work
) -> None:
    app.limits.set("mail", concurrency=2)
    start(Plain, 6)
    dead = "insert into pgflow.workers (node, pid, queues, version, lease_expires_at) values ('n', 1, '{}', '0', now()"
    worker = one(conn, f"{dead} + interval '2 seconds') returning id")
    assert one(conn, "select answer from pgflow.claim_limited('mail', 10, %s)", worker) in ("done", "more")
    assert one(conn, "select count(*) from pgflow.jobs where state = 'running'") == 2
    work({"mail": 10})
    assert one(conn, "select answer from pgflow.claim_limited('mail', 10, %s)", worker) in ("full", "busy")
    assert until_all_ended(conn) == {"completed": 6}
    assert Running.most_in_all <= 2


def test_of_several_quarantined_jobs_a_worker_keeps_one(app: Pgflow, conn: Connection, work: Work) -> None:
    app.limits.set("mail", concurrency=5)
    app.limits.set("more", concurrency=5, is_new=True)
    for queue in ("mail", "more", "default"):
        app.enqueue(parcel, (0.2,), queue=queue)
    conn.execute("update pgflow.jobs set crashes = 2")
    work({"mail": 5, "more": 5, "default": 5})
    until(lambda: one(conn, "select count(*) from pgflow.jobs") == 0, "the end of all tasks")
    assert Running.most_in_all == 1


def test_jobs_and_code_share_the_places_of_a_limit(app: Pgflow, conn: Connection, work: Work) -> None:
    app.limits.set("mail", concurrency=2)
    with app.limit("mail"), app.limit("mail"):
        work({"mail": 10})
        start(Plain, 4)
        until(lambda: one(conn, "select answer from pgflow.claim_limited('mail', 1, 0)") == "full", "a full limit")
        with (
            pytest.raises(LimitReached, match=r"limit mail: no place was free within 0.05 s"),
            app.limit("mail", timeout=timedelta(seconds=0.05)),
        ):
            pass
        assert Running.order == []
        assert app.limits.list()[0].used == 2
    assert until_all_ended(conn) == {"completed": 4}


def test_places_are_exact_over_threads_and_tasks(app: Pgflow, conn: Connection) -> None:
    app.limits.set("stripe", concurrency=3, key_concurrency=1, is_new=True)

    async def use(key: str) -> None:
        async with app.limit("stripe", key=key, timeout=timedelta(seconds=PATIENCE)):
            Running.now[key] += 1
            Running.most[key] = max(Running.most[key], Running.now[key])
            Running.most_in_all = max(Running.most_in_all, Running.now.total())
            await asyncio.sleep(0.01)
            Running.now[key] -= 1

    async def use_all() -> None:
        await asyncio.gather(*(use(f"key-{n % 5}") for n in range(25)))

    threads = [threading.Thread(target=asyncio.run, args=[use_all()]) for _ in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert set(Running.most.values()) == {1}
    assert 1 < Running.most_in_all <= 3
    assert one(conn, "select count(*) from pgflow.places") == 0


HOLDER = """
import sys, time
from datetime import timedelta
from pgflow import Pgflow
from pgflow.client import places
places.LEASE = timedelta(seconds=1)
with Pgflow(sys.argv[1]).limit("stripe"):
    print("taken", flush=True)
    time.sleep(60)
"""


def test_a_place_is_renewed_while_its_process_lives_and_free_after_its_death(
    app: Pgflow, conn: Connection, dsn: str
) -> None:
    app.limits.set("stripe", concurrency=1, is_new=True)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, dsn], stdout=subprocess.PIPE, cwd=CHECKOUT, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "taken\n"
        first = one(conn, "select expires_at from pgflow.places")
        until(lambda: one(conn, "select expires_at from pgflow.places") > first, "a renewal")
        with pytest.raises(LimitReached), app.limit("stripe", timeout=timedelta(seconds=0.1)):
            pass
        holder.kill()
    with app.limit("stripe", timeout=timedelta(seconds=PATIENCE)):
        pass


def test_a_cancelled_wait_takes_no_place(app: Pgflow, conn: Connection) -> None:
    app.limits.set("stripe", concurrency=1, is_new=True)

    async def wait() -> None:
        async with app.limit("stripe"):
            await asyncio.sleep(PATIENCE)

    async def cancel_some() -> None:
        for pause in (0, 0.001, 0.005, 0.05):
            tasks = [asyncio.create_task(wait()) for _ in range(3)]
            await asyncio.sleep(pause)
            for each in tasks:
                each.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(cancel_some())
    assert one(conn, "select count(*) from pgflow.places") == 0


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"concurrency": 0}, "concurrency=0 is refused: it must be a whole number from 1"),
    ({"concurrency": -1}, "concurrency=-1 is refused"),
    ({"key_concurrency": 1.5}, "key_concurrency=1.5 is refused"),
    ({"rate": 5}, "rate=5 is refused: it must be a Rate"),
    ({"weight": 2}, "a weight belongs to a partition key"),
    ({"key": "*", "concurrency": 1}, "key='\\*' is refused"),
    ({"key": "a", "rate": Rate(1)}, "a key has a concurrency and a weight of its own"),
    ({}, "no limit given"),
    ({"konkurrenz": 1}, "konkurrenz"),
]


@pytest.mark.parametrize(("options", "message"), WRONG)
def test_a_wrong_limit_is_refused_with_its_name(
    app: Pgflow, conn: Connection, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidValue if "konkurrenz" not in options else TypeError, match=message):
        app.limits.set("mail", **options)
    assert one(conn, "select count(*) from pgflow.queues") == 0


def test_unknown_names_and_costs_above_the_limit_are_refused(app: Pgflow, conn: Connection) -> None:
    with pytest.raises(UnknownQueue, match="no queue is named 'mial'"):
        app.limits.set("mial", concurrency=1)
    with pytest.raises(UnknownQueue, match="there is no limit for 'mail'"), app.limit("mail"):
        pass
    app.limits.set("mail", concurrency=3)
    with pytest.raises(InvalidValue, match="cost must be between 1 and 3, got 4"), app.limit("mail", cost=4):
        pass
    wrongs: list[dict[str, Any]] = [
        {"count": 0},
        {"count": 1, "per": timedelta(0)},
        {"count": 1, "per": 5},
        {"count": 1, "burst": 0},
    ]
    for wrong in wrongs:
        with pytest.raises(InvalidValue, match="is refused"):
            Rate(**wrong)
    for statement in (
        "select pgflow.set_limit('mail', 0)",
        "select pgflow.set_limit('mail', rate => 0)",
        "select pgflow.set_limit('mail', rate => 'nan')",
        "select pgflow.set_limit('mail', weight => 2)",
        "select pgflow.set_limit('mail', key => 'a', weight => 32768)",
        "select pgflow.set_limit('mail', key => '*', concurrency => 2)",
        "select pgflow.set_limit('mail')",
    ):
        with pytest.raises(psycopg.Error, match="queue mail: "):
            conn.execute(statement.encode())


def test_the_lease_of_a_place_is_longer_than_its_renewals() -> None:
    assert places.RENEWALS_PER_LEASE >= 3
