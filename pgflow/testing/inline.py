"""Run what is started within the call that starts it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TypeVar

from pgflow.app import Pgflow
from pgflow.client import commands
from pgflow.client.app import App
from pgflow.client.backend import Backend
from pgflow.errors import ConfigError
from pgflow.local import Local
from pgflow.testing.draining import TIMEOUT, run_due, run_due_async
from pgflow.testing.recorder import Drained, Recorder, current

__all__ = ["run_inline"]

R = TypeVar("R")

READS = (
    commands.Get,
    commands.List,
    commands.Runs,
    commands.ListJobs,
    commands.Load,
    commands.Query,
    commands.Register,
    commands.GetTask,
    commands.ListTasks,
    commands.AwaitTask,
)


class run_inline:
    """Within the `with`, each call of an app that starts or continues something runs all due work before it returns.

    Steps run in this process. The first exception of a step is raised by the call, and also fails the attempt as ever.
    Work that is due later stays. Other sessions see a call with `conn` once its transaction has committed: it runs with
    the next call, or at the end of the block. Calls of steps run after the step. The value is a `Drained`, which
    grows. Works with a `Local`, too. `timeout` is in seconds, for each call.

        with run_inline(app) as ran:
            OrderFlow.start("abc123", Order(item_count=3))
            assert OrderFlow.get("abc123").status == "completed"
        assert ran.completed == 3
    """

    def __init__(self, app: App, *, timeout: float = TIMEOUT) -> None:
        if not isinstance(app, Pgflow | Local):
            raise ConfigError(f"run_inline needs an app, Pgflow(…) or Local(…), got {app!r}")
        self._app = app
        self._backend = _InlineBackend(app, timeout)

    def __enter__(self) -> Drained:
        self._before = self._app._backend
        self._app._backend = self._backend
        self._backend.is_active = True
        return self._backend.recorder.counts

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        if kind is None and self._backend.has_uncommitted:
            self._backend.run()

    async def __aenter__(self) -> Drained:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        if kind is None and self._backend.has_uncommitted:
            await self._backend.arun()

    def _end(self) -> None:
        self._app._backend = self._before
        self._backend.is_active = False


class _InlineBackend:
    """A backend that runs all due work after each command that may have made some."""

    def __init__(self, app: Pgflow | Local, timeout: float) -> None:
        self.recorder = Recorder(is_local=isinstance(app, Local))
        self.has_uncommitted = False
        self.is_active = False  # handles of jobs keep their backend
        self._app = app
        self._inner: Backend = app._backend
        self._timeout = timeout

    def execute(self, command: commands.Command[R], session: Any = None) -> R:
        """Execute a command, then run."""
        if isinstance(self._app, Local):
            with self._recording(self._app):
                answer = self._inner.execute(command, session)
                if self._must_run(command, session):
                    self._app.settle(self._timeout)
            self.recorder.raise_first()
            return answer
        answer = self._inner.execute(command, session)
        if self._must_run(command, session):
            self.run()
        return answer

    async def aexecute(self, command: commands.Command[R], session: Any = None) -> R:
        """`execute`, async."""
        if isinstance(self._app, Local):
            with self._recording(self._app):
                answer = await self._inner.aexecute(command, session)
                if self._must_run(command, session):
                    await self._app.asettle(self._timeout)
            self.recorder.raise_first()
            return answer
        answer = await self._inner.aexecute(command, session)
        if self._must_run(command, session):
            await self.arun()
        return answer

    def run(self) -> None:
        """Run all due work on PostgreSQL, and raise the first exception."""
        if isinstance(self._app, Pgflow):
            self.has_uncommitted = False
            run_due(self._app, self.recorder, timeout=self._timeout)
            self.recorder.raise_first()

    async def arun(self) -> None:
        """`run`, async."""
        if isinstance(self._app, Pgflow):
            self.has_uncommitted = False
            await run_due_async(self._app, self.recorder, timeout=self._timeout)
            self.recorder.raise_first()

    def _must_run(self, command: commands.Command[Any], session: Any) -> bool:
        if not self.is_active or isinstance(command, READS) or current.get() is not None:  # a call of a step
            return False
        self.has_uncommitted |= session is not None
        return session is None

    @contextmanager
    def _recording(self, app: Local) -> Iterator[None]:
        """Record what a `Local` runs, in threads of its own."""
        if current.get() is not None:
            yield
            return
        app.middleware.append(self.recorder.middleware)
        try:
            with self.recorder.recording():
                yield
        finally:
            app.middleware.remove(self.recorder.middleware)
