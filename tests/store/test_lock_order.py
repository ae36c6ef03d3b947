"""A call that waits for a lock holds none that comes later in the lock order: instances before their jobs, and so on.

Another session holds the lock on the instance, so that the call waits. All other rows of the instance must be unlocked
then, or two calls with different orders could deadlock.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from pgflow import Async, Context, Done, Pgflow, Unique, Workflow, step
from pgflow.database.connect import Connection, connect
from tests.store.driver import Driver
from tests.worker.waiting import until

TABLES = ("instances", "step_results", "jobs", "signals", "scheduled_signals", "requests")


@step(events=("paid",))
def await_payment(ctx: Context[Any]) -> Async:
    return Async()


@step(events=("shipped",))
def ship(ctx: Context[Any]) -> Async:
    return Async()


class Paid(Workflow[dict[str, Any]], unique=Unique("paid")):
    initial = await_payment
    transitions = {await_payment: {"paid": ship}, ship: {"shipped": Done}}


CALLS = {
    "cancel": "select pgflow.cancel('Paid', 'v')",
    "resume": "select pgflow.resume('Paid', 'v', 'shipped')",
    "schedule_resume": "select pgflow.schedule_resume('Paid', 'v', 'ship', '1 day')",
    "delete_id": "select pgflow.delete_id('paid::v')",
    "put": """
        select pgflow.put(
            run, id, workflow, version, 'running', unique_key, input, tags, metadata, null, created_at, null, '[]')
        from pgflow.instances""",
    "retry": "select pgflow.retry('Paid', 'v')",
}


@pytest.fixture
def database(migrated: str) -> Iterator[Connection]:
    with connect(migrated, "worker") as conn:
        app = Pgflow(migrated, workflows=[Paid])
        app.register()
        app.close()
        yield conn
        for table in (*TABLES, "workers"):
            conn.execute(f"delete from pgflow.{table}")  # noqa: S608 -- the names stand above


def under_way(conn: Connection) -> None:
    """Create an instance with a result, a consumed signal, a kept one, a scheduled one, and a parked job."""
    driver = Driver(conn, [Paid])
    conn.execute("select pgflow.start('Paid', 'v'), pgflow.resume('Paid', 'v', 'paid', '{\"n\": 1}')")
    driver.turn()
    driver.settle()
    driver.turn()
    driver.settle()
    conn.execute("select pgflow.schedule_resume('Paid', 'v', 'ship', '1 hour')")
    for table in TABLES[:-1]:
        count = f"select count(*) from pgflow.{table}"  # noqa: S608 -- the names stand above
        assert conn.execute(count.encode()).fetchall()[0][0] > 0, table


def free(conn: Connection, table: str) -> bool:
    """Return whether no row of a table is locked."""
    query = f"""select (select count(*) from pgflow.{table}) = (
        select count(*) from (select from pgflow.{table} for no key update skip locked) r)"""  # noqa: S608 -- as above
    return bool(conn.execute(query.encode()).fetchall()[0][0])


@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_waits_for_the_instance_holds_no_lock_behind_it(
    name: str, migrated: str, database: Connection
) -> None:
    under_way(database)
    if name == "retry":
        database.execute("update pgflow.instances set status = 'failed', finished_at = now()")
    with connect(migrated, "holder") as holder, connect(migrated, "caller") as caller:
        caller.execute("set lock_timeout = 0")
        with holder.transaction():
            holder.execute("select from pgflow.instances for no key update")
            called = threading.Thread(target=caller.execute, args=(CALLS[name],))
            called.start()
            waits = "select cardinality(pg_blocking_pids(%s))"
            pid = caller.info.backend_pid
            until(lambda: database.execute(waits, [pid]).fetchall()[0][0], "its wait")
            assert [table for table in TABLES[1:-1] if not free(database, table)] == []
        called.join()
