"""A call that is refused raises the same error with the same message on both stacks; only run ids differ."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from pgflow import Async, Context, Done, Pgflow, Unique, Workflow, step
from pgflow.errors import PgflowError
from pgflow.local import Local
from tests.stacks import flows
from tests.stacks.conftest import Stack
from tests.stacks.flows import Asking, Repeating, Signing, WorldwideToo, answer
from tests.worker.waiting import until


@step(events=("yes",))
def ask(ctx: Context[Any]) -> Async:
    return Async()


class Versioned(Workflow[Any], unique=Unique("versioned"), current=2):
    """Two versions with one graph."""

    class V1(Workflow[Any], version=1):
        initial = ask
        transitions = {ask: {"yes": Done}}

    class V2(Workflow[Any], version=2):
        initial = ask
        transitions = {ask: {"yes": Done}}

    versions = {1: V1, 2: V2}


WORKFLOWS = (*flows.WORKFLOWS, Versioned)
RUN = re.compile(r"run \d+")


def resume_ended(app: Any) -> None:
    app.cancel(Asking, app.start(Asking, "resumed").id)
    app.resume(Asking, "resumed", "answered")


def schedule_ended(app: Any) -> None:
    app.cancel(Asking, app.start(Asking, "scheduled").id)
    app.schedule_resume(Asking, "scheduled", answer, timedelta(1))


def cancel_ended(app: Any) -> None:
    app.cancel(Asking, app.start(Asking, "cancelled").id)
    app.cancel(Asking, "cancelled")


def resume_completed_step(app: Any) -> None:
    app.start(Repeating, "passed")
    wait(Repeating, "passed", "waiting")
    app.resume(Repeating, "passed", "answered", step="answer")
    app.resume(Repeating, "passed", "answered", step="answer")


def resume_ambiguously(app: Any) -> None:
    app.start(Signing, "several")
    until(lambda: len([each for each in app.get(Signing, "several").waiting_for if each.events]) == 2, "the two waits")
    app.resume(Signing, "several", "signed")


def retry_active(app: Any) -> None:
    app.start(Asking, "active")
    wait(Asking, "active", "waiting")
    app.retry(Asking, "active")


def start_twice(app: Any) -> None:
    app.start(Asking, "double")
    app.start(Asking, "double")


def start_the_key_of_another_workflow(app: Any) -> None:
    app.start(flows.Worldwide, "shared")
    app.start(WorldwideToo, "shared")


def wait(workflow: type[Workflow[Any]], value: str, status: str) -> None:
    Stack("either").until(workflow, status, value=value)


REFUSED: dict[str, Callable[[Any], object]] = {
    "resume of an unknown value": lambda app: app.resume(Asking, "unknown", "answered"),
    "cancel of an unknown value": lambda app: app.cancel(Asking, "unknown"),
    "retry of an unknown value": lambda app: app.retry(Asking, "unknown"),
    "get of an unknown value": lambda app: app.get(Asking, "unknown"),
    "cancel of an unknown value of a version": lambda app: app.cancel(Versioned.V1, "unknown"),
    "resume with an unknown event": lambda app: app.resume(Asking, "unknown", "elsewhere"),
    "resume of an unknown step": lambda app: app.resume(Asking, "unknown", "answered", step="nowhere"),
    "schedule with a negative delay": lambda app: app.schedule_resume(Asking, "v", answer, timedelta(-1)),
    "a page of no instances": lambda app: app.runs(Asking, "v", limit=0),
    "a priority that is too high": lambda app: app.start(Asking, "v", priority=99_999),
    "resume of an ended instance": resume_ended,
    "schedule for an ended instance": schedule_ended,
    "cancel of an ended instance": cancel_ended,
    "resume of a completed step": resume_completed_step,
    "resume that is ambiguous": resume_ambiguously,
    "retry of an active instance": retry_active,
    "start of an active key": start_twice,
    "start of a key that another workflow has": start_the_key_of_another_workflow,
}


@pytest.mark.parametrize("call", REFUSED.values(), ids=REFUSED)
def test_both_stacks_refuse_a_call_with_the_same_message(
    local: Local, postgres: Pgflow, call: Callable[[Any], object]
) -> None:
    messages = []
    for app in (local, postgres):
        for workflow in app.workflows:
            workflow.bind(app)
        with pytest.raises(PgflowError) as refused:
            call(app)
        messages.append((type(refused.value), RUN.sub("run N", str(refused.value)), refused.value.hint is not None))
    assert messages[0] == messages[1]
