"""Each action of an operator writes one audit row, by whichever way; what an application starts writes none."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from pgflow import Context, Done, Ok, Pgflow, Rate, Retry, Unique, Workflow, step, task
from pgflow.database.connect import connect
from tests.conftest import Server


@task
def send(number: int = 0) -> None:
    """Never run."""


@step(retry=Retry(on_exhausted="pause"))
def pay(ctx: Context[Any]) -> Ok:
    return Ok("done")


class Order(Workflow[Any], unique=Unique("order")):
    initial = pay
    transitions = {pay: {"done": Done}}


@pytest.fixture(scope="module")
def app(server: Server, migrated_database: Callable[[Server], str]) -> Any:
    app = Pgflow(migrated_database(server), workflows=[Order], tasks=[send])
    app.register()
    yield app
    app.close()


def queue(verb: str, *given: Any, **options: Any) -> Callable[[Pgflow], Any]:
    """Return a call of `app.queues`."""
    return lambda app: getattr(app.queues, verb)("default", *given, **options)


def job(verb: str, **given: Any) -> Callable[[Pgflow], Any]:
    """Return a call on a job that waits."""
    return lambda app: getattr(app.enqueue(send, (), delay=timedelta(hours=1)), verb)(**given)


def sql(call: str) -> Callable[[Pgflow], Any]:
    """Return a call in SQL."""

    def run(app: Pgflow) -> None:
        with connect(app.dsn, "test") as conn:
            conn.execute(call.encode())

    return run


PARK = """update pgflow.jobs set state = 'parked', run_at = null, attempt = 5, errors = '[{"reason": "no"}]'
    where kind = 'execute'"""


def paused(verb: str) -> Callable[[Pgflow], Any]:
    """Return a call on a step that waits for an operator."""

    def run(app: Pgflow) -> None:
        app.start(Order, verb, {})
        sql(PARK)(app)
        sql(f"select pgflow.{verb}_step('Order', '{verb}', 'pay')")(app)

    return run


ACTS: list[tuple[Callable[[Pgflow], Any], list[str] | None]] = [  # in this order
    (queue("pause", by="ada"), ["pause queue"]),
    (queue("resume"), ["resume queue"]),
    (queue("scale", 3), ["scale queue"]),
    (queue("drain", by="ada"), ["pause queue", "drain queue"]),
    (sql("select pgflow.resume_queue('default'), pgflow.drain_queue('default')"), None),
    (lambda app: app.limits.set("default", rate=Rate(5)), ["set limit"]),
    (lambda app: app.limits.clear("default"), ["clear limit"]),
    (sql("select pgflow.add_schedule('nightly', 'send', '@daily')"), ["add schedule"]),
    (sql("select pgflow.run_schedule('nightly')"), ["run schedule"]),
    (sql("select pgflow.pause_schedule('nightly', 'ada')"), ["pause schedule"]),
    (sql("select pgflow.resume_schedule('nightly')"), ["resume schedule"]),
    (sql("select pgflow.remove_schedule('nightly')"), ["remove schedule"]),
    (job("cancel", reason="no"), ["cancel"]),
    (job("run_now"), ["run now"]),
    (sql("select pgflow.update_task(pgflow.enqueue('send'), 'slow')"), ["move"]),
    (sql("select pgflow.delete_task(pgflow.enqueue('send'))"), ["delete"]),
    (paused("retry"), ["retry step"]),
    (paused("complete"), ["complete step"]),
    (paused("fail"), ["fail step"]),
    (lambda app: app.cancel(Order, "retry"), ["cancel"]),
    (lambda app: app.retry(Order, "fail"), ["retry"]),
    (lambda app: app.storage.delete("order::fail"), ["delete"]),
    (lambda app: app.prune(timedelta(0)), ["prune"]),
    (lambda app: app.prune(timedelta(0)), []),  # nothing was left
    (lambda app: [app.start(Order, "new", {}), app.enqueue(send)], []),
    (sql("select pgflow.prune('0 s', '0 s', '0 s', overrides => true)"), []),  # as workers do
]


def test_each_action_is_recorded_once(app: Pgflow) -> None:
    for act, expected in ACTS:
        with connect(app.dsn, "test") as conn:
            (before,) = conn.execute("select coalesce(max(id), 0) from pgflow.audit").fetchone() or (0,)
            act(app)
            rows = conn.execute(
                "select action, who, details from pgflow.audit where id > %s order by id", [before]
            ).fetchall()
        wanted = ["resume queue", "pause queue", "drain queue"] if expected is None else expected
        assert [action for action, _, _ in rows] == wanted
        for action, who, details in rows:
            assert who.startswith("postgres")
            assert details, action
