"""Follow the protocol of one session: which message commits, and which answer belongs to it.

Most transactions end with a Sync or a simple query, not with COMMIT. A *commit point* is the message that ends a
transaction which has executed something: a Sync, a simple Query, or the Execute of a COMMIT. It is known when it is
sent, before the server answers.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

__all__ = ["Dialog", "Exchange", "messages"]

Verb: TypeAlias = Literal["begin", "commit", "rollback", "other"]

HEAD = 5  # bytes before the content: a letter, and a length of four bytes that includes itself

# Types of messages, of the client and of the server.
OF_AN_EXCHANGE = b"PBEQFS"
PARSE, BIND, EXECUTE, QUERY, CALL, SYNC = OF_AN_EXCHANGE
READY, ERROR, COPY_IN = b"ZEG"
UNKNOWN: tuple[Verb, str] = ("other", "")
FIRST_WORDS = re.compile(
    rb"(?:\s|--[^\n]*\n|/\*.*?\*/)*([a-z]+)(?:\s+(?:work\s+|transaction\s+)?([a-z]+))?", re.I | re.S
)
IDLE, FAILED = b"IE"  # transaction states in READY
LONGEST_NAME = 70  # characters of a statement that are reported
MOST_NAMES = 50  # statements of a transaction that are reported


@dataclass(slots=True)
class Exchange:
    """The messages of a client up to a Sync or a simple query, and the answer to them.

    `is_point` is whether it contains a commit point; `statements` are then the first lines of the statements that it
    commits. Once it is answered, `is_committed` is whether it has committed.
    """

    statements: list[str] = field(default_factory=list)
    is_point: bool = False
    is_simple: bool = False
    has_failed: bool = False
    is_committed: bool = False


def messages(data: bytes, at: int = 0) -> Iterator[tuple[int, int]]:
    """Yield start and end of each complete message in `data`."""
    end = len(data)
    while end - at >= HEAD:
        after = at + 1 + int.from_bytes(data[at + 1 : at + HEAD])
        if after > end:
            return
        yield at, after
        at = after


class Dialog:
    """The protocol state of one session, updated with each message in both directions."""

    def __init__(self) -> None:
        self.latest = Exchange()  # the client's current exchange, or its last one
        self._open: deque[Exchange] = deque()  # sent completely, not answered completely
        self._is_begun = False  # whether part of `latest` has been sent
        self._status = IDLE
        self._in_block = False  # whether a BEGIN is open after everything sent so far
        self._ran: list[str] = []  # executed in the transaction
        self._statements: dict[bytes, tuple[Verb, str]] = {}
        self._portals: dict[bytes, tuple[Verb, str]] = {}

    @property
    def awaited(self) -> Exchange | None:
        """The exchange that the server is answering; None when there is none."""
        if self._open:
            return self._open[0]
        return self.latest if self._is_begun else None

    def client_sent(self, data: bytes, start: int, end: int) -> bool:
        """Process a client message, `data[start:end]`; returns whether it is a commit point."""
        kind, at = data[start], start + HEAD
        if kind not in OF_AN_EXCHANGE:
            return False
        if not self._is_begun:
            self.latest, self._is_begun = Exchange(), True
        if kind == BIND:
            portal = _text(data, at, end)
            name = _text(data, at + len(portal) + 1, end)
            self._portals[portal] = self._statements.get(name, UNKNOWN)
        elif kind == EXECUTE:
            return self._execute(*self._portals.get(_text(data, at, end), UNKNOWN))
        elif kind == PARSE:
            name = _text(data, at, end)
            query = _text(data, at + len(name) + 1, end)
            self._statements[name] = _verb(query), _first_line(query)
        elif kind == SYNC:
            return self._close(self._ends())
        else:
            self.latest.is_simple = True
            if kind == QUERY:
                return self._close(self._query(_text(data, at, end)))
            self._execute(*UNKNOWN)
            return self._close(self._ends())
        return False

    def server_sent(self, data: bytes, start: int) -> Exchange | None:
        """Process a server message; returns the exchange that it completes, if any."""
        kind = data[start]
        if kind == READY:
            done = self._open.popleft() if self._open else Exchange()
            before, self._status = self._status, data[start + HEAD]
            is_idle = self._status == IDLE
            # A COMMIT of a failed transaction is a rollback.
            done.is_committed = done.is_point and is_idle and not done.has_failed and before != FAILED
            if not self._open and not self._is_begun:
                self._in_block = not is_idle  # the prediction may have been wrong
                if is_idle:
                    self._ran = []
            return done
        if kind == ERROR and self._open:
            self._open[0].has_failed = True
        elif kind == COPY_IN and self._open and not self._open[0].is_simple:
            # The server ignores the Sync that was sent: it waits for the one after the data.
            self.latest, self._is_begun = self._open.popleft(), True
        return None

    def _close(self, is_point: bool) -> bool:
        self._open.append(self.latest)
        self._is_begun = False
        return is_point

    def _execute(self, verb: Verb, first_line: str) -> bool:
        """Execute a statement; a COMMIT takes effect at once, not with the Sync after it."""
        if len(self._ran) < MOST_NAMES:
            self._ran.append(first_line)
        match verb:
            case "begin":
                self._in_block = True
            case "commit" if self._in_block:
                self._in_block = False
                return self._ends()
            case "rollback":
                self._in_block, self._ran = False, []
            case _:
                pass
        return False

    def _query(self, text: bytes) -> bool:
        """Execute a simple query, which may contain several statements: the first and the last are examined."""
        is_point = self._execute(_verb(text), _first_line(text))
        _, separator, last = text.rstrip(b" \t\r\n;").rpartition(b";")
        if separator and self._execute(_verb(last), _first_line(last)):
            is_point = True
        return is_point or self._ends()

    def _ends(self) -> bool:
        """Whether a transaction ends here: no BEGIN is open, and something has been executed."""
        if self._in_block or not self._ran:
            return False
        self.latest.is_point, self.latest.statements, self._ran = True, self._ran, []
        return True


def _text(data: bytes, start: int, end: int) -> bytes:
    """Return the text that begins at `start`, up to its zero byte."""
    stop = data.find(0, start, end)
    return data[start : end if stop < 0 else stop]


def _verb(query: bytes) -> Verb:
    found = FIRST_WORDS.match(query)
    if found is None:
        return "other"
    match found[1].lower(), (found[2] or b"").lower():
        case (b"begin", _) | (b"start", _):
            return "begin"
        case (b"commit", second) if second != b"prepared":
            return "commit"
        case (b"end", _):
            return "commit"
        case (b"rollback" | b"abort", second) if second not in (b"to", b"prepared"):
            return "rollback"
        case _:
            return "other"


def _first_line(query: bytes) -> str:
    """Return the first line of a statement, which in our SQL files describes it."""
    line = query.lstrip().partition(b"\n")[0].removeprefix(b"-- ")
    return line[:LONGEST_NAME].decode(errors="replace").strip()
