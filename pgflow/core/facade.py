"""What a workflow's calls need of an app, whichever it is."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol, TypedDict, Unpack

from pgflow.core.models.filters import ListOptions
from pgflow.core.models.instance import Instance, Scheduled, Started

__all__ = ["Facade", "StartOptions"]


class StartOptions(TypedDict, total=False):
    """How to start: not before `at` (an aware datetime) or for `delay`; with tags and metadata of this instance's own.

    An instance has 32 tags at most, those of its workflow included, of 64 characters each.
    `priority` takes the place of the workflow's: the lowest goes first. `version` names one of an umbrella's versions;
    without it `version_for` is asked, which finds what is in `options` beside the others. `telemetry` is stored with
    the instance, and workers put it into the metadata of all events that they tell of it, below the events' own fields.
    `idempotency_key`: a start that is called again with it does nothing, and returns what the first one returned.
    """

    version: int | None
    options: Mapping[str, Any] | None
    at: datetime | None
    delay: timedelta | None
    tags: Sequence[str]
    metadata: Mapping[str, Any] | None
    telemetry: Mapping[str, Any] | None
    priority: int | None
    idempotency_key: str | None


class Facade(Protocol):
    """What stands behind a workflow's calls: a `Pgflow` app, or a stand-in for one. See `Calls` for what each does."""

    def adopt(self, workflow: type[Any]) -> None: ...

    def start(
        self,
        workflow: type[Any],
        value: str,
        input: Any = ...,  # noqa: A002 -- the word for it in all of the API
        *,
        conn: Any = ...,
        **options: Any,
    ) -> Started: ...

    async def astart(
        self,
        workflow: type[Any],
        value: str,
        input: Any = ...,  # noqa: A002 -- the word for it in all of the API
        *,
        conn: Any = ...,
        **options: Any,
    ) -> Started: ...

    def start_many(
        self, workflow: type[Any], items: Iterable[tuple[str, Any] | tuple[str]], *, conn: Any = ..., **options: Any
    ) -> builtins.list[Started]: ...

    async def astart_many(
        self, workflow: type[Any], items: Iterable[tuple[str, Any] | tuple[str]], *, conn: Any = ..., **options: Any
    ) -> builtins.list[Started]: ...

    def resume(
        self,
        workflow: type[Any],
        value: str,
        event: str,
        payload: Any = ...,
        *,
        step: Any = ...,
        conn: Any = ...,
        idempotency_key: str | None = ...,
    ) -> str: ...

    async def aresume(
        self,
        workflow: type[Any],
        value: str,
        event: str,
        payload: Any = ...,
        *,
        step: Any = ...,
        conn: Any = ...,
        idempotency_key: str | None = ...,
    ) -> str: ...

    def schedule_resume(
        self,
        workflow: type[Any],
        value: str,
        step: Any,
        delay: timedelta,
        event: str | None = ...,
        payload: Any = ...,
        *,
        conn: Any = ...,
        idempotency_key: str | None = ...,
    ) -> Scheduled: ...

    async def aschedule_resume(
        self,
        workflow: type[Any],
        value: str,
        step: Any,
        delay: timedelta,
        event: str | None = ...,
        payload: Any = ...,
        *,
        conn: Any = ...,
        idempotency_key: str | None = ...,
    ) -> Scheduled: ...

    def unschedule(
        self,
        id: int,  # noqa: A002 -- the word for it in all of the API
        *,
        conn: Any = ...,
        idempotency_key: str | None = ...,
    ) -> bool: ...

    async def aunschedule(
        self,
        id: int,  # noqa: A002 -- as its twin
        *,
        conn: Any = ...,
        idempotency_key: str | None = ...,
    ) -> bool: ...

    def cancel(
        self,
        workflow: type[Any],
        value: str,
        *,
        reason: str | None = ...,
        conn: Any = ...,
        idempotency_key: str | None = ...,
    ) -> None: ...

    async def acancel(
        self,
        workflow: type[Any],
        value: str,
        *,
        reason: str | None = ...,
        conn: Any = ...,
        idempotency_key: str | None = ...,
    ) -> None: ...

    def retry(self, workflow: type[Any], value: str, *, conn: Any = ..., idempotency_key: str | None = ...) -> None: ...

    async def aretry(
        self, workflow: type[Any], value: str, *, conn: Any = ..., idempotency_key: str | None = ...
    ) -> None: ...

    def get(self, workflow: type[Any], value: str, *, conn: Any = ...) -> Instance: ...

    async def aget(self, workflow: type[Any], value: str, *, conn: Any = ...) -> Instance: ...

    def list(
        self, workflow: type[Any], *, conn: Any = ..., **options: Unpack[ListOptions]
    ) -> builtins.list[Instance]: ...

    async def alist(
        self, workflow: type[Any], *, conn: Any = ..., **options: Unpack[ListOptions]
    ) -> builtins.list[Instance]: ...

    def runs(
        self, workflow: type[Any], value: str, *, before: int | None = ..., limit: int = ..., conn: Any = ...
    ) -> builtins.list[Instance]: ...

    async def aruns(
        self, workflow: type[Any], value: str, *, before: int | None = ..., limit: int = ..., conn: Any = ...
    ) -> builtins.list[Instance]: ...
