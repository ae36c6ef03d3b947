"""An instance that runs in memory: its state, jobs and mailbox; saved to a storage and restored from it."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy, deepcopy
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from typing import Any

from pgflow.core.definition.context import Context
from pgflow.core.definition.control import Control, Progress
from pgflow.core.definition.definition import Definition
from pgflow.core.definition.graph import Graph
from pgflow.core.definition.unique import extract_value
from pgflow.core.engine import state as engine_state
from pgflow.core.engine.machine import advance
from pgflow.core.engine.state import State, Status
from pgflow.core.models.instance import Entry, Instance, PendingSignal, WaitingFor
from pgflow.core.models.instance_rules import restore_state, unique_key
from pgflow.core.models.job import Job, JobKind, JobState, job_meta, job_tags, waiting_for
from pgflow.core.values.append_map import AppendMap
from pgflow.core.values.payload import MAX_PAYLOAD_BYTES, decode, encode
from pgflow.local.mailbox import Mailbox

__all__ = ["LiveInstance", "LocalJob", "SavedInstance"]

NUMBERS = count(1)  # of jobs


@dataclass(slots=True, eq=False)
class LocalJob:
    """The job of one active step: its state, and when it is due.

    `recorded` is its result, if the route failed after the step completed: then only the route is called again.
    """

    step: str
    config: dict[str, Any] | None
    state: JobState = "ready"
    due: datetime | None = None
    parked_at: datetime | None = None
    timeout_event: str | None = None
    attempt: int = 0
    awaits: dict[str, str] = field(default_factory=dict)
    errors: list[dict[str, Any]] = field(default_factory=list)
    recorded: Entry | None = None
    is_paused: bool = False  # it waits for an operator
    added_attempts: int = 0  # by an operator's retry
    progress: Progress | None = None
    checkpoint: str | None = None
    expires: datetime | None = None  # until when it must have started
    control: Control | None = None  # of the attempt that runs
    id: int = field(default_factory=NUMBERS.__next__)

    def saved(self) -> LocalJob:
        """Return a snapshot, without the connection of the attempt that runs."""
        job = copy(self)
        job.control = None
        return job


@dataclass(frozen=True, slots=True)
class Head:
    """What identifies an instance, and its status."""

    run: int
    id: str
    workflow: str
    version: int
    status: Status
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SavedInstance(Instance):
    """An instance in the storage, with its input text and its jobs, which only a restart needs."""

    text: str = ""
    jobs: tuple[LocalJob, ...] = ()
    checkpoints: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class LiveInstance:
    """An active instance. Only the scheduler changes it, under its lock.

    `telemetry` is what `start` was given as such; `advances` counts the decisions that this `Local` has made on it.
    """

    run: int
    id: str
    definition: Definition
    state: State
    text: str  # the input, as JSON
    metadata: dict[str, Any]
    tags: tuple[str, ...]
    created_at: datetime
    error: dict[str, Any] | None = None
    finished_at: datetime | None = None
    history: list[Entry] = field(default_factory=list)
    jobs: dict[str, LocalJob] = field(default_factory=dict)
    outputs: AppendMap[str, Any] = field(default_factory=AppendMap)  # of each completed step
    mailbox: Mailbox = field(default_factory=Mailbox)
    scheduled: dict[int, PendingSignal] = field(default_factory=dict)  # signals to send later, by id
    telemetry: Mapping[str, Any] = field(default_factory=dict)
    step_configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # stored ones
    advances: int = 0
    deadline: datetime | None = None
    checkpoints: dict[str, str] = field(default_factory=dict)  # of steps that failed the instance, for a retry

    @property
    def graph(self) -> Graph:
        """The graph that it follows."""
        return self.state.graph

    @property
    def head(self) -> Head:
        """What identifies it, and its status."""
        return Head(self.run, self.id, self.graph.name, self.graph.version, self.state.status, self.tags)

    @property
    def unique_key(self) -> str | None:
        """What at most one active instance may have; None: any number may be active."""
        return unique_key(self.graph, self.id)

    def config_of(self, step: str) -> dict[str, Any] | None:
        """Return the configuration to activate a step with: the stored one, else its own."""
        stored = self.step_configs.get(step)
        return self.graph.nodes[step].config if stored is None else dict(stored)

    def jobs_of(self, step: str | None) -> tuple[LocalJob, ...]:
        """Return the job of a step, if it has one; for None those of all steps."""
        if step is None:
            return tuple(self.jobs.values())
        return (self.jobs[step],) if step in self.jobs else ()

    def record(self, entry: Entry) -> None:
        """Append a completed step to the history."""
        self.history.append(entry)
        self.outputs = self.outputs.adding(entry.step, entry.output)

    def max_attempts(self, job: LocalJob) -> int:
        """Return how many attempts a job has, with those that an operator added."""
        return self.graph.nodes[job.step].retry.max_attempts + job.added_attempts

    def holds(self, job: LocalJob) -> bool:
        """Whether a job is still the current one of its step: if not, its outcome is dropped."""
        return self.jobs.get(job.step) is job

    def context(self, job: LocalJob, control: Control | None = None) -> Context[Any]:
        """Return what a step receives."""
        return Context(
            initial=self.definition.read_input(self.text),
            steps=self.outputs,
            id=self.id,
            value=extract_value(self.id),
            run=self.run,
            workflow=self.graph.name,
            version=self.graph.version,
            step=job.step,
            attempt=job.attempt,
            metadata=self.metadata.copy(),
            control=control or Control(),
        )

    def saved(self) -> SavedInstance:
        """Return a snapshot. Later changes replace its values and never modify them."""
        return SavedInstance(
            run=self.run,
            id=self.id,
            workflow=self.graph.name,
            version=self.graph.version,
            status=self.state.status,
            input=decode(self.text),
            steps=dict(self.outputs),
            history=tuple(self.history),
            waiting_for=tuple(self._waiting(job) for job in self.jobs.values()),
            metadata=self.metadata.copy(),
            tags=self.tags,
            error=self.error,
            created_at=self.created_at,
            finished_at=self.finished_at,
            text=self.text,
            jobs=tuple(job.saved() for job in self.jobs.values()),
            checkpoints=dict(self.checkpoints),
            deadline=self.deadline,
            signals=(*self.mailbox, *self.scheduled.values()),
            telemetry=self.telemetry,
            step_configs={job.step: job.config for job in self.jobs.values() if job.config is not None},
        )

    @classmethod
    def restored(cls, stored: Instance, definition: Definition, *, is_retry: bool = False) -> LiveInstance:
        """Return a stored instance as a live one, without jobs unless a `Local` stored it.

        With `is_retry` a failed one continues; without, it is kept only for its scheduled signals. Raises
        `GraphChanged` when its workflow has changed.
        """
        failed = State(definition.graph, "failed", AppendMap())
        state = restore_state(stored, definition.graph) if stored.is_active or is_retry else failed
        jobs = stored.jobs if isinstance(stored, SavedInstance) else ()
        for job in jobs:
            if job.state == "parked":
                state, _ = advance(state, engine_state.Parked(job.step))
        return cls(
            run=stored.run,
            id=stored.id,
            definition=definition,
            state=state,
            text=stored.text
            if isinstance(stored, SavedInstance)
            else encode(stored.input, what="input", limit=MAX_PAYLOAD_BYTES),
            metadata=dict(stored.metadata),
            tags=stored.tags,
            created_at=stored.created_at,
            error=None if is_retry or stored.error is None else dict(stored.error),
            finished_at=None if is_retry else stored.finished_at,
            history=list(stored.history),
            outputs=AppendMap({entry.step: entry.output for entry in stored.history}),
            jobs={job.step: job for job in jobs},
            mailbox=Mailbox(each for each in stored.signals if each.id is None),
            scheduled={each.id: each for each in stored.signals if each.id is not None},
            telemetry=stored.telemetry,
            step_configs=stored.step_configs,
            deadline=None if is_retry else stored.deadline,
            checkpoints=dict(stored.checkpoints) if isinstance(stored, SavedInstance) else {},
        )

    def as_job(self, job: LocalJob) -> Job:
        """Return a job as readers of jobs see it."""
        graph, kind = self.graph, _kind(job)
        node = graph.nodes[job.step]
        return Job(
            id=job.id,
            run=self.run,
            instance_id=self.id,
            workflow=graph.name,
            version=graph.version,
            step=job.step,
            kind=kind,
            state=job.state,
            queue=graph.orchestration_queue_of(job.step) if kind == "resume" else node.queue,
            priority=graph.priority,
            attempt=job.attempt,
            max_attempts=self.max_attempts(job),
            run_at=job.due,
            worker=None,
            tags=job_tags(graph.name, self.tags),
            meta=deepcopy(
                job_meta(
                    self.metadata,
                    workflow=graph.name,
                    instance_id=self.id,
                    run=self.run,
                    version=graph.version,
                    step=job.step,
                )
            ),
            errors=tuple(deepcopy(job.errors)),
            progress=job.progress,
        )

    def _waiting(self, job: LocalJob) -> WaitingFor:
        return waiting_for(
            job.step,
            job.state,
            kind=_kind(job),
            events=tuple(job.awaits),
            until=job.due,
            attempt=job.attempt,
            max_attempts=self.max_attempts(job),
            errors=job.errors,
            progress=job.progress,
        )


def _kind(job: LocalJob) -> JobKind:
    if job.state == "parked" and not job.is_paused:
        return "resume"
    return "advance" if job.recorded else "execute"
