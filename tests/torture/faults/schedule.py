"""The order of injections: drawn from a seed, written to a file as they happen, and read from one for a replay."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pgflow.errors import ConfigError
from tests.torture.faults.fault import Fault
from tests.torture.trial.setup import Environment

__all__ = ["Injection", "line", "random_schedule", "read_schedule"]

PAUSE = (0.2, 1.2)  # seconds between two injections of one lane


@dataclass(frozen=True, slots=True)
class Injection:
    """One injection: `after` so many seconds from the previous one in its lane, its aim, and for how long."""

    lane: int
    after: float
    fault: str
    aim: Mapping[str, Any]
    hold: float


def random_schedule(lane: int, seed: int, faults: Sequence[Fault], environment: Environment) -> Iterator[Injection]:
    """Draw an endless schedule for a lane: each fault once in random order, then by their weights."""
    dice = random.Random(f"{seed} {lane}")  # noqa: S311 -- repeatable
    first = dice.sample(faults, len(faults))
    while faults:
        fault = first.pop() if first else dice.choices(faults, [each.weight for each in faults])[0]
        after, aim = round(dice.uniform(*PAUSE), 2), fault.aim(dice, environment)
        yield Injection(lane, after, fault.name, aim, round(dice.uniform(*fault.hold), 2))


def line(injection: Injection) -> str:
    """Return an injection as a line of a schedule."""
    return json.dumps(asdict(injection)) + "\n"


def read_schedule(path: Path, faults: Iterable[Fault]) -> list[Injection]:
    """Read a schedule. Raises `ConfigError` for an invalid file, or for faults that this machine does not support."""
    known = {each.name for each in faults}
    try:
        injections = [Injection(**json.loads(text)) for text in path.read_text().splitlines()]
    except (OSError, ValueError, TypeError) as error:
        hint = "Give the file schedule.jsonl of an earlier run."
        raise ConfigError(f"{path} is not a schedule: {error}", hint=hint) from error
    if missing := {injection.fault for injection in injections} - known:
        raise ConfigError(f"{path} has faults that are not supported here: {', '.join(sorted(missing))}")
    return injections
