"""A worker emits events only for the part of a decision that the database has written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pgflow import Context, Done, Ok, Unique, Workflow, step
from pgflow.core.engine.machine import replay
from pgflow.store.job import SettleResult
from pgflow.worker import report
from pgflow.worker.claimed_job import CachedInstance, ClaimedJob
from pgflow.worker.decide import Decision, decide
from pgflow.worker.outcome import AttemptFailed, Finished, Outcome, Released
from tests.worker.event_recorder import EventRecorder, recording


@step
def fork(ctx: Context[dict[str, Any]]) -> Ok:
    return Ok("done")


left, right, join = fork.named("left"), fork.named("right"), fork.named("join")


class Fan(Workflow[dict[str, Any]], unique=Unique("fan")):
    """Two branches that meet again."""

    initial = fork
    transitions = {fork: {"done": [left, right]}, left: {"done": join}, right: {"done": join}, join: {"done": Done}}


@pytest.fixture
def recorder() -> Iterator[EventRecorder]:
    """Record all events."""
    with recording() as listener:
        yield listener


def decided(*outcomes: Outcome) -> Decision:
    """Decide on outcomes of one instance."""
    return decide(outcomes[0].job.instance, outcomes, lambda queue, is_branch: True)


def jobs(*steps: str) -> list[ClaimedJob]:
    """Return jobs of an instance whose first step has completed."""
    run = CachedInstance(
        run=7,
        id="fan::1",
        workflow=Fan.definition,
        version=1,
        status="running",
        revision=2,
        state=replay(Fan.graph, [("fork", "done", None)]),
        input="{}",
        metadata={},
        outputs={"fork": {}},
        unapplied={},
        signals=[],
        caller={},
        age=1.0,
    )
    return [
        ClaimedJob(number, run, "execute", key, None, "default", 0, 1, 5, solo=False)
        for number, key in enumerate(steps)
    ]


def settle(decision: Decision, *statuses: str, is_written: bool) -> None:
    """Report the decision as if the settle had returned these statuses, one per job."""
    pairs = zip(decision.updates, statuses, strict=True)
    results = {update.id: SettleResult(update.id, 7, update.step, status, kept=False) for update, status in pairs}
    report.settled(decision, results, is_written=is_written)


def names(recorder: EventRecorder) -> list[str]:
    """The names of the events, in order."""
    return [" ".join(each.name[1:]) for each in recorder.events]


def test_a_result_kept_after_a_conflict_is_reported_without_a_transition(recorder: EventRecorder) -> None:
    one, two = jobs("left", "right")
    decision = decided(Finished(one, "done"), AttemptFailed(two, "no", "ValueError"))
    settle(decision, "conflict", "done", is_written=False)
    assert names(recorder) == ["step stop", "step exception", "step retry"]
    recorder.events.clear()
    (again,) = jobs("left")
    settle(decided(Finished(again, "done", stored=True)), "done", is_written=True)
    assert names(recorder) == ["workflow transition", "engine advance"]


def test_busy_and_fenced_jobs_are_not_reported(recorder: EventRecorder) -> None:
    one, two = jobs("left", "right")
    settle(decided(AttemptFailed(one, "no", "ValueError", retry=False)), "busy", is_written=False)
    one.instance.status = "failed"  # by another worker
    settle(decided(AttemptFailed(two, "no", "ValueError", retry=False)), "fenced", is_written=False)
    settle(decided(Finished(two, "done")), "fenced", is_written=False)
    assert names(recorder) == []


def test_a_released_job_is_not_reported_as_a_decision(recorder: EventRecorder) -> None:
    one, two = jobs("left", "right")
    settle(decided(Released(one), Released(two)), "done", "done", is_written=True)
    assert names(recorder) == []
