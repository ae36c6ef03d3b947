"""Rules as data: which fault affects which sessions and when; and a rule in force, with its counts."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from pgflow.errors import InvalidValue

__all__ = ["COMMITS", "DOWNWARD", "NOTIFICATIONS", "REFUSALS", "UPWARD", "ActiveRule", "Kind", "Rule"]

Kind: TypeAlias = Literal[
    "commit lost",  # a commit point does not reach the server, and the session ends: nothing is committed
    "reply lost",  # it is committed, and the session ends before the client gets the answer
    "reply cut",  # half of the answer arrives first
    "stall",  # nothing is forwarded, and the connections stay open
    "stall up",  # nothing from the client is forwarded
    "stall down",  # nothing from the server is forwarded
    "delay",  # data arrives `ms` later, plus or minus `jitter`
    "slow",  # data arrives at `kbps` kilobytes a second
    "refuse",  # a new session ends after its startup message
    "drop notifications",
    "double notifications",
    "late notifications",  # only notifications arrive `ms` later
]
COMMITS = frozenset({"commit lost", "reply lost", "reply cut"})
NOTIFICATIONS = frozenset({"drop notifications", "double notifications", "late notifications"})
REFUSALS = frozenset({"refuse"})
UPWARD = frozenset({"stall", "stall up", "delay", "slow"})
DOWNWARD = frozenset({"stall", "stall down", "delay", "slow"})


@dataclass(frozen=True, slots=True)
class Rule:
    """A fault, the sessions that it affects, and when.

    `door` and `role` select sessions (None: all) by the port that they use and by their whole `application_name`, such
    as "pgflow:worker". `statement` selects commit points by a part of the first line of one of their statements. Of the
    matching occasions, the rule applies to the `nth` since its activation, or to each with the probability `chance`. An
    occasion is a commit point, a new session, a notification, or a chunk of data. Raises `InvalidValue` for an unknown
    kind.

        Rule("reply lost", role="pgflow:worker", nth=3)
    """

    kind: Kind
    door: str | None = None
    role: str | None = None
    statement: str | None = None
    nth: int | None = None
    chance: float = 1.0
    seed: int = 0
    ms: float = 0.0
    jitter: float = 0.0
    kbps: float = 64.0

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise InvalidValue(f"unknown kind of rule {self.kind!r}", hint=f"Kinds: {', '.join(get_args(Kind))}.")

    def is_about(self, door: str, role: str, statements: Sequence[str] = ()) -> bool:
        """Whether it affects a session of this door and role, with these statements."""
        if self.door not in (None, door) or self.role not in (None, role):
            return False
        return self.statement is None or any(self.statement in each for each in statements)


class ActiveRule:
    """A rule in force. `seen` counts its occasions, `hits` its applications.

    Everything but `wait` runs in the proxy's thread.
    """

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.seen = 0
        self.hits = 0
        self._dice = random.Random(rule.seed)  # noqa: S311 -- repeatable
        self._healed = asyncio.Event()
        self._hit = threading.Condition()

    def wait(self, seconds: float, hits: int = 1) -> bool:
        """Wait until it has been applied `hits` times; returns False on a timeout."""
        with self._hit:
            return self._hit.wait_for(lambda: self.hits >= hits, seconds)

    def occurs(self) -> bool:
        """Count an occasion; returns whether the rule applies to it."""
        self.seen += 1
        if self.rule.nth is not None:
            return self.seen == self.rule.nth
        return self.rule.chance >= 1.0 or self._dice.random() < self.rule.chance

    def applied(self) -> None:
        """Count an application."""
        with self._hit:
            self.hits += 1
            self._hit.notify_all()

    async def delay(self, size: int) -> None:
        """Delay a chunk of `size` bytes."""
        match self.rule.kind:
            case "delay":
                await self._sleep(self.next_delay())
            case "slow":
                await self._sleep(size / 1024 / self.rule.kbps)
            case _:
                await self._healed.wait()

    def next_delay(self) -> float:
        """Return the next delay in seconds."""
        return max(0.0, self.rule.ms + self._dice.uniform(-self.rule.jitter, self.rule.jitter)) / 1000

    def heal(self) -> None:
        """Release delayed data."""
        self._healed.set()

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._healed.wait()
        except TimeoutError:
            pass
