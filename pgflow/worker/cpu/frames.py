"""Messages between a worker and its child processes: JSON objects, each after its length in eight bytes."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from typing import Any

__all__ = ["areceive", "pack", "receive"]

LENGTH = struct.Struct("!Q")
PIECE = 1_048_576  # bytes to read at once

Message = dict[str, Any]


def pack(message: Message) -> bytes:
    """Return a message as bytes."""
    text = json.dumps(message).encode()
    return LENGTH.pack(len(text)) + text


def receive(channel: socket.socket) -> Message | None:
    """Wait for a message; None at the end of the stream."""
    head = _read(channel, LENGTH.size)
    if head is None:
        return None
    body = _read(channel, LENGTH.unpack(head)[0])
    return None if body is None else json.loads(body)


async def areceive(channel: socket.socket) -> Message | None:
    """`receive`, async, from a socket that does not block."""
    head = await _aread(channel, LENGTH.size)
    if head is None:
        return None
    body = await _aread(channel, LENGTH.unpack(head)[0])
    return None if body is None else await asyncio.to_thread(json.loads, body)


def _read(channel: socket.socket, size: int) -> bytes | None:
    found = bytearray()
    while len(found) < size:
        try:
            piece = channel.recv(min(size - len(found), PIECE))
        except ConnectionError:
            return None
        if not piece:
            return None
        found += piece
    return bytes(found)


async def _aread(channel: socket.socket, size: int) -> bytes | None:
    loop, found = asyncio.get_running_loop(), bytearray()
    while len(found) < size:
        try:
            piece = await loop.sock_recv(channel, min(size - len(found), PIECE))
        except ConnectionError:
            return None
        if not piece:
            return None
        found += piece
    return bytes(found)
