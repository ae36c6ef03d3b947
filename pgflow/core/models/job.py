"""What callers read about live jobs: the state of each branch of an instance, and its tags and metadata."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypeAlias, TypedDict, get_args

from pgflow.core.definition.control import Progress
from pgflow.core.models.filters import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE
from pgflow.core.models.instance import Kind, WaitingFor
from pgflow.core.values.containment import contains
from pgflow.core.values.names import TELEMETRY, check_options, snake_case
from pgflow.core.values.payload import decode
from pgflow.core.values.query_args import check_tag_filter, check_text, encode_filter, is_integer, refuse
from pgflow.errors import InvalidValue

__all__ = [
    "Job",
    "JobFilters",
    "JobKind",
    "JobOptions",
    "JobState",
    "job_meta",
    "job_tags",
    "progress_of",
    "waiting_for",
]

JobKind: TypeAlias = Literal["execute", "resume", "advance"]
JobState: TypeAlias = Literal["ready", "running", "scheduled", "parked"]

MAX_JOB_ID = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Job:
    """One live job: the right to advance one branch of one instance.

    - `id`: the job's id; `run`: the instance's run id; `instance_id`: its business id.
    - `kind`: "execute" runs `step`, "resume" ends its wait, "advance" applies a result to the instance, in which case
      `step` may be empty.
    - `state`: "ready" for a worker, "running" on `worker`, "scheduled" for `run_at` (a delayed start, a retry, a
      snooze), or "parked": waiting for a signal, for a timer at `run_at`, or, of the kind "execute", for an operator.
    - `attempt`: the number of attempts that have started, of `max_attempts`; `errors`: the failed ones, as in `Entry`.
    - `priority`: the lowest is claimed first.
    - `progress`: what the step has reported last, see `Context.progress`.
    - `tags`: the workflow's name in snake_case, the workflow's tags and the instance's, without duplicates.
    - `meta`: the workflow's metadata, overwritten by the instance's, by the metadata that steps recorded, and by the
      keys `workflow`, `instance_id`, `run`, `workflow_version` and, if there is one, `step`.

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
    progress: Progress | None = None


class JobOptions(TypedDict, total=False):
    """Filters for jobs; a job must match all of them.

    `tags` are tags that the job has, all of them; `meta` is JSON that its metadata contains. `limit` is the number of
    jobs in a page, from 1 to 10,000, by default 50; `after` is the id of the previous page's last job.
    """

    queue: str | None
    state: JobState | None
    tags: Sequence[str] | None
    meta: Mapping[str, Any] | None
    after: int | None
    limit: int


@dataclass(frozen=True, slots=True)
class JobFilters:
    """Validated filters; `meta` is JSON text."""

    queue: str | None
    state: str | None
    tags: tuple[str, ...]
    meta: str | None
    after: int | None
    limit: int

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> JobFilters:
        """Return the filters given to `jobs`.

        Raises `UnknownOption` for an unknown filter, and `InvalidValue` or `InvalidPayload` for an invalid value.
        """
        check_options("filter", options, JobOptions)
        state, after, limit = options.get("state"), options.get("after"), options.get("limit", DEFAULT_PAGE_SIZE)
        if state is not None and state not in get_args(JobState):
            raise InvalidValue(f"the state {state!r} is unknown", hint=f"Known: {', '.join(get_args(JobState))}.")
        if after is not None and not is_integer(after, 0, MAX_JOB_ID):
            refuse("after", after, "it must be the id of a job")
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
        """Return the matching jobs of `found`, the oldest first, up to the limit."""
        return sorted(filter(self.matches, found), key=lambda job: job.id)[: self.limit]

    def matches(self, job: Job) -> bool:
        """Whether a job matches all filters."""
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
    """Return the metadata of a job; `metadata` is the instance's, including that of its completed steps."""
    kept = {key: value for key, value in metadata.items() if key not in (TELEMETRY, "step")}
    system = {"workflow": workflow, "instance_id": instance_id, "run": run, "workflow_version": version}
    return {**kept, **system, **({"step": step} if step else {})}


def waiting_for(
    step: str,
    state: JobState,
    *,
    kind: JobKind,
    events: tuple[str, ...],
    until: datetime | None,
    attempt: int,
    max_attempts: int,
    errors: Sequence[Mapping[str, Any]],
    progress: Progress | None = None,
) -> WaitingFor:
    """Return what a live job's step waits for; `errors` are its failed attempts, `until` applies while it waits."""
    reason: Kind
    match state:
        case "running":
            reason = "running"
        case "parked" if kind == "execute":
            reason = "operator"
        case "parked":
            reason = "timer" if until is not None and events == ("timeout",) else "signal"
        case "scheduled":
            reason = "retry" if errors else "queue"
        case "ready":
            reason = "queue"
    return WaitingFor(
        step=step,
        kind=reason,
        events=events,
        until=until if state in ("parked", "scheduled") else None,
        attempt=attempt,
        error=_reason(errors[-1]) if errors else None,
        max_attempts=max_attempts,
        progress=progress,
    )


def progress_of(text: str | None) -> Progress | None:
    """Return a stored progress. Raises `ValueError` or `TypeError` for another value, which was written by hand."""
    if text is None:
        return None
    value = decode(text)
    if not isinstance(value, dict):
        raise TypeError("a progress must be a JSON object")
    return Progress(float(value.get("at", 0)), str(value.get("note", "")))


def _reason(error: Mapping[str, Any]) -> str:
    """Return why an attempt failed: the reason of a returned `Error`, or the exception's type and message."""
    kind, reason = error.get("type", "Error"), error.get("reason", "no reason was given")
    return str(reason) if kind == "Error" else f"{kind}: {reason}"
