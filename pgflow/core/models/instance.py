"""What a caller reads about instances: that one was started, where it stands, and what happened so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Protocol, TypeAlias, TypeVar, overload

from pgflow.core.definition.context import Source, read_output
from pgflow.core.definition.graph import DONE, Graph
from pgflow.core.definition.unique import check_id
from pgflow.core.engine.state import ACTIVE, Status
from pgflow.core.values.absent import Absent
from pgflow.core.values.payload import decode

__all__ = [
    "UNSAVED",
    "Definition",
    "Entry",
    "Instance",
    "Kind",
    "PendingSignal",
    "Scheduled",
    "Started",
    "Unscheduler",
    "WaitingFor",
]

O = TypeVar("O")  # noqa: E741 -- the output's type
Kind: TypeAlias = Literal["signal", "timer", "retry", "queue", "running"]


I_contra = TypeVar("I_contra", contravariant=True)  # a workflow's input
UNSAVED = datetime.min.replace(tzinfo=UTC)  # the time of creation until it is stored


class Definition(Protocol[I_contra]):
    """What `Instance.new` needs of a workflow class."""

    def resolve_version(self, version: int | None = None) -> tuple[int, Any]: ...

    def write_input(self, value: I_contra | Mapping[str, Any] | Absent, *, reveal: bool = False) -> str: ...


@dataclass(frozen=True, slots=True)
class Started:
    """An instance was started: its business `id`, and the number of its `run`.

    `created` is False where many were started at once and this key was active already; `run` is then that one's.

        OrderFlow.start("abc123", order)    # Started(id="orderid::abc123", run=7, created=True)
    """

    id: str
    run: int
    created: bool = True


class Unscheduler(Protocol):
    """What can call a scheduled signal off: an app."""

    def unschedule(self, id: int) -> bool: ...  # noqa: A002 -- "id" is the word for it in all of the API

    async def aunschedule(self, id: int) -> bool: ...  # noqa: A002 -- as its twin


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A signal that will be sent to a step of a run, not before the moment `at`.

    `id` is for `app.unschedule(id)`, where the handle itself is not at hand any more.

        handle = OrderFlow.schedule_resume("abc123", "approval", timedelta(days=2), "rejected")
        handle.cancel()
    """

    id: int
    run: int
    step: str
    event: str
    at: datetime
    app: Unscheduler = field(repr=False, compare=False)

    def cancel(self) -> bool:
        """Call it off; returns whether it was still to be sent. To do so twice is no error."""
        return self.app.unschedule(self.id)

    async def acancel(self) -> bool:
        """`cancel`, async."""
        return await self.app.aunschedule(self.id)


@dataclass(frozen=True, slots=True)
class Entry:
    """One completed step in an instance's history.

    `attempt` counts from 1; `errors` says why the attempts before it failed, in dicts with `reason`, `attempt`, …;
    `worker` is None for what no worker ran. `targets` are what a route chose, None where there was nothing to choose.
    """

    step: str
    event: str
    at: datetime
    attempt: int = 1
    output: Any = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    duration: timedelta = timedelta(0)
    worker: int | None = None
    errors: tuple[Mapping[str, Any], ...] = ()
    targets: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class WaitingFor:
    """What one active step waits for.

    `kind` is a `signal` (one of `events` ends it), a `timer`, a `retry` after `error`, a place in its `queue`, or it is
    `running`. `until` is when it goes on by itself, None when it does not. `attempt` counts those that have begun, of
    `max_attempts`.
    """

    step: str
    kind: Kind
    events: tuple[str, ...] = ()
    until: datetime | None = None
    attempt: int = 0
    error: str | None = None
    max_attempts: int = 0


@dataclass(frozen=True, slots=True)
class PendingSignal:
    """A signal that no step has taken yet.

    It came at the moment `at` and is kept for the step that will wait for it; one with an `id`, by which it can be
    canceled, is scheduled for then. `step` is the step it is addressed to, None for any that waits. Without a payload
    `has_payload` is False and `payload` None; a payload that is None is one.
    """

    event: str
    step: str | None
    payload: Any
    at: datetime
    id: int | None = None
    has_payload: bool = True

    @property
    def due(self) -> datetime | None:
        """When it is to be sent; None when it has come."""
        return None if self.id is None else self.at


@dataclass(frozen=True, slots=True)
class Instance:
    """One run of a workflow, as the database has it.

    `input` and `steps`, the output of each completed step by key, are JSON. `history` has an entry for each completion,
    in order. `signals` are those that no step has taken yet, also of a failed instance, which `retry` can continue;
    they, too, come with `get`, not with `list`. `error` says which step failed and why. `telemetry` is what `start` was
    given as `telemetry=`. `step_configs` holds the configuration of each active step that has one, by key: the one that
    the step was activated with. Times are aware datetimes; `finished_at` is None until the end.

    `unreadable` is None, unless something that is stored of it cannot be read: then it says what and why, and that is
    left out here (an input is None). Nothing that pgflow wrote is unreadable; what was written by hand may be.

        OrderFlow.get("abc123").status    # "waiting"
    """

    run: int
    id: str
    workflow: str
    version: int
    status: Status
    input: Any
    steps: Mapping[str, Any]
    history: tuple[Entry, ...]
    waiting_for: tuple[WaitingFor, ...]
    metadata: Mapping[str, Any]
    tags: tuple[str, ...]
    error: Mapping[str, Any] | None
    created_at: datetime
    finished_at: datetime | None = None
    unreadable: str | None = None
    signals: tuple[PendingSignal, ...] = ()
    telemetry: Mapping[str, Any] = field(default_factory=dict)
    step_configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def new(
        cls,
        workflow: Definition[I_contra],
        version: int,
        context: I_contra | Mapping[str, Any],
        id: str,  # noqa: A002 -- "id" is the word for it in all of the API
    ) -> Instance:
        """Return a new instance, pending and not stored yet: `storage.put` stores it, and then it begins.

        `context` is the workflow's input, a model or a dict, and `id` the whole business id. The workflow's tags and
        metadata come with it. Its `run` is 0 until it is stored, and `put` returns the run that it was given then;
        `created_at` is `UNSAVED`, for which the storage puts the time at which it is stored. Raises `InvalidValue` for
        a version or an id that the workflow cannot have, `InvalidInput` and `InvalidPayload` for a context that does
        not fit.

            run = app.storage.put(Instance.new(OrderFlow, 1, Order(item_count=3), "orderid::abc123"))
        """
        _, kind = workflow.resolve_version(version)
        graph: Graph = kind.graph
        check_id(graph.unique, graph.name, id)
        return cls(
            run=0,
            id=id,
            workflow=graph.name,
            version=graph.version,
            status="pending",
            # A declared secret is stored only by an app with a codec, which seals it.
            input=decode(kind.write_input(context, reveal=bool(kind.declared_secrets()))),
            steps={},
            history=(),
            waiting_for=(),
            metadata=dict(graph.metadata or {}),
            tags=graph.tags,
            error=None,
            created_at=UNSAVED,
        )

    @property
    def is_saved(self) -> bool:
        """Whether a storage has it: `Instance.new` makes one that is not stored yet."""
        return self.run > 0

    @property
    def active_steps(self) -> frozenset[str]:
        """The keys of the steps that run or wait, or will first."""
        return frozenset(each.step for each in self.waiting_for)

    @property
    def completed_steps(self) -> tuple[str, ...]:
        """The keys of the steps that have completed, in order, "done" the last; empty where the history was not read.

        OrderFlow.get("abc123").completed_steps    # ("validate_order", "charge", "ship", "done")
        """
        ran = tuple(entry.step for entry in self.history)
        return (*ran, DONE) if ran and self.status == "completed" else ran

    @property
    def is_active(self) -> bool:
        """Whether it still runs or waits."""
        return self.status in ACTIVE

    @overload
    def output(self, step: Source[O]) -> O: ...

    @overload
    def output(self, step: type[Source[O]]) -> O: ...

    def output(self, step: Any) -> Any:
        """Return what a step came to, in the type that it declares as its `output`, else as plain JSON.

        Raises `UnknownStep` when it has not completed, and for an instance from `list`, which comes without outputs;
        `InvalidPayload` when what is stored is not of the declared type.

            OrderFlow.get("abc123").output(charge).receipt    # charge was made with @step(output=Receipt)
        """
        return read_output(self.steps, step, f"{self.workflow} {self.id!r}")
