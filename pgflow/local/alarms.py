"""Know what goes on by itself when, tokens and signals, and have the loop ring for what is next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime

from pgflow.core.models.instance import PendingSignal
from pgflow.local.clock import Clock
from pgflow.local.lock import Lock
from pgflow.local.loop import Loop
from pgflow.local.run import Run, Token
from pgflow.local.timers import Timers

__all__ = ["Alarms"]


class Alarms:
    """`ring()` is called on the loop, with the lock held, when something is due. All else is for who holds the lock."""

    def __init__(
        self, loop: Loop, lock: Lock, clock: Clock, runs: Mapping[int, Run], ring: Callable[[], object]
    ) -> None:
        self._loop = loop
        self._lock = lock
        self._clock = clock
        self._runs = runs
        self._ring = ring
        self._tokens: Timers[str, Token] = Timers(self._token)
        self._signals: Timers[int, PendingSignal] = Timers(self._signal)
        self._alarm: asyncio.TimerHandle | None = None
        self._is_ended = False

    def add_token(self, run: Run, token: Token) -> None:
        """Ring when a token is due, unless it has gone on by then."""
        self._tokens.add(run, token.step, token.due)
        self._loop.soon(self._set)

    def add_signal(self, run: Run, number: int) -> None:
        """Ring when a signal is to be sent, unless it was called off by then."""
        self._signals.add(run, number, run.later[number].due)
        self._loop.soon(self._set)

    def has_tokens(self) -> bool:
        """Whether a token will go on by itself."""
        return self._tokens.next() is not None

    def next(self) -> datetime | None:
        """Return when something is due next."""
        moments = (self._tokens.next(), self._signals.next())
        return min((moment for moment in moments if moment is not None), default=None)

    def due_token(self) -> tuple[Run, Token] | None:
        """Take the next token whose time has come."""
        return self._tokens.pop(self._clock.now())

    def due_signal(self) -> tuple[Run, PendingSignal] | None:
        """Take the next signal whose time has come."""
        return self._signals.pop(self._clock.now())

    def end(self) -> None:
        """Ring no more."""
        self._is_ended = True

    def _token(self, number: int, step: str) -> tuple[Run, Token] | None:
        run = self._runs.get(number)
        token = None if run is None else run.tokens.get(step)
        return None if run is None or token is None else (run, token)

    def _signal(self, number: int, key: int) -> tuple[Run, PendingSignal] | None:
        run = self._runs.get(number)
        signal = None if run is None else run.later.get(key)
        return None if run is None or signal is None else (run, signal)

    def _set(self) -> None:
        with self._lock:
            if self._alarm is not None:
                self._alarm.cancel()
                self._alarm = None
            if not self._is_ended and (due := self.next()) is not None:
                seconds = max(0.0, (due - self._clock.now()).total_seconds())
                self._alarm = self._loop.later(seconds, self._rang)

    def _rang(self) -> None:
        with self._lock:
            if not self._is_ended:
                self._ring()
        self._set()
