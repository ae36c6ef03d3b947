"""The rules in force: choose which applies on an occasion, count applications, and notify of them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from tests.torture.wire.dialog import Exchange
from tests.torture.wire.rule import COMMITS, ActiveRule

__all__ = ["COMMIT_POINT", "ActiveRules", "Notify", "SessionInfo", "WireEvent"]

COMMIT_POINT = "commit point"
RESET = "reset"


@dataclass(slots=True)
class SessionInfo:
    """A session: the door that it came in through, and its `application_name` once it is known."""

    door: str
    role: str = ""


@dataclass(frozen=True, slots=True)
class WireEvent:
    """A commit point, or a rule that was applied.

    `at` is in monotonic nanoseconds; `what` is "commit point", "reset" or the kind of a rule. For a lost commit or
    reply, `is_committed` is whether the transaction is committed.
    """

    at: int
    what: str
    door: str
    role: str
    statements: tuple[str, ...] = ()
    is_committed: bool | None = None


Notify: TypeAlias = Callable[[WireEvent], object]


class ActiveRules:
    """The rules in force, oldest first. `notify` is called for every event except delays."""

    def __init__(self, notify: Notify | None) -> None:
        self.active: tuple[ActiveRule, ...] = ()
        self.points: Counter[tuple[str, str]] = Counter()
        self.applied: Counter[tuple[str, str, str]] = Counter()
        self._notify = notify

    def add(self, active: ActiveRule) -> None:
        """Activate a rule."""
        self.active = (*self.active, active)

    def remove(self, active: ActiveRule | None) -> None:
        """Deactivate a rule, or all of them (None)."""
        gone = self.active if active is None else (active,)
        self.active = tuple(each for each in self.active if each not in gone)
        for each in gone:
            each.heal()

    def pick(self, kinds: frozenset[str], session: SessionInfo, statements: Sequence[str] = ()) -> ActiveRule | None:
        """Return the rule to apply on this occasion, if any; each matching rule counts the occasion."""
        found = [active for active in self._about(kinds, session, statements) if active.occurs()]
        return found[0] if found else None

    def delaying(self, kinds: frozenset[str], session: SessionInfo) -> Iterator[ActiveRule]:
        """Yield the rules that delay the next chunk of one side."""
        for active in self._about(kinds, session):
            if active.occurs():
                self._count(active, session)
                yield active

    def on_commit_point(self, session: SessionInfo, exchange: Exchange) -> ActiveRule | None:
        """Count a commit point; returns the rule to apply to it."""
        self.points[session.door, session.role] += 1
        self._emit(COMMIT_POINT, session, exchange)
        return self.pick(COMMITS, session, exchange.statements)

    def record(
        self,
        active: ActiveRule,
        session: SessionInfo,
        exchange: Exchange | None = None,
        *,
        is_committed: bool | None = None,
    ) -> None:
        """Count an application of a rule."""
        self._count(active, session)
        self._emit(active.rule.kind, session, exchange, is_committed)

    def reset(self, session: SessionInfo) -> None:
        """Count a reset by the harness."""
        self.applied[RESET, session.door, session.role] += 1
        self._emit(RESET, session)

    def _about(
        self, kinds: frozenset[str], session: SessionInfo, statements: Sequence[str] = ()
    ) -> Iterator[ActiveRule]:
        for active in self.active:
            if active.rule.kind in kinds and active.rule.is_about(session.door, session.role, statements):
                yield active

    def _count(self, active: ActiveRule, session: SessionInfo) -> None:
        active.applied()
        self.applied[active.rule.kind, session.door, session.role] += 1

    def _emit(
        self, what: str, session: SessionInfo, exchange: Exchange | None = None, is_committed: bool | None = None
    ) -> None:
        if self._notify is not None:
            statements = () if exchange is None else tuple(exchange.statements)
            self._notify(WireEvent(time.monotonic_ns(), what, session.door, session.role, statements, is_committed))
