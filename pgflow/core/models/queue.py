"""What callers read and set about queues: pauses, concurrency, limits and rates."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from pgflow.core.values.duration import is_duration
from pgflow.core.values.names import is_queue
from pgflow.core.values.query_args import check_text, is_integer, refuse

__all__ = ["Limit", "NodeQueue", "Queue", "QueueLimits", "Rate", "check_key", "check_limit_name", "check_places"]

MAX_PLACES = 1_000_000
MAX_WORKER_CONCURRENCY = 10_000
MAX_KEY_BYTES = 1000


def check_limit_name(name: Any) -> str:
    """Return the name of a queue or a limit. Raises `InvalidValue`."""
    if not is_queue(name):
        refuse("queue", name, "a name has up to 63 letters, digits, '_', '-' and '.'")
    return str(name)


def check_places(name: str, value: Any, *, most: int = MAX_PLACES) -> int | None:
    """Return a number of places from 1, or None. Raises `InvalidValue` that names the argument."""
    if value is not None and not is_integer(value, 1, most):
        refuse(name, value, f"it must be a whole number from 1 to {most}", "To run nothing, pause the queue.")
    return None if value is None else int(value)


def check_key(key: Any) -> str | None:
    """Return a partition key as text, or None. Raises `InvalidValue`."""
    if key is None:
        return None
    text = str(key) if isinstance(key, int) and not isinstance(key, bool) else check_text("key", key)
    assert text is not None  # noqa: S101 -- for the type checker: key is not None
    if text in ("", "*") or len(text.encode()) > MAX_KEY_BYTES:
        refuse("key", key, f"a partition key has 1 to {MAX_KEY_BYTES} bytes, and is not '*'")
    return text


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `count` starts per `per`; after a pause, up to `burst` may start at once (by default one at a time).

    In any span of time at most `burst` + `count` · span / `per` jobs start. Raises `InvalidValue`.

        Rate(100, per=timedelta(minutes=1), burst=20)
    """

    count: int
    per: timedelta = timedelta(seconds=1)
    burst: int = 1

    def __post_init__(self) -> None:
        if not is_integer(self.count, 1, MAX_PLACES):
            refuse("count", self.count, f"a rate allows a whole number of starts from 1 to {MAX_PLACES}")
        if not is_duration(self.per) or not self.per:
            refuse("per", self.per, "a rate needs a period above zero", "Rate(100, per=timedelta(minutes=1))")
        if not is_integer(self.burst, 1, MAX_PLACES):
            refuse("burst", self.burst, f"it must be a whole number from 1 to {MAX_PLACES}")
        if self.per_second > MAX_PLACES:
            refuse("count", self.count, f"a rate allows at most {MAX_PLACES} starts per second")

    @property
    def per_second(self) -> float:
        """How many may start per second."""
        return self.count / self.per.total_seconds()


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """The limits of a queue over all workers; None: no such limit.

    `rate` and `key_rate` are starts per second, `burst` and `key_burst` how many may start at once.
    """

    concurrency: int | None = None
    key_concurrency: int | None = None
    rate: float | None = None
    burst: int = 1
    key_rate: float | None = None
    key_burst: int = 1


@dataclass(frozen=True, slots=True)
class NodeQueue:
    """What differs for a queue on one node: a pause, or the concurrency of each of its workers."""

    node: str
    paused_at: datetime | None = None
    paused_by: str | None = None
    concurrency: int | None = None


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue in use.

    - `paused_at`, `paused_by`: the time of its pause and who paused it; None if it is not paused.
    - `worker_concurrency`: how many jobs each worker runs at once, if that was changed with `scale`.
    - `limits`: those of all workers together, None without any.
    - `workers`: live workers that serve it; `running`: jobs that run; `ready`: jobs that wait, counted up to 1001.
    - `nodes`: what differs by node.
    - `oldest_ready_at`: since when the job that waits longest for a worker is ready, None if none is.
    - `declared`: the settings that are as declared in code, such as "concurrency"; the others were set at run time.

        app.queues.list()[0].paused_at
    """

    name: str
    paused_at: datetime | None = None
    paused_by: str | None = None
    worker_concurrency: int | None = None
    limits: QueueLimits | None = None
    workers: int = 0
    ready: int = 0
    running: int = 0
    nodes: tuple[NodeQueue, ...] = field(default=())
    oldest_ready_at: datetime | None = None
    declared: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Limit:
    """Limits that are set: those of a queue (`key` None), or the exceptions of one partition key.

    `used` is how many places are taken now, by running jobs and by code. `weight` is how many jobs of the key are taken
    per turn of the keys. `declared` are the limits that are as the code declares them, such as "concurrency".
    """

    queue: str
    key: str | None
    limits: QueueLimits
    weight: int | None
    used: int
    declared: tuple[str, ...] = field(default=())
