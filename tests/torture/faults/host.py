"""Faults of shared resources: the server, its standby, its disk, its locks, the network and the clocks."""

from __future__ import annotations

from collections.abc import Mapping

import psycopg

from pgflow.errors import PgflowError
from tests.torture.faults.fault import Aim, Fault
from tests.torture.trial.setup import Environment
from tests.torture.workers.fleet import LEASE

__all__ = ["FAULTS"]

BEYOND_LEASE = (1.3 * LEASE, 2.2 * LEASE)
# By fault: the group it affects, its duration in seconds (minimum, maximum), and its weight.
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
    "cut": ("worker", BEYOND_LEASE, 1.0),
    "cut-requests": ("worker", BEYOND_LEASE, 0.5),
    "cut-replies": ("worker", BEYOND_LEASE, 0.5),
    "worker-clock-ahead": ("worker", (1.0, 3.0), 0.5),
    "worker-clock-behind": ("worker", (1.0, 3.0), 0.5),
}


def fault(name: str) -> Fault:
    """Return a host fault by its name."""
    group, hold, weight = KINDS[name]

    def apply(environment: Environment, aim: Aim) -> bool:
        try:
            environment.faults[name].apply()
        except (PgflowError, psycopg.Error, OSError):  # another fault prevents it
            return False
        finally:
            environment.follow_primary()
        return True

    def heal(environment: Environment, aim: Aim) -> None:
        environment.faults[name].heal()
        environment.follow_primary()

    def why_not(environment: Environment) -> str | None:
        return environment.faults[name].why_not()

    title = _title(name)
    return Fault(title, group, apply, heal, hold=hold, weight=weight, why_not=why_not, keeps_process=group == "worker")


def _title(name: str) -> str:
    return {"stop": "restart of the server", "crash": "crash of the server", "kill": "kill of the postmaster"}.get(
        name, name.replace("-", " ")
    )


FAULTS = tuple(fault(name) for name in KINDS)
