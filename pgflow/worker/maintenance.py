"""Know when due tokens have to be made ready and when to look for tokens of dead workers."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from pgflow.worker.decide import Decision

__all__ = ["Maintenance"]

STAGE_SECONDS = 1.0  # how often to look for due tokens that another worker or a client has put there
SCHEDULING = frozenset({"park", "retry", "snooze"})


class Maintenance:
    """When which statement of upkeep is due, in monotonic seconds. Any number of workers may do them at once: they do no harm."""

    def __init__(self, schema: str, sweep: timedelta) -> None:
        self._sweep = sweep.total_seconds()
        self._sweep_at = 0.0
        self._stage_at = 0.0

    @property
    def next_at(self) -> float:
        """When something is due next."""
        return min(self._sweep_at, self._stage_at)

    def is_sweep_due(self, now: float) -> bool:
        """Whether to free the tokens of dead workers now."""
        return now >= self._sweep_at

    def is_stage_due(self, now: float, decisions: Iterable[Decision]) -> bool:
        """Whether to make due tokens ready now: at the known moment, or to learn the next one after adding another."""
        return now >= self._stage_at or any(
            verdict.op in SCHEDULING for decision in decisions for verdict in decision.verdicts
        )

    def learn(self, now: float, answers: Mapping[str, Any]) -> None:
        """Take over what the statements returned."""
        if "rescue" in answers:
            self._sweep_at = now + self._sweep * random.uniform(0.9, 1.1)  # noqa: S311 -- so that workers do not sweep in step
        if "stage" in answers:
            next_due = answers["stage"].next_due
            self._stage_at = now + min(STAGE_SECONDS, STAGE_SECONDS if next_due is None else next_due)
