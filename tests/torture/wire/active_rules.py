"""Keep the faults that hold now, choose which is to be applied on an occasion, and count and tell what came of it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from tests.torture.wire.dialog import Exchange
from tests.torture.wire.rule import COMMITS, Fault

__all__ = ["COMMIT_POINT", "Faults", "Happening", "Party", "Tell"]

COMMIT_POINT = "commit point"
RESET = "reset"


@dataclass(slots=True)
class Party:
    """Who is concerned: the door that a session came in through, and its `application_name` once it has said it."""

    door: str
    role: str = ""


@dataclass(frozen=True, slots=True)
class Happening:
    """A commit point that came by, or a fault that was applied.

    `at` is in monotonic nanoseconds; `what` is "commit point", "reset" or the kind of a rule. Of a lost commit or reply
    `is_committed` says what is true in the database.
    """

    at: int
    what: str
    door: str
    role: str
    statements: tuple[str, ...] = ()
    is_committed: bool | None = None


Tell: TypeAlias = Callable[[Happening], object]


class Faults:
    """The faults that hold, in the order in which they began to. `tell` hears of all but what is merely held up."""

    def __init__(self, tell: Tell | None) -> None:
        self.holding: tuple[Fault, ...] = ()
        self.points: Counter[tuple[str, str]] = Counter()
        self.applied: Counter[tuple[str, str, str]] = Counter()
        self._tell = tell

    def add(self, fault: Fault) -> None:
        """Let it hold from now on."""
        self.holding = (*self.holding, fault)

    def remove(self, fault: Fault | None) -> None:
        """Let it, or all of them (None), hold no longer."""
        gone = self.holding if fault is None else (fault,)
        self.holding = tuple(each for each in self.holding if each not in gone)
        for each in gone:
            each.heal()

    def strike(self, kinds: frozenset[str], party: Party, statements: Sequence[str] = ()) -> Fault | None:
        """Return the fault that is to be applied on this occasion, if one is; each that it concerns counts it."""
        struck = [fault for fault in self._about(kinds, party, statements) if fault.occurs()]
        return struck[0] if struck else None

    def holding_up(self, kinds: frozenset[str], party: Party) -> Iterator[Fault]:
        """Yield the faults that hold up the next piece of what one side sends."""
        for fault in self._about(kinds, party):
            if fault.occurs():
                self._count(fault, party)
                yield fault

    def passes(self, party: Party, exchange: Exchange) -> Fault | None:
        """Take note of a commit point; returns what is to be done to it."""
        self.points[party.door, party.role] += 1
        self._say(COMMIT_POINT, party, exchange)
        return self.strike(COMMITS, party, exchange.statements)

    def struck(
        self, fault: Fault, party: Party, exchange: Exchange | None = None, *, is_committed: bool | None = None
    ) -> None:
        """Take note that a fault was applied."""
        self._count(fault, party)
        self._say(fault.rule.kind, party, exchange, is_committed)

    def reset(self, party: Party) -> None:
        """Take note that a session was reset by hand."""
        self.applied[RESET, party.door, party.role] += 1
        self._say(RESET, party)

    def _about(self, kinds: frozenset[str], party: Party, statements: Sequence[str] = ()) -> Iterator[Fault]:
        for fault in self.holding:
            if fault.rule.kind in kinds and fault.rule.is_about(party.door, party.role, statements):
                yield fault

    def _count(self, fault: Fault, party: Party) -> None:
        fault.applied()
        self.applied[fault.rule.kind, party.door, party.role] += 1

    def _say(self, what: str, party: Party, exchange: Exchange | None = None, is_committed: bool | None = None) -> None:
        if self._tell is not None:
            statements = () if exchange is None else tuple(exchange.statements)
            self._tell(Happening(time.monotonic_ns(), what, party.door, party.role, statements, is_committed))
