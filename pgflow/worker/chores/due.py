"""Whether due jobs and due signals have to be handled with a turn."""

from __future__ import annotations

from pgflow.worker.turns.schedule import Schedule
from pgflow.worker.turns.turn import Turn

__all__ = ["is_stage_due"]


def is_stage_due(schedule: Schedule, turn: Turn) -> bool:
    """Whether something is due now, or the turn settles something that sets a time, which has to be learnt."""
    return turn.schedules_jobs or (schedule.is_due_known and turn.now >= schedule.due_at)
