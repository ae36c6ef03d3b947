"""The outcome of a transactional step whose result is already recorded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from pgflow.store.job import SettleResult
from pgflow.worker.claimed_task import HeldJob
from pgflow.worker.decide_task import AnyDecision
from pgflow.worker.outcome import AnyOutcome

__all__ = ["Committed", "JobOutcome"]


@dataclass(frozen=True, slots=True)
class Committed:
    """The step's own transaction has settled `decision`; `rows` are the answer of that settle.

    It was committed, or, where the fence refused it, rolled back. Nothing is left to send.
    """

    job: HeldJob
    decision: AnyDecision
    rows: list[SettleResult]


JobOutcome: TypeAlias = AnyOutcome | Committed
