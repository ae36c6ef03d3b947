"""Faults of users' own steps: they kill their worker, block it for longer than its lease, or leave session state."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable
from typing import Any

import psycopg

from pgflow.errors import PgflowError
from tests.torture.faults.fault import Aim, Fault
from tests.torture.trial.setup import Environment
from tests.torture.workers.fleet import LEASE
from tests.torture.workload import flows
from tests.torture.workload.steps import Script

__all__ = ["FAULTS"]

KILLS = ("exit", "segfault", "out of memory")


def random_kill(dice: random.Random, environment: Environment) -> dict[str, Any]:
    return {"way": dice.choice(KILLS)}


def is_done(start: Callable[[], object]) -> bool:
    """Start instances, and return whether that succeeded."""
    try:
        start()
    except (PgflowError, psycopg.Error, OSError):  # another fault prevents it
        return False
    return True


def start_poison(environment: Environment, aim: Aim) -> bool:
    return is_done(lambda: environment.app.start(flows.Poison, secrets.token_hex(4), Script(way=aim["way"])))


def blocking_step(way: str) -> Fault:
    def apply(environment: Environment, aim: Aim) -> bool:
        script = Script(way=way, hold=1.6 * LEASE)
        return is_done(lambda: environment.app.start(flows.Holding, secrets.token_hex(4), script))

    effect = "holds the interpreter's lock" if way == "yes" else "blocks the event loop"
    return Fault(f"a step that {effect}", "worker", apply)


def litter(environment: Environment, aim: Aim) -> bool:
    scripts = [(f"l-{secrets.token_hex(4)}", Script(errors=number % 2)) for number in range(3)]
    return is_done(lambda: environment.app.start_many(flows.Littering, scripts))


FAULTS = (
    Fault("a step that kills its worker", "worker", start_poison, aim=random_kill, weight=0.5),
    blocking_step("yes"),
    blocking_step("no"),
    Fault("steps that leave their sessions changed", "worker", litter, keeps_process=True),
)
