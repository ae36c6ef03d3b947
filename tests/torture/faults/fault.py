"""What a fault is: how it is aimed, done and undone, and why it cannot be done here if it cannot."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.torture.trial.setup import Arena

__all__ = ["Aim", "Harm", "anywhere", "at_a_worker", "possible"]

Aim = Mapping[str, Any]


def possible(arena: Arena) -> str | None:
    """No reason against it."""
    return None


def anywhere(dice: random.Random, arena: Arena) -> dict[str, Any]:
    """It is aimed at nothing in particular."""
    return {}


def at_a_worker(dice: random.Random, arena: Arena) -> dict[str, Any]:
    """It is aimed at one of the workers."""
    return {"worker": dice.choice(arena.fleet.berths).name}


def nothing(arena: Arena, aim: Aim) -> int | None:
    """There is nothing to undo."""
    return None


@dataclass(frozen=True, slots=True)
class Harm:
    """A kind of harm.

    `group` says whom it reaches: "worker", or "server", "network", "clock", … for everybody. `aim` throws the dice,
    once, so that the same schedule can be played again; what it returns is JSON. `hold` is for how many seconds, at the
    least and at the most, it stays until it is undone by `heal`, which returns how often it was applied where that is
    counted. `apply` returns whether it has come about: a process that was to be stopped at some point may never have
    come there. What is in one `lane` comes one after the other: in 1 what ends, stops or silences workers, so that some
    are left to take over in time; in 2 what all stand on, and what is `beside`: done to one process, which lives on.
    """

    name: str
    group: str
    apply: Callable[[Arena, Aim], bool]
    heal: Callable[[Arena, Aim], int | None] = nothing
    aim: Callable[[random.Random, Arena], dict[str, Any]] = anywhere
    hold: tuple[float, float] = (0.0, 0.0)
    weight: float = 1.0
    why_not: Callable[[Arena], str | None] = possible
    beside: bool = False

    @property
    def lane(self) -> int:
        """In which of the two lanes it is."""
        return 1 if self.group == "worker" and not self.beside else 2
