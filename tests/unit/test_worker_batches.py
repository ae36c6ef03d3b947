"""A worker's batch takes along the steps that can end at once, half of those that it holds."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pgflow.worker import Worker, supervisor

HELD = 20


def _gathered(ends: int, monkeypatch: pytest.MonkeyPatch, seconds: float = 60.0) -> int:
    """Let one step end in each pass of the event loop, `ends` in all; return how many the batch has."""
    monkeypatch.setattr(supervisor, "GATHER_SECONDS", seconds)

    async def gathered() -> int:
        worker = Worker("", [], queues={"default": 1})
        outcomes: list[Any] = worker.settler._outcomes
        worker.held_jobs.jobs = dict.fromkeys(range(HELD))  # type: ignore[assignment]  # they are only counted

        def end() -> None:
            if len(outcomes) < ends:
                outcomes.append(None)
                loop.call_soon(end)

        loop = asyncio.get_running_loop()
        loop.call_soon(end)
        await worker._gather()
        return len(outcomes)

    return asyncio.run(gathered())


def test_a_batch_waits_for_half_of_the_jobs_while_each_pass_ends_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _gathered(HELD, monkeypatch) == HELD // 2


def test_a_batch_does_not_wait_for_steps_that_take_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _gathered(3, monkeypatch) == 3
    assert _gathered(0, monkeypatch) == 0


def test_a_batch_waits_for_a_short_time_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _gathered(HELD, monkeypatch, seconds=-1.0) == 1
