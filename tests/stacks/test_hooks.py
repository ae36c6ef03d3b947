"""Hooks of workflows and tasks, and what tasks share with steps when they fail, on both stacks."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest

from pgflow import Context, Done, Ended, Error, Ok, Pgflow, Retry, TaskContext, Unique, UniqueTask, Workflow, step, task
from pgflow.core.definition.control import Progress
from pgflow.errors import DefinitionError, InvalidValue
from pgflow.local import Local
from tests.stacks.conftest import Stack
from tests.worker.waiting import until

Input = dict[str, Any]
MOMENT = timedelta(milliseconds=5)
SEEN: list[Ended] = []
STOPPED: list[bool] = []
GO = threading.Event()


@task
def note(end: Ended) -> None:
    SEEN.append(end)


@task(on_success=note, on_failure=note, on_cancel=note, retry=Retry(max_attempts=1))
def work(how: str) -> str:
    if how == "fail":
        raise OSError("no")
    return how


@task(on_cancel=note)
def rare() -> None:
    raise AssertionError("it must not run")


@task(retry=Retry(max_attempts=3, base=timedelta(hours=1), max_backoff=timedelta(hours=1)))
def patient(ctx: TaskContext, how: str) -> Any:
    ctx.progress(0.5, how)
    if how == "watch":
        while not ctx.cancelled and not GO.wait(0.01):
            pass
        STOPPED.append(ctx.cancelled)
        return None
    if ctx.attempt == 1:
        ctx.checkpoint({"page": 1})
        return Error("busy", retry_in=MOMENT)
    return [ctx.attempt, ctx.checkpointed]


@step(retry=Retry(max_attempts=1, on_exhausted="pause"))
def act(ctx: Context[Input]) -> Ok:
    if ctx.initial["how"] in ("pause", "fail"):
        raise OSError("no")
    return Ok("done")


@step(retry=Retry(max_attempts=1))
def end(ctx: Context[Input]) -> Ok:
    if ctx.initial["how"] == "end":
        raise OSError("no")
    return Ok("done")


class HookFlow(Workflow[Input], unique=Unique("hook"), on_success=note, on_failure=note, on_cancel=note):
    initial = act
    transitions = {act: {"done": end}, end: {"done": Done}}


WORKFLOWS = (HookFlow,)
TASKS = (note, work, rare, patient)


@pytest.fixture(autouse=True)
def let_go() -> Any:
    GO.clear()
    yield
    GO.set()


def ends(**about: Any) -> list[Ended]:
    return [each for each in SEEN if all(getattr(each, name, None) == value for name, value in about.items())]


@pytest.mark.parametrize(("how", "status"), [("well", "completed"), ("end", "failed")])
def test_the_hook_of_a_workflow_is_enqueued_when_its_instance_ends(stack: Stack, how: str, status: str) -> None:
    HookFlow.start(stack.value, {"how": how}, deadline=timedelta(hours=1))
    found = stack.until(HookFlow, status)
    (ended,) = until(lambda: ends(id=found.id), "the hook")
    error = None if status == "completed" else {"step": "end", "reason": "no", "type": "OSError", "attempt": 1}
    about: Any = {"run": found.run, "id": found.id, "workflow": "HookFlow", "version": 1}
    assert ended == Ended("workflow", status, ended.at, error, **about)


@pytest.mark.parametrize("how", ["cancel", "fail_step", "deadline"])
def test_it_is_enqueued_by_each_way_to_end(stack: Stack, how: str) -> None:
    late = timedelta(milliseconds=200) if how == "deadline" else None
    HookFlow.start(stack.value, {"how": "pause"}, deadline=late)
    found = stack.until(HookFlow, "waiting") if late is None else stack.until(HookFlow)
    if how == "cancel":
        key = None if stack.name == "local" else f"cancel {stack.value}"
        HookFlow.cancel(stack.value, reason="withdrawn", idempotency_key=key)
        if key is not None:
            HookFlow.cancel(stack.value, reason="withdrawn", idempotency_key=key)  # the first answer again
    elif how == "fail_step":
        HookFlow.fail_step(stack.value, act, reason="withdrawn")
    (ended,) = until(lambda: ends(id=found.id), "the hook")
    assert ended.status == ("cancelled" if how == "cancel" else "failed")
    assert ended.error is not None
    assert ended.error["reason"].startswith("the deadline has passed" if late else "withdrawn")


def test_the_hook_of_a_task_is_enqueued_when_it_ends(stack: Stack) -> None:
    SEEN.clear()  # each stack numbers its jobs from 1
    jobs = [work.enqueue("well"), work.enqueue("fail"), work.options(delay=timedelta(hours=1)).enqueue("later")]
    jobs[2].cancel(reason="withdrawn")
    seen = {}
    for job in jobs:
        (found,) = until(lambda number=job.id: ends(job=number, task="work"), "the hook")  # type: ignore[misc]
        seen[job.id] = found.status
    assert list(seen.values()) == ["completed", "failed", "cancelled"]


def test_a_task_reports_and_asks_for_its_pause_like_a_step(stack: Stack) -> None:
    job = patient.enqueue("pages")
    found = until(lambda: patient.get(job.id) if patient.get(job.id).output else None, "the output")
    assert found is not None
    assert found.output == [2, {"page": 1}]


def test_a_task_shows_its_progress_and_sees_that_it_is_cancelled(stack: Stack) -> None:
    STOPPED.clear()
    job = patient.enqueue("watch")
    until(lambda: patient.get(job.id).progress == Progress(0.5, "watch"), "the progress")
    job.cancel()
    until(lambda: STOPPED == [True], "the cancel")


# -- bad input


def test_a_hook_must_be_a_task_of_the_app_and_take_the_end() -> None:
    @task
    def takes_more(end: Ended, order_id: int) -> None: ...

    with pytest.raises(DefinitionError, match=r"Wrong: on_failure is <function .*>, which is not a task"):

        class Wrong(Workflow[Input], unique=Unique("wrong"), on_failure=print_end):  # type: ignore[arg-type]
            initial = end
            transitions = {end: {"done": Done}}

    with pytest.raises(DefinitionError, match=r"which takes end, order_id: a hook gets one argument, end"):
        task(on_success=takes_more)(print_end)

    @task(unique=UniqueTask("none", on_conflict="raise"))
    def refuses(end: Ended) -> None: ...

    with pytest.raises(DefinitionError, match=r'on_failure is refuses, which is unique with on_conflict="raise"'):
        task(on_failure=refuses)(print_end)
    for make in (lambda: Local(workflows=[HookFlow]), lambda: Pgflow("postgresql://", workflows=[HookFlow])):
        with pytest.raises(DefinitionError, match=r"HookFlow: on_success is note, which is not a task of this app"):
            make()


def print_end(end: Ended) -> None:
    print(end)


@pytest.mark.parametrize("policy", ["transition", "skip", "declined"])
def test_a_task_has_no_policy_of_steps(policy: str) -> None:
    with pytest.raises(
        DefinitionError, match=f"its retry has on_exhausted='{policy}', which is for steps: a task has no transitions"
    ):
        task(retry=Retry(on_exhausted=policy))(print_end)


@pytest.mark.parametrize("given", [timedelta(0), timedelta(days=40_000), 5])
def test_an_expiry_out_of_range_is_refused(given: Any) -> None:
    with pytest.raises(DefinitionError, match="expires_in is "):
        task(expires_in=given)(print_end)
    with Local(tasks=[rare, note]), pytest.raises(InvalidValue, match=r"expires_in=.* is refused"):
        rare.options(expires_in=given).enqueue()
