"""Harm to what everything stands on: the server, its standby, its disk, its locks, the network and the clocks."""

from __future__ import annotations

from collections.abc import Mapping

import psycopg

from pgflow.errors import PgflowError
from tests.torture.faults.fault import Aim, Harm
from tests.torture.trial.setup import Arena
from tests.torture.workers.fleet import LEASE

__all__ = ["HARMS"]

BEYOND = (1.3 * LEASE, 2.2 * LEASE)
# By the name of the fault: whom it reaches, for how many seconds, and how often among the others.
KINDS: Mapping[str, tuple[str, tuple[float, float], float]] = {
    "stop": ("server", (0.0, 1.0), 1.0),
    "crash": ("server", (0.0, 1.0), 1.0),
    "kill": ("server", (0.0, 1.0), 1.0),
    "kill-backend": ("server", (0.0, 0.0), 1.0),
    "failover": ("server", (0.0, 0.0), 1.0),
    "standby-lags": ("server", (1.0, 3.0), 1.0),
    "disk-full": ("disk", (1.0, 3.0), 1.0),
    "log-full": ("disk", (0.5, 1.5), 0.5),
    "no-connections": ("connections", (2.0, 4.0), 1.0),
    "old-snapshot": ("session", (5.0, 10.0), 1.0),
    "lock-jobs": ("locks", (1.0, 3.0), 1.0),
    "lock-instances": ("locks", (1.0, 3.0), 1.0),
    "sequences-behind": ("locks", (2.0, 4.0), 1.0),
    "refusals": ("locks", (2.0, 4.0), 1.0),
    "clock-ahead": ("clock", (1.0, 3.0), 0.5),
    "clock-behind": ("clock", (1.0, 3.0), 0.5),
    "cut": ("worker", BEYOND, 1.0),
    "cut-requests": ("worker", BEYOND, 0.5),
    "cut-replies": ("worker", BEYOND, 0.5),
    "worker-clock-ahead": ("worker", (1.0, 3.0), 0.5),
    "worker-clock-behind": ("worker", (1.0, 3.0), 0.5),
}


def harm(name: str) -> Harm:
    """A fault of the host, by its name."""
    group, hold, weight = KINDS[name]

    def apply(arena: Arena, aim: Aim) -> bool:
        try:
            arena.faults[name].apply()
        except (PgflowError, psycopg.Error, OSError):  # another one is in its way
            return False
        finally:
            arena.lead()
        return True

    def heal(arena: Arena, aim: Aim) -> None:
        arena.faults[name].heal()
        arena.lead()

    def why_not(arena: Arena) -> str | None:
        return arena.faults[name].why_not()

    title = _title(name)
    return Harm(title, group, apply, heal, hold=hold, weight=weight, why_not=why_not, beside=group == "worker")


def _title(name: str) -> str:
    return {"stop": "restart of the server", "crash": "crash of the server", "kill": "kill of the postmaster"}.get(
        name, name.replace("-", " ")
    )


HARMS = tuple(harm(name) for name in KINDS)
