"""Uniqueness of tasks in SQL: one live job per key, each conflict policy, and batches that cannot deadlock."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from pgflow import Pgflow
from pgflow.core.definition.unique_task import UniqueTask, unique_key
from pgflow.core.values.payload import INPUT_LIMIT, encode
from pgflow.database.connect import Connection, connect
from pgflow.errors import AlreadyEnqueued
from tests.hand_tasks import HandTask, Tasks, hand_task

TIMES = timedelta(hours=1)
BLOCKED = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like '%enqueue%'"


def send(order: int, copy: bool = False) -> None:
    """Do nothing."""


def task(name: str, **unique: Any) -> HandTask:
    return hand_task(send, name=name, unique=UniqueTask(**unique))


PLAIN = hand_task(send, name="plain")
EXISTING = task("existing", args=["order"])
BY_QUEUE = task("by_queue", args=["order"], by_queue=True)
SKIP = task("skip", on_conflict="skip")
RAISE = task("raise", args=["order"], on_conflict="raise")
DEBOUNCED = task("debounced", args=["order"], on_conflict="replace", replace=["args", "run_at"])
URGENT = task("urgent", args=["order"], on_conflict="replace", replace=["priority"])
PERIOD = task("period", args=["order"], period=TIMES)
ONE = task("one", args="none")
TASKS = (PLAIN, EXISTING, BY_QUEUE, SKIP, RAISE, DEBOUNCED, URGENT, PERIOD, ONE)


@pytest.fixture(scope="module")
def app(migrated: str) -> Iterator[Pgflow]:
    """An app with the tasks above."""
    app = Pgflow(migrated)
    for each in TASKS:
        Tasks(app).adopt(each)
    app.register()
    yield app
    app.close()


@pytest.fixture
def tasks(app: Pgflow, migrated: str) -> Iterator[Tasks]:
    """The app's commands, on empty tables."""
    yield Tasks(app)
    with connect(migrated, "test") as conn:
        conn.execute("delete from pgflow.jobs")
        conn.execute("delete from pgflow.task_results")


def enqueue(tasks: Tasks, given: HandTask, *args: dict[str, Any], **options: Any) -> list[tuple[int | None, bool]]:
    """Enqueue as the decorated function does, with the keys of the calls."""
    texts = [json.dumps(each) for each in args]
    keys = given.definition.unique_keys(texts, options.get("queue"))
    return [(each.id, each.created) for each in tasks.enqueue_all(given, *args, unique=keys, **options)]


def complete(conn: Connection, job: int, ago: str = "0 s") -> None:
    """End a task as completed, some time ago."""
    conn.execute(
        """with gone as (delete from pgflow.jobs where id = %s returning *)
        insert into pgflow.task_results
            (id, task, queue, status, priority, attempt, max_attempts, unique_key, finished_at)
        select id, step, queue, 'completed', priority, 1, max_attempts, unique_key, now() - %s::interval from gone""",
        [job, ago],
    )


VALUES: list[dict[str, Any]] = [
    {},
    {"order": 1, "copy": True, "z": None, "bb": [1, 2.5, 1e22, 1e-7, -0.0], "a": {"ü": 'x"y\n', "": 1.0}},
    {"aa": 12345678901234567890, "b": "\u2028", "ab": "😀", "ä": []},
]


@pytest.mark.parametrize("args", VALUES)
@pytest.mark.parametrize("options", [{}, {"args": ["order", "z"]}, {"args": "none"}, {"by_queue": True}])
def test_python_and_sql_compute_the_same_key(migrated: str, args: dict[str, Any], options: dict[str, Any]) -> None:
    unique = UniqueTask(**options)
    with connect(migrated, "test") as conn:
        text = encode(args, what="args", limit=INPUT_LIMIT)
        row = conn.execute(
            "select pgflow.task_key('t', %s::jsonb, %s::jsonb, 'q')", [json.dumps(unique.spec()), text]
        ).fetchone()
    assert row == (unique_key("t", unique, json.loads(text), "q"),)


def test_a_repeated_enqueue_returns_the_live_job(tasks: Tasks) -> None:
    ((job, created),) = enqueue(tasks, EXISTING, {"order": 1})
    assert created
    assert enqueue(tasks, EXISTING, {"order": 1, "copy": True}) == [(job, False)]
    ((other, created),) = enqueue(tasks, EXISTING, {"order": 2})
    assert created
    assert job is not None
    tasks.cancel(job)
    ((again, created),) = enqueue(tasks, EXISTING, {"order": 1})
    assert created
    with pytest.raises(AlreadyEnqueued, match=f"job {job} cannot run again"):
        tasks.retry(job)
    assert len({job, other, again}) == 3


def test_plain_sql_is_unique_as_the_task_declares(tasks: Tasks, migrated: str) -> None:
    ((job, _),) = enqueue(tasks, EXISTING, {"order": 1})
    with connect(migrated, "test") as conn:
        assert conn.execute("select pgflow.enqueue('existing', '{\"order\": 1}')").fetchone() == (job,)
        assert conn.execute("select pgflow.enqueue('skip'), pgflow.enqueue('skip')").fetchall()[0][1] is None


def test_queues_and_no_arguments_can_count(tasks: Tasks) -> None:
    first = enqueue(tasks, BY_QUEUE, {"order": 1}) + enqueue(tasks, BY_QUEUE, {"order": 1}, queue="other")
    assert [created for _, created in first] == [True, True]
    assert enqueue(tasks, BY_QUEUE, {"order": 1}, queue="other") == [(first[1][0], False)]
    assert [created for _, created in enqueue(tasks, ONE, {"order": 1}, {"order": 2})] == [True, False]


def test_a_batch_is_numbered_in_its_order_and_keeps_the_first_of_each_key(tasks: Tasks) -> None:
    found = enqueue(tasks, EXISTING, *({"order": order} for order in (3, 1, 3, 2)))
    (three, _), (one, _), again, (two, _) = found
    assert again == (three, False)
    assert three is not None
    assert one is not None
    assert two is not None
    assert three < one < two


def test_skip_returns_no_id_and_raise_enqueues_nothing(tasks: Tasks) -> None:
    ((job, _),) = enqueue(tasks, SKIP, {"order": 1})
    assert enqueue(tasks, SKIP, {"order": 1}, {"order": 2})[0] == (None, False)
    ((job, _),) = enqueue(tasks, RAISE, {"order": 1})
    before = len(tasks.page())
    with pytest.raises(AlreadyEnqueued, match=f"raise is not enqueued: job {job} has its unique key") as refusal:
        enqueue(tasks, RAISE, {"order": 2}, {"order": 1})
    assert refusal.value.job == job
    with pytest.raises(AlreadyEnqueued, match="two of the calls have one unique key"):
        enqueue(tasks, RAISE, {"order": 3}, {"order": 3})
    assert len(tasks.page()) == before


def test_replace_changes_the_named_fields_of_a_job_that_has_not_started(tasks: Tasks, migrated: str) -> None:
    ((job, _),) = enqueue(tasks, DEBOUNCED, {"order": 1}, delay=TIMES)
    assert job is not None
    before = tasks.get(job)
    assert enqueue(tasks, DEBOUNCED, {"order": 1, "copy": True}, delay=2 * TIMES, priority=7) == [(job, False)]
    after = tasks.get(job)
    assert before.run_at is not None
    assert after.run_at is not None
    assert after.args == {"order": 1, "copy": True}
    assert after.run_at - before.run_at > 0.9 * TIMES
    assert after.priority == 0
    ((job, _),) = enqueue(tasks, URGENT, {"order": 1})
    assert job is not None
    assert enqueue(tasks, URGENT, {"order": 1, "copy": True}, priority=-5) == [(job, False)]
    assert (tasks.get(job).priority, tasks.get(job).args) == (-5, {"order": 1})
    with connect(migrated, "test") as conn:
        conn.execute("update pgflow.jobs set state = 'running', worker = 1, attempt = 1 where id = %s", [job])
    assert enqueue(tasks, URGENT, {"order": 1}, priority=9) == [(job, False)]
    assert tasks.get(job).priority == -5


def test_a_completed_task_counts_for_its_period(tasks: Tasks, migrated: str) -> None:
    with connect(migrated, "test") as conn:
        ((job, _),) = enqueue(tasks, PERIOD, {"order": 1})
        assert job is not None
        complete(conn, job, "59 minutes")
        assert enqueue(tasks, PERIOD, {"order": 1}) == [(job, False)]
        conn.execute("update pgflow.task_results set finished_at = now() - interval '61 minutes'")
        ((again, created),) = enqueue(tasks, PERIOD, {"order": 1})
        assert (again != job, created) == (True, True)


def test_a_holder_that_completes_while_the_enqueue_waits_for_it_counts(tasks: Tasks, migrated: str) -> None:
    ((job, _),) = enqueue(tasks, PERIOD, {"order": 1})
    assert job is not None
    with connect(migrated, "test") as conn, ThreadPoolExecutor(1) as threads:
        with conn.transaction():
            complete(conn, job)
            waiting = threads.submit(enqueue, tasks, PERIOD, {"order": 1})
            blocked = (
                "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like '%%enqueue%%'"
            )
            with connect(migrated, "test") as watch:
                while watch.execute(blocked.encode()).fetchone() == (0,):
                    pass
        assert waiting.result(30) == [(job, False)]
        assert conn.execute("select count(*) from pgflow.jobs").fetchone() == (0,)


def test_fifty_concurrent_enqueues_make_one_job(tasks: Tasks, app: Pgflow) -> None:
    with ThreadPoolExecutor(50) as threads:
        found = list(threads.map(lambda _: enqueue(tasks, EXISTING, {"order": 1})[0], range(50)))
    assert len({job for job, _ in found}) == 1
    assert [created for _, created in found].count(True) == 1
    app._transport.pool.close()


def test_batches_with_the_same_keys_in_other_orders_do_not_deadlock(tasks: Tasks, app: Pgflow) -> None:
    orders = [{"order": order} for order in range(200)]

    def batch(number: int) -> list[tuple[int | None, bool]]:
        given = orders[number:] + orders[:number]
        return enqueue(tasks, DEBOUNCED, *(given if number % 2 else given[::-1]))

    with ThreadPoolExecutor(8) as threads:
        found = [each for batch in threads.map(batch, range(16)) for each in batch]
    assert len({job for job, _ in found}) == 200
    assert [created for _, created in found].count(True) == 200
    app._transport.pool.close()
