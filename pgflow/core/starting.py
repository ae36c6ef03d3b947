"""Check and complete what a start was asked for, before anything is stored; the same for every runner."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pgflow.core.facade import StartOptions
from pgflow.core.names import TELEMETRY, check_options
from pgflow.core.payload import INPUT_LIMIT, decode, encode
from pgflow.core.request import check_moment, checked_key
from pgflow.core.unique import validate_value
from pgflow.core.workflow import Workflow
from pgflow.errors import InvalidPayload

__all__ = ["Begin", "Starting"]


@dataclass(frozen=True, slots=True)
class Begin:
    """One instance to start: its business value, the class of its version, and its input as JSON text."""

    value: str
    version: type[Workflow[Any]]
    text: str


@dataclass(frozen=True, slots=True)
class Starting:
    """Instances to start, and how.

    `metadata` and `caller`, what is given along for telemetry, are JSON values; `key` is the idempotency key.
    """

    begins: Sequence[Begin]
    at: datetime | None
    delay: timedelta | None
    tags: Sequence[str]
    metadata: dict[str, Any]
    caller: dict[str, Any]
    priority: int | None
    key: str | None

    @classmethod
    def of(
        cls, workflow: type[Workflow[Any]], items: Iterable[tuple[str, Any]], options: Mapping[str, Any]
    ) -> Starting:
        """Return what is to be started; `options` are those of `StartOptions`.

        Raises `UnknownOption`, `ConfigError`, `InvalidValue`, `InvalidInput`, `InvalidPayload` for what cannot be.
        """
        check_options("option", options, StartOptions)
        at, delay, version = options.get("at"), options.get("delay"), options.get("version")
        check_moment(at, delay)
        given: dict[str, Any] = {
            "at": at,
            "delay": delay,
            "tags": options.get("tags", ()),
            "metadata": options.get("metadata"),
            "priority": options.get("priority"),
        }
        told = {**(options.get("options") or {}), **given}
        _, kind = workflow.resolve_version(version)
        asks = workflow.is_versioned and version is None
        begins = []
        for value, entry in items:
            validate_value(value)
            if asks:
                _, kind = workflow.choose_version(None, {**told, "value": value, "input": entry})
            begins.append(Begin(value, kind, kind.write_input(entry)))
        metadata = decode(encode(dict(given["metadata"] or {}), what="metadata", limit=INPUT_LIMIT))
        if TELEMETRY in metadata:
            raise InvalidPayload(f"the key {TELEMETRY!r} of metadata is pgflow's own", hint="Pass telemetry= instead.")
        caller = decode(encode(dict(options.get("telemetry") or {}), what="telemetry", limit=INPUT_LIMIT))
        key = checked_key(options.get("idempotency_key"))
        return cls(begins, at, delay, given["tags"], metadata, caller, given["priority"], key)
