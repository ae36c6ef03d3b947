"""A task whose attempts are used up waits for an operator if that is its policy, on both stacks."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from pgflow import Ended, Retry, TaskContext, task
from pgflow.client.job_handle import JobHandle
from pgflow.core.models.task import TaskInstance
from pgflow.errors import AlreadyStarted, InvalidInput, NotActive
from tests.stacks.conftest import Stack
from tests.worker.waiting import until

MOMENT = timedelta(milliseconds=5)
TWICE = Retry(max_attempts=2, base=MOMENT, on_exhausted="pause")
REPAIRED: set[str] = set()
SEEN: list[tuple[int | None, str]] = []


class Receipt(BaseModel):
    number: str


@task
def note(end: Ended) -> None:
    SEEN.append((end.job, end.status))


@task(retry=TWICE, on_success=note, on_failure=note, on_cancel=note)
def charge(ctx: TaskContext, name: str) -> Receipt:
    kept = ctx.checkpointed or {"tries": 0}
    ctx.checkpoint({"tries": kept["tries"] + 1})
    if name not in REPAIRED:
        raise OSError("the bank is down")
    return Receipt(number=f"r-{ctx.attempt}-{kept['tries']}")


WORKFLOWS: tuple[Any, ...] = ()
TASKS = (note, charge)


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    """Both stacks number their jobs from one."""
    SEEN.clear()


def paused(name: str) -> JobHandle[Receipt]:
    """Enqueue, and wait until it waits for an operator."""
    handle = charge.enqueue(name)
    until(lambda: handle.get().is_paused, "the pause")
    return handle


def ended(handle: JobHandle[Receipt]) -> TaskInstance:
    until(lambda: handle.get().finished_at, "the end")
    until(lambda: [job for job, _ in SEEN].count(handle.id), "its hook")
    assert [job for job, _ in SEEN].count(handle.id) == 1
    assert (handle.id, handle.get().status) in SEEN
    return handle.get()


def test_it_waits_and_runs_again_with_as_many_attempts_and_its_checkpoint(stack: Stack) -> None:
    handle = paused(stack.value)
    seen = handle.get()
    assert (seen.status, seen.attempt, seen.run_at, len(seen.errors)) == ("waiting", 2, seen.run_at, 2)
    assert seen.errors[-1]["reason"] == "the bank is down"
    with pytest.raises(AlreadyStarted, match="is waiting: it cannot be moved"):
        handle.run_now()
    REPAIRED.add(stack.value)
    handle.retry()
    assert handle.result(60) == Receipt(number="r-3-2")
    done = ended(handle)
    assert (done.max_attempts, done.is_paused) == (4, False)


def test_an_operator_completes_it_with_an_output(stack: Stack) -> None:
    handle = paused(stack.value)
    with pytest.raises(InvalidInput):
        handle.complete({"no": 1})
    handle.complete(Receipt(number="by hand"))
    assert handle.result(60) == Receipt(number="by hand")
    assert ended(handle).output == {"number": "by hand"}
    with pytest.raises(NotActive, match="is completed: it does not wait for an operator"):
        handle.fail()
    with pytest.raises(NotActive, match="is completed: it does not wait for an operator"):
        handle.complete(Receipt(number="again"))


def test_an_operator_fails_it_and_may_retry_it_afterwards(stack: Stack) -> None:
    handle = paused(stack.value)
    handle.fail(reason="the card was stolen")
    failed = ended(handle)
    assert failed.error is not None
    assert (failed.status, failed.error["reason"], failed.error["type"]) == (
        *("failed", "the card was stolen"),
        "FailedByOperator",
    )
    REPAIRED.add(stack.value)
    handle.retry()
    assert handle.result(60) == Receipt(number="r-1-2")  # with all its attempts, and its checkpoint
    other = paused(stack.value + "-2")
    other.fail()
    assert (ended(other).error or {})["reason"] == "the bank is down"


def test_a_cancel_ends_it_with_its_hook(stack: Stack) -> None:
    handle = paused(stack.value)
    handle.cancel()
    assert ended(handle).status == "cancelled"
