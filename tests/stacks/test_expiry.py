"""Deadlines of instances, and starts that expire, on both stacks."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from pgflow import Async, Context, Done, Ok, Unique, Workflow, step
from pgflow.errors import DefinitionError, InvalidValue
from tests.stacks.conftest import Stack

Input = dict[str, Any]
MOMENT = timedelta(milliseconds=50)
HOUR = timedelta(hours=1)


@step
async def wait(ctx: Context[Input]) -> Async:
    return Async()


@step
def end(ctx: Context[Input]) -> Ok:
    return Ok("done")


class WaitFlow(Workflow[Input], unique=Unique("wait")):
    initial = wait
    transitions = {wait: {"done": Done}}


class LateFlow(Workflow[Input], unique=Unique("late"), deadline=MOMENT):
    initial = wait
    transitions = {wait: {"done": end}, end: {"done": Done}}


WORKFLOWS = (WaitFlow, LateFlow)


@pytest.mark.parametrize("workflow", [WaitFlow, LateFlow])
def test_an_instance_fails_when_its_deadline_has_passed(stack: Stack, workflow: type[Workflow[Input]]) -> None:
    workflow.start(stack.value, {}, deadline=MOMENT if workflow is WaitFlow else None)
    failed = stack.until(workflow, "failed")
    assert failed.error is not None
    assert failed.error["type"] == "DeadlineExceeded"
    assert failed.deadline is not None
    assert failed.error["reason"].startswith("the deadline has passed, 20")
    assert failed.waiting_for == ()
    workflow.retry(stack.value)
    again = stack.until(workflow, "waiting")
    assert again.deadline is None
    workflow.cancel(stack.value)


def test_a_start_may_have_more_time_than_its_workflow_and_counts_from_its_due_time(stack: Stack) -> None:
    LateFlow.start(stack.value, {}, deadline=HOUR, delay=timedelta(milliseconds=1))
    waiting = stack.until(LateFlow, "waiting")
    assert waiting.deadline is not None
    assert timedelta(0) <= waiting.deadline - waiting.created_at - HOUR < timedelta(minutes=1)
    LateFlow.resume(stack.value, "done")
    stack.until(LateFlow, "completed")


def test_a_start_that_begins_in_time_does_not_expire(stack: Stack) -> None:
    WaitFlow.start(stack.value, {}, expires_in=HOUR)
    stack.until(WaitFlow, "waiting")
    WaitFlow.resume(stack.value, "done")
    stack.until(WaitFlow, "completed")


# -- bad input


@pytest.mark.parametrize("given", [timedelta(0), timedelta(seconds=-1), timedelta(days=40_000), 5, "1h"])
@pytest.mark.parametrize("option", ["deadline", "expires_in"])
def test_a_period_out_of_range_is_refused(stack: Stack, option: str, given: Any) -> None:
    with pytest.raises(InvalidValue, match=rf"{option}=.* is refused"):
        WaitFlow.start(stack.value, {}, **{option: given})


@pytest.mark.parametrize("given", [timedelta(0), timedelta(days=40_000), 5])
def test_a_workflow_cannot_have_a_deadline_out_of_range(given: Any) -> None:
    with pytest.raises(DefinitionError, match=r"deadline is .*: write a timedelta of more than zero, up to 100 years"):

        class Wrong(Workflow[Input], unique=Unique("wrong"), deadline=given):
            initial = end
            transitions = {end: {"done": Done}}
