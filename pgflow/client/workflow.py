"""The class that users subclass to declare a workflow, with its calls: each goes to the app of the class."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, ClassVar, Generic, TypeVar, Unpack

from pgflow.client.apps import Bound
from pgflow.client.client import Client
from pgflow.client.commands import (
    CancelOptions,
    CompleteStepOptions,
    FailStepOptions,
    RetryStepOptions,
    ScheduleOptions,
    SignalOptions,
    StartOptions,
)
from pgflow.client.start_request import OnActive
from pgflow.core.definition.step import Target
from pgflow.core.definition.workflow import DefinedWorkflow
from pgflow.core.models.filters import ListOptions
from pgflow.core.models.instance import Instance, Scheduled, Started
from pgflow.core.values.absent import ABSENT, Absent

__all__ = ["Workflow"]

I = TypeVar("I")  # noqa: E741 -- the workflow's input


class Workflow(Bound, DefinedWorkflow[I], Generic[I]):
    """A DAG of steps. Subclass it with the type of its input, the business key, an `initial` step and `transitions`.

    `transitions` maps each step and each of its events to a target: a step, a list of steps that run in parallel, or a
    `route` among declared steps. Every path ends in `Done`. A definition that cannot run raises `DefinitionError` at
    import.

    Options, as keywords of the class:

    - `unique` (required): the business key and the scope of its uniqueness, see `Unique`.
    - `version`: a whole number from 1, the default.
    - `tags`, `metadata`: a list of strings and a dict of JSON values, stored with each instance.
    - `retry`, `queue`: the `Retry` policy and the queue of steps without their own.
    - `priority`: of its jobs, from -32768 (first) to 32767, by default 0.
    - `orchestration_queue`: a queue for the jobs of signals, timers and joins, so that slow steps do not delay them; by
      default the step's queue.
    - `partition_by`: a field of the input ("tenant", or a path such as "order.customer"): limits per key hold for each
      of its values, and workers take turns between them. `weight`: how many places of a limit a job takes, by default
      1.
    - `deadline`: a timedelta from its start within which an instance must end; otherwise it fails.
    - `retain`: how long ended instances are kept, see `Retain`; by default as the app sets it.
    - `name`: by default the name of the class. It identifies stored instances.
    - `app`: the app to register with, if it exists before the class.

        class OrderFlow(Workflow[Order], unique=Unique("orderid"), tags=["orders"]):
            initial = ValidateOrder
            transitions = {
                ValidateOrder: {"valid": charge, "invalid": Done},
                charge: {"paid": Ship, "declined": Done},
                Ship: {"shipped": Done},
            }

        OrderFlow.start("abc123", Order(item_count=3, user_id=42))

    A *versioned workflow* has several versions at once, and no graph of its own. The versions are classes in its body
    and share its name and business key; each instance keeps the version that it was started with. `versions` can also
    be a keyword, for version classes that are defined elsewhere: in the same module with a name that begins with the
    workflow's, or in a module below. A start uses the version `current`, unless it names one (`version=1`) or
    `version_for` returns one. `get`, `list`, `resume`, `cancel` and `retry` cover all versions; on the class of a
    version, `CreateUser.V1.get(…)`, only that one.

        class CreateUser(Workflow[User], unique=Unique("userid"), current=2):
            class V1(Workflow[User], version=1):
                initial = store_user
                transitions = {store_user: {"done": Done}}

            class V2(Workflow[User], version=2):
                initial = check_user
                transitions = {check_user: {"good": store_user, "bad": Done}, store_user: {"done": Done}}

            versions = {1: V1, 2: V2}

        CreateUser.start("u-1", User(name="Ada"))                # version 2
        CreateUser.start("u-2", User(name="Ada"), version=1)

    *Calls.* Each has an async twin, with an `a` before its name. All take `conn`, a psycopg connection of the caller's:
    the call then runs in the caller's transaction, and commits or rolls back with it. A `value` may also be a whole
    business id; it must be one (`InvalidValue`) where the key has the scope "none", so that any number of instances may
    have the value.

    Calls that change something take an `idempotency_key`, any string: a repeated call with the same key, on any
    machine, does nothing and returns what the first call returned, for a day. Without one a call has a key of its own,
    and retries when the connection is lost; it raises `OutcomeUnknown`, which has the key, when it was sent and no
    answer came, `Unreachable` when it was not sent. With `conn` nothing is retried: the transaction is the caller's.

    Calls go to the app that was made last with this class and is not closed: in a test, to that of the test. A class
    that belongs to no app goes to the only open one, which adds it; without one, or with several, calls raise
    `NotBound`.
    """

    versions: ClassVar[Mapping[int, type[Workflow[Any]]]]
    versioned_workflow: ClassVar[type[Workflow[Any]] | None] = None
    _is_template: ClassVar[bool] = True

    @classmethod
    def start(
        cls,
        value: str,
        input: I | Mapping[str, Any] | Absent = ABSENT,  # noqa: A002 -- the word for it in all of the API
        *,
        conn: Any = None,
        on_conflict: OnActive = "raise",
        **options: Unpack[StartOptions],
    ) -> Started:
        """Start an instance for a business value; returns once it is stored, for a worker to run.

        An `input` that is left out is None where the workflow's input type includes None, else `{}`.

        While an instance with this key is active, it raises `AlreadyRunning`, whose `run` is that of the active one;
        with `on_conflict="existing"` it returns that one, with `created=False`. Raises `InvalidInput`, `InvalidValue`,
        `InvalidPayload`.

            OrderFlow.start("abc123", Order(item_count=3, user_id=42))    # Started(id="orderid::abc123", run=7, …)
        """
        return cls.bound().start(cls, value, input, conn=conn, on_conflict=on_conflict, **options)

    @classmethod
    async def astart(
        cls,
        value: str,
        input: I | Mapping[str, Any] | Absent = ABSENT,  # noqa: A002 -- the word for it in all of the API
        *,
        conn: Any = None,
        on_conflict: OnActive = "raise",
        **options: Unpack[StartOptions],
    ) -> Started:
        """`start`, async."""
        return await cls.bound().astart(cls, value, input, conn=conn, on_conflict=on_conflict, **options)

    @classmethod
    def start_many(
        cls,
        items: Iterable[tuple[str, I | Mapping[str, Any]] | tuple[str]],
        *,
        conn: Any = None,
        **options: Unpack[StartOptions],
    ) -> builtins.list[Started]:
        """Start an instance for each (value, input), or (value,) without an input, all in one transaction.

        Runs are numbered in the given order. One whose key is already active is not started, and comes back with
        `created=False`. Raises `InvalidInput`, `InvalidValue`, `InvalidPayload`, and `StatementTimeout` for more than
        the database starts within its statement_timeout; then none is started.

            OrderFlow.start_many((order.number, order) for order in orders)
        """
        return cls.bound().start_many(cls, items, conn=conn, **options)

    @classmethod
    async def astart_many(
        cls,
        items: Iterable[tuple[str, I | Mapping[str, Any]] | tuple[str]],
        *,
        conn: Any = None,
        **options: Unpack[StartOptions],
    ) -> builtins.list[Started]:
        """`start_many`, async."""
        return await cls.bound().astart_many(cls, items, conn=conn, **options)

    @classmethod
    def resume(
        cls,
        value: str,
        event: str,
        payload: Any = ABSENT,
        *,
        conn: Any = None,
        **options: Unpack[SignalOptions],
    ) -> str:
        """Send a signal; returns "delivered" if it ended a wait, "kept" if it stays in the mailbox for a later one.

        `payload` becomes the output of the waiting step; left out, it is like an output that is left out (see `Ok`).
        `step` is needed only where several wait for the same signal. Signals of one name are consumed in the order in
        which they were sent, each by one wait; a wait consumes one signal, also before a worker has continued it. With
        an `idempotency_key` a repeated signal ends no second wait. Raises `UndeclaredEvent`,
        `AmbiguousSignal`, `InstanceNotFound`, `InvalidPayload`, and `NotActive` when the instance has ended or
        has completed each step that takes the signal.

            OrderFlow.resume("abc123", "payment_confirmed", {"amount": 3})
        """
        return cls.bound().resume(cls, value, event, payload, conn=conn, **options)

    @classmethod
    async def aresume(
        cls,
        value: str,
        event: str,
        payload: Any = ABSENT,
        *,
        conn: Any = None,
        **options: Unpack[SignalOptions],
    ) -> str:
        """`resume`, async."""
        return await cls.bound().aresume(cls, value, event, payload, conn=conn, **options)

    @classmethod
    def schedule_resume(
        cls,
        value: str,
        step: str | Target,
        delay: timedelta,
        event: str | None = None,
        payload: Any = ABSENT,
        *,
        conn: Any = None,
        **options: Unpack[ScheduleOptions],
    ) -> Scheduled:
        """Send a signal to one step later; returns a handle that can cancel it until then.

        It is stored with the instance, so it survives restarts, and is deleted when the instance ends. Without an
        `event` it is the only one that the step takes, or "timeout" if that is one of several. Raises
        `UndeclaredEvent`, `UnknownStep`, `InstanceNotFound`, `NotActive`, `InvalidPayload`, `InvalidValue` for a
        negative delay.

            reminder = OrderFlow.schedule_resume("abc123", approval, timedelta(days=2), "rejected")
            reminder.cancel()    # True: it was still to be sent
        """
        return cls.bound().schedule_resume(cls, value, step, delay, event, payload, conn=conn, **options)

    @classmethod
    async def aschedule_resume(
        cls,
        value: str,
        step: str | Target,
        delay: timedelta,
        event: str | None = None,
        payload: Any = ABSENT,
        *,
        conn: Any = None,
        **options: Unpack[ScheduleOptions],
    ) -> Scheduled:
        """`schedule_resume`, async."""
        return await cls.bound().aschedule_resume(cls, value, step, delay, event, payload, conn=conn, **options)

    @classmethod
    def cancel(cls, value: str, *, conn: Any = None, **options: Unpack[CancelOptions]) -> None:
        """Cancel the newest run of a value: no further step starts. Raises `InstanceNotFound`, `NotActive`.

        OrderFlow.cancel("abc123", reason="the customer withdrew")
        """
        cls.bound().cancel(cls, value, conn=conn, **options)

    @classmethod
    async def acancel(cls, value: str, *, conn: Any = None, **options: Unpack[CancelOptions]) -> None:
        """`cancel`, async."""
        await cls.bound().acancel(cls, value, conn=conn, **options)

    @classmethod
    def retry(cls, value: str, *, conn: Any = None, **options: Unpack[RetryStepOptions]) -> None:
        """Retry the newest run of a value from the step that failed; of an active run, steps that wait for an operator.

        Raises `InstanceNotFound`, `NotRetryable`, and with `step` `UnknownStep`, `NotActive`.

            OrderFlow.retry("abc123")
            OrderFlow.retry("abc123", step=charge)    # not the others that wait for an operator
        """
        cls.bound().retry(cls, value, conn=conn, **options)

    @classmethod
    async def aretry(cls, value: str, *, conn: Any = None, **options: Unpack[RetryStepOptions]) -> None:
        """`retry`, async."""
        await cls.bound().aretry(cls, value, conn=conn, **options)

    @classmethod
    def complete_step(
        cls,
        value: str,
        step: str | Target,
        output: Any = ABSENT,
        *,
        conn: Any = None,
        **options: Unpack[CompleteStepOptions],
    ) -> None:
        """Complete a step of the newest run of a value that waits for an operator, as if it had run to its end.

        A step does so whose attempts are used up and whose policy is `Retry(on_exhausted="pause")`. Raises
        `InstanceNotFound`, `UnknownStep`, `UndeclaredEvent`, `InvalidPayload`, and `NotActive` if it does not wait for
        an operator.

            OrderFlow.complete_step("abc123", charge, {"receipt": "r-1"}, event="paid")
        """
        cls.bound().complete_step(cls, value, step, output, conn=conn, **options)

    @classmethod
    async def acomplete_step(
        cls,
        value: str,
        step: str | Target,
        output: Any = ABSENT,
        *,
        conn: Any = None,
        **options: Unpack[CompleteStepOptions],
    ) -> None:
        """`complete_step`, async."""
        await cls.bound().acomplete_step(cls, value, step, output, conn=conn, **options)

    @classmethod
    def fail_step(cls, value: str, step: str | Target, *, conn: Any = None, **options: Unpack[FailStepOptions]) -> None:
        """Fail a step of the newest run of a value that waits for an operator, and with it the instance.

        Raises `InstanceNotFound`, `UnknownStep`, and `NotActive` if the step does not wait for an operator.

            OrderFlow.fail_step("abc123", charge, reason="the card was stolen")
        """
        cls.bound().fail_step(cls, value, step, conn=conn, **options)

    @classmethod
    async def afail_step(
        cls, value: str, step: str | Target, *, conn: Any = None, **options: Unpack[FailStepOptions]
    ) -> None:
        """`fail_step`, async."""
        await cls.bound().afail_step(cls, value, step, conn=conn, **options)

    @classmethod
    def get(cls, value: str, *, conn: Any = None) -> Instance:
        """Read the newest run of a value, with its history and what it waits for. Raises `InstanceNotFound`.

        OrderFlow.get("abc123").waiting_for
        """
        return cls.bound().get(cls, value, conn=conn)

    @classmethod
    async def aget(cls, value: str, *, conn: Any = None) -> Instance:
        """`get`, async."""
        return await cls.bound().aget(cls, value, conn=conn)

    @classmethod
    def list(cls, *, conn: Any = None, **options: Unpack[ListOptions]) -> builtins.list[Instance]:
        """Read a page of instances, the newest first, without their histories.

        Only those that match all filters: see `ListOptions`. Raises `UnknownOption` for an unknown filter,
        `InvalidValue` and `InvalidPayload` for invalid values.

            OrderFlow.list(status=["failed", "cancelled"], tags=["gift"], input={"card": "stolen"}, limit=10)
            OrderFlow.list(steps={charge: {"bank": "b-1"}}, order="oldest", after=page[-1].run)
        """
        return cls.bound().list(cls, conn=conn, **options)

    @classmethod
    async def alist(cls, *, conn: Any = None, **options: Unpack[ListOptions]) -> builtins.list[Instance]:
        """`list`, async."""
        return await cls.bound().alist(cls, conn=conn, **options)

    @classmethod
    def runs(
        cls, value: str, *, before: int | None = None, limit: int = 50, conn: Any = None
    ) -> builtins.list[Instance]:
        """Read the runs of a value, the newest first, without their histories.

        `before` is the run id of the last one on the previous page.

            [run.status for run in OrderFlow.runs("abc123")]    # ["running", "failed", "completed"]
        """
        return cls.bound().runs(cls, value, before=before, limit=limit, conn=conn)

    @classmethod
    async def aruns(
        cls, value: str, *, before: int | None = None, limit: int = 50, conn: Any = None
    ) -> builtins.list[Instance]:
        """`runs`, async."""
        return await cls.bound().aruns(cls, value, before=before, limit=limit, conn=conn)

    # -- the app that the calls go to

    @classmethod
    def bind(cls, app: Client) -> None:
        """Send these calls, and those of each version, to `app`; a later app takes the place of an earlier one."""
        super().bind(app)
        for version in cls.versions.values():
            if version is not cls:
                version.bind(app)

    @classmethod
    def unbind(cls, app: Client) -> None:
        """Send these calls, and those of each version, to the app that was made before `app`, if there is one."""
        super().unbind(app)
        for version in cls.versions.values():
            if version is not cls:
                version.unbind(app)

    @classmethod
    def bound(cls) -> Client:
        """Return the app that these calls go to: for a version, that of its versioned workflow. Raises `NotBound`."""
        if cls.versioned_workflow is not None and cls._own_app() is None:
            cls.versioned_workflow.bound()  # which binds its versions, too
        return super().bound()
