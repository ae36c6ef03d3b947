"""Do harm by a schedule, one blow after the other, and note each with what came of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from pgflow.cli.torture.arena import Arena
from pgflow.cli.torture.ink import Ink
from pgflow.cli.torture.nemesis import misdeeds, processes, sessions
from pgflow.cli.torture.nemesis.harm import Harm
from pgflow.cli.torture.nemesis.schedule import Blow, read, thrown, write

__all__ = ["HARMS", "Blow", "Harm", "Nemesis", "read", "thrown", "write"]

HARMS: Sequence[Harm] = (*processes.HARMS, *sessions.HARMS, *misdeeds.HARMS)


class Nemesis:
    """Strikes as a schedule says, in a thread of its own; `close` undoes what is still being done.

    A blow that comes late, because another one took long, comes at once after it. `tell(blow, has_come_about)` hears of
    each.
    """

    def __init__(self, arena: Arena, schedule: Sequence[Blow], tell: Callable[[Blow, bool], None]) -> None:
        self.error: BaseException | None = None
        self._arena = arena
        self._schedule = schedule
        self._tell = tell
        self._harms = {each.name: each for each in HARMS}
        self._ink = Ink(arena.folder / "blows.jsonl")
        self._is_closing = threading.Event()
        self._thread = threading.Thread(target=self._live, name="nemesis", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def is_done(self) -> bool:
        """Whether the schedule has come to its end."""
        return not self._thread.is_alive()

    def close(self) -> None:
        """Strike no more. Raises what went wrong with the harness itself."""
        self._is_closing.set()
        self._thread.join()
        self._ink.close()
        if self.error is not None:
            raise self.error

    def _live(self) -> None:
        began = time.monotonic()
        try:
            for blow in self._schedule:
                if self._is_closing.wait(max(0.0, began + blow.at - time.monotonic())):
                    return
                self._strike(blow)
        except BaseException as error:
            self.error = error

    def _strike(self, blow: Blow) -> None:
        harm = self._harms[blow.harm]
        since = time.time()
        has_come = False
        try:
            has_come = harm.apply(self._arena, blow.aim)
            self._is_closing.wait(blow.hold)
        finally:
            harm.heal(self._arena, blow.aim)
        about = {"harm": harm.name, "group": harm.group, "aim": dict(blow.aim), "has_come": has_come}
        self._ink.write(**{"from": since, "to": time.time()}, **about)
        self._tell(blow, has_come)
