"""What people and tools read of a live job: where a branch of an instance stands, and how it is marked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypeAlias, get_args

from pgflow.core.names import TELEMETRY, snake_case
from pgflow.core.payload import INPUT_LIMIT, decode, encode
from pgflow.errors import InvalidValue

__all__ = ["Job", "Marks", "contains", "job_meta", "job_tags"]

JobKind: TypeAlias = Literal["execute", "resume", "advance"]
JobState: TypeAlias = Literal["ready", "running", "scheduled", "parked"]


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


@dataclass(frozen=True, slots=True)
class Marks:
    """Which jobs are asked for, beside their workflow: see `Pgflow.jobs`."""

    queue: str | None
    state: str | None
    tags: tuple[str, ...]
    meta: Mapping[str, Any] | None
    after: int | None

    @classmethod
    def of(
        cls,
        queue: str | None = None,
        state: str | None = None,
        tags: Sequence[str] = (),
        meta: Mapping[str, Any] | None = None,
        after: int | None = None,
    ) -> Marks:
        """Check what was asked. Raises `InvalidValue` for a state that does not exist, `InvalidPayload`."""
        if state is not None and state not in get_args(JobState):
            raise InvalidValue(f"the state {state!r} is unknown", hint=f"Known: {', '.join(get_args(JobState))}.")
        wanted = None if meta is None else decode(encode(dict(meta), what="meta", limit=INPUT_LIMIT))
        return cls(queue, state, (tags,) if isinstance(tags, str) else tuple(tags), wanted, after)

    def fit(self, job: Job) -> bool:
        """Whether a job is among those asked for."""
        return (
            self.queue in (None, job.queue)
            and self.state in (None, job.state)
            and (self.after is None or job.id > self.after)
            and set(self.tags) <= set(job.tags)
            and (self.meta is None or contains(job.meta, self.meta))
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


def contains(whole: Any, part: Any) -> bool:
    """Whether one JSON value contains another, as PostgreSQL's `@>` has it: objects by key, lists in any order.

    contains({"a": [1, 2], "b": 3}, {"a": [2]})    # True
    """
    match whole, part:
        case dict(), dict():
            return all(key in whole and contains(whole[key], value) for key, value in part.items())
        case list(), list():
            return all(any(contains(each, value) for each in whole) for value in part)
        case (bool(), _) | (_, bool()):
            return whole is part
        case _:
            return bool(whole == part)
