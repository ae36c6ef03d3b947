"""Harm that users' own steps do: they kill their worker, block it for longer than its lease, or litter sessions."""

from __future__ import annotations

import random
import secrets
from typing import Any

from tests.torture.faults.fault import Aim, Harm
from tests.torture.trial.setup import Arena
from tests.torture.workers.fleet import LEASE
from tests.torture.workload import flows
from tests.torture.workload.flows import Script

__all__ = ["HARMS"]

HOW = ("exit", "segfault", "out of memory")


def poison(dice: random.Random, arena: Arena) -> dict[str, Any]:
    return {"way": dice.choice(HOW)}


def give_poison(arena: Arena, aim: Aim) -> bool:
    arena.app.start(flows.Poison, secrets.token_hex(4), Script(way=aim["way"]))
    return True


def hold_up(way: str) -> Harm:
    def apply(arena: Arena, aim: Aim) -> bool:
        arena.app.start(flows.Holding, secrets.token_hex(4), Script(way=way, hold=1.6 * LEASE))
        return True

    what = "holds the interpreter's lock" if way == "yes" else "blocks the event loop"
    return Harm(f"a step that {what}", "worker", apply)


def litter(arena: Arena, aim: Aim) -> bool:
    scripts = [(f"l-{secrets.token_hex(4)}", Script(errors=number % 2)) for number in range(3)]
    arena.app.start_many(flows.Littering, scripts)
    return True


HARMS = (
    Harm("a step that kills its worker", "worker", give_poison, aim=poison, weight=0.5),
    hold_up("yes"),
    hold_up("no"),
    Harm("steps that leave their sessions changed", "worker", litter, beside=True),
)
