"""Check and complete what a start was asked for, before anything is stored; the same for every runner."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pgflow.core.definition.options import is_priority
from pgflow.core.definition.unique import start_value
from pgflow.core.definition.workflow import Workflow
from pgflow.core.facade import StartOptions
from pgflow.core.signal_request import check_moment, checked_key
from pgflow.core.values.absent import ABSENT
from pgflow.core.values.names import TELEMETRY, check_options, check_tags
from pgflow.core.values.payload import INPUT_LIMIT, decode, encode
from pgflow.errors import InvalidPayload, InvalidValue

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
        cls,
        workflow: type[Workflow[Any]],
        items: Iterable[tuple[str, Any] | tuple[str]],
        options: Mapping[str, Any],
        *,
        reveal: bool = False,
    ) -> Starting:
        """Return what is to be started; `options` are those of `StartOptions`. With `reveal` inputs may hold secrets.

        Raises `UnknownOption`, `ConfigError`, `InvalidValue`, `InvalidInput`, `InvalidPayload`, `UnencryptedSecret`
        for what cannot be.
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
        tags = check_tags(given["tags"])
        begins = []
        for given_value, *rest in items:
            value = start_value(workflow.unique.key, given_value)
            (entry,) = rest or (ABSENT,)
            if asks:
                said = told if entry is ABSENT else {**told, "input": entry}
                _, kind = workflow.choose_version(None, {**said, "value": value})
            begins.append(Begin(value, kind, kind.write_input(entry, reveal=reveal)))
        for each in {kind, *(begin.version for begin in begins)}:
            check_tags(tags, each.graph.tags)
        metadata = _object("metadata", given["metadata"])
        if TELEMETRY in metadata:
            raise InvalidPayload(f"the key {TELEMETRY!r} of metadata is pgflow's own", hint="Pass telemetry= instead.")
        caller = _object("telemetry", options.get("telemetry"))
        key = checked_key(options.get("idempotency_key"))
        return cls(begins, at, delay, tags, metadata, caller, _priority(given["priority"]), key)


def _object(what: str, given: Any) -> dict[str, Any]:
    if given is not None and not isinstance(given, Mapping):
        raise InvalidPayload(f"{what} is {type(given).__name__}, and a mapping is needed")
    value: dict[str, Any] = decode(encode(dict(given or {}), what=what, limit=INPUT_LIMIT))
    return value


def _priority(given: Any) -> int | None:
    if given is not None and not is_priority(given):
        raise InvalidValue(f"priority={given!r} cannot be: a whole number from -32,768 to 32,767 is needed")
    return None if given is None else int(given)
