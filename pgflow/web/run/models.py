"""One run as pages and the API have it."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict

from pgflow.web.rendering.values import Value

__all__ = ["Edge", "EdgeState", "Failure", "Part", "Reason", "Span", "Step", "StepState"]

StepState: TypeAlias = Literal[
    "running",
    "completed",
    "waiting",
    "retrying",
    "failed",
    "held",
    "ready",
    "scheduled",
    "cancelled",
    "skipped",
    "idle",
]
EdgeState: TypeAlias = Literal["taken", "live", "dead", "open"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Failure(_Frozen):
    """One failed attempt, with its traceback. `details` is what else was recorded, without hidden values."""

    attempt: int | None = None
    type: str = "Error"
    reason: str = ""
    trace: str | None = None
    details: Value = Value(state="absent")


class Span(_Frozen):
    """What a step did from `since` to `until`: it ran, it waited (parked), or it was queued or backing off."""

    kind: Literal["ran", "waited", "queued"]
    state: str
    since: datetime
    until: datetime


class Step(_Frozen):
    """One step of the run.

    - `activated_at`: when its predecessors were resolved; `started_at`: the start of its last attempt.
    - `what`: its state in words, `pill`: its attempts, as the graph shows them.
    - `awaits`: the signals that end its wait, `until`: when it ends without one.
    - `progress`: from 0 to 1, as it was reported last.
    """

    key: str
    name: str
    state: StepState
    what: str = ""
    pill: str = ""
    events: tuple[str, ...] = ()
    signals: tuple[str, ...] = ()
    event: str | None = None
    attempt: int = 0
    max_attempts: int = 0
    queue: str | None = None
    worker: str | None = None
    activated_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    until: datetime | None = None
    awaits: tuple[str, ...] = ()
    progress: float | None = None
    note: str = ""
    output: Value = Value(state="absent")
    failures: tuple[Failure, ...] = ()
    spans: tuple[Span, ...] = ()
    is_critical: bool = False

    @property
    def waited(self) -> float | None:
        """Seconds from its activation to the start of its last attempt."""
        if self.activated_at is None or self.started_at is None:
            return None
        return max(0.0, (self.started_at - self.activated_at).total_seconds())

    @property
    def ran(self) -> float | None:
        """Seconds that its last attempt took."""
        if self.started_at is None or self.finished_at is None:
            return None
        return max(0.0, (self.finished_at - self.started_at).total_seconds())


class Edge(_Frozen):
    """All transitions from one step to another; `label` is their events where a step has several."""

    source: str
    target: str
    events: tuple[str, ...]
    label: str
    state: EdgeState
    is_critical: bool = False


class Part(_Frozen):
    """A piece of a sentence: plain text, or something that is a link or stands out."""

    text: str
    kind: Literal["text", "step", "queue", "name", "time"] = "text"
    at: datetime | None = None


class Reason(_Frozen):
    """Why one branch waits, as a sentence in `parts`, and the actions that resolve it, by name."""

    state: StepState
    step: str
    message: str
    parts: tuple[Part, ...]
    actions: tuple[str, ...] = ()
    signal: str | None = None
