"""Forward the messages of one client and the server, with the active rules applied."""

from __future__ import annotations

import asyncio
import struct
from typing import TypeAlias

from tests.torture.wire.active_rules import ActiveRules, SessionInfo
from tests.torture.wire.dialog import Dialog, Exchange, messages
from tests.torture.wire.line import Line
from tests.torture.wire.rule import DOWNWARD, NOTIFICATIONS, REFUSALS, UPWARD, ActiveRule

__all__ = ["Session", "Upstream"]

Upstream: TypeAlias = str | tuple[str, int]  # the path of a Unix socket, or a host and a port

NOTIFICATION = ord("A")
TURNS = b"ZEG"  # server messages that change a dialog's state
COPIES = b"GHW"  # COPY: the exchange continues
STARTUP = struct.Struct("!II")  # length and request code
ENCRYPTIONS = frozenset({80877103, 80877104})
CANCEL = 80877102


class Session:
    """A client and its connection to the server."""

    def __init__(self, faults: ActiveRules, upstream: Upstream, door: str) -> None:
        self.info = SessionInfo(door)
        self.has_begun = False
        self._faults = faults
        self._upstream = upstream
        self._client = Line(faults, self.info, UPWARD, self._from_client)
        self._server = Line(faults, self.info, DOWNWARD, self._from_server)
        self._client.other, self._server.other = self._server, self._client
        self._over = asyncio.Event()
        self._dialog: Dialog | None = None  # None for a cancel request
        self._asked = self._answered = b""  # an incomplete message
        self._loss: tuple[Exchange, ActiveRule] | None = None  # the exchange whose answer is lost, and by which rule
        self._held = bytearray()  # the part of that answer so far

    async def run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward both directions until one side ends."""
        loop, transport = asyncio.get_running_loop(), writer.transport
        self._client.connection_made(transport)
        try:
            packet = await self._read_startup(reader, writer)
            if fault := self._faults.pick(REFUSALS, self.info):
                self._faults.record(fault, self.info)
                self.cut()
                return
            for fault in self._faults.delaying(UPWARD, self.info):
                await fault.delay(len(packet))
            if isinstance(self._upstream, str):
                await loop.create_unix_connection(lambda: self._server, self._upstream)
            else:
                await loop.create_connection(lambda: self._server, *self._upstream)
            transport.set_protocol(self._client)  # from here on no task has to wake up
            self._server.write(packet)
            await self._over.wait()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._client.close()
            self._server.close()

    def cut(self) -> None:
        """Reset both connections."""
        self._client.cut()
        self._server.cut()
        self._over.set()

    async def _read_startup(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        """Read the startup message and return it."""
        while True:
            head = await reader.readexactly(STARTUP.size)
            length, wanted = STARTUP.unpack(head)
            if wanted in ENCRYPTIONS:
                writer.write(b"N")
                continue
            packet = head + await reader.readexactly(max(length - len(head), 0))
            if wanted != CANCEL:
                self._dialog = Dialog()
                words = packet[STARTUP.size :].split(b"\0")
                given = dict(zip(words[::2], words[1::2], strict=False))
                self.info.role = given.get(b"application_name", b"").decode(errors="replace")
            self.has_begun = True
            return packet

    def _from_client(self, piece: bytes) -> None:
        """Forward data from the client."""
        if not piece:
            self._over.set()
            return
        data = self._asked + piece
        fit, is_lost = self._ask(data)
        self._asked = data[fit:]
        self._server.write(data[:fit])
        if is_lost:
            self.cut()

    def _from_server(self, piece: bytes) -> None:
        """Forward data from the server."""
        if not piece:
            self._over.set()
            return
        data = self._answered + piece
        out, fit, is_lost = self._answer(data)
        self._answered = data[fit:]
        self._client.write(out)
        if is_lost:
            self.cut()

    def _ask(self, data: bytes) -> tuple[int, bool]:
        """Parse data from the client; returns how much of it to forward, and whether to end the session."""
        dialog, fit = self._dialog, 0
        if dialog is None:
            return len(data), False
        for start, fit in messages(data):
            if not dialog.client_sent(data, start, fit):
                continue
            fault = self._faults.on_commit_point(self.info, dialog.latest)
            if fault is not None and fault.rule.kind == "commit lost":
                self._faults.record(fault, self.info, dialog.latest, is_committed=False)
                return start, True
            if fault is not None and self._loss is None:
                self._loss = dialog.latest, fault
        return fit, False

    def _answer(self, data: bytes) -> tuple[bytes, int, bool]:
        """Parse data from the server; returns what to forward, how much was parsed, and whether to end the session."""
        dialog, fit, out = self._dialog, 0, bytearray()
        if dialog is None:
            return data, len(data), False
        if self._loss is None and not self._faults.active:
            for start, end in messages(data):
                if data[start] in TURNS:
                    dialog.server_sent(data, start)
                fit = end
            return data[:fit], fit, False
        for start, fit in messages(data):
            is_awaited = self._loss is not None and dialog.awaited is self._loss[0]
            done = dialog.server_sent(data, start)
            if data[start] == NOTIFICATION:
                out += self._notify(data[start:fit])
            elif not is_awaited:
                out += data[start:fit]
            else:
                self._held += data[start:fit]
                if data[start] in COPIES:
                    out += self._held
                    self._held.clear()
                elif done is not None:
                    return bytes(out + self._lose(done)), fit, True
        return bytes(out), fit, False

    def _lose(self, exchange: Exchange) -> bytes:
        """Lose the answer to an exchange; returns the part that arrives."""
        assert self._loss is not None
        fault = self._loss[1]
        self._faults.record(fault, self.info, exchange, is_committed=exchange.is_committed)
        return bytes(self._held[: len(self._held) // 2]) if fault.rule.kind == "reply cut" else b""

    def _notify(self, message: bytes) -> bytes:
        """Return what to forward of a notification now."""
        fault = self._faults.pick(NOTIFICATIONS, self.info)
        if fault is None:
            return message
        self._faults.record(fault, self.info)
        match fault.rule.kind:
            case "double notifications":
                return message + message
            case "late notifications":
                # Messages are written whole, so it can follow any of them.
                asyncio.get_running_loop().call_later(fault.next_delay(), self._client.write, message)
        return b""
