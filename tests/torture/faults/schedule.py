"""The order of blows: thrown by a seed, written to a file as they fall, and played again from one."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pgflow.errors import ConfigError
from tests.torture.faults.fault import Harm
from tests.torture.trial.setup import Arena

__all__ = ["Blow", "line", "read", "thrown"]

PAUSE = (0.2, 1.2)  # seconds between two blows of one lane


@dataclass(frozen=True, slots=True)
class Blow:
    """One harm that is done: `after` so many seconds from the one before in its lane, at what, and for how long."""

    lane: int
    after: float
    harm: str
    aim: Mapping[str, Any]
    hold: float


def thrown(lane: int, seed: int, harms: Sequence[Harm], arena: Arena) -> Iterator[Blow]:
    """Throw the dice for a lane, without an end: each harm comes once before the rest, which come by their weights."""
    dice = random.Random(f"{seed} {lane}")  # noqa: S311 -- to be repeated
    first = dice.sample(harms, len(harms))
    while harms:
        harm = first.pop() if first else dice.choices(harms, [each.weight for each in harms])[0]
        yield Blow(
            lane, round(dice.uniform(*PAUSE), 2), harm.name, harm.aim(dice, arena), round(dice.uniform(*harm.hold), 2)
        )


def line(blow: Blow) -> str:
    """Return a blow as a line of a schedule."""
    return json.dumps(asdict(blow)) + "\n"


def read(path: Path, harms: Iterable[Harm]) -> list[Blow]:
    """Read a schedule. Raises `ConfigError` for what is none, and for harm that cannot be done here."""
    known = {each.name for each in harms}
    try:
        blows = [Blow(**json.loads(text)) for text in path.read_text().splitlines()]
    except (OSError, ValueError, TypeError) as error:
        hint = "Give the file that an earlier run has named."
        raise ConfigError(f"{path} is no schedule: {error}", hint=hint) from error
    if missing := {blow.harm for blow in blows} - known:
        raise ConfigError(f"{path} asks for what cannot be done here: {', '.join(sorted(missing))}")
    return blows
