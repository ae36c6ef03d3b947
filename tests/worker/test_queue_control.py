"""Queues at run time: a running worker follows a pause, a resume, a new concurrency and a drain, without a restart."""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from math import inf

import psycopg
import pytest

from pgflow import Context, Done, Ok, Pgflow, Unique, Workflow, step
from pgflow.database.connect import Connection
from pgflow.errors import BadQueue, InvalidValue, QueueBusy, UnknownQueue
from tests.worker.conftest import Work
from tests.worker.db_helpers import leftovers, one, until_all_ended, until_status
from tests.worker.gated_steps import Gate, Input, first
from tests.worker.waiting import PATIENCE, until

HERE = socket.gethostname()
NEVER = timedelta(hours=1)


@step(queue="mail")
async def send(ctx: Context[Input]) -> Ok:
    running.add(ctx.value)
    most.append(len(running))
    while not Gate.go.is_set():  # noqa: ASYNC110 -- an event of threads
        await asyncio.sleep(0.01)
    running.discard(ctx.value)
    return Ok("done")


running: set[str] = set()
most: list[int] = []


class Mail(Workflow[Input], unique=Unique("mail")):
    initial = send
    transitions = {send: {"done": Done}}


class MailThenMail(Workflow[Input], unique=Unique("twice")):
    initial = first
    transitions = {first: {"done": send}, send: {"done": Done}}


class Other(Workflow[Input], unique=Unique("other")):
    initial = first
    transitions = {first: {"done": Done}}


WORKFLOWS = (Mail, MailThenMail, Other)


@pytest.fixture(autouse=True)
def gate() -> None:
    Gate.close()
    running.clear()
    most.clear()


def test_a_paused_queue_runs_nothing_and_others_go_on(app: Pgflow, conn: Connection, work: Work) -> None:
    Gate.go.set()
    work({"mail": 5, "default": 5}, poll=NEVER)
    app.queues.pause("mail", by="a deploy")
    Mail.start("m", {})
    Other.start("o", {})
    MailThenMail.start("t", {})
    until_status(Other, "o")
    until(lambda: one(conn, "select count(*) from pgflow.jobs where queue = 'mail' and state = 'ready'") == 2)
    (mail,) = [each for each in app.queues.list() if each.name == "mail"]
    assert (mail.paused_by, mail.paused_at is not None, mail.ready, mail.running, mail.workers) == (
        *("a deploy", True, 2, 0, 1),
    )
    app.queues.pause("mail", by="another deploy")  # it keeps its first pause
    assert [each.paused_by for each in app.queues.list() if each.name == "mail"] == ["a deploy"]
    assert app.queues.resume("mail") is True
    until_status(Mail, "m")
    until_status(MailThenMail, "t")
    assert app.queues.resume("mail") is False
    assert leftovers(conn) == {}


def test_a_pause_on_one_node_concerns_its_workers_only(app: Pgflow, conn: Connection, work: Work) -> None:
    Gate.go.set()
    app.queues.pause("mail", node="elsewhere")
    app.queues.pause("mail", node=HERE)
    work({"mail": 5, "default": 5})  # it starts with the pause: nothing runs before it knows
    Mail.start("m", {})
    Other.start("o", {})
    until_status(Other, "o")
    assert Mail.get("m").status == "running"
    assert one(conn, "select state from pgflow.jobs") == "ready"
    app.queues.resume("mail", node=HERE)
    until_status(Mail, "m")
    assert [(node.node, node.concurrency) for each in app.queues.list() for node in each.nodes] == [("elsewhere", None)]


def test_jobs_that_a_worker_holds_and_has_not_started_go_back(app: Pgflow, conn: Connection, work: Work) -> None:
    inside = work({"mail": 1, "default": 1}, poll=NEVER)
    buffer = inside.worker.held_jobs.buffers["mail"]

    def prefetch_five() -> None:
        buffer._prefetch, buffer._span_began = 5, inf

    inside.call(prefetch_five)
    for number in range(4):
        Mail.start(str(number), {})
    until(lambda: buffer.waiting == 3, "the prefetch")
    app.queues.pause("mail")
    until(lambda: one(conn, "select count(*) from pgflow.jobs where state = 'ready'") == 3, "the release")
    assert one(conn, "select count(*) from pgflow.jobs where attempt > 0") == 1
    Gate.go.set()
    until(lambda: one(conn, "select count(*) from pgflow.jobs") == 3, "the end of what ran")
    app.queues.resume("mail")
    assert until_all_ended(conn) == {"completed": 4}


def test_a_new_concurrency_takes_effect_while_steps_run(app: Pgflow, conn: Connection, work: Work) -> None:
    work({"mail": 2, "default": 1}, poll=NEVER)
    for number in range(12):
        Mail.start(str(number), {})
    until(lambda: len(running) == 2, "two at once")
    app.queues.scale("mail", 6)
    until(lambda: len(running) == 6, "six at once")
    app.queues.scale("mail", 1, node=HERE)  # what differs by node wins
    until(lambda: [node.concurrency for each in app.queues.list() for node in each.nodes] == [1])
    app.queues.scale("mail", None, node=HERE)
    app.queues.scale("mail", None)
    assert max(most) == 6
    Gate.go.set()
    assert until_all_ended(conn) == {"completed": 12}


def test_a_drain_waits_until_nothing_runs(app: Pgflow, conn: Connection, work: Work) -> None:
    work({"mail": 2, "default": 1})
    for number in range(5):
        Mail.start(str(number), {})
    until(lambda: len(running) == 2, "two at once")
    with pytest.raises(QueueBusy, match="queue mail: 2 jobs still run after"):
        app.queues.drain("mail", timeout=timedelta(seconds=0.05))
    app.queues.drain("mail", node="elsewhere", timeout=timedelta(0))  # nothing runs there
    with ThreadPoolExecutor(1) as thread:
        draining = thread.submit(asyncio.run, app.queues.adrain("mail", timeout=timedelta(seconds=PATIENCE)))
        Gate.go.set()
        draining.result(PATIENCE)
    assert one(conn, "select count(*) from pgflow.jobs where state = 'ready'") == 3
    app.queues.resume("mail")
    app.queues.resume("mail", node="elsewhere")
    assert until_all_ended(conn) == {"completed": 5}


def test_a_worker_without_notifications_follows_with_its_poll(app: Pgflow, conn: Connection, work: Work) -> None:
    work({"mail": 1, "default": 1}, listen=False, poll=timedelta(seconds=0.2))
    Mail.start("running", {})
    until(lambda: running == {"running"}, "the step")
    app.queues.scale("mail", 3)
    Mail.start("second", {})
    until(lambda: running == {"running", "second"}, "the scale")
    Gate.go.set()
    until_all_ended(conn)


def test_the_limits_of_a_queue_are_checked(app: Pgflow, conn: Connection) -> None:
    with pytest.raises(UnknownQueue, match="no queue is named 'mial'") as caught:
        app.queues.pause("mial")
    assert caught.value.hint == "Known: default, mail."
    with pytest.raises(UnknownQueue):
        app.queues.scale("mial", 5)
    for wrong in (0, -1, 10_001, 1.5, True):
        with pytest.raises(InvalidValue, match=f"worker_concurrency={wrong} is refused: it must be a whole number"):
            app.queues.scale("mail", wrong)  # type: ignore[arg-type]
        with pytest.raises(BadQueue, match=f"queue mail: concurrency must be between 1 and 10000, got {wrong}"):
            app.run_worker({"default": 1, "mail": wrong}, drain=True)  # type: ignore[dict-item]
    with pytest.raises(InvalidValue, match="queue='' is refused"):
        app.queues.resume("")
    with pytest.raises(psycopg.Error, match="queue mail: worker_concurrency must be between 1 and 10000, got 0"):
        conn.execute("select pgflow.scale_queue('mail', 0)")
    assert one(conn, "select count(*) from pgflow.queues") == 0
