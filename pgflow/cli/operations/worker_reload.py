"""`pgflow worker --reload`: start the worker again when a Python file changes. For development.

The worker is a child process (`worker_processes.Child`): it is asked to stop, finishes what it runs, and a new one
imports the changed files. One that cannot start, because of a syntax error, is started again after the next change.
"""

import asyncio
import os
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from pgflow.cli.operations.health import serve_probes
from pgflow.cli.operations.worker_processes import EXIT_KILLED, KILL_MARGIN_SECONDS, Child
from pgflow.logs import Logger

__all__ = ["Reloader", "changed", "snapshot"]

log = Logger("pgflow.worker")

POLL_SECONDS = 0.5
SUFFIXES = frozenset({".py", ".sql", ".toml"})
MAX_FILES = 20_000


def snapshot(folders: Iterable[Path]) -> dict[str, int]:
    """Return the time of the last change of each source file below the folders, by path, in nanoseconds.

    Skips hidden folders, __pycache__, node_modules and virtual environments.
    """
    times: dict[str, int] = {}
    for folder in folders:
        for path in _files(str(folder)):
            with suppress(OSError):
                times[path] = os.stat(path).st_mtime_ns
            if len(times) >= MAX_FILES:
                return times
    return times


def changed(before: Mapping[str, int], after: Mapping[str, int]) -> list[str]:
    """Return the files that were added, changed or removed, in order."""
    return sorted(path for path in {*before, *after} if before.get(path) != after.get(path))


def _files(folder: str) -> Iterator[str]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".")
            and name not in ("__pycache__", "node_modules")
            and not os.path.exists(os.path.join(parent, name, "pyvenv.cfg"))
        ]
        yield from (os.path.join(parent, name) for name in names if os.path.splitext(name)[1] in SUFFIXES)


class Reloader:
    """Keeps one worker running, and starts it again when a file below `folders` changes.

    code = Reloader(["worker", "--app", "shop:app"], [Path.cwd()], timedelta(seconds=25)).run(None)
    """

    def __init__(self, arguments: Sequence[str], folders: Sequence[Path], shutdown_timeout: timedelta) -> None:
        self._folders = folders
        self._grace = shutdown_timeout.total_seconds() + KILL_MARGIN_SECONDS
        self._child = Child(1, arguments, lambda: None)
        self._signals = 0
        self._loop: asyncio.AbstractEventLoop
        self._stopping: asyncio.Event

    def run(self, health: tuple[str, int] | None) -> int:
        """Run until a signal arrives, and return the exit code. `health` is the address for probes."""
        checks = {"/livez": self._child.liveness_error, "/readyz": self._child.readiness_error}
        with serve_probes(health, checks):
            return asyncio.run(self._run())

    async def _run(self) -> int:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._on_signal, signal.Signals(number).name)
        seen = await asyncio.to_thread(snapshot, self._folders)
        log.info("watching %d files below %s", len(seen), ", ".join(map(str, self._folders)))
        while True:
            ended: asyncio.Future[int] = self._loop.create_future()
            self._child.start(lambda code, ended=ended: self._set(ended, code))  # type: ignore[misc]
            seen, names = await self._change(seen, ended)
            if self._stopping.is_set():
                return await self._end(ended)
            log.info("%s changed: starting the worker again", ", ".join(names))
            await self._end(ended)

    async def _change(self, seen: dict[str, int], ended: "asyncio.Future[int]") -> tuple[dict[str, int], list[str]]:
        """Wait for a change, or for a signal; return what is seen now, and the names of what changed."""
        was_reported = False
        while not self._stopping.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), POLL_SECONDS)
            if ended.done() and not was_reported:
                was_reported = True
                log.warning("the worker ended with code %d; it is started again when a file changes", ended.result())
            now = await asyncio.to_thread(snapshot, self._folders)
            if names := changed(seen, now):
                return now, [Path(name).name for name in names[:3]] + (["…"] if len(names) > 3 else [])
        return seen, []

    async def _end(self, ended: "asyncio.Future[int]") -> int:
        """Ask the worker to stop, and return its exit code; kill it when its time is over."""
        if not ended.done():
            self._child.send("kill" if self._signals > 1 else "stop")
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(ended), self._grace)
            if not ended.done():
                self._child.kill()
        code = await ended
        return EXIT_KILLED if self._signals > 1 else code

    def _on_signal(self, name: str) -> None:
        self._signals += 1
        log.info("%s: shutting down%s", name, "" if self._signals == 1 else " immediately")
        self._stopping.set()
        if self._signals > 1:
            self._child.send("kill")

    def _set(self, ended: "asyncio.Future[int]", code: int) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(ended.set_result, code)
