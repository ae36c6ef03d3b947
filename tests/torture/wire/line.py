"""Forward what one side of a session sends, in order: immediately, or when the rules that delay it allow."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import cast

from tests.torture.wire.active_rules import ActiveRules, SessionInfo

__all__ = ["Line"]

RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: closing resets the connection
END = b""


class Line(asyncio.Protocol):
    """One of a session's two connections. `forward` gets each chunk that arrives, and an empty one at the end.

    `kinds` are the rules that may delay incoming data. Reading pauses while the other side does not accept the data
    (backpressure).
    """

    def __init__(
        self, faults: ActiveRules, session: SessionInfo, kinds: frozenset[str], forward: Callable[[bytes], object]
    ) -> None:
        self.other: Line | None = None  # the session's other connection
        self._faults = faults
        self._session = session
        self._kinds = kinds
        self._forward = forward
        self._transport: asyncio.Transport | None = None
        self._held: deque[bytes] = deque()
        self._forwarder: asyncio.Task[None] | None = None
        self._is_full = False
        self._has_ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Forward a chunk, after those that are held."""
        if self._forwarder is None and not self._faults.active:
            self._forward(data)
            return
        self._held.append(data)
        if self._forwarder is None:
            self._forwarder = asyncio.get_running_loop().create_task(self._forward_held())
            self._update_reading()

    def eof_received(self) -> bool:
        """Forward the end after the data; the connection stays open until then."""
        self._end()
        return True

    def connection_lost(self, error: Exception | None) -> None:
        """Forward the end, once."""
        self._end()

    def pause_writing(self) -> None:
        """Stop reading from the other side: this one does not read its data."""
        self._is_full = True
        if self.other is not None:
            self.other._update_reading()

    def resume_writing(self) -> None:
        """Resume reading from the other side."""
        self._is_full = False
        if self.other is not None:
            self.other._update_reading()

    def write(self, data: bytes) -> None:
        """Send data to this side."""
        if self._transport is not None and data and not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        """Close the connection after sending what was written."""
        self._drop()
        if self._transport is not None:
            self._transport.close()

    def cut(self) -> None:
        """Reset the connection."""
        self._drop()
        if self._transport is None:
            return
        line = self._transport.get_extra_info("socket")
        if line is not None and line.family != socket.AF_UNIX:
            with suppress(OSError):
                line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self._transport.abort()

    async def _forward_held(self) -> None:
        while self._held:
            piece = self._held.popleft()
            for fault in self._faults.delaying(self._kinds, self._session):
                await fault.delay(len(piece))
            self._forward(piece)
        self._forwarder = None
        self._update_reading()

    def _end(self) -> None:
        if not self._has_ended:
            self._has_ended = True
            self.data_received(END)

    def _drop(self) -> None:
        self._has_ended = True
        if self._forwarder is not None:
            self._forwarder.cancel()

    def _update_reading(self) -> None:
        """Pause or resume reading, depending on whether the data is accepted."""
        if self._transport is None or self._transport.is_closing():
            return
        if self._forwarder is not None or (self.other is not None and self.other._is_full):
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()
