"""A fault: how it is aimed, applied and healed, and why this machine may not support it."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.torture.trial.setup import Environment

__all__ = ["Aim", "Fault", "at_a_worker", "no_aim", "supported"]

Aim = Mapping[str, Any]


def supported(environment: Environment) -> str | None:
    """Return no reason against the fault."""
    return None


def no_aim(dice: random.Random, environment: Environment) -> dict[str, Any]:
    """Aim at nothing in particular."""
    return {}


def at_a_worker(dice: random.Random, environment: Environment) -> dict[str, Any]:
    """Aim at a random worker."""
    return {"worker": dice.choice(environment.fleet.slots).name}


def heals_itself(environment: Environment, aim: Aim) -> int | None:
    """Undo nothing."""
    return None


@dataclass(frozen=True, slots=True)
class Fault:
    """A kind of fault.

    `group` is what it affects: "worker", or "server", "network", "clock" and others for all processes. `aim` draws a
    target from the dice as JSON, so that a schedule can be replayed. `apply` returns whether the fault happened: a
    process to be stopped at some point may never reach it. It lasts for `hold` seconds (minimum, maximum), until `heal`
    undoes it and returns how often it was applied, where that is counted.

    Faults of one `lane` follow each other: lane 1 ends, stops or isolates workers, so that enough of them are left to
    take over in time; lane 2 affects shared resources, or a single process that survives it (`keeps_process`).
    """

    name: str
    group: str
    apply: Callable[[Environment, Aim], bool]
    heal: Callable[[Environment, Aim], int | None] = heals_itself
    aim: Callable[[random.Random, Environment], dict[str, Any]] = no_aim
    hold: tuple[float, float] = (0.0, 0.0)
    weight: float = 1.0
    why_not: Callable[[Environment], str | None] = supported
    keeps_process: bool = False

    @property
    def lane(self) -> int:
        """The lane that it belongs to."""
        return 1 if self.group == "worker" and not self.keeps_process else 2
