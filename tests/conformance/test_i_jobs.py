"""Group I, jobs: tags, metadata, the workflow's version, and queues by role."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from threading import Event
from typing import Any

import pytest

from pgflow import Context, Done, Job, Ok, Unique, Wait, WaitForEvent, Workflow, step
from pgflow.errors import InvalidValue
from tests.conformance.conftest import OnPostgres, Stack
from tests.worker.waiting import PATIENCE, until

Input = dict[str, Any]
GO = Event()
BEGUN = Event()
RUNNING: list[str] = []


@pytest.fixture(autouse=True)
def gate() -> None:
    GO.clear()
    BEGUN.clear()
    RUNNING.clear()


@step
def measure(ctx: Context[Input]) -> Ok:
    return Ok("done", {}, metadata={"trace": "t-1", "team": "packing", "step": "mine", "run": -1, "weight": {"kg": 3}})


@step
def measure_again(ctx: Context[Input]) -> Ok:
    return Ok("done", {}, metadata={"trace": "t-2"})


answer = WaitForEvent("answered").named("AnswerDue")


class HTTPOrderFlow(
    Workflow[Input],
    unique=Unique("marked"),
    version=3,
    tags=["orders", "http_order_flow"],
    metadata={"team": "orders", "region": "eu", "levels": [1, 2], "workflow": "mine"},
):
    initial = measure
    transitions = {measure: {"done": measure_again}, measure_again: {"done": answer}, answer: {"received": Done}}


class Other(Workflow[Input], unique=Unique("other")):
    initial = answer
    transitions = {answer: {"received": Done}}


class Versioned(Workflow[Input], unique=Unique("versioned"), current=2):
    class V1(Workflow[Input], version=1, tags=["old"]):
        initial = measure
        transitions = {measure: {"done": answer}, answer: {"received": Done}}

    class V2(Workflow[Input], version=2):
        initial = measure
        transitions = {measure: {"done": answer}, answer: {"received": Done}}

    versions = {1: V1, 2: V2}


def parked(app: Any, workflow: Any = None, count: int = 1) -> list[Job]:
    """Wait until this number of jobs is parked, and return them."""

    def look() -> list[Job]:
        found: list[Job] = app.jobs(workflow, state="parked")
        return found if len(found) == count else []

    return until(look, f"{count} parked jobs", pause=0.005)


def test_i22_a_job_has_the_tags_of_its_workflow_and_its_instance_once(stack: Stack) -> None:
    """I22: tags are the workflow's name in snake_case, its tags and the instance's, without duplicates."""
    app = stack.run(HTTPOrderFlow)
    HTTPOrderFlow.start("1", {}, tags=["gift", "orders", "gift"])
    (job,) = parked(app)
    assert job.tags == ("http_order_flow", "orders", "gift")


def test_i22_a_job_has_the_metadata_of_its_workflow_its_instance_and_its_steps(stack: Stack) -> None:
    """I22: meta is the workflow's, overwritten by the instance's, by that of steps, and by pgflow's own keys."""
    app = stack.run(HTTPOrderFlow)
    started = HTTPOrderFlow.start(
        "1", {}, metadata={"region": "us", "tenant": "a", "instance_id": "mine"}, telemetry={"trace": "secret"}
    )
    (job,) = parked(app)
    assert job.meta == {
        "team": "packing",
        "region": "us",
        "levels": [1, 2],
        "tenant": "a",
        "trace": "t-2",
        "weight": {"kg": 3},
        "workflow": "HTTPOrderFlow",
        "instance_id": "marked::1",
        "run": started.run,
        "workflow_version": 3,
        "step": "AnswerDue",
    }
    assert "secret" not in repr(job)


def test_i22_a_job_has_instance_step_and_wait(stack: Stack) -> None:
    """I22: a job has its instance, its step, and what it waits for."""
    app = stack.run(HTTPOrderFlow)
    started = HTTPOrderFlow.start("1", {})
    (job,) = parked(app)
    assert (job.instance_id, job.run, job.workflow, job.version) == ("marked::1", started.run, "HTTPOrderFlow", 3)
    assert (job.step, job.kind, job.state, job.queue) == ("AnswerDue", "resume", "parked", "default")
    assert (job.priority, job.max_attempts, job.run_at, job.worker, job.errors) == (0, 5, None, None, ())
    HTTPOrderFlow.resume("1", "answered")
    stack.until(HTTPOrderFlow, "1")
    assert app.jobs() == []


def test_i22_jobs_are_found_by_workflow_queue_state_tags_and_meta(stack: Stack) -> None:
    """I22: every filter by itself and all together, page by page, async too."""
    app = stack.run(HTTPOrderFlow, Other)
    for number, tenant in enumerate(["a", "b", "a"]):
        HTTPOrderFlow.start(f"h{number}", {}, tags=[f"n{number}"], metadata={"tenant": tenant})
    Other.start("o", {})
    Other.start("later", {}, delay=timedelta(hours=1))
    everything = sorted(parked(app, count=4) + app.jobs(state="scheduled"), key=lambda job: job.id)

    async def asked(*workflow: Any, **filters: Any) -> list[Job]:
        jobs: list[Job] = await app.ajobs(*workflow, **filters)
        if not stack.is_local:
            await app.aclose()  # the connections of this loop
        return jobs

    def found(*workflow: Any, **filters: Any) -> list[str]:
        jobs = app.jobs(*workflow, **filters)
        assert jobs == asyncio.run(asked(*workflow, **filters))
        return sorted(job.instance_id.partition("::")[2] for job in jobs)

    assert app.jobs() == everything
    assert found(HTTPOrderFlow) == ["h0", "h1", "h2"]
    assert found(queue="default", state="scheduled") == ["later"]
    assert found(queue="mail") == []
    assert found(tags=["orders", "n1"]) == ["h1"]
    assert found(tags=["other"]) == ["later", "o"]
    assert found(tags=["n1", "n2"]) == []
    assert found(meta={"tenant": "a"}) == ["h0", "h2"]
    assert found(meta={"weight": {"kg": 3}, "levels": [2]}) == ["h0", "h1", "h2"]
    assert found(meta={"weight": {"kg": 4}}) == []
    assert found(meta={"levels": [True]}) == []
    assert found(meta={}) == sorted(found())
    assert found(HTTPOrderFlow, state="parked", tags=["orders"], meta={"tenant": "a", "workflow_version": 3}) == [
        "h0",
        "h2",
    ]
    first = app.jobs(limit=2)
    assert first + app.jobs(after=first[-1].id) == everything
    with pytest.raises(InvalidValue, match="the state 'asleep' is unknown"):
        app.jobs(state="asleep")


def test_i23_every_job_and_result_has_the_version_of_its_workflow(stack: Stack) -> None:
    """I23: each job has the version in which the instance started; results have it through their run."""
    app = stack.run(Versioned)
    Versioned.start("1", {}, version=1)
    Versioned.start("2", {})
    jobs = {job.instance_id: job for job in parked(app, count=2)}
    assert {name: job.version for name, job in jobs.items()} == {"versioned::1": 1, "versioned::2": 2}
    assert {name: job.meta["workflow_version"] for name, job in jobs.items()} == {"versioned::1": 1, "versioned::2": 2}
    assert jobs["versioned::1"].tags == ("versioned", "old")
    assert [job.version for job in app.jobs(Versioned.V1)] == [1]
    for value, version in (("1", 1), ("2", 2)):
        Versioned.resume(value, "answered")
        ended = stack.until(Versioned, value)
        assert (ended.version, len(ended.history)) == (version, 2)


def test_i23_results_in_the_database_lead_to_their_version(postgres: OnPostgres) -> None:
    """I23: on PostgreSQL a result has no version column that could be wrong: its run has the version."""
    app = postgres.run(Versioned)
    Versioned.start("1", {}, version=1)
    parked(app)
    query = "select r.step, i.version from pgflow.step_results r join pgflow.instances i on i.run = r.run"
    assert postgres.rows(query) == [("measure", 1)]
    assert postgres.rows("select step, version, meta ->> 'workflow_version' from pgflow.job_details") == [
        ("AnswerDue", 1, "1")
    ]


@step
def slow(ctx: Context[Input]) -> Ok:
    RUNNING.append(ctx.value)
    BEGUN.set()
    assert GO.wait(PATIENCE)
    return Ok("done")


@step(queue="mail")
def mail(ctx: Context[Input]) -> Ok:
    return Ok("done")


class Slow(Workflow[Input], unique=Unique("slow")):
    initial = slow
    transitions = {slow: {"done": Done}}


class Deciding(Workflow[Input], unique=Unique("deciding"), orchestration_queue="orchestration"):
    initial = answer
    transitions = {answer: {"received": mail}, mail: {"done": Done}}


class Napping(Workflow[Input], unique=Unique("napping"), orchestration_queue="orchestration"):
    initial = Wait(timedelta(hours=1)).named("nap")
    transitions = {initial: {"timeout": Done}}


def test_i25_each_role_has_its_queue_and_its_number_of_slots(postgres: OnPostgres) -> None:
    """I25: while steps hold every slot of their queue, a signal is applied in the orchestration queue."""
    app = postgres.run(Slow, Deciding, queues={"default": 1, "mail": 2, "orchestration": 5})
    Deciding.start("1", {})
    (job,) = parked(app)
    assert (job.queue, job.kind) == ("orchestration", "resume")
    Slow.start("1", {})
    Slow.start("2", {})
    assert BEGUN.wait(PATIENCE)
    Deciding.resume("1", "answered")
    assert postgres.until(Deciding, "1").status == "completed"
    assert len(RUNNING) == 1
    assert {job.queue for job in app.jobs(Slow)} == {"default"}
    GO.set()
    postgres.until(Slow, "1")
    postgres.until(Slow, "2")


def test_i25_each_phase_of_an_instance_is_in_the_queue_of_its_role(postgres: OnPostgres) -> None:
    """I25: steps are in their own queue, waits and advances in the orchestration queue, with separate workers."""
    app = postgres.idle(Deciding)
    seen = []

    def see(queues: dict[str, int], *place: str) -> None:
        worker = postgres.work(queues)
        until(lambda: [(job.kind, job.state, job.queue) for job in app.jobs()] == [place] if place else not app.jobs())
        worker.stop()
        seen.append(place)

    Deciding.start("1", {})
    assert [(job.kind, job.state, job.queue) for job in app.jobs()] == [("execute", "ready", "default")]
    see({"default": 1}, "resume", "parked", "orchestration")
    Deciding.resume("1", "answered")
    assert [(job.kind, job.state, job.queue) for job in app.jobs()] == [("resume", "ready", "orchestration")]
    see({"orchestration": 1}, "execute", "ready", "mail")
    see({"mail": 1})
    assert Deciding.get("1").status == "completed"


def test_i25_both_stacks_have_the_queue_of_a_wait(stack: Stack) -> None:
    """I25: a timer is in the orchestration queue, also in memory, where queues have no effect."""
    app = stack.run(Napping, queues={"default": 1, "orchestration": 1})
    Napping.start("1", {})
    (job,) = parked(app)
    assert (job.step, job.queue) == ("nap", "orchestration")
    assert job.run_at is not None
