"""Harm on the wire: commits and answers lost, silence, slowness, refused and reset connections, lost wake-ups."""

from __future__ import annotations

import random
import secrets
from typing import Any

from psycopg import sql

from pgflow.database.statement import run
from pgflow.store import worker
from tests.torture.faults.fault import Aim, Harm
from tests.torture.trial.setup import Arena
from tests.torture.wire.rule import Kind, Rule
from tests.torture.workers.fleet import LEASE

__all__ = ["HARMS"]

MEET_SECONDS = 5.0
ROLES = ("worker", "client", "heart", "step")
BEYOND = (1.3 * LEASE, 2.2 * LEASE)
SHORT = (2.0, 4.0)
FORGED = 2000
LOSSES: tuple[Kind, ...] = ("commit lost", "reply lost", "reply cut")


def rule(name: str, group: str, kind: Kind, hold: tuple[float, float], **details: Any) -> Harm:
    """A rule of the proxy, for a while; with `roles` it is about sessions of one of them, with `at_one` of one door."""
    roles, at_one = details.pop("roles", ()), details.pop("at_one", False)

    def aim(dice: random.Random, arena: Arena) -> dict[str, Any]:
        role = f"pgflow:{dice.choice(roles)}" if roles else None
        door = dice.choice(arena.doors) if at_one else None
        return {"role": role, "door": door, "seed": dice.randrange(1_000_000)}

    def apply(arena: Arena, given: Aim) -> bool:
        fault = arena.proxy.inject(Rule(kind, **details, **given))
        arena.rules[name] = fault
        return fault.wait(MEET_SECONDS)

    def heal(arena: Arena, given: Aim) -> int:
        fault = arena.rules.pop(name, None)
        if fault is None:
            return 0
        arena.proxy.heal(fault)
        return fault.hits

    return Harm(name, group, apply, heal, aim, hold, beside=at_one)


def reset(arena: Arena, aim: Aim) -> bool:
    return arena.proxy.reset(aim["door"]) > 0


def a_door(dice: random.Random, arena: Arena) -> dict[str, Any]:
    return {"door": dice.choice(arena.doors)}


def forge(arena: Arena, aim: Aim) -> bool:
    """What any role of the database may do: wake everybody for nothing, with names of no queue."""
    with arena.admin() as conn:
        channel = run(conn, worker.channel("pgflow"))
        with conn.transaction():
            for _ in range(FORGED):
                conn.execute(sql.SQL("notify {}, {}").format(sql.Identifier(channel), secrets.token_hex(8)))
    return True


HARMS = (
    *(rule(each, "network", each, SHORT, chance=0.2, roles=ROLES) for each in LOSSES),
    *(rule(f"{each} of any session", "network", each, SHORT, chance=0.05) for each in LOSSES),
    rule("stall of one process", "worker", "stall", BEYOND, at_one=True),
    rule("stall up of one process", "worker", "stall up", BEYOND, at_one=True),
    rule("stall down of one process", "worker", "stall down", BEYOND, at_one=True),
    rule("stall of listeners", "worker", "stall", BEYOND, roles=("listen",)),
    rule("stall of heartbeats", "worker", "stall", BEYOND, roles=("heart",)),
    rule("delay", "network", "delay", SHORT, ms=40.0, jitter=20.0),
    rule("slow", "network", "slow", SHORT, kbps=64.0),
    rule("refuse", "network", "refuse", SHORT),
    rule("drop notifications", "network", "drop notifications", SHORT),
    rule("double notifications", "network", "double notifications", SHORT),
    rule("late notifications", "network", "late notifications", SHORT, ms=1500.0),
    Harm("reset connections of one process", "worker", reset, aim=a_door, beside=True),
    Harm("forged notifications", "network", forge),
)
