"""What people and tools read of a live job: where a branch of an instance stands, and how it is marked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypeAlias, TypedDict, get_args

from pgflow.core.models.filters import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE
from pgflow.core.models.instance import Kind, WaitingFor
from pgflow.core.values.containment import contains
from pgflow.core.values.names import TELEMETRY, check_options, snake_case
from pgflow.core.values.payload import decode
from pgflow.core.values.query_args import check_tag_filter, check_text, encode_filter, is_integer, refuse
from pgflow.errors import InvalidValue

__all__ = ["Job", "JobFilters", "JobOptions", "JobState", "job_meta", "job_tags", "waiting_for"]

JobKind: TypeAlias = Literal["execute", "resume", "advance"]
JobState: TypeAlias = Literal["ready", "running", "scheduled", "parked"]

MAX_JOB_ID = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Job:
    """One live job: the right to move one branch of one instance.

    `kind` says whether its step is to `execute`, its wait to `resume`, or the instance to `advance` by a decision; then
    `step` may be empty. `state` is `ready` for a worker, `running` on `worker`, `scheduled` for `run_at`
    (a delayed start, a retry, a snooze), or `parked`: it waits for a signal, or for `run_at`. `attempt` counts those
    that have begun, and `errors` says why the earlier ones failed.

    `tags` are the workflow's name in snake_case, the workflow's tags and the instance's, each once. `meta` holds the
    workflow's metadata, over it the instance's, over these what completed steps have recorded, and over all of them
    `workflow`, `instance_id`, `run`, `workflow_version` and, where there is one, `step`.

        app.jobs(OrderFlow, state="parked", tags=["gift"])
    """

    id: int
    run: int
    instance_id: str
    workflow: str
    version: int
    step: str
    kind: JobKind
    state: JobState
    queue: str
    priority: int
    attempt: int
    max_attempts: int
    run_at: datetime | None
    worker: int | None
    tags: tuple[str, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)
    errors: tuple[Mapping[str, Any], ...] = ()


class JobOptions(TypedDict, total=False):
    """Which jobs to read; all that are given have to hold.

    `tags` are those that a job must have, all of them, and `meta` is JSON that its metadata contains. `limit` is the
    length of a page, 50 unless given; the id of its last job is `after` for the next one.
    """

    queue: str | None
    state: JobState | None
    tags: Sequence[str] | None
    meta: Mapping[str, Any] | None
    after: int | None
    limit: int


@dataclass(frozen=True, slots=True)
class JobFilters:
    """Checked filters; `meta` is JSON text."""

    queue: str | None
    state: str | None
    tags: tuple[str, ...]
    meta: str | None
    after: int | None
    limit: int

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> JobFilters:
        """Return the filters that `jobs` was given.

        Raises `UnknownOption` for a filter that does not exist, `InvalidValue` or `InvalidPayload` for a value that
        cannot be.
        """
        check_options("filter", options, JobOptions)
        state, after, limit = options.get("state"), options.get("after"), options.get("limit", DEFAULT_PAGE_SIZE)
        if state is not None and state not in get_args(JobState):
            raise InvalidValue(f"the state {state!r} is unknown", hint=f"Known: {', '.join(get_args(JobState))}.")
        if after is not None and not is_integer(after, 0, MAX_JOB_ID):
            refuse("after", after, "the id of a job is needed")
        if not is_integer(limit, 1, MAX_PAGE_SIZE):
            refuse("limit", limit, f"a page has 1 to {MAX_PAGE_SIZE:,} jobs", "Read on with after=.")
        return cls(
            queue=check_text("queue", options.get("queue")),
            state=state,
            tags=check_tag_filter(options.get("tags")),
            meta=encode_filter("metadata", options.get("meta")),
            after=after,
            limit=limit,
        )

    def page(self, found: Iterable[Job]) -> list[Job]:
        """Return those of `found` for which all filters hold, the oldest first, as many as are asked for."""
        return sorted(filter(self.matches, found), key=lambda job: job.id)[: self.limit]

    def matches(self, job: Job) -> bool:
        """Whether all filters hold for a job."""
        return (
            self.queue in (None, job.queue)
            and self.state in (None, job.state)
            and (self.after is None or job.id > self.after)
            and set(self.tags) <= set(job.tags)
            and (self.meta is None or contains(job.meta, decode(self.meta)))
        )


def job_tags(workflow: str, tags: Iterable[str]) -> tuple[str, ...]:
    """Return the tags of an instance's jobs; `tags` are the workflow's and the instance's.

    job_tags("OrderFlow", ["orders", "gift", "orders"])    # ("order_flow", "orders", "gift")
    """
    return tuple(dict.fromkeys([snake_case(workflow), *tags]))


def job_meta(
    metadata: Mapping[str, Any], *, workflow: str, instance_id: str, run: int, version: int, step: str
) -> dict[str, Any]:
    """Return the metadata of a job; `metadata` is the instance's with what its completed steps have recorded."""
    kept = {key: value for key, value in metadata.items() if key not in (TELEMETRY, "step")}
    system = {"workflow": workflow, "instance_id": instance_id, "run": run, "workflow_version": version}
    return {**kept, **system, **({"step": step} if step else {})}


def waiting_for(
    step: str,
    state: JobState,
    *,
    events: tuple[str, ...],
    until: datetime | None,
    attempt: int,
    max_attempts: int,
    errors: Sequence[Mapping[str, Any]],
) -> WaitingFor:
    """Return what a live job's step waits for; `errors` are its failed attempts, `until` counts while it waits."""
    kind: Kind
    match state:
        case "running":
            kind = "running"
        case "parked":
            kind = "timer" if until is not None and events == ("timeout",) else "signal"
        case "scheduled":
            kind = "retry" if errors else "queue"
        case "ready":
            kind = "queue"
    return WaitingFor(
        step=step,
        kind=kind,
        events=events,
        until=until if state in ("parked", "scheduled") else None,
        attempt=attempt,
        error=_reason(errors[-1]) if errors else None,
        max_attempts=max_attempts,
    )


def _reason(error: Mapping[str, Any]) -> str:
    """What an attempt failed with; `Error` is what a step returns to say so in its own words."""
    kind, reason = error.get("type", "Error"), error.get("reason", "no reason was given")
    return str(reason) if kind == "Error" else f"{kind}: {reason}"
