"""Know when due tokens have to be made ready and when to look for tokens of dead workers."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from pgflow.worker.decide import Decision

__all__ = ["Maintenance"]

STAGE_SECONDS = 1.0  # how often to look for due tokens that a client or another worker has put there
EARLY_SECONDS = 0.25  # of this, so that it goes along with a poll and an idle worker wakes once
SCHEDULING = frozenset({"park", "retry", "snooze"})


class Maintenance:
    """When which statement of upkeep is due, in monotonic seconds. Any number of workers may do them at once."""

    def __init__(self, sweep: timedelta) -> None:
        self._sweep = sweep.total_seconds()
        self._sweep_at = 0.0
        self._stage_at = 0.0
        self._is_due_known = False

    @property
    def next_at(self) -> float:
        """When something is due next."""
        return min(self._sweep_at, self._stage_at)

    def is_sweep_due(self, now: float) -> bool:
        """Whether to free the tokens of dead workers now."""
        return now >= self._sweep_at

    def is_stage_due(self, now: float, decisions: Iterable[Decision]) -> bool:
        """Whether to make due tokens ready now: at the known moment, or to learn the next one after adding another."""
        early = 0.0 if self._is_due_known else EARLY_SECONDS
        return now >= self._stage_at - early or any(
            verdict.op in SCHEDULING for decision in decisions for verdict in decision.verdicts
        )

    def learn(self, now: float, answers: Mapping[str, Any]) -> None:
        """Take over what the statements returned."""
        if "rescue" in answers:
            self._sweep_at = now + self._sweep * random.uniform(0.9, 1.1)  # noqa: S311 -- so that workers do not sweep in step
        if "stage" in answers:
            next_due = answers["stage"].next_due
            self._is_due_known = next_due is not None and next_due < STAGE_SECONDS
            self._stage_at = now + (next_due if self._is_due_known else STAGE_SECONDS)
