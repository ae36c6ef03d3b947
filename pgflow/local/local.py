"""An app without a database: `Local`, which stands behind `Workflow.start` and its kin as `Pgflow` does."""

from __future__ import annotations

import asyncio
import builtins
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import closing
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self, TypeAlias, TypeVar, Unpack

from pgflow.core import app_registry
from pgflow.core.definition.registry import Registry
from pgflow.core.definition.step import Target
from pgflow.core.definition.workflow import Workflow
from pgflow.core.models.filters import Filters, ListOptions
from pgflow.core.models.instance import Instance, Scheduled, Started
from pgflow.core.models.job import Job, JobFilters, JobOptions
from pgflow.core.signal_request import about, sole
from pgflow.core.values.absent import ABSENT
from pgflow.core.values.codec import Codec, checked_codec
from pgflow.errors import ConfigError
from pgflow.local import report
from pgflow.local.requests import Ledger
from pgflow.local.storage import Storage, read
from pgflow.local.watch import Look

__all__ = ["Local"]

I = TypeVar("I")  # noqa: E741 -- the input, as in Workflow[I]
Named: TypeAlias = type[Workflow[I]] | str


class Local:
    """An application's workflows, run in memory by this process: what `Pgflow` and a worker are, without a database.

    It begins to work at once, on threads of its own, and first takes up what is under way in `storage`; `threads` says
    how many sync steps run at once. A workflow belongs to the app that was made last with it. A transactional step has
    no connection here, so a workflow that has one is refused at its start, unless `allow_transactional` lets such steps
    run with `ctx.conn` None. With a `codec` workflows may have secrets, as on PostgreSQL; what is kept in memory is in
    plain, but has gone through the codec. Raises `DefinitionError` for what is no workflow, `Conflict` for a storage in
    use, `GraphChanged` when an instance under way does not fit its workflow.

        with Local(workflows=[OrderFlow]) as app:
            OrderFlow.start("abc123", Order(item_count=3))
            app.drain(timeout=10)
            assert OrderFlow.get("abc123").status == "completed"
    """

    def __init__(
        self,
        workflows: Iterable[type[Workflow[Any]]] = (),
        storage: Storage | None = None,
        *,
        threads: int = 32,
        allow_transactional: bool = False,
        codec: Codec | None = None,
    ) -> None:
        self.codec = checked_codec(codec)
        self._registry = Registry(workflows, has_codec=codec is not None)
        self.storage = Storage() if storage is None else storage
        self._ledger = Ledger(
            self.workflows, self.storage, threads, allow_transactional=allow_transactional, codec=self.codec
        )
        self._conductor = self._ledger.conductor
        for workflow in self.workflows:
            workflow.bind(self)
        report.ready(self.storage.name)
        self._ledger.go_on()
        app_registry.opened(self)

    @property
    def workflows(self) -> tuple[type[Workflow[Any]], ...]:
        """The workflows that it was given."""
        return self._registry.workflows

    def adopt(self, workflow: type[Workflow[Any]]) -> None:
        """Take another workflow in, as if it had been listed; what is under way of it in the storage goes on.

        Raises `DefinitionError` when another one has its name.
        """
        self._registry.add(workflow)
        workflow.bind(self)
        self._ledger.adopt(workflow)

    def __repr__(self) -> str:
        return f"Local(workflows=[{', '.join(each.name for each in self.workflows)}], storage={self.storage!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def close(self) -> None:
        """End its threads, once the sync steps that run have ended; async ones are interrupted.

        What is under way stays in the storage, for another `Local` to go on with. What has ended can still be read.
        """
        app_registry.closed(self)
        for workflow in self.workflows:
            workflow.unbind(self)
        if self._conductor.lock.is_ours:  # a forked child has none of its threads
            self._conductor.close()
        self.storage.detach(self._ledger)

    async def aclose(self) -> None:
        """`close`, async."""
        closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        loop = asyncio.get_running_loop()

        def close() -> None:
            self.close()
            loop.call_soon_threadsafe(closed.set_result, None)

        thread = threading.Thread(target=close, name="pgflow-local-close")
        thread.start()
        await asyncio.shield(closed)
        thread.join()

    # -- time

    @property
    def now(self) -> datetime:
        """The time that timers go by: the real one, and what `advance_time` has added."""
        return self._conductor.clock.now()

    def drain(self, timeout: float | None = None) -> None:
        """Wait until nothing is left that will go on by itself, a timer included, as `pgflow worker --drain` does.

        What waits for a signal alone stays. Raises `TimeoutError` after `timeout` seconds.
        """
        self._wait(self._conductor.is_drained, timeout)

    async def adrain(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 -- as its sync twin
        """`drain`, async."""
        await self._await(self._conductor.is_drained, timeout)

    def settle(self, timeout: float | None = None) -> None:
        """Wait until no step runs or is about to: whatever is left waits for time to pass or for a signal.

        Raises `TimeoutError` after `timeout` seconds.
        """
        self._wait(self._conductor.is_quiet, timeout)

    async def asettle(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 -- as its sync twin
        """`settle`, async."""
        await self._await(self._conductor.is_quiet, timeout)

    def advance_time(self, by: timedelta, timeout: float | None = 60.0) -> None:
        """Let time pass at once: waits, retries, snoozes and delayed starts that come due go on, each in its turn.

        Returns when all that follows has settled. Raises `TimeoutError` when steps run for longer than `timeout`
        seconds at a stretch.

            app.advance_time(timedelta(days=1))
        """
        self._ledger.check_open()
        with closing(self._conductor.advancing(by)) as looks:
            for look in looks:
                self._wait(look, timeout)

    async def aadvance_time(self, by: timedelta, timeout: float | None = 60.0) -> None:  # noqa: ASYNC109 -- as its sync twin
        """`advance_time`, async."""
        self._ledger.check_open()
        with closing(self._conductor.advancing(by)) as looks:
            for look in looks:
                await self._await(look, timeout)

    # -- what stands behind Workflow.start and its kin; none of it blocks, so that the async twins only call the others

    def start(
        self,
        workflow: Named[I],
        value: str,
        input: Any = ABSENT,  # noqa: A002 -- the word for it in all of the API
        *,
        conn: Any = None,
        **options: Any,
    ) -> Started:
        """Start one instance: see `Workflow.start`."""
        return sole(self._registry.known(workflow), self.start_many(workflow, [(value, input)], conn=conn, **options))

    async def astart(
        self,
        workflow: Named[I],
        value: str,
        input: Any = ABSENT,  # noqa: A002 -- the word for it in all of the API
        *,
        conn: Any = None,
        **options: Any,
    ) -> Started:
        """`start`, async."""
        return self.start(workflow, value, input, conn=conn, **options)

    def start_many(
        self, workflow: Named[I], items: Iterable[tuple[str, Any] | tuple[str]], *, conn: Any = None, **options: Any
    ) -> builtins.list[Started]:
        """Start many instances: see `Workflow.start_many`. `priority` is accepted and means nothing here."""
        _refuse(conn)
        return self._ledger.start_many(self._registry.known(workflow), items, options)

    async def astart_many(
        self, workflow: Named[I], items: Iterable[tuple[str, Any] | tuple[str]], *, conn: Any = None, **options: Any
    ) -> builtins.list[Started]:
        """`start_many`, async."""
        return self.start_many(workflow, items, conn=conn, **options)

    def resume(
        self,
        workflow: Named[I],
        value: str,
        event: str,
        payload: Any = ABSENT,
        *,
        step: str | Target | None = None,
        conn: Any = None,
        idempotency_key: str | None = None,
    ) -> str:
        """Send a signal: see `Workflow.resume`."""
        _refuse(conn)
        kind = self._registry.known(workflow)
        said = about("resume", kind, value, str(event), str(step or ""))
        return self._ledger.once(idempotency_key, said, lambda: self._ledger.resume(kind, value, event, payload, step))

    async def aresume(
        self,
        workflow: Named[I],
        value: str,
        event: str,
        payload: Any = ABSENT,
        *,
        step: str | Target | None = None,
        conn: Any = None,
        idempotency_key: str | None = None,
    ) -> str:
        """`resume`, async."""
        return self.resume(workflow, value, event, payload, step=step, conn=conn, idempotency_key=idempotency_key)

    def schedule_resume(
        self,
        workflow: Named[I],
        value: str,
        step: str | Target,
        delay: timedelta,
        event: str | None = None,
        payload: Any = ABSENT,
        *,
        conn: Any = None,
        idempotency_key: str | None = None,
    ) -> Scheduled:
        """Send a signal later: see `Workflow.schedule_resume`."""
        _refuse(conn)
        kind = self._registry.known(workflow)
        said = about("schedule_resume", kind, value, str(step), str(event))
        return self._ledger.once(
            idempotency_key, said, lambda: self._ledger.schedule(kind, value, step, delay, event, payload, self)
        )

    async def aschedule_resume(
        self,
        workflow: Named[I],
        value: str,
        step: str | Target,
        delay: timedelta,
        event: str | None = None,
        payload: Any = ABSENT,
        *,
        conn: Any = None,
        idempotency_key: str | None = None,
    ) -> Scheduled:
        """`schedule_resume`, async."""
        return self.schedule_resume(
            workflow, value, step, delay, event, payload, conn=conn, idempotency_key=idempotency_key
        )

    def unschedule(
        self,
        id: int,  # noqa: A002 -- "id" is the word for it in all of the API
        *,
        conn: Any = None,
        idempotency_key: str | None = None,
    ) -> bool:
        """Call off a signal that `schedule_resume` is to send; returns whether it was still to be sent."""
        _refuse(conn)
        return self._ledger.once(idempotency_key, f"unschedule {id}", lambda: self._ledger.unschedule(id))

    async def aunschedule(
        self,
        id: int,  # noqa: A002 -- as its twin
        *,
        conn: Any = None,
        idempotency_key: str | None = None,
    ) -> bool:
        """`unschedule`, async."""
        return self.unschedule(id, conn=conn, idempotency_key=idempotency_key)

    def cancel(
        self,
        workflow: Named[I],
        value: str,
        *,
        reason: str | None = None,
        conn: Any = None,
        idempotency_key: str | None = None,
    ) -> None:
        """Cancel an instance: see `Workflow.cancel`. An async step that runs is interrupted."""
        _refuse(conn)
        kind = self._registry.known(workflow)
        said = about("cancel", kind, value)
        self._ledger.once(idempotency_key, said, lambda: self._ledger.cancel(kind, value, reason))

    async def acancel(
        self,
        workflow: Named[I],
        value: str,
        *,
        reason: str | None = None,
        conn: Any = None,
        idempotency_key: str | None = None,
    ) -> None:
        """`cancel`, async."""
        self.cancel(workflow, value, reason=reason, conn=conn, idempotency_key=idempotency_key)

    def retry(self, workflow: Named[I], value: str, *, conn: Any = None, idempotency_key: str | None = None) -> None:
        """Take a failed instance up again: see `Workflow.retry`."""
        _refuse(conn)
        kind = self._registry.known(workflow)
        self._ledger.once(idempotency_key, about("retry", kind, value), lambda: self._ledger.retry(kind, value))

    async def aretry(
        self, workflow: Named[I], value: str, *, conn: Any = None, idempotency_key: str | None = None
    ) -> None:
        """`retry`, async."""
        self.retry(workflow, value, conn=conn, idempotency_key=idempotency_key)

    def get(self, workflow: Named[I], value: str, *, conn: Any = None) -> Instance:
        """Read an instance: see `Workflow.get`."""
        _refuse(conn)
        return read(self._ledger.newest(self._registry.known(workflow), value))

    async def aget(self, workflow: Named[I], value: str, *, conn: Any = None) -> Instance:
        """`get`, async."""
        return self.get(workflow, value, conn=conn)

    def list(
        self, workflow: Named[I] | None = None, *, conn: Any = None, **options: Unpack[ListOptions]
    ) -> builtins.list[Instance]:
        """Read a page of a workflow's instances, or without one of all: see `Workflow.list`."""
        _refuse(conn)
        known = None if workflow is None else self._registry.known(workflow)
        return [read(each, is_whole=False) for each in self.storage.find(Filters.of(options, known))]

    async def alist(
        self, workflow: Named[I] | None = None, *, conn: Any = None, **options: Unpack[ListOptions]
    ) -> builtins.list[Instance]:
        """`list`, async."""
        return self.list(workflow, conn=conn, **options)

    def runs(
        self, workflow: Named[I], value: str, *, before: int | None = None, limit: int = 50, conn: Any = None
    ) -> builtins.list[Instance]:
        """Read a page of the runs of a value: see `Workflow.runs`."""
        _refuse(conn)
        found = self._ledger.runs(self._registry.known(workflow), value, before=before, limit=limit)
        return [read(each, is_whole=False) for each in found]

    async def aruns(
        self, workflow: Named[I], value: str, *, before: int | None = None, limit: int = 50, conn: Any = None
    ) -> builtins.list[Instance]:
        """`runs`, async."""
        return self.runs(workflow, value, before=before, limit=limit, conn=conn)

    # -- live jobs

    def jobs(
        self, workflow: Named[I] | None = None, *, conn: Any = None, **options: Unpack[JobOptions]
    ) -> builtins.list[Job]:
        """Read a page of live jobs: see `Pgflow.jobs`. There is no worker, and `run_at` is None for what is ready."""
        _refuse(conn)
        known = None if workflow is None else self._registry.known(workflow)
        return self._ledger.jobs(known, JobFilters.of(options))

    async def ajobs(
        self, workflow: Named[I] | None = None, *, conn: Any = None, **options: Unpack[JobOptions]
    ) -> builtins.list[Job]:
        """`jobs`, async."""
        return self.jobs(workflow, conn=conn, **options)

    # -- waiting

    def _future(self, look: Look) -> Future[None]:
        if not self._conductor.may_block():
            raise ConfigError("a step cannot wait for what it belongs to", hint="Wait where the Local was made.")
        return self._conductor.until(look)

    def _wait(self, look: Look, timeout: float | None) -> None:
        future = self._future(look)
        try:
            future.result(timeout)
        except TimeoutError:
            future.cancel()
            raise TimeoutError(self._under_way(timeout)) from None

    async def _await(self, look: Look, timeout: float | None) -> None:  # noqa: ASYNC109 -- as its sync twin
        try:
            async with asyncio.timeout(timeout):
                await asyncio.wrap_future(self._future(look))
        except TimeoutError:
            raise TimeoutError(self._under_way(timeout)) from None

    def _under_way(self, timeout: float | None) -> str:
        with self._conductor.lock:
            runs = builtins.list(self._conductor.runs.values())
            steps = [f"{run.id} {token.step} ({token.place})" for run in runs for token in run.tokens.values()]
            steps += [] if self._conductor.lock.is_at_rest else ["a handler of telemetry"]
        return f"after {timeout:g} s still under way: {', '.join(steps[:10])}{', …' if len(steps) > 10 else ''}"


def _refuse(conn: Any) -> None:
    if conn is not None:
        raise ConfigError(
            "Local takes no conn: it has no database, and so no transaction to join", hint="Leave conn= away."
        )
