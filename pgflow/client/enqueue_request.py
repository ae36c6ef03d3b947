"""Validate an enqueue before anything is stored, for every backend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pgflow.client.addressing import checked_key
from pgflow.client.commands import Enqueue
from pgflow.client.start_request import check_moment, check_period, json_object, priority_of
from pgflow.core.values.names import TELEMETRY, check_tags, is_queue
from pgflow.core.values.query_args import is_integer
from pgflow.errors import InvalidPayload, InvalidValue

__all__ = ["EnqueueRequest", "check_queue"]

MAX_ATTEMPTS = 32_767


@dataclass(frozen=True, slots=True)
class EnqueueRequest:
    """An `Enqueue` that has been validated: `metadata` are JSON values, the telemetry metadata included."""

    args: tuple[str, ...]
    at: datetime | None
    delay: timedelta | None
    queue: str | None
    priority: int | None
    max_attempts: int | None
    tags: Sequence[str]
    metadata: dict[str, Any]
    key: str | None
    expires_in: timedelta | None = None

    @classmethod
    def of(cls, command: Enqueue) -> EnqueueRequest:
        """Return what to enqueue. Raises `ConfigError`, `InvalidValue`, `InvalidPayload`."""
        check_moment(command.at, command.delay, what="a job")
        check_queue(command.queue)
        attempts = command.max_attempts
        if attempts is not None and not is_integer(attempts, 1, MAX_ATTEMPTS):
            raise InvalidValue(f"max_attempts must be a whole number from 1 to {MAX_ATTEMPTS:,}, got {attempts!r}")
        metadata = json_object("metadata", command.metadata)
        if TELEMETRY in metadata:
            raise InvalidPayload(f"the key {TELEMETRY!r} of metadata is pgflow's own", hint="Pass telemetry= instead.")
        telemetry = json_object("telemetry", command.telemetry)
        return cls(
            args=command.arguments,
            at=command.at,
            delay=command.delay,
            queue=command.queue,
            priority=priority_of(command.priority),
            max_attempts=attempts,
            tags=check_tags(command.tags, command.task.tags),
            metadata={**metadata, TELEMETRY: telemetry} if telemetry else metadata,
            key=checked_key(command.idempotency_key),
            expires_in=check_period("expires_in", command.expires_in),
        )


def check_queue(given: Any) -> None:
    """Refuse what cannot be the name of a queue; None is accepted. Raises `InvalidValue`."""
    if given is not None and not is_queue(given):
        hint = "Give up to 63 letters, digits, underscores, dots and hyphens."
        raise InvalidValue(f"{given!r} is not a valid queue", hint=hint)
