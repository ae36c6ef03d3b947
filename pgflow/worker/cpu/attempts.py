"""An attempt at a step or a task as a message to a child process, and its result as the answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any

from pgflow.core.definition.context import Context
from pgflow.core.definition.control import Control
from pgflow.core.definition.definition import Definition
from pgflow.core.definition.graph import Graph
from pgflow.core.definition.results import Result
from pgflow.core.definition.task import DefinedTask, TaskDefinition
from pgflow.core.definition.task_context import TaskContext, running
from pgflow.core.definition.workflow import DefinedWorkflow
from pgflow.core.engine import attempt, task_attempt
from pgflow.core.engine.attempt import AttemptError, attempt_error
from pgflow.core.engine.middleware import Raised
from pgflow.core.engine.remote import pack_result, pack_task_result, unpack_result, unpack_task_result
from pgflow.worker.claimed_job import ClaimedJob
from pgflow.worker.cpu.child import ChildLost
from pgflow.worker.cpu.frames import Message
from pgflow.worker.cpu.pool import CpuPool

__all__ = ["AppCode", "CpuAttemptFailed", "execute_step", "execute_task", "failed_in_process", "has_cpu_work"]

OTHER_CODE = (
    "the process for cpu=True has imported another version of {name} than this worker: the code has changed since the "
    "worker started, so restart the worker"
)


class CpuAttemptFailed(Exception):
    """A `cpu=True` step or task has failed in its process. The message has the type and the text of its exception."""


def failed_in_process(failed: AttemptError) -> Raised:
    """Return what middleware sees of an attempt that failed in a process, whose exception has not crossed."""
    return Raised(CpuAttemptFailed(f"{failed.type}: {failed.reason}"), failed)


def has_cpu_work(workflows: Iterable[type[DefinedWorkflow[Any]]], tasks: Iterable[DefinedTask]) -> bool:
    """Whether a task, or a step of some version of these workflows, runs in a process of the pool."""
    graphs = (version.graph for each in workflows for version in each.definitions.versions.values())
    has_steps = any(node.step.cpu for graph in graphs for node in graph.nodes.values())
    return has_steps or any(task.definition.cpu for task in tasks)


# -- in the worker


async def execute_step(pool: CpuPool, job: ClaimedJob, ctx: Context[Any]) -> Result | AttemptError:
    """Execute a step in a process of the pool; for an attempt that failed its `AttemptError`.

    Its `max_runtime` begins when a process is free. A cancellation kills the process.
    """
    instance, step = job.instance, job.instance.graph.nodes[job.step].step
    request = {
        "workflow": ctx.workflow,
        "version": ctx.version,
        "graph": _digest(instance.graph),
        "step": ctx.step,
        "config": None if job.config is None else json.loads(job.config),
        "input": instance.input,
        "steps": dict(instance.outputs),
        "id": ctx.id,
        "value": ctx.value,
        "run": ctx.run,
        "attempt": ctx.attempt,
        "metadata": dict(ctx.metadata),
        "checkpoint": ctx.control.stored(),
        "job": {"id": job.id, "queue": job.queue, "max_attempts": job.max_attempts},
    }
    answer = await _run(
        pool, request, ctx.control, step.max_runtime, lambda: attempt.overdue(instance.graph, job.step, job.attempt)
    )
    return answer if isinstance(answer, AttemptError) else unpack_result(step, answer)


async def execute_task(pool: CpuPool, task: TaskDefinition, ctx: TaskContext, args: str) -> Any:
    """`execute_step`, for a task; `args` are its arguments as JSON text."""
    request = {
        "task": task.name,
        "args": args,
        "id": ctx.id,
        "attempt": ctx.attempt,
        "max_attempts": ctx.max_attempts,
        "queue": ctx.queue,
        "tags": list(ctx.tags),
        "checkpoint": ctx.control.stored(),
        "metadata": dict(ctx.metadata),
    }
    answer = await _run(pool, request, ctx.control, task.max_runtime, lambda: task_attempt.overdue(task, ctx.attempt))
    return answer if isinstance(answer, AttemptError) else unpack_task_result(task, answer)


async def _run(
    pool: CpuPool, request: Message, control: Control, limit: timedelta | None, overdue: Callable[[], AttemptError]
) -> Message | AttemptError:
    try:
        return await pool.run(request, None if limit is None else limit.total_seconds(), control)
    except TimeoutError:
        return overdue()
    except ChildLost as error:
        return AttemptError(str(error), "ProcessLost")


# -- in the child


@dataclass(frozen=True, slots=True)
class AppCode:
    """The workflows and tasks that a child has imported; `reveal` and `limit` are for encoding outputs."""

    workflows: Mapping[tuple[str, int], Definition]
    tasks: Mapping[str, TaskDefinition]
    reveal: bool
    limit: int

    @classmethod
    def of(cls, app: Any, *, reveal: bool, limit: int) -> AppCode:
        """Return those of an app."""
        workflows = {
            (each.name, version): definition
            for each in app.workflows
            for version, definition in each.definitions.versions.items()
        }
        tasks = {each.name: each.definition for each in app.tasks}
        return cls(workflows, tasks, reveal, limit)

    def run(self, request: Message, control: Control) -> Message:
        """Run an attempt, and return its packed result. An exception of the step or task is an `AttemptError` in it."""
        if "task" in request:
            task = self.tasks.get(request["task"])
            return _lost(request["task"]) if task is None else self._run_task(task, request, control)
        definition = self.workflows.get((request["workflow"], request["version"]))
        if definition is None or _digest(definition.graph) != request["graph"]:
            return _lost(request["workflow"])
        return self._run_step(definition, request, control)

    def _run_step(self, definition: Definition, request: Message, control: Control) -> Message:
        node = definition.graph.nodes[request["step"]]
        try:
            step = node.step.with_config(request["config"])
            ctx = Context(
                initial=definition.read_input(request["input"]),
                steps=request["steps"],
                id=request["id"],
                value=request["value"],
                run=request["run"],
                workflow=request["workflow"],
                version=request["version"],
                step=request["step"],
                attempt=request["attempt"],
                metadata=request["metadata"],
                control=control,
            )
            with running(TaskContext.of_step(ctx, **request["job"])):
                if step.is_async:
                    result: object = asyncio.run(_call_async(step.execute(ctx)))
                else:
                    result = attempt.call(step, ctx, node.retry)
            return pack_result(step, result, limit=self.limit, reveal=self.reveal)
        except BaseException as error:  # an attempt must not end the process
            return pack_result(node.step, attempt_error(error, node.retry), limit=self.limit, reveal=self.reveal)

    def _run_task(self, task: TaskDefinition, request: Message, control: Control) -> Message:
        try:
            ctx = TaskContext(
                id=request["id"],
                task=request["task"],
                attempt=request["attempt"],
                max_attempts=request["max_attempts"],
                queue=request["queue"],
                tags=tuple(request["tags"]),
                metadata=request["metadata"],
                control=control,
            )
            given = task_attempt.arguments(task, request["args"], ctx)
            with running(ctx):
                if task.is_async:
                    result: object = asyncio.run(_call_async(task.function(**given)))
                else:
                    result = task_attempt.call(task, given)
            return pack_task_result(task, result, limit=self.limit, reveal=self.reveal)
        except BaseException as error:
            return pack_task_result(task, attempt_error(error, task.retry), limit=self.limit, reveal=self.reveal)


async def _call_async(execution: Any) -> Any:
    return await execution


def _lost(name: str) -> Message:
    reason = OTHER_CODE.format(name=name)
    return {"type": "AttemptError", "reason": reason, "kind": "ProcessLost", "retry": True, "details": {}}


@cache
def _digest(graph: Graph) -> str:
    return graph.digest()
