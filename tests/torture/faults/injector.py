"""Inject faults in two lanes, one for workers and one for shared resources, and record the result of each."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path

from tests.torture.faults import clients, flow_faults, host, processes, sessions, wire
from tests.torture.faults.fault import Fault
from tests.torture.faults.schedule import Injection, line, random_schedule, read_schedule
from tests.torture.trial.journal import Journal
from tests.torture.trial.setup import Environment

__all__ = ["FAULTS", "FaultInjector"]

FAULTS: Sequence[Fault] = (
    *(*processes.FAULTS, *sessions.FAULTS, *flow_faults.FAULTS, *clients.FAULTS),
    *(*wire.FAULTS, *host.FAULTS),
)
LANES = (1, 2)
EXTRA_ROUNDS = 4  # after the time is over, over the faults that have not happened yet


class FaultInjector:
    """Injects faults for so many seconds, and then until each has happened once; or as a schedule file specifies.

    A fault may not happen: a process to be killed at some point may never reach it. It is then drawn again.
    """

    def __init__(
        self,
        environment: Environment,
        faults: Sequence[Fault],
        seed: int,
        seconds: float,
        replay: Path | None,
        notify: Callable[[str], None],
    ) -> None:
        self._environment = environment
        self._seed = seed
        self._seconds = seconds
        self._notify = notify
        self._replayed = None if replay is None else read_schedule(replay, faults)
        wanted = {injection.fault for injection in self._replayed} if self._replayed is not None else None
        self.faults = [each for each in faults if wanted is None or each.name in wanted]
        self._by_name = {each.name: each for each in faults}
        self._journal = Journal(environment.folder / "injections.jsonl")
        self._schedule = (environment.folder / "schedule.jsonl").open("w", buffering=1)
        self._happened: set[str] = set()
        self._lock = threading.Lock()
        self._errors: list[BaseException] = []
        self._began = 0.0

    def run(self) -> None:
        """Inject all faults; returns when all of them are healed. Raises errors of the harness itself."""
        self._began = time.monotonic()
        lanes = [threading.Thread(target=self._run_lane, args=(lane,), name=f"faults-{lane}") for lane in LANES]
        for each in lanes:
            each.start()
        for each in lanes:
            each.join()
        time.sleep(max(0.0, self._began + self._seconds - time.monotonic()) if not self.faults else 0.0)
        self._journal.close()
        self._schedule.close()
        if self._errors:
            raise self._errors[0]

    def _run_lane(self, lane: int) -> None:
        try:
            for injection in self._injections(lane):
                if self._errors:
                    return
                time.sleep(injection.after)
                self._inject(injection)
        except BaseException as error:
            self._errors.append(error)

    def _injections(self, lane: int) -> Iterable[Injection]:
        if self._replayed is not None:
            yield from (injection for injection in self._replayed if injection.lane == lane)
            return
        mine = [each for each in self.faults if each.lane == lane]
        for injection in random_schedule(lane, self._seed, mine, self._environment):
            if time.monotonic() > self._began + self._seconds:
                break
            yield injection
        for extra in range(EXTRA_ROUNDS):
            missing = [each for each in mine if each.name not in self._happened]
            schedule = random_schedule(lane, self._seed + 1 + extra, missing, self._environment)
            yield from islice(schedule, len(missing))

    def _inject(self, injection: Injection) -> None:
        fault = self._by_name[injection.fault]
        since = time.time()
        happened = False
        try:
            happened = fault.apply(self._environment, injection.aim)
            time.sleep(injection.hold if happened else 0.0)
        finally:
            hits = fault.heal(self._environment, injection.aim)
        with self._lock:
            if happened:
                self._happened.add(fault.name)
            self._schedule.write(line(injection))
        about = {"fault": fault.name, "group": fault.group, "aim": dict(injection.aim)}
        self._journal.write(**{"from": since, "to": time.time()}, **about, happened=happened, hits=hits)
        at = time.monotonic() - self._began
        self._notify(f"{at:7.1f} s  {injection.fault}{'' if happened else ' (did not happen)'}")
