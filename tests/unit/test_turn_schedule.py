"""When a worker looks at the database again: an idle one once in a poll, and its sweep comes along."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

from pgflow.worker.turns.schedule import Schedule

POLL, SWEEP = timedelta(seconds=1), timedelta(seconds=5)


def idle_turns(schedule: Schedule, seconds: float) -> tuple[list[float], list[float]]:
    """Run an idle worker's turns, each at its time; return the moments of all of them and of those that swept."""
    turns: list[float] = []
    sweeps: list[float] = []
    now = begin = 100.0
    while now < begin + seconds:
        turns.append(now)
        if schedule.is_sweep_due(now):
            sweeps.append(now)
            schedule.swept(now, None)
        if now >= schedule.due_at - 0.25:
            schedule.answered(now, None)
            schedule.polled(now)
        now = min(schedule.poll_at, schedule.upkeep_at)
    return turns, sweeps


def test_an_idle_worker_takes_one_turn_a_second_and_sweeps_in_some_of_them() -> None:
    turns, sweeps = idle_turns(Schedule(POLL, SWEEP), 1000.0)
    assert len(turns) <= 1001
    gaps = [later - earlier for earlier, later in pairwise(sweeps)]
    assert max(gaps) <= 1.1 * 5
    assert min(gaps) >= 0.5 * 5


def test_a_sweep_without_a_poll_comes_at_its_time_and_not_before() -> None:
    schedule = Schedule(timedelta(hours=1), SWEEP)
    schedule.swept(100.0, 0.3)  # a lease may expire then
    schedule.answered(100.0, None)
    schedule.polled(100.0)
    assert not schedule.is_sweep_due(100.2)
    assert schedule.is_sweep_due(100.4)
