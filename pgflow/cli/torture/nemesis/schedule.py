"""The order of blows: thrown by a seed, written to a file, and played again from one."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pgflow.cli.torture.arena import Arena
from pgflow.cli.torture.nemesis.harm import Harm
from pgflow.errors import ConfigError

__all__ = ["Blow", "read", "thrown", "write"]

PAUSE = (0.2, 1.2)  # seconds between two blows


@dataclass(frozen=True, slots=True)
class Blow:
    """One harm that is done: `at` so many seconds from the beginning, for `hold` seconds, aimed at something."""

    at: float
    harm: str
    aim: Mapping[str, Any]
    hold: float


def thrown(seed: int, seconds: float, harms: Sequence[Harm], arena: Arena) -> Iterator[Blow]:
    """Throw the dice for a run: each harm comes once before the rest, which come by their weights."""
    dice = random.Random(seed)  # noqa: S311 -- to be repeated
    first = dice.sample(harms, len(harms))
    at = dice.uniform(*PAUSE)
    while at < seconds:
        harm = first.pop() if first else dice.choices(harms, [each.weight for each in harms])[0]
        hold = round(dice.uniform(*harm.hold), 2)
        yield Blow(round(at, 2), harm.name, harm.aim(dice, arena), hold)
        at += hold + dice.uniform(*PAUSE)


def write(path: Path, blows: Sequence[Blow]) -> None:
    """Write a schedule, a blow a line."""
    path.write_text("".join(json.dumps(asdict(blow)) + "\n" for blow in blows))


def read(path: Path, harms: Sequence[Harm]) -> list[Blow]:
    """Read a schedule. Raises `ConfigError` for what is none, and for harm that cannot be done here."""
    known = {each.name for each in harms}
    try:
        blows = [Blow(**json.loads(line)) for line in path.read_text().splitlines()]
    except (OSError, ValueError, TypeError) as error:
        hint = "Give the file that an earlier run has named."
        raise ConfigError(f"{path} is no schedule: {error}", hint=hint) from error
    if missing := {blow.harm for blow in blows} - known:
        raise ConfigError(f"{path} asks for what cannot be done here: {', '.join(sorted(missing))}")
    return blows
