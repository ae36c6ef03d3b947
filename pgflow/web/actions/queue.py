"""What a person can do with a queue."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any

from pydantic import Field

from pgflow.store import queue
from pgflow.web.data import Session
from pgflow.web.rendering.forms import Field as FormField
from pgflow.web.routing.action import Act, Action, Done, Form, Input
from pgflow.web.routing.page import Params, View

__all__ = ["ACTIONS", "OfQueue"]

MOST_DRAIN_SECONDS = 25.0  # shorter than the timeouts of proxies
POLL_SECONDS = 0.2


class OfQueue(Params):
    """A queue, on all hosts or on one."""

    queue: str = Field(max_length=200, description="The name of the queue")
    node: str | None = Field(None, max_length=253, description="Only for workers on this host")


class Drain(Input):
    """How long to wait for what runs."""

    seconds: float = Field(10, ge=0, le=MOST_DRAIN_SECONDS, description="How long to wait for the jobs that run")


class Scale(Input):
    """How many jobs of the queue each worker runs at once."""

    per_worker: int | None = Field(
        None, ge=1, le=10_000, description="Left empty: as many as each worker was started with"
    )


def _named(params: OfQueue) -> str:
    return params.queue if params.node is None else f"{params.queue} on {params.node}"


async def _running(view: View[OfQueue]) -> str:
    many = await view.read(queue.running(view.schema, view.params.queue, node=view.params.node))
    if not many:
        return "No job of it runs now."
    return f"{many:,} running {'job finishes' if many == 1 else 'jobs finish'}."


async def ask_pause(view: View[OfQueue]) -> Form:
    """Ask before pausing."""
    text = f"{await _running(view)} No other job of this queue starts until it is resumed. Jobs can still be enqueued."
    return Form(f"Pause {_named(view.params)}?", "Pause queue", [text], [], icon="pause")


async def pause(act: Act[OfQueue, Input]) -> Done:
    """Pause."""
    async with act.transaction() as conn:
        await act.app.queues.apause(act.params.queue, node=act.params.node, by=act.user or None, conn=conn)
    return Done(message=f"{_named(act.params)} is paused.")


async def ask_resume(view: View[OfQueue]) -> Form:
    """Ask before resuming."""
    return Form(f"Resume {_named(view.params)}?", "Resume queue", ["Workers claim its jobs again."], [], icon="play")


async def resume(act: Act[OfQueue, Input]) -> Done:
    """Resume."""
    async with act.transaction() as conn:
        was_paused = await act.app.queues.aresume(act.params.queue, node=act.params.node, conn=conn)
    done = "is resumed" if was_paused else "was not paused"
    return Done(message=f"{_named(act.params)} {done}.", details={"was_paused": was_paused})


async def ask_drain(view: View[OfQueue]) -> Form:
    """Ask before draining."""
    return Form(
        f"Drain {_named(view.params)}?",
        "Drain queue",
        [f"The queue is paused, and stays so. {await _running(view)} What is queued is kept."],
        [FormField("seconds", "Wait for", "number", about=f"seconds, up to {MOST_DRAIN_SECONDS:g}", value="10")],
        icon="drain",
    )


async def drain(act: Act[OfQueue, Drain]) -> Done:
    """Pause, and wait until none of the queue's jobs runs."""
    async with act.transaction() as conn:
        await act.app.queues.apause(act.params.queue, node=act.params.node, by=act.user or None, conn=conn)
    until = monotonic() + act.input.seconds
    while (many := await _still_running(act)) and monotonic() < until:  # noqa: ASYNC110 -- in another process
        await asyncio.sleep(POLL_SECONDS)
    if many:
        noun = "job still runs" if many == 1 else "jobs still run"
        message = f"{_named(act.params)} is paused, and {many:,} {noun}."
        return Done(message=message, outcome="partial", details={"running": many})
    return Done(message=f"{_named(act.params)} is paused, and none of its jobs runs.", details={"running": 0})


async def _still_running(act: Act[OfQueue, Drain]) -> int:
    """Count what runs, in a transaction of its own: that of the request sees the past."""
    async with Session(act.view.context.database) as session:
        return await session.read(queue.running(act.schema, act.params.queue, node=act.params.node))


async def ask_scale(view: View[OfQueue]) -> Form:
    """Ask how many jobs each worker runs."""
    found = await view.read(queue.list(view.schema, view.params.queue))
    now = found[0].worker_concurrency if found else None
    field = FormField(
        *("per_worker", "Jobs at once, each worker", "integer"),
        about="1 to 10,000",
        hint="Left empty: as many as each worker was started with. A limit over all workers is set under Limits.",
        value="" if now is None else str(now),
        minimum="1",
        maximum="10000",
        step="1",
    )
    return Form(f"Scale {_named(view.params)}", "Scale queue", fields=[field], icon="sliders")


async def scale(act: Act[OfQueue, Scale]) -> Done:
    """Set how many jobs each worker runs."""
    many = act.input.per_worker
    async with act.transaction() as conn:
        await act.app.queues.ascale(act.params.queue, many, node=act.params.node, conn=conn)
    jobs = "as many jobs as it was started with" if many is None else f"at most {many:,} at once"
    return Done(message=f"{_named(act.params)}: each worker runs {jobs}.")


ACTIONS: tuple[Action[Any, Any], ...] = (
    Action(
        *("queue.pause", "/queues/{queue}/pause", "queues", "Pause a queue"),
        *(pause, ask_pause, OfQueue),
    ),
    Action(
        *("queue.resume", "/queues/{queue}/resume", "queues", "Resume a queue"),
        *(resume, ask_resume, OfQueue),
    ),
    Action(
        *("queue.drain", "/queues/{queue}/drain", "queues", "Pause a queue and wait for what runs"),
        *(drain, ask_drain, OfQueue, Drain),
    ),
    Action(
        *("queue.scale", "/queues/{queue}/scale", "queues", "Set how many jobs of a queue each worker runs"),
        *(scale, ask_scale, OfQueue, Scale),
    ),
)
