"""Run all due work of an app in this process, as its workers would, and count the outcomes."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from pgflow.app import Pgflow
from pgflow.client.app import App
from pgflow.config import parse_queue
from pgflow.core.models.filters import MAX_PAGE_SIZE
from pgflow.errors import ConfigError
from pgflow.testing import crashes
from pgflow.testing.recorder import Drained, Recorder
from pgflow.worker import Worker
from pgflow.worker.loop import run

__all__ = ["adrain", "drain", "run_due", "run_due_async"]

TIMEOUT = 60.0  # seconds


def drain(
    app: App,
    queues: str | Iterable[str] | None = None,
    *,
    concurrency: int = 1,
    raises: bool = False,
    timeout: float = TIMEOUT,
) -> Drained:
    """Run all due work in this process, in order, and the work that results; returns how the attempts ended.

    Work that is due later (a delay, a retry, a timer, a schedule) stays: move the `Clock` and drain again. Work that
    other workers run is not waited for. `queues` is a queue or several, by default all; of each, `concurrency` jobs run
    at once. With `raises` the first exception of a step is raised at the end. Raises `TimeoutError` after `timeout`
    seconds; steps that run then are given back. In a coroutine use `adrain`, which runs async steps in its event loop.

        app = Pgflow(dsn, workflows=[OrderFlow])
        OrderFlow.start("abc123", Order(item_count=3))
        assert drain(app) == Drained(completed=3)
    """
    recorder = Recorder()
    run_due(_checked(app), recorder, queues, concurrency=concurrency, timeout=timeout)
    if raises:
        recorder.raise_first()
    return recorder.counts


async def adrain(
    app: App,
    queues: str | Iterable[str] | None = None,
    *,
    concurrency: int = 1,
    raises: bool = False,
    timeout: float = TIMEOUT,  # noqa: ASYNC109 -- as its sync twin
) -> Drained:
    """`drain`, async: the steps run in the caller's event loop."""
    recorder = Recorder()
    await run_due_async(_checked(app), recorder, queues, concurrency=concurrency, timeout=timeout)
    if raises:
        recorder.raise_first()
    return recorder.counts


def run_due(
    app: Pgflow,
    recorder: Recorder,
    queues: str | Iterable[str] | None = None,
    *,
    concurrency: int = 1,
    timeout: float = TIMEOUT,
) -> None:
    """Run all due work, and record it."""
    app.register()
    _in_own_loop(lambda: _run(app, recorder, queues, concurrency, timeout))


async def run_due_async(
    app: Pgflow,
    recorder: Recorder,
    queues: str | Iterable[str] | None = None,
    *,
    concurrency: int = 1,
    timeout: float = TIMEOUT,  # noqa: ASYNC109 -- as its sync twin
) -> None:
    """`run_due`, async."""
    await app.aregister()
    await _run(app, recorder, queues, concurrency, timeout)


async def _run(
    app: Pgflow, recorder: Recorder, queues: str | Iterable[str] | None, concurrency: int, seconds: float
) -> None:
    given = None if queues is None else [queues] if isinstance(queues, str) else list(queues)
    crash_plan = crashes.plan_of(app)
    try:
        async with asyncio.timeout(seconds):
            with recorder.recording(), recorder.in_context():
                drained: set[str] = set()
                while wanted := (set(given) if given is not None else await _queues(app)) - drained:
                    drained |= wanted  # a step may have used a further queue
                    limits = dict(parse_queue(f"{name}={concurrency}") for name in sorted(wanted))
                    if crash_plan is None:
                        await _worker(app, recorder, limits).run()
                    else:
                        await crash_plan.deliver(sorted(wanted), lambda queue: _worker(app, recorder, {queue: 1}))
    except TimeoutError:
        raise TimeoutError(await _still_active(app, seconds)) from None


def _worker(app: Pgflow, recorder: Recorder, queues: dict[str, int]) -> Worker:
    middleware = (*app.middleware, recorder.middleware)
    return app.worker(queues, drain="due", listen=False, middleware=middleware)


async def _queues(app: Pgflow) -> set[str]:
    """Return the queues of the app's definitions, and those that live jobs are in."""
    declared = {queue for workflow in app.versions for queue in workflow.graph.queues()}
    used = {job.queue for job in await app.ajobs(limit=MAX_PAGE_SIZE)}
    if app.tasks:
        declared |= {task.definition.queue for task in app.tasks}
        used |= {job.queue for job in await app.alist_tasks(status=("pending", "waiting"), limit=MAX_PAGE_SIZE)}
    return declared | used


async def _still_active(app: Pgflow, seconds: float) -> str:
    jobs = [job for job in await app.ajobs(limit=10) if job.state in ("ready", "running")]
    names = ", ".join(f"{job.workflow} {job.instance_id} {job.step} ({job.state})" for job in jobs)
    return f"after {seconds:g} s not everything is drained: {names or 'a step was given up'}"


def _in_own_loop(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine to its end: in this thread, or in another one if this runs an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        run(main())
        return
    failed: list[BaseException] = []

    def work() -> None:
        try:
            run(main())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=contextvars.copy_context().run, args=(work,), name="pgflow-drain")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


def _checked(app: App) -> Pgflow:
    if not isinstance(app, Pgflow):
        raise ConfigError(
            f"{app!r} runs its work by itself, so there is nothing to drain",
            hint="Wait for it: app.settle(), or app.advance_time(…) for timers.",
        )
    return app
