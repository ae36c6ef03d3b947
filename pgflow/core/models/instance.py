"""What callers read about instances: the result of a start, the current state, and the history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Protocol, TypeAlias, TypeVar, overload

from pgflow.core.definition.context import HasOutput, read_output
from pgflow.core.definition.control import Progress
from pgflow.core.definition.graph import DONE, Graph
from pgflow.core.definition.unique import check_id
from pgflow.core.engine.state import ACTIVE, Status
from pgflow.core.values.absent import Absent
from pgflow.core.values.payload import decode

__all__ = [
    "UNSAVED",
    "Entry",
    "Instance",
    "Instantiable",
    "Kind",
    "PendingSignal",
    "Scheduled",
    "Started",
    "Unscheduler",
    "WaitingFor",
]

O = TypeVar("O")  # noqa: E741 -- the output's type
Kind: TypeAlias = Literal["signal", "timer", "retry", "operator", "queue", "running"]


I_contra = TypeVar("I_contra", contravariant=True)  # a workflow's input
UNSAVED = datetime.min.replace(tzinfo=UTC)  # `created_at` until the instance is stored


class Instantiable(Protocol[I_contra]):
    """What `Instance.new` needs of a workflow class."""

    def resolve_version(self, version: int | None = None) -> tuple[int, Any]: ...

    def write_input(self, value: I_contra | Mapping[str, Any] | Absent, *, reveal: bool = False) -> str: ...


@dataclass(frozen=True, slots=True)
class Started:
    """The result of a start: the instance's business `id` and its run id, `run`.

    `created` is False if `start_many` found an active instance with this key; `run` is then the id of that one.

        OrderFlow.start("abc123", order)    # Started(id="orderid::abc123", run=7, created=True)
    """

    id: str
    run: int
    created: bool = True


class Unscheduler(Protocol):
    """An app, as `Scheduled` needs it to cancel a scheduled signal."""

    def unschedule(self, id: int) -> bool: ...  # noqa: A002 -- "id" is the name for it in the whole API

    async def aunschedule(self, id: int) -> bool: ...  # noqa: A002 -- as above


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A handle for a signal that is sent to a step of an instance at the time `at`, or shortly after.

    `run` is the instance's run id, `event` the name of the signal. Without the handle, `app.unschedule(id)` cancels the
    signal by its `id`.

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
        """Cancel the signal. Returns False if it was already sent or cancelled."""
        return self.app.unschedule(self.id)

    async def acancel(self) -> bool:
        """`cancel`, async."""
        return await self.app.aunschedule(self.id)


@dataclass(frozen=True, slots=True)
class Entry:
    """One completed step in an instance's history.

    - `event`, `output`, `metadata`: the step's result; output and metadata as JSON values.
    - `at`: the time of completion, an aware datetime; `duration`: of the last attempt.
    - `attempt`: the number of the attempt that completed it, from 1; `errors`: the failed attempts before, dicts with
      `reason`, `type` and `attempt`.
    - `worker`: the id of the worker that ran it, None if no worker did (a wait, or the in-memory backend).
    - `targets`: the keys of the steps that a route chose, None for a transition without a route.
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

    - `kind`: "signal" (one of `events` ends the wait), "timer", "retry" after a failed attempt, "operator" (no
      attempt is left, see `Retry.on_exhausted`), "queue" (ready for a worker, or delayed), or "running".
    - `until`: when the step continues without a signal, None if it does not.
    - `attempt`: the number of attempts that have started, of `max_attempts`; `error`: why the last one failed, or None.
    - `progress`: what the step has reported last, see `Context.progress`.
    """

    step: str
    kind: Kind
    events: tuple[str, ...] = ()
    until: datetime | None = None
    attempt: int = 0
    error: str | None = None
    max_attempts: int = 0
    progress: Progress | None = None


@dataclass(frozen=True, slots=True)
class PendingSignal:
    """A signal that no step has consumed yet.

    It arrived at the time `at` and is kept until a step waits for it. A signal with an `id` is scheduled for `at`
    instead, and can be cancelled by that id. `step` is the key of the step it is addressed to, None for any step that
    waits for it. For a signal without a payload `has_payload` is False, as a payload may be None.
    """

    event: str
    step: str | None
    payload: Any
    at: datetime
    id: int | None = None
    has_payload: bool = True

    @property
    def due(self) -> datetime | None:
        """When a scheduled signal is sent; None for one that has arrived."""
        return None if self.id is None else self.at


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance of a workflow, as it is stored.

    - `run`: the run id, unique among all instances; `id`: the business id, such as "orderid::abc123".
    - `status`: "pending", "running", "waiting", "completed", "failed" or "cancelled".
    - `input`: the input as JSON values; `steps`: the output of each completed step by key, as JSON values.
    - `history`: an `Entry` for each completed step, in order. `list` leaves `steps`, `history` and `signals` empty.
    - `waiting_for`: what each active step waits for.
    - `signals`: the signals that no step has consumed yet, also of a failed instance, which `retry` may continue.
    - `metadata`, `tags`: those of the workflow and of the start, and the metadata that steps recorded.
    - `error`: None, or a dict with the failed step, the reason, the type of the exception and more.
    - `created_at`, `finished_at`: aware datetimes; `finished_at` is None until the end.
    - `deadline`: when the instance fails unless it has ended before, None for never.
    - `telemetry`: the `telemetry=` of the start.
    - `step_configs`: the configuration with which each active step was activated, by key.
    - `unreadable`: None, or why a stored value could not be read, which is then missing here (an input is None).
      Values that pgflow wrote are always readable; values changed by hand, or encrypted with a missing key, may not be.

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
    deadline: datetime | None = None

    @classmethod
    def new(
        cls,
        workflow: Instantiable[I_contra],
        version: int,
        context: I_contra | Mapping[str, Any],
        id: str,  # noqa: A002 -- "id" is the name for it in the whole API
    ) -> Instance:
        """Return a new pending instance that is not stored yet; `storage.put` stores and starts it.

        `context` is the workflow's input, a model or a dict, and `id` the whole business id. The instance has the
        workflow's tags and metadata. Its `run` is 0 and its `created_at` is `UNSAVED` until `put` stores it and returns
        its run id. Raises `InvalidValue` for a version or an id that the workflow cannot have, and `InvalidInput` or
        `InvalidPayload` for a context that does not fit.

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
            # Only an app with a codec can store a declared secret, and it encrypts the input.
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
        """Whether the instance is stored; False for one from `Instance.new`."""
        return self.run > 0

    @property
    def active_steps(self) -> frozenset[str]:
        """The keys of the steps that run or wait; of a pending instance, its initial step."""
        return frozenset(each.step for each in self.waiting_for)

    @property
    def completed_steps(self) -> tuple[str, ...]:
        """The keys of the completed steps in order, ending with "done" if completed; empty for one from `list`.

        OrderFlow.get("abc123").completed_steps    # ("validate_order", "charge", "ship", "done")
        """
        ran = tuple(entry.step for entry in self.history)
        return (*ran, DONE) if ran and self.status == "completed" else ran

    @property
    def is_active(self) -> bool:
        """Whether the instance is pending, running or waiting."""
        return self.status in ACTIVE

    @overload
    def output(self, step: HasOutput[O]) -> O: ...

    @overload
    def output(self, step: type[HasOutput[O]]) -> O: ...

    def output(self, step: Any) -> Any:
        """Return the output of a completed step, in the type that it declares as its `output`, else as JSON values.

        Raises `UnknownStep` if the step has not completed, and for an instance from `list`, which has no outputs;
        `InvalidPayload` if the stored output does not fit the declared type.

            OrderFlow.get("abc123").output(charge).receipt    # charge declares @step(output=Receipt)
        """
        return read_output(self.steps, step, f"{self.workflow} {self.id!r}")
