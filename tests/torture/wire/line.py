"""Carry what one side says to where it goes, in order: at once, or when the faults that hold it up let it go."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import cast

from tests.torture.wire.active_rules import Faults, Party

__all__ = ["Line"]

AT_ONCE = struct.pack("ii", 1, 0)  # SO_LINGER: closing resets the connection
END = b""


class Line(asyncio.Protocol):
    """One of a session's two connections. `hand_on` gets each piece that comes in, and an empty one at the end.

    `kinds` are the faults that may hold up what comes in here. It reads no faster than what it has read is taken.
    """

    def __init__(self, faults: Faults, party: Party, kinds: frozenset[str], hand_on: Callable[[bytes], object]) -> None:
        self.other: Line | None = None  # where it goes
        self._faults = faults
        self._party = party
        self._kinds = kinds
        self._hand_on = hand_on
        self._transport: asyncio.Transport | None = None
        self._held: deque[bytes] = deque()
        self._carrier: asyncio.Task[None] | None = None
        self._is_full = False
        self._has_ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Hand a piece on, behind those that are held up."""
        if self._carrier is None and not self._faults.holding:
            self._hand_on(data)
            return
        self._held.append(data)
        if self._carrier is None:
            self._carrier = asyncio.get_running_loop().create_task(self._carry())
            self._pace()

    def eof_received(self) -> bool:
        """Hand the end on, behind what came before; the connection stays open until it has arrived."""
        self._end()
        return True

    def connection_lost(self, error: Exception | None) -> None:
        """Hand the end on, if nobody has."""
        self._end()

    def pause_writing(self) -> None:
        """Take no more from the other side: this one does not read what is written to it."""
        self._is_full = True
        if self.other is not None:
            self.other._pace()

    def resume_writing(self) -> None:
        """Take more again."""
        self._is_full = False
        if self.other is not None:
            self.other._pace()

    def write(self, data: bytes) -> None:
        """Send something to this side."""
        if self._transport is not None and data and not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        """Close the connection, once what was written has been sent."""
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
                line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
        self._transport.abort()

    async def _carry(self) -> None:
        while self._held:
            piece = self._held.popleft()
            for fault in self._faults.holding_up(self._kinds, self._party):
                await fault.hold_up(len(piece))
            self._hand_on(piece)
        self._carrier = None
        self._pace()

    def _end(self) -> None:
        if not self._has_ended:
            self._has_ended = True
            self.data_received(END)

    def _drop(self) -> None:
        self._has_ended = True
        if self._carrier is not None:
            self._carrier.cancel()

    def _pace(self) -> None:
        """Read on, or not, as what was read has been taken."""
        if self._transport is None or self._transport.is_closing():
            return
        if self._carrier is not None or (self.other is not None and self.other._is_full):
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()
