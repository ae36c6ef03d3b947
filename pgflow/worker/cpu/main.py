"""The program of a child process: import the app, run attempts one by one, and die with the worker."""

from __future__ import annotations

import fcntl
import importlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from functools import reduce
from typing import Any

from pgflow.core.values.sanitize import error_message, sanitize_line, type_name
from pgflow.worker.cpu.attempts import AppCode
from pgflow.worker.cpu.control import ChildControl
from pgflow.worker.cpu.frames import Message, pack, receive

__all__ = ["main"]

ORPHAN_CHECK_SECONDS = 1.0
LOG_FORMAT = "%(asctime)s %(levelname)s [cpu process %(process)d] %(message)s"


def main() -> None:
    """Run attempts until the worker closes the channel. The arguments are file descriptors and the worker's pid."""
    descriptor, lifeline, parent = map(int, sys.argv[1:4])
    channel = socket.socket(fileno=descriptor)
    channel.set_inheritable(False)
    os.set_inheritable(lifeline, False)
    _die_with(parent, lifeline)
    for number in (
        signal.SIGINT,
        signal.SIGTERM,
    ):  # of a service manager that signals all processes: the worker decides
        signal.signal(number, _ignore)
    setup = receive(channel)
    if setup is None:
        return
    code = _load(setup)
    if isinstance(code, str):
        channel.sendall(pack({"failed": code}))
        return
    channel.sendall(pack({"ready": True}))
    while (request := receive(channel)) is not None:
        channel.sendall(pack(code.run(request, _control(channel, request, code))))


def _control(channel: socket.socket, request: Message, code: AppCode) -> ChildControl:
    return ChildControl(channel, request["checkpoint"], reveal=code.reveal)


def _load(setup: Message) -> AppCode | str:
    """Import the app and return its workflows and tasks, or why that failed."""
    sys.argv[:] = [setup["app"]]  # for code that reads it at import
    if setup["log_level"] is not None:
        logging.basicConfig(level=setup["log_level"], format=LOG_FORMAT)
    module, _, name = setup["app"].partition(":")
    try:
        app: Any = reduce(getattr, name.split("."), importlib.import_module(module))
        return AppCode.of(app, reveal=setup["reveal"], limit=setup["limit"])
    except BaseException as error:  # the module may call sys.exit()
        return sanitize_line(f"{type_name(error)}: {error_message(error)}")


def _die_with(parent: int, lifeline: int) -> None:
    """Make sure that this process group ends when the worker does, however that ends.

    On Linux the kernel sends a signal of our choice when the other end of a pipe closes (`F_SETSIG`), also while native
    code holds Python's global lock. Elsewhere a thread compares the parent, which needs that lock.
    """
    if hasattr(fcntl, "F_SETSIG"):
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgid(0))
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    threading.Thread(target=_watch, args=[parent], name="pgflow-parent", daemon=True).start()


def _watch(parent: int) -> None:
    """End this process when its parent has changed: it may have ended before the kernel knew of us."""
    while os.getppid() == parent:
        time.sleep(ORPHAN_CHECK_SECONDS)
    os.killpg(0, signal.SIGKILL)


def _ignore(number: int, frame: object) -> None:
    """Do nothing. Unlike SIG_IGN, programs that a step starts do not inherit it."""
