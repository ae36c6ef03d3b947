"""Settings of queues that are declared in code: what holds, and where it comes from."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from click.testing import CliRunner

from pgflow import Context, Done, Ok, Pgflow, QueueConfig, Rate, Unique, Workflow, step, task
from pgflow.cli import cli
from pgflow.core.models.queue import Queue, QueueLimits
from pgflow.database.connect import Connection
from pgflow.errors import DefinitionError, InvalidValue
from tests.worker.db_helpers import rows
from tests.worker.thread_worker import Inside
from tests.worker.waiting import until

Declare = Callable[..., Queue]
MINUTE = timedelta(minutes=1)
WORKFLOWS = ()


@task(queue="mail", weight=3)
def print_catalogue() -> None: ...


@pytest.fixture
def declare(dsn: str, conn: Connection) -> Iterator[Declare]:
    """Give `declare(**settings)`: register an app that declares the queue "mail" with them, and return the queue."""
    apps: list[Pgflow] = []

    def register(**settings: Any) -> Queue:
        apps.append(Pgflow(dsn, queues=[QueueConfig("mail", **settings)]))
        apps[-1].register()
        return mail(apps[-1])

    yield register
    for app in apps:
        app.close()


def mail(app: Pgflow) -> Queue:
    (found,) = [each for each in app.queues.list() if each.name == "mail"]
    return found


def test_a_declaration_follows_the_code(declare: Declare, app: Pgflow) -> None:
    found = declare(concurrency=10, key_concurrency=1, rate=Rate(60, MINUTE, burst=5), worker_concurrency=4)
    assert found.limits == QueueLimits(10, 1, rate=1.0, burst=5)
    assert found.worker_concurrency == 4
    assert found.declared == ("concurrency", "key_concurrency", "rate", "worker_concurrency")
    assert app.limits.list()[0].declared == found.declared
    found = declare(concurrency=5)
    assert (found.limits, found.worker_concurrency) == (QueueLimits(5), None)
    found = declare()
    assert (found.limits, found.declared) == (None, ())


def test_what_was_set_at_run_time_stays_until_it_is_cleared(declare: Declare, app: Pgflow) -> None:
    declare(concurrency=10, rate=Rate(5), worker_concurrency=4)
    app.limits.set("mail", concurrency=2)
    app.queues.scale("mail", 8)
    for command, shown in (("limit", "2, 5/s burst 1 (code)"), ("queue", "2, 5/s burst 1 (code)")):
        assert shown in CliRunner().invoke(cli, [command, "list", "--dsn", app.dsn]).output
    found = declare(concurrency=20, rate=Rate(7), key_concurrency=3, worker_concurrency=6)
    assert found.limits == QueueLimits(2, 3, rate=7.0)
    assert found.worker_concurrency == 8
    assert found.declared == ("key_concurrency", "rate")
    assert app.limits.clear("mail")
    app.queues.scale("mail", None)
    found = mail(app)
    assert (found.limits, found.worker_concurrency) == (QueueLimits(20, 3, rate=7.0), 6)
    assert not app.limits.clear("mail"), "only what was set at run time is cleared"


def test_limits_from_before_the_first_declaration_were_set_at_run_time(
    declare: Declare, app: Pgflow, conn: Connection
) -> None:
    app.limits.set("mail", concurrency=2, is_new=True)
    app.queues.scale("mail", 8)
    conn.execute("update pgflow.queues set overridden = '{}'")  # as of the release before
    found = declare(concurrency=10, key_concurrency=1)
    assert (found.limits, found.worker_concurrency, found.declared) == (QueueLimits(2, 1), 8, ("key_concurrency",))


def test_an_unchanged_declaration_writes_nothing(declare: Declare, conn: Connection) -> None:
    versions = "select xmin::text from pgflow.queues"
    declare(concurrency=10)
    before = rows(conn, versions)
    declare(concurrency=10)
    assert rows(conn, versions) == before


def test_a_worker_follows_a_declaration(dsn: str, conn: Connection) -> None:
    running: list[int] = []
    most: list[int] = []

    @task(queue="mail")
    async def send() -> None:
        running.append(1)
        most.append(len(running))
        await asyncio.sleep(0.005)
        running.pop()

    with Pgflow(dsn, tasks=[send], queues=[QueueConfig("mail", concurrency=2)]) as app:
        send.enqueue_many([()] * 20)
        with Inside(app, {"mail": 10}):
            until(lambda: len(most) == 20, "the tasks")
    assert max(most) <= 2


# -- bad input


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"concurrency": 0}, r"QueueConfig\('mail'\): concurrency=0 is refused: it must be a whole number from 1 to"),
        ({"key_concurrency": True}, r"key_concurrency=True is refused"),
        ({"worker_concurrency": 10_001}, r"worker_concurrency=10001 is refused: it must be a whole number from 1 to"),
        ({"rate": 5}, r"rate=5 is refused: it must be a Rate"),
        ({"key_rate": "5/s"}, r"key_rate='5/s' is refused: it must be a Rate"),
        ({"name": "no queue"}, r"queue='no queue' is refused"),
    ],
)
def test_a_setting_out_of_range_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        QueueConfig(**{"name": "mail", **settings})


def test_an_app_declares_a_queue_once() -> None:
    twice: Any = [QueueConfig("mail"), QueueConfig("mail", concurrency=2)]
    names: Any = ["mail"]
    for queues, message in ((twice, "the queue mail is declared twice"), (names, "'mail' is not a queue's")):
        with pytest.raises(DefinitionError, match=message):
            Pgflow("postgresql://", queues=queues)


def test_a_weight_above_the_declared_concurrency_is_refused() -> None:
    @step(queue="mail")
    def act(ctx: Context[Any]) -> Ok:
        return Ok("done")

    class Catalogue(Workflow[dict[str, Any]], unique=Unique("id"), weight=3):
        initial = act
        transitions = {act: {"done": Done}}

    queues = [QueueConfig("mail", concurrency=2)]
    message = "its weight must be between 1 and 2, the concurrency of the queue mail, got 3"
    with pytest.raises(DefinitionError, match=f"print_catalogue: {message}"):
        Pgflow("postgresql://", tasks=[print_catalogue], queues=queues)
    with pytest.raises(DefinitionError, match=f"Catalogue: {message}"):
        Pgflow("postgresql://", workflows=[Catalogue], queues=queues)
    with Pgflow("postgresql://", queues=queues) as app, pytest.raises(DefinitionError, match=message):
        app.adopt(print_catalogue)


def test_a_concurrency_below_the_weight_of_a_task_is_refused(app: Pgflow, dsn: str, conn: Connection) -> None:
    with Pgflow(dsn, tasks=[print_catalogue]) as own:
        own.register()
        message = "queue mail: concurrency must be at least 3, the weight of the task print_catalogue, got 2"
        with pytest.raises(InvalidValue, match=message):
            own.limits.set("mail", concurrency=2)
        own.limits.set("mail", concurrency=3)
        own.limits.set("mail", key="acme", concurrency=1)
    conn.execute("delete from pgflow.tasks")
