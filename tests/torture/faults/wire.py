"""Faults of connections: lost commits, answers and notifications, stalls, slowness, refusals, resets."""

from __future__ import annotations

import random
import secrets
from typing import Any

from psycopg import sql

from pgflow.database.statement import run
from pgflow.store import worker
from tests.torture.faults.fault import Aim, Fault
from tests.torture.trial.setup import Environment
from tests.torture.wire.rule import Kind, Rule
from tests.torture.workers.fleet import LEASE

__all__ = ["FAULTS"]

APPLY_SECONDS = 5.0
ROLES = ("worker", "client", "heart", "step")
BEYOND_LEASE = (1.3 * LEASE, 2.2 * LEASE)
SHORT = (2.0, 4.0)
FORGED = 2000
LOSSES: tuple[Kind, ...] = ("commit lost", "reply lost", "reply cut")


def rule(name: str, group: str, kind: Kind, hold: tuple[float, float], **details: Any) -> Fault:
    """Return a fault that activates a proxy rule, for sessions of one of the `roles` or of one door (`at_one`)."""
    roles, at_one = details.pop("roles", ()), details.pop("at_one", False)

    def aim(dice: random.Random, environment: Environment) -> dict[str, Any]:
        role = f"pgflow:{dice.choice(roles)}" if roles else None
        door = dice.choice(environment.doors) if at_one else None
        return {"role": role, "door": door, "seed": dice.randrange(1_000_000)}

    def apply(environment: Environment, given: Aim) -> bool:
        fault = environment.proxy.inject(Rule(kind, **details, **given))
        environment.rules[name] = fault
        return fault.wait(APPLY_SECONDS)

    def heal(environment: Environment, given: Aim) -> int:
        fault = environment.rules.pop(name, None)
        if fault is None:
            return 0
        environment.proxy.heal(fault)
        return fault.hits

    return Fault(name, group, apply, heal, aim, hold, keeps_process=at_one)


def reset(environment: Environment, aim: Aim) -> bool:
    return environment.proxy.reset(aim["door"]) > 0


def a_door(dice: random.Random, environment: Environment) -> dict[str, Any]:
    return {"door": dice.choice(environment.doors)}


def forge(environment: Environment, aim: Aim) -> bool:
    """Notify the workers with names of unknown queues, as any role of the database can."""
    with environment.admin() as conn:
        channel = run(conn, worker.channel("pgflow"))
        with conn.transaction():
            for _ in range(FORGED):
                conn.execute(sql.SQL("notify {}, {}").format(sql.Identifier(channel), secrets.token_hex(8)))
    return True


FAULTS = (
    *(rule(each, "network", each, SHORT, chance=0.2, roles=ROLES) for each in LOSSES),
    *(rule(f"{each} of any session", "network", each, SHORT, chance=0.05) for each in LOSSES),
    rule("stall of one process", "worker", "stall", BEYOND_LEASE, at_one=True),
    rule("stall up of one process", "worker", "stall up", BEYOND_LEASE, at_one=True),
    rule("stall down of one process", "worker", "stall down", BEYOND_LEASE, at_one=True),
    rule("stall of listeners", "worker", "stall", BEYOND_LEASE, roles=("listen",)),
    rule("stall of heartbeats", "worker", "stall", BEYOND_LEASE, roles=("heart",)),
    rule("delay", "network", "delay", SHORT, ms=40.0, jitter=20.0),
    rule("slow", "network", "slow", SHORT, kbps=64.0),
    rule("refuse", "network", "refuse", SHORT),
    rule("drop notifications", "network", "drop notifications", SHORT),
    rule("double notifications", "network", "double notifications", SHORT),
    rule("late notifications", "network", "late notifications", SHORT, ms=1500.0),
    Fault("reset connections of one process", "worker", reset, aim=a_door, keeps_process=True),
    Fault("forged notifications", "network", forge),
)
