"""The calls on a workflow class, `OrderFlow.start(…)` and its kin: each hands over to the app of the class."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, Generic, TypeVar, Unpack

from pgflow.core.app_registry import Bound
from pgflow.core.definition.step import Target
from pgflow.core.facade import StartOptions
from pgflow.core.models.filters import ListOptions
from pgflow.core.models.instance import Instance, Scheduled, Started
from pgflow.core.values.absent import ABSENT, Absent

__all__ = ["Calls"]

I = TypeVar("I")  # noqa: E741 -- the workflow's input


class Calls(Bound, Generic[I]):
    """The calls that every workflow class has; each has a twin for async code, with an `a` before its name.

    All take `conn`, a psycopg connection of the caller's: then it happens in the caller's transaction, and commits or
    rolls back with it. Where a `value` is asked for, a whole business id will do; where the key has the scope "none",
    so that any number of instances may have the value, it has to be one (`InvalidValue`).

    Those that change something take an `idempotency_key`, any string: called again with it, on any machine, they do
    nothing and return what the first call returned, for a day. Without one a call has its own, and sends itself again
    where the database was away for a moment; it raises `OutcomeUnknown`, which has the key, when it was sent and no
    answer came, `Unreachable` when it was not. With `conn` nothing is sent again: the transaction is the caller's.

    They go to the app that was made last with this class and is not closed: in a test, to that of the test. A class
    that was given to no app goes to the only one that is open, which takes it in; they raise `NotBound` when there is
    none, and when there are several.
    """

    @classmethod
    def start(
        cls,
        value: str,
        input: I | Mapping[str, Any] | Absent = ABSENT,  # noqa: A002 -- the word for it in all of the API
        *,
        conn: Any = None,
        **options: Unpack[StartOptions],
    ) -> Started:
        """Start an instance for a business value; returns once it is stored, and a worker takes it from there.

        An `input` that is left out is None where the workflow's input type includes None, else `{}`.

        Raises `AlreadyRunning` while an instance with this key is active, `InvalidInput`, `InvalidValue`,
        `InvalidPayload`.

            OrderFlow.start("abc123", Order(item_count=3, user_id=42))    # Started(id="orderid::abc123", run=7, …)
        """
        return cls.bound().start(cls, value, input, conn=conn, **options)

    @classmethod
    async def astart(
        cls,
        value: str,
        input: I | Mapping[str, Any] | Absent = ABSENT,  # noqa: A002 -- the word for it in all of the API
        *,
        conn: Any = None,
        **options: Unpack[StartOptions],
    ) -> Started:
        """`start`, async."""
        return await cls.bound().astart(cls, value, input, conn=conn, **options)

    @classmethod
    def start_many(
        cls,
        items: Iterable[tuple[str, I | Mapping[str, Any]] | tuple[str]],
        *,
        conn: Any = None,
        **options: Unpack[StartOptions],
    ) -> builtins.list[Started]:
        """Start an instance for each (value, input), or (value,) without an input, all in one transaction.

        Runs are numbered in the order given. One whose key is active already is left alone and comes back with
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
        step: str | Target | None = None,
        conn: Any = None,
        idempotency_key: str | None = None,
    ) -> str:
        """Send a signal; returns "delivered" if it ended a wait, "kept" if it is kept for the next wait that takes it.

        `payload` becomes the output of the step that waits; left out, it is as an output that is left out (see `Ok`).
        `step` is needed only where several wait for the same signal. Signals of one name are consumed in the order in
        which they were sent, each by one wait; a wait that has its signal takes no second one, also before a worker has
        gone on from it. With an `idempotency_key` a repeated signal ends no second wait. Raises `UndeclaredEvent`,
        `AmbiguousSignal`, `InstanceNotFound`, `InvalidPayload`, and `NotActive` when the instance has ended or has gone
        past each step that takes the signal.

            OrderFlow.resume("abc123", "payment_confirmed", {"amount": 3})
        """
        key = idempotency_key
        return cls.bound().resume(cls, value, event, payload, step=step, conn=conn, idempotency_key=key)

    @classmethod
    async def aresume(
        cls,
        value: str,
        event: str,
        payload: Any = ABSENT,
        *,
        step: str | Target | None = None,
        conn: Any = None,
        idempotency_key: str | None = None,
    ) -> str:
        """`resume`, async."""
        key = idempotency_key
        return await cls.bound().aresume(cls, value, event, payload, step=step, conn=conn, idempotency_key=key)

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
        idempotency_key: str | None = None,
    ) -> Scheduled:
        """Send a signal to one step later; returns a handle by which it can be called off until then.

        It is stored with the instance, so it survives restarts, and goes when the instance ends. Without an `event` it
        is the only one that the step takes, or "timeout" if that is one of several. Raises `UndeclaredEvent`,
        `UnknownStep`, `InstanceNotFound`, `NotActive`, `InvalidPayload`, `InvalidValue` for a negative delay.

            reminder = OrderFlow.schedule_resume("abc123", approval, timedelta(days=2), "rejected")
            reminder.cancel()    # True: it was still to be sent
        """
        return cls.bound().schedule_resume(
            cls, value, step, delay, event, payload, conn=conn, idempotency_key=idempotency_key
        )

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
        idempotency_key: str | None = None,
    ) -> Scheduled:
        """`schedule_resume`, async."""
        return await cls.bound().aschedule_resume(
            cls, value, step, delay, event, payload, conn=conn, idempotency_key=idempotency_key
        )

    @classmethod
    def cancel(
        cls, value: str, *, reason: str | None = None, conn: Any = None, idempotency_key: str | None = None
    ) -> None:
        """Cancel the newest run of a value: no further step starts. Raises `InstanceNotFound`, `NotActive`.

        OrderFlow.cancel("abc123", reason="the customer withdrew")
        """
        cls.bound().cancel(cls, value, reason=reason, conn=conn, idempotency_key=idempotency_key)

    @classmethod
    async def acancel(
        cls, value: str, *, reason: str | None = None, conn: Any = None, idempotency_key: str | None = None
    ) -> None:
        """`cancel`, async."""
        await cls.bound().acancel(cls, value, reason=reason, conn=conn, idempotency_key=idempotency_key)

    @classmethod
    def retry(cls, value: str, *, conn: Any = None, idempotency_key: str | None = None) -> None:
        """Take the newest run of a value up again where it failed. Raises `InstanceNotFound`, `NotRetryable`.

        OrderFlow.retry("abc123")
        """
        cls.bound().retry(cls, value, conn=conn, idempotency_key=idempotency_key)

    @classmethod
    async def aretry(cls, value: str, *, conn: Any = None, idempotency_key: str | None = None) -> None:
        """`retry`, async."""
        await cls.bound().aretry(cls, value, conn=conn, idempotency_key=idempotency_key)

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

        Only those for which all the given filters hold: see `ListOptions`. Raises `UnknownOption` for a filter that
        does not exist, `InvalidValue` and `InvalidPayload` for values that cannot be.

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
        """Read every run that a value has had, the newest first, without their histories; none is an empty list.

        `before` is the run of the last one on the page before.

            [run.status for run in OrderFlow.runs("abc123")]    # ["running", "failed", "completed"]
        """
        return cls.bound().runs(cls, value, before=before, limit=limit, conn=conn)

    @classmethod
    async def aruns(
        cls, value: str, *, before: int | None = None, limit: int = 50, conn: Any = None
    ) -> builtins.list[Instance]:
        """`runs`, async."""
        return await cls.bound().aruns(cls, value, before=before, limit=limit, conn=conn)
