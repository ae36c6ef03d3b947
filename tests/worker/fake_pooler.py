"""A connection pooler in transaction mode, like PgBouncer: many clients share a few sessions.

A session is lent to a client for a transaction. What the client leaves in it, the next one finds: settings, prepared
statements, LISTEN. Startup options are refused, notifications are not delivered, ids of processes are made up.
"""

from __future__ import annotations

import asyncio
import secrets
import struct
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

from pgflow.database.dsn import compose, parse
from tests.torture.wire.dialog import messages

__all__ = ["StandIn"]

STARTUP = struct.Struct("!II")
PROTOCOL = 196_608
ENCRYPTIONS = (80877103, 80877104)
READY, NOTIFICATION, PARAMETER, KEY = b"ZASK"
IDLE = ord("I")
SYNC, QUERY, END = b"SQX"
OPTIONS = "unsupported startup parameter: options"


def message(kind: bytes, content: bytes) -> bytes:
    """Return a message of the protocol."""
    return kind + (len(content) + 4).to_bytes(4) + content


class Session:
    """A session of the server, which one client has at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.owed = 0  # answers that the server owes its client
        self.client: Client | None = None
        self.name = ""
        self.parameters = b""
        self.status = IDLE
        self.is_lost = False
        self._reader = reader
        self.quiet = asyncio.Event()

    async def open(self, user: str, database: str) -> None:
        """Begin it; no password is asked for."""
        words = b"".join(f"{word}\0".encode() for word in ("user", user, "database", database))
        self.writer.write(STARTUP.pack(len(words) + 9, PROTOCOL) + words + b"\0")
        self.owed = 1
        asyncio.get_running_loop().create_task(self._listen())
        await self.quiet.wait()

    async def ask(self, query: str) -> None:
        """Ask something for the pooler itself."""
        self.send(message(b"Q", f"{query}\0".encode()), 1)
        await self.quiet.wait()

    def send(self, data: bytes, questions: int) -> None:
        """Send something to which so many answers are owed."""
        self.owed += questions
        self.quiet.clear()
        self.writer.write(data)

    async def _listen(self) -> None:
        rest = b""
        with suppress(OSError):
            while piece := await self._reader.read(65_536):
                rest += piece
                at = 0
                for start, at in messages(rest):
                    self._received(rest[start:at])
                rest = rest[at:]
        self.is_lost = True
        self.quiet.set()
        if self.client is not None:
            self.client.end()

    def _received(self, data: bytes) -> None:
        kind = data[0]
        if kind == PARAMETER and self.client is None:
            self.parameters += data
        if kind == READY:
            self.owed -= 1
            self.status = data[5]
        if self.client is not None and kind != NOTIFICATION:
            self.client.writer.write(data)
        if kind == READY and not self.owed:
            self.quiet.set()
            if self.client is not None:
                self.client.quiet()


class Client:
    """A client, which has a session while it is in a transaction."""

    def __init__(self, pooler: StandIn, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.name = ""
        self._pooler = pooler
        self._reader = reader
        self._session: Session | None = None
        self._is_asking = False

    async def run(self) -> None:
        """Serve it until it leaves."""
        with suppress(OSError, asyncio.IncompleteReadError):
            if not await self._greet():
                return
            while True:
                head = await self._reader.readexactly(5)
                data = head + await self._reader.readexactly(int.from_bytes(head[1:]) - 4)
                if head[0] == END:
                    return
                if self._session is None:
                    self._session = await self._pooler.lend(self)
                self._is_asking = head[0] not in (SYNC, QUERY)
                self._session.send(data, 0 if self._is_asking else 1)

    def quiet(self) -> None:
        """Give the session back, once a transaction has ended and all has been answered."""
        session = self._session
        if session is not None and session.status == IDLE and not self._is_asking:
            self._session = session.client = None
            self._pooler.take_back(session)

    def end(self) -> None:
        """Close the connection; a session in the midst of a transaction goes with it."""
        if self._session is not None:
            self._session.client = None
            self._session.writer.close()
            self._pooler.lose(self._session)
            self._session = None
        self.writer.close()

    async def _greet(self) -> bool:
        while True:
            length, wanted = STARTUP.unpack(await self._reader.readexactly(STARTUP.size))
            if wanted not in ENCRYPTIONS:
                break
            self.writer.write(b"N")
        words = (await self._reader.readexactly(length - STARTUP.size)).decode().split("\0")
        given = dict(zip(words[::2], words[1::2], strict=False))
        if wanted != PROTOCOL:
            return False
        if "options" in given and not self._pooler.takes_options:
            self.writer.write(message(b"E", f"SFATAL\0C08P01\0M{OPTIONS}\0\0".encode()))
            await self.writer.drain()
            return False
        self.name = given.get("application_name", "")
        parameters = await self._pooler.welcome(given["user"], given.get("database", given["user"]))
        key = message(b"K", secrets.token_bytes(8))
        self.writer.write(message(b"R", bytes(4)) + parameters + key + message(b"Z", b"I"))
        return True


class StandIn:
    """The pooler before the server whose Unix socket is at `path`, with `size` sessions, for the length of a `with`.

    `through(dsn)` is the way to a database through it; it takes one database and one user, and no password.
    """

    def __init__(self, path: str, *, size: int = 3, takes_options: bool = False) -> None:
        self.takes_options = takes_options
        self._path = path
        self._size = size
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="standin", daemon=True)
        self._free: asyncio.LifoQueue[Session | None] = asyncio.LifoQueue()  # None: one is still to be made
        self._sessions: set[Session] = set()
        self._clients: set[asyncio.StreamWriter] = set()
        self._who = ("", "")
        self._parameters = b""
        self.port = 0

    def __enter__(self) -> Self:
        for _ in range(self._size):
            self._free.put_nowait(None)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def through(self, dsn: str) -> str:
        """Return the connection string that leads through it to the database and as the user that `dsn` names."""
        plain = {"sslmode": "disable", "gssencmode": "disable"}
        return compose({**parse(dsn), **plain, "host": "127.0.0.1", "port": str(self.port)})

    async def welcome(self, user: str, database: str) -> bytes:
        """Return the parameters that the server reports to a new client."""
        if not self._parameters:
            self._who = user, database
            session = await self._session()
            self._parameters = session.parameters
            self.take_back(session)
        assert self._who == (user, database)
        return self._parameters

    async def lend(self, client: Client) -> Session:
        """Lend a session, the one that was used last, under the client's name."""
        session = await self._session()
        if session.name != client.name:
            session.name = client.name
            await session.ask(f"set application_name = '{client.name}'")
        session.client = client
        return session

    def take_back(self, session: Session) -> None:
        """Keep a session for the next client."""
        self._free.put_nowait(session)

    def lose(self, session: Session) -> None:
        """Let another session take a lost one's place."""
        self._sessions.discard(session)
        self._free.put_nowait(None)

    async def _session(self) -> Session:
        session = await self._free.get()
        if session is not None and not session.is_lost:
            return session
        if session is not None:
            self._sessions.discard(session)
        made = Session(*await asyncio.open_unix_connection(self._path))
        self._sessions.add(made)
        await made.open(*self._who)
        return made

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = Client(self, reader, writer)
        self._clients.add(writer)
        try:
            await client.run()
        finally:
            self._clients.discard(writer)
            client.end()

    async def _close(self) -> None:
        self._server.close()
        for writer in [*self._clients, *(session.writer for session in self._sessions)]:
            writer.transport.abort()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        if tasks:
            await asyncio.wait(tasks, timeout=10)
        await asyncio.sleep(0)
