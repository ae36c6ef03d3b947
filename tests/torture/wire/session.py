"""Pass on what one client and the server say to one another, but for what the faults make of it."""

from __future__ import annotations

import asyncio
import struct
from typing import TypeAlias

from tests.torture.wire.active_rules import Faults, Party
from tests.torture.wire.dialog import Dialog, Exchange, messages
from tests.torture.wire.line import Line
from tests.torture.wire.rule import DOWNWARD, NOTIFICATIONS, REFUSALS, UPWARD, Fault

__all__ = ["Session", "Upstream"]

Upstream: TypeAlias = str | tuple[str, int]  # the path of a Unix socket, or a host and a port

NOTIFICATION = ord("A")
TURNS = b"ZEG"  # messages of the server that a dialog turns on
COPIES = b"GHW"  # the server asks for data, or sends it: the exchange goes on
STARTUP = struct.Struct("!II")  # the length, and what is wanted
ENCRYPTIONS = frozenset({80877103, 80877104})
CANCEL = 80877102


class Session:
    """A client, and its connection to the server."""

    def __init__(self, faults: Faults, upstream: Upstream, door: str) -> None:
        self.party = Party(door)
        self.has_begun = False
        self._faults = faults
        self._upstream = upstream
        self._client = Line(faults, self.party, UPWARD, self._go_up)
        self._server = Line(faults, self.party, DOWNWARD, self._go_down)
        self._client.other, self._server.other = self._server, self._client
        self._over = asyncio.Event()
        self._dialog: Dialog | None = None  # a request to cancel is none
        self._asked = self._answered = b""  # the beginning of a message, its rest still to come
        self._loss: tuple[Exchange, Fault] | None = None  # whose answer is to be lost, and how
        self._held = bytearray()  # of that answer

    async def run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on what both sides say until one of them ends."""
        loop, transport = asyncio.get_running_loop(), writer.transport
        self._client.connection_made(transport)
        try:
            packet = await self._greet(reader, writer)
            if fault := self._faults.strike(REFUSALS, self.party):
                self._faults.struck(fault, self.party)
                self.cut()
                return
            for fault in self._faults.holding_up(UPWARD, self.party):
                await fault.hold_up(len(packet))
            if isinstance(self._upstream, str):
                await loop.create_unix_connection(lambda: self._server, self._upstream)
            else:
                await loop.create_connection(lambda: self._server, *self._upstream)
            transport.set_protocol(self._client)  # from here on nobody waits for a task to wake up
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

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        """Hear who the client is; returns the packet that says so."""
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
                self.party.role = given.get(b"application_name", b"").decode(errors="replace")
            self.has_begun = True
            return packet

    def _go_up(self, piece: bytes) -> None:
        """Pass on what the client says."""
        if not piece:
            self._over.set()
            return
        data = self._asked + piece
        fit, is_lost = self._ask(data)
        self._asked = data[fit:]
        self._server.write(data[:fit])
        if is_lost:
            self.cut()

    def _go_down(self, piece: bytes) -> None:
        """Pass on what the server says."""
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
        """Look at what the client says; returns how much of it is to be passed on, and whether that is the end."""
        dialog, fit = self._dialog, 0
        if dialog is None:
            return len(data), False
        for start, fit in messages(data):
            if not dialog.asked(data, start, fit):
                continue
            fault = self._faults.passes(self.party, dialog.latest)
            if fault is not None and fault.rule.kind == "commit lost":
                self._faults.struck(fault, self.party, dialog.latest, is_committed=False)
                return start, True
            if fault is not None and self._loss is None:
                self._loss = dialog.latest, fault
        return fit, False

    def _answer(self, data: bytes) -> tuple[bytes, int, bool]:
        """Look at what the server says; returns what is to be passed on, of how much, and whether that is the end."""
        dialog, fit, out = self._dialog, 0, bytearray()
        if dialog is None:
            return data, len(data), False
        if self._loss is None and not self._faults.holding:
            for start, end in messages(data):
                if data[start] in TURNS:
                    dialog.answered(data, start)
                fit = end
            return data[:fit], fit, False
        for start, fit in messages(data):
            is_awaited = self._loss is not None and dialog.awaited is self._loss[0]
            done = dialog.answered(data, start)
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
        """Lose the answer to an exchange; returns what of it arrives all the same."""
        assert self._loss is not None
        fault = self._loss[1]
        self._faults.struck(fault, self.party, exchange, is_committed=exchange.is_committed)
        return bytes(self._held[: len(self._held) // 2]) if fault.rule.kind == "reply cut" else b""

    def _notify(self, message: bytes) -> bytes:
        """Return what is to be passed on of a notification now."""
        fault = self._faults.strike(NOTIFICATIONS, self.party)
        if fault is None:
            return message
        self._faults.struck(fault, self.party)
        match fault.rule.kind:
            case "double notifications":
                return message + message
            case "late notifications":
                # Whole messages are written one after the other, so it fits in whenever it comes.
                asyncio.get_running_loop().call_later(fault.lateness(), self._client.write, message)
        return b""
