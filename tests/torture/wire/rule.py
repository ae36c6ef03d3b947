"""Say what is to go wrong with which sessions, as data that can be written down, and keep count of how often it did."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from pgflow.errors import InvalidValue

__all__ = ["COMMITS", "DOWNWARD", "NOTIFICATIONS", "REFUSALS", "UPWARD", "Fault", "Kind", "Rule"]

Kind: TypeAlias = Literal[
    "commit lost",  # a commit point does not reach the server, and the session ends: nothing is committed
    "reply lost",  # it is committed, and the session ends before the client hears of it
    "reply cut",  # half of the answer arrives first
    "stall",  # nothing comes through, and the connections stay open
    "stall up",  # nothing of the client's comes through
    "stall down",  # nothing of the server's comes through
    "delay",  # what is sent comes `ms` later, give or take `jitter`
    "slow",  # what is sent comes at `kbps` kilobytes a second
    "refuse",  # a new session ends as soon as it has said who it is
    "drop notifications",
    "double notifications",
    "late notifications",  # they come `ms` later, and nothing else does
]
COMMITS = frozenset({"commit lost", "reply lost", "reply cut"})
NOTIFICATIONS = frozenset({"drop notifications", "double notifications", "late notifications"})
REFUSALS = frozenset({"refuse"})
UPWARD = frozenset({"stall", "stall up", "delay", "slow"})
DOWNWARD = frozenset({"stall", "stall down", "delay", "slow"})


@dataclass(frozen=True, slots=True)
class Rule:
    """What goes wrong, with whom, and when.

    `door` and `role` choose sessions (None: all), by the port that they came in through and by their whole
    `application_name`, such as "pgflow:worker"; `statement` chooses commit points by a part of the first line of one of
    their statements. Of all occasions that are left only the `nth`, counted from when the rule begins to hold, or each
    with the probability `chance`, by dice of the seed `seed`. An occasion is a commit point, a new session, a
    notification, or a piece of what one side sends. Raises `InvalidValue` for a kind that there is not.

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
            raise InvalidValue(f"there is no fault {self.kind!r}", hint=f"There are: {', '.join(get_args(Kind))}.")

    def is_about(self, door: str, role: str, statements: Sequence[str] = ()) -> bool:
        """Whether it is about sessions that came in through `door` in `role`, and about these statements of theirs."""
        if self.door not in (None, door) or self.role not in (None, role):
            return False
        return self.statement is None or any(self.statement in each for each in statements)


class Fault:
    """A rule while it holds. `seen` counts its occasions, `hits` how often it was applied.

    All but `wait` happens in the proxy's thread.
    """

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.seen = 0
        self.hits = 0
        self._dice = random.Random(rule.seed)  # noqa: S311 -- a seed is to repeat it
        self._healed = asyncio.Event()
        self._hit = threading.Condition()

    def wait(self, seconds: float, hits: int = 1) -> bool:
        """Wait until it has been applied so often; returns False when it has not been within so many seconds."""
        with self._hit:
            return self._hit.wait_for(lambda: self.hits >= hits, seconds)

    def occurs(self) -> bool:
        """Count an occasion; returns whether it is to be applied to this one."""
        self.seen += 1
        if self.rule.nth is not None:
            return self.seen == self.rule.nth
        return self.rule.chance >= 1.0 or self._dice.random() < self.rule.chance

    def applied(self) -> None:
        """Count that it was applied."""
        with self._hit:
            self.hits += 1
            self._hit.notify_all()

    async def hold_up(self, size: int) -> None:
        """Hold up so many bytes, for as long as the rule wants."""
        match self.rule.kind:
            case "delay":
                await self._sleep(self.lateness())
            case "slow":
                await self._sleep(size / 1024 / self.rule.kbps)
            case _:
                await self._healed.wait()

    def lateness(self) -> float:
        """How many seconds later something is to come this time."""
        return max(0.0, self.rule.ms + self._dice.uniform(-self.rule.jitter, self.rule.jitter)) / 1000

    def heal(self) -> None:
        """Let go of what it holds up."""
        self._healed.set()

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._healed.wait()
        except TimeoutError:
            pass
