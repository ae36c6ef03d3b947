"""`pgflow worker --processes N`: start N workers, restart those that end, and stop them together.

Each is a new interpreter that runs the same command, so it has its own import of the app, connections, threads and
lease. The parent imports no app and opens no connection: nothing of it can fail with a step. It talks to each child
over a socket pair: it sends "stop" and "kill", and receives whether the child is alive and ready.

A signal that a terminal or a service manager sends to all processes reaches the children directly, too. "stop" is not
counted as a signal, so it does not turn the child's first signal into a second one.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from math import inf

from pgflow.cli.operations.health import serve_probes
from pgflow.logs import Logger
from pgflow.worker import Worker

__all__ = ["EXIT_ABANDONED", "EXIT_KILLED", "Link", "Supervisor"]

log = Logger("pgflow.worker")

VARIABLE = "PGFLOW_WORKER_PROCESS"  # "fd:number" in the environment of a child
EXIT_KILLED = 130  # after a second signal
EXIT_ABANDONED = 75  # EX_TEMPFAIL: a sync step was still running at the shutdown timeout
SIGNAL_EXIT_BASE = 128  # a process killed by signal n exits with 128 + n, the shells' convention
REPORT_SECONDS = 1.0
SILENT_SECONDS = 60.0  # without a report, after which a child is not alive: native code may hold Python's global lock
BACKOFF_SECONDS = 1.0  # before a child is started again; doubled each time, up to MAX_BACKOFF_SECONDS
MAX_BACKOFF_SECONDS = 30.0
STEADY_SECONDS = 60.0  # a child that ran so long is started again after the shortest pause
KILL_MARGIN_SECONDS = 5.0  # beyond the shutdown timeout, after which a child that has not ended is killed
EXIT_SCHEMA = 4  # a schema that this code cannot use: the other processes cannot use it either
NEVER_READY = "it has not started yet"


class Link:
    """A child's end: it reports the worker's health, and passes on what the parent asks for.

    link = Link.inherited()    # None in a process that is not supervised
    """

    def __init__(self, channel: socket.socket, number: int) -> None:
        self.number = number
        self._channel = channel

    @classmethod
    def inherited(cls) -> Link | None:
        """Return the link of this process, and remove it from the environment: a step may start another worker."""
        given = os.environ.pop(VARIABLE, None)
        if given is None:
            return None
        descriptor, _, number = given.partition(":")
        channel = socket.socket(fileno=int(descriptor))
        channel.set_inheritable(False)
        return cls(channel, int(number))

    def start(self, worker: Worker, stop: Callable[[str], None], kill: Callable[[str], None]) -> None:
        """Report from a thread, and listen in another. The end of the parent stops the worker."""
        threading.Thread(target=self._report, args=[worker], name="pgflow-report", daemon=True).start()
        threading.Thread(target=self._listen, args=[stop, kill], name="pgflow-parent", daemon=True).start()

    def _report(self, worker: Worker) -> None:
        while True:
            report = {"live": worker.liveness_error(), "ready": worker.readiness_error()}
            try:
                self._channel.sendall(json.dumps(report).encode() + b"\n")
            except OSError:
                return
            time.sleep(REPORT_SECONDS if report["ready"] is None else REPORT_SECONDS / 10)

    def _listen(self, stop: Callable[[str], None], kill: Callable[[str], None]) -> None:
        for word in _lines(self._channel):
            if word == "kill":
                kill("the parent process")
            else:
                stop("the parent process")
        stop("the parent process has ended")


class Child:
    """One worker process after the other under one number, as the parent sees it.

    `live` and `ready` are the errors that the current one has reported, None if there is none. `became_ready` is called
    when one has become ready, in a thread.
    """

    def __init__(self, number: int, arguments: Sequence[str], became_ready: Callable[[], None]) -> None:
        self.number = number
        self.was_ready = False
        self._arguments = arguments
        self._became_ready = became_ready
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._live: str | None = None
        self._ready: str | None = None
        self._reported_at = inf  # monotonic seconds; infinite before the first report

    def start(self, has_ended: Callable[[int], None]) -> None:
        """Start a process. `has_ended(code)` is called in a thread when it has ended."""
        ours, theirs = socket.socketpair()
        self._live, self._ready, self.was_ready, self._reported_at = None, NEVER_READY, False, inf
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "pgflow", *self._arguments],
                pass_fds=[theirs.fileno()],
                env={**os.environ, VARIABLE: f"{theirs.fileno()}:{self.number}"},
            )
        self._process, self._channel = process, ours
        # A thread for each: the default executor has too few for many processes.
        threading.Thread(target=self._listen, args=[ours], name="pgflow-child", daemon=True).start()
        threading.Thread(target=self._wait, args=[process, has_ended], name="pgflow-child", daemon=True).start()

    def send(self, word: str) -> None:
        """Ask the process for something."""
        if self._channel is not None:
            with suppress(OSError):
                self._channel.sendall(word.encode() + b"\n")

    def kill(self) -> None:
        """Kill the process, if it runs."""
        if self._process is not None:
            log.warning("%s has not ended in time and is killed", self.name)
            self._process.kill()

    @property
    def name(self) -> str:
        """Its name in messages."""
        return f"process {self.number}" + ("" if self._process is None else f" (pid {self._process.pid})")

    def liveness_error(self) -> str | None:
        """Return why it cannot go on. One that has ended is started again, which is not an error."""
        if self._process is None:
            return None
        silent = time.monotonic() - self._reported_at
        if silent > SILENT_SECONDS:
            return f"{self.name}: it has not reported for {silent:.0f} s: does native code hold Python's global lock?"
        return None if self._live is None else f"{self.name}: {self._live}"

    def readiness_error(self) -> str | None:
        """Return why it runs no steps."""
        if self._process is None:
            return f"{self.name}: it does not run now, and will be started"
        return self.liveness_error() or (None if self._ready is None else f"{self.name}: {self._ready}")

    def _listen(self, channel: socket.socket) -> None:
        for line in _lines(channel):
            report = json.loads(line)
            self._live, self._ready, self._reported_at = report["live"], report["ready"], time.monotonic()
            if self._ready is None and not self.was_ready:
                self.was_ready = True
                self._became_ready()

    def _wait(self, process: subprocess.Popen[bytes], has_ended: Callable[[int], None]) -> None:
        code = process.wait()
        channel, self._process, self._channel = self._channel, None, None
        if channel is not None:
            channel.close()
        has_ended(code if code >= 0 else SIGNAL_EXIT_BASE - code)


class Supervisor:
    """Keeps `count` workers running until a signal arrives, or until they have all drained.

    `arguments` are those of `pgflow worker` for each of them. With `recycles`, a worker ends by itself now and then.

        code = Supervisor(["--app", "shop:app"], 4, shutdown_timeout=timedelta(seconds=25)).run(None)
    """

    def __init__(
        self,
        arguments: Sequence[str],
        count: int,
        *,
        shutdown_timeout: timedelta,
        drain: bool = False,
        recycles: bool = False,
    ) -> None:
        self._children = [Child(number, arguments, self._became_ready) for number in range(1, count + 1)]
        self._grace = shutdown_timeout.total_seconds() + KILL_MARGIN_SECONDS
        self._drains = drain
        self._recycles = recycles
        self._signals = 0
        self._code = 0
        self._loop: asyncio.AbstractEventLoop
        self._stopping: asyncio.Event
        self._may_start: asyncio.Event

    def run(self, health: tuple[str, int] | None) -> int:
        """Run them, and return the exit code. `health` is the address for probes."""
        with serve_probes(health, {"/livez": self.liveness_error, "/readyz": self.readiness_error}):
            asyncio.run(self._run())
        return self._code

    def liveness_error(self) -> str | None:
        """Return which processes cannot go on, None if all can."""
        return "; ".join(filter(None, (child.liveness_error() for child in self._children))) or None

    def readiness_error(self) -> str | None:
        """Return which processes run no steps, None if all do."""
        return "; ".join(filter(None, (child.readiness_error() for child in self._children))) or None

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping, self._may_start = asyncio.Event(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._on_signal, signal.Signals(number).name)
        first, *others = self._children
        # The others start when the first one is ready: what is wrong with the configuration is reported once.
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep(first))
            for child in others:
                group.create_task(self._keep_later(child))

    async def _keep_later(self, child: Child) -> None:
        await self._may_start.wait()
        await self._keep(child)

    async def _keep(self, child: Child) -> None:
        """Run one worker, again and again, until it should not be started again."""
        pause = BACKOFF_SECONDS
        while not self._stopping.is_set():
            began = time.monotonic()
            code = await self._run_once(child)
            if self._stopping.is_set():
                self._ended(code)
            elif code == 0 and self._drains:
                self._may_start.set()
                return
            elif code == 0 and self._recycles:
                log.info("process %d has ended as it should; it is started again", child.number)
            elif code == EXIT_SCHEMA or not self._may_start.is_set():
                self._ended(code)
                self._stop()
            else:
                pause = BACKOFF_SECONDS if time.monotonic() - began >= STEADY_SECONDS else pause
                log.warning("process %d ended with code %d; it is started again in %.0f s", child.number, code, pause)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), pause)
                pause = min(pause * 2, MAX_BACKOFF_SECONDS)

    async def _run_once(self, child: Child) -> int:
        """Start a worker, and return its exit code when it has ended."""
        ended: asyncio.Future[int] = self._loop.create_future()
        child.start(lambda code: self._call(ended.set_result, code))
        ending = asyncio.ensure_future(self._end_in_time(child))
        try:
            return await ended
        finally:
            ending.cancel()

    async def _end_in_time(self, child: Child) -> None:
        """When the workers should stop, ask this one to; kill it when its time is over."""
        await self._stopping.wait()
        child.send("kill" if self._signals > 1 else "stop")
        await asyncio.sleep(self._grace)
        child.kill()

    def _became_ready(self) -> None:
        self._call(self._may_start.set)

    def _on_signal(self, name: str) -> None:
        self._signals += 1
        if self._signals == 1:
            log.info("%s: shutting down gracefully; send it again to stop immediately", name)
            self._stop()
            return
        log.warning("%s: stopping immediately", name)
        self._code = EXIT_KILLED
        for child in self._children:
            child.send("kill")

    def _stop(self) -> None:
        self._stopping.set()
        self._may_start.set()

    def _ended(self, code: int) -> None:
        """Take over the exit code of a worker that is not started again: the first error, or a step left behind."""
        if code == SIGNAL_EXIT_BASE + signal.SIGKILL:
            code = EXIT_ABANDONED
        self._code = self._code or code

    def _call(self, do: Callable[..., object], *values: object) -> None:
        """Call something in the event loop, from a thread."""
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(do, *values)


def _lines(channel: socket.socket) -> Iterator[str]:
    """Yield the lines that arrive, until the other end is closed."""
    buffered = b""
    while True:
        try:
            received = channel.recv(65_536)
        except OSError:
            return
        if not received:
            return
        *lines, buffered = (buffered + received).split(b"\n")
        yield from (line.decode() for line in lines)
