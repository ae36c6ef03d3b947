"""A child process of the pool, as its worker sees it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from pgflow.core.definition.control import Control
from pgflow.errors import ConfigError
from pgflow.worker.cpu.control import handled
from pgflow.worker.cpu.frames import Message, areceive, pack

__all__ = ["NO_CONTROL", "Child", "ChildLost", "ChildSetup"]

REPORTS = frozenset({"progress", "checkpoint"})  # the messages of an attempt that goes on
NO_CONTROL = Control()
START_TIMEOUT = 60.0  # seconds to import the app
PROGRAM = "import json, sys; sys.path[:] = json.loads(sys.argv[4]); from pgflow.worker.cpu.main import main; main()"


class ChildLost(Exception):
    """A child has ended, or could not start. The message is text for people."""


@dataclass(frozen=True, slots=True)
class ChildSetup:
    """What a child needs: the app as "module:name", None for one without such a name; and how it encodes outputs."""

    app: str | None
    reveal: bool
    limit: int

    def message(self) -> Message:
        """Return the first message to a child."""
        root = logging.root
        level = root.level if root.handlers else None
        return {"app": self.app, "reveal": self.reveal, "limit": self.limit, "log_level": level}


class Child:
    """A process that runs one attempt at a time, in a process group of its own.

    child = await Child.start(setup)
    answer = await child.ask({"kind": "step", …})
    """

    def __init__(self, setup: ChildSetup) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._channel, theirs = socket.socketpair()
        lifeline, self._lifeline = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, *self._arguments(theirs, lifeline)],
                pass_fds=(theirs.fileno(), lifeline),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        except BaseException:
            self._channel.close()
            os.close(self._lifeline)
            raise
        finally:
            theirs.close()
            os.close(lifeline)
        self._channel.setblocking(False)
        threading.Thread(target=self._wait, name="pgflow-cpu", daemon=True).start()

    @classmethod
    async def start(cls, setup: ChildSetup) -> Self:
        """Start a child, and wait until it has imported the app. Raises `ChildLost`, `ConfigError`."""
        if setup.app is None:
            raise ConfigError(
                "processes for cpu=True steps cannot import this app: it is not a variable of a module",
                hint="Define it at the top of a module, not in the program that is run: in flows.py, "
                "for `from flows import app` and `pgflow worker --app flows:app`.",
            )
        try:
            child = cls(setup)
        except OSError as error:
            raise ChildLost(f"a process for cpu steps cannot be started: {error}") from error
        try:
            async with asyncio.timeout(START_TIMEOUT):
                answer = await child.ask(setup.message())
        except TimeoutError:
            child.kill()
            raise ChildLost(f"a process for cpu steps has not imported {setup.app} in {START_TIMEOUT:.0f} s") from None
        except BaseException:
            child.kill()
            raise
        if "failed" in answer:
            child.kill()
            raise ChildLost(f"a process for cpu steps cannot import {setup.app}: {answer['failed']}")
        return child

    @property
    def pid(self) -> int:
        """Its process id, which is also that of its process group."""
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended."""
        return self._ended.is_set()

    async def ask(self, message: Message, control: Control = NO_CONTROL) -> Message:
        """Send a message and wait for the answer. Raises `ChildLost` when the process ends first.

        `control` takes what the attempt reports until then.
        """
        talk = asyncio.ensure_future(self._talk(message, control))
        ended = asyncio.ensure_future(self._ended.wait())
        try:
            await asyncio.wait([talk, ended], return_when=asyncio.FIRST_COMPLETED)
            if not talk.done():
                self._kill_group()  # what it has started may hold the channel open
                await asyncio.wait([talk], timeout=1.0)  # it may have answered before
            answer = talk.result() if talk.done() else None
            if answer is None:
                await self._ended.wait()
                raise ChildLost(self._end())
            return answer
        finally:
            for task in (talk, ended):
                task.cancel()
            # Until the event loop watches the channel no more: its number may be that of the next one.
            await asyncio.gather(talk, ended, return_exceptions=True)

    def kill(self) -> None:
        """Kill the process and those that it has started."""
        self._kill_group()
        self._channel.close()
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1

    async def aclose(self) -> None:
        """Kill it, and wait until it has ended."""
        self.kill()
        await self._ended.wait()

    @staticmethod
    def _arguments(channel: socket.socket, lifeline: int) -> list[str]:
        """Return the arguments of the program: it imports modules from where this process does."""
        return [str(channel.fileno()), str(lifeline), str(os.getpid()), json.dumps(sys.path)]

    async def _talk(self, message: Message, control: Control) -> Message | None:
        to_send: Message | None = message
        try:
            while True:
                if to_send is not None:
                    await self._loop.sock_sendall(self._channel, await asyncio.to_thread(pack, to_send))
                answer = await areceive(self._channel)
                if answer is None or not answer.keys() & REPORTS:
                    return answer
                to_send = await handled(answer, control)
        except ConnectionError:
            return None

    def _kill_group(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _wait(self) -> None:
        self._process.wait()
        with suppress(RuntimeError):  # the event loop is closed
            self._loop.call_soon_threadsafe(self._ended.set)

    def _end(self) -> str:
        """Return how the process has ended."""
        code = self._process.returncode
        if code is not None and code < 0:
            name = _signal_name(-code)
            cause = ": it may have used too much memory" if -code == signal.SIGKILL else ""
            return f"the process of the step was killed by {name}{cause}"
        return f"the process of the step exited with code {code}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
