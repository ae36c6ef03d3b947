"""Do harm: two lanes of it, one at the workers and one at what they stand on, and note each with what came of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path

from tests.torture.faults import clients, flow_faults, host, processes, sessions, wire
from tests.torture.faults.fault import Harm
from tests.torture.faults.schedule import Blow, line, read, thrown
from tests.torture.trial.journal import Journal
from tests.torture.trial.setup import Arena

__all__ = ["HARMS", "Blow", "Harm", "Nemesis"]

HARMS: Sequence[Harm] = (
    *(*processes.HARMS, *sessions.HARMS, *flow_faults.HARMS, *clients.HARMS),
    *(*wire.HARMS, *host.HARMS),
)
LANES = (1, 2)
PERSISTENCE = 4  # rounds over what has not come about when the time is over


class Nemesis:
    """Strikes for so many seconds, and then until each harm has come about once; or as a schedule file says.

    A blow need not come about: a process that was to be killed at some point may never have come there. It is dealt
    again then.
    """

    def __init__(
        self,
        arena: Arena,
        harms: Sequence[Harm],
        seed: int,
        seconds: float,
        replay: Path | None,
        tell: Callable[[str], None],
    ) -> None:
        self._arena = arena
        self._seed = seed
        self._seconds = seconds
        self._tell = tell
        self._replayed = None if replay is None else read(replay, harms)
        wanted = {blow.harm for blow in self._replayed} if self._replayed is not None else None
        self.harms = [each for each in harms if wanted is None or each.name in wanted]
        self._by_name = {each.name: each for each in harms}
        self._ink = Journal(arena.folder / "blows.jsonl")
        self._schedule = (arena.folder / "schedule.jsonl").open("w", buffering=1)
        self._came: set[str] = set()
        self._lock = threading.Lock()
        self._errors: list[BaseException] = []
        self._began = 0.0

    def strike(self) -> None:
        """Do it all; returns when everything is undone again. Raises what goes wrong with the harness itself."""
        self._began = time.monotonic()
        lanes = [threading.Thread(target=self._live, args=(lane,), name=f"nemesis-{lane}") for lane in LANES]
        for each in lanes:
            each.start()
        for each in lanes:
            each.join()
        time.sleep(max(0.0, self._began + self._seconds - time.monotonic()) if not self.harms else 0.0)
        self._ink.close()
        self._schedule.close()
        if self._errors:
            raise self._errors[0]

    def _live(self, lane: int) -> None:
        try:
            for blow in self._blows(lane):
                if self._errors:
                    return
                time.sleep(blow.after)
                self._strike(blow)
        except BaseException as error:
            self._errors.append(error)

    def _blows(self, lane: int) -> Iterable[Blow]:
        if self._replayed is not None:
            yield from (blow for blow in self._replayed if blow.lane == lane)
            return
        mine = [each for each in self.harms if each.lane == lane]
        for blow in thrown(lane, self._seed, mine, self._arena):
            if time.monotonic() > self._began + self._seconds:
                break
            yield blow
        for again in range(PERSISTENCE):
            missing = [each for each in mine if each.name not in self._came]
            yield from islice(thrown(lane, self._seed + 1 + again, missing, self._arena), len(missing))

    def _strike(self, blow: Blow) -> None:
        harm = self._by_name[blow.harm]
        since = time.time()
        has_come = False
        try:
            has_come = harm.apply(self._arena, blow.aim)
            time.sleep(blow.hold if has_come else 0.0)
        finally:
            hits = harm.heal(self._arena, blow.aim)
        with self._lock:
            if has_come:
                self._came.add(harm.name)
            self._schedule.write(line(blow))
        about = {"harm": harm.name, "group": harm.group, "aim": dict(blow.aim), "has_come": has_come, "hits": hits}
        self._ink.write(**{"from": since, "to": time.time()}, **about)
        at = time.monotonic() - self._began
        self._tell(f"{at:7.1f} s  {blow.harm}{'' if has_come else ' (did not come about)'}")
