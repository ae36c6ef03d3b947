"""Progress and checkpoints of an attempt in a child process, passed on to its worker."""

from __future__ import annotations

import asyncio
import socket
import threading
import time

from pgflow.core.definition.control import Control, Progress
from pgflow.errors import NotActive, PgflowError
from pgflow.worker.cpu.frames import Message, pack, receive

__all__ = ["ChildControl", "handled"]

PROGRESS_SECONDS = 0.2  # between two reports: the worker writes one in a second


class ChildControl(Control):
    """The connection of one attempt in a child. A cancelled attempt is killed, so `is_cancelled` stays False."""

    __slots__ = ("_channel", "_lock", "_reported_at", "_reveal")

    def __init__(self, channel: socket.socket, checkpoint: str | None, *, reveal: bool) -> None:
        super().__init__(checkpoint)
        self._channel = channel
        self._reveal = reveal
        self._lock = threading.Lock()  # a step may have threads
        self._reported_at = 0.0

    @property
    def reveal(self) -> bool:  # type: ignore[override]  # per instance here
        """Whether the worker encrypts a checkpoint."""
        return self._reveal

    def report(self, progress: Progress) -> None:
        """Send the progress, unless another was sent just before; the end is always sent."""
        self.latest = progress
        now = time.monotonic()
        if progress.at == 1 or now - self._reported_at >= PROGRESS_SECONDS:
            self._reported_at = now
            with self._lock:
                self._channel.sendall(pack({"progress": [progress.at, progress.note]}))

    def save(self, text: str) -> None:
        """Send a checkpoint, and wait until the worker has stored it. Raises `NotActive`."""
        with self._lock:
            self._channel.sendall(pack({"checkpoint": text}))
            answer = receive(self._channel)
        if answer is None or "refused" in answer:
            raise NotActive("the worker has ended" if answer is None else answer["refused"])
        self.text = text

    async def asave(self, text: str) -> None:
        """`save`, async."""
        await asyncio.to_thread(self.save, text)


async def handled(message: Message, control: Control) -> Message | None:
    """Take over a message of a running attempt in its worker; returns the answer, None if there is none to send."""
    if "progress" in message:
        control.report(Progress(*message["progress"]))
        return None
    try:
        await control.asave(message["checkpoint"])
    except PgflowError as error:
        return {"refused": str(error)}
    return {"stored": True}
