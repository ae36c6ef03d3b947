"""Attach handlers to events, and deliver events to them."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

from pgflow.core.values.sanitize import format_traceback, sanitize_text
from pgflow.errors import AlreadyAttached, ConfigError, NotAttached
from pgflow.logs import Logger, is_interrupt
from pgflow.process import Lock
from pgflow.telemetry.names import Name, dotted, events

__all__ = ["Event", "Handler", "attach", "attached", "checked", "deliver", "detach", "handlers_by_event"]

log = Logger("pgflow.telemetry")

LOG_INTERVAL_SECONDS = 60.0  # between two log messages about one failing handler


@dataclass(frozen=True, slots=True)
class Event:
    """An event: `measurements` are its numbers, `metadata` identifies instance, step and more; both are read-only."""

    name: Name
    measurements: Mapping[str, Any]
    metadata: Mapping[str, Any]


Handler: TypeAlias = Callable[[Event, Any], object]


@dataclass(slots=True, eq=False)
class Attachment:
    id: str
    handler: Handler
    config: Any
    last_logged_at: float | None = None


# Handlers in the order of attaching; an event without handlers has no entry. Entries are replaced, never changed, under
# the lock, so readers need no lock.
handlers_by_event: dict[Name, tuple[Attachment, ...]] = {}
lock = Lock()


def attach(handler_id: str, events: Iterable[Name], handler: Handler, config: Any = None) -> None:
    """Call `handler(event, config)` for each of these events in this process, until `detach(handler_id)`.

    The handler runs in the thread where the event happens, mostly on the worker's event loop, so it must be fast. Its
    exceptions are logged and have no other effect. Raises `AlreadyAttached` if the id is in use, and `ConfigError` for
    an unknown event or an async handler.

        telemetry.attach("stops", [telemetry.WORKFLOW_STOP], lambda event, config: print(event.metadata["instance_id"]))
    """
    wanted = checked(events)
    if not callable(handler) or inspect.iscoroutinefunction(handler):
        hint = "Pass the event on to your loop, for example with loop.call_soon_threadsafe."
        raise ConfigError(f"the handler {handler_id!r} must be a plain function", hint=hint)
    with lock:
        if any(each.id == handler_id for attachments in handlers_by_event.values() for each in attachments):
            hint = "Detach it first, or use another id."
            raise AlreadyAttached(f"a handler {handler_id!r} is already attached", hint=hint)
        new = Attachment(handler_id, handler, config)
        for name in wanted:
            handlers_by_event[name] = (*handlers_by_event.get(name, ()), new)


def detach(handler_id: str) -> None:
    """Stop calling a handler; a call in another thread may still be running. Raises `NotAttached`."""
    with lock:
        held = [
            name
            for name, attachments in handlers_by_event.items()
            if any(each.id == handler_id for each in attachments)
        ]
        if not held:
            raise NotAttached(f"no handler {handler_id!r} is attached")
        for name in held:
            left = tuple(each for each in handlers_by_event[name] if each.id != handler_id)
            if left:
                handlers_by_event[name] = left
            else:
                del handlers_by_event[name]


def attached(name: Name | None = None) -> tuple[str, ...]:
    """Return the ids of the handlers attached to an event, or to any event."""
    with lock:
        found = [handlers_by_event.get(name, ())] if name is not None else list(handlers_by_event.values())
    return tuple(dict.fromkeys(each.id for attachments in found for each in attachments))


def checked(names: Iterable[Name]) -> tuple[Name, ...]:
    """Return names of events without duplicates. Raises `ConfigError` for an unknown one, and if there is none."""
    wanted = tuple(dict.fromkeys(tuple(name) for name in names))
    known = events()
    for name in wanted:
        if name not in known:
            hint = f"There are: {', '.join(map(dotted, known))}."
            raise ConfigError(f"there is no event {name!r}", hint=hint)
    if not wanted:
        raise ConfigError("events is empty", hint="Pass telemetry.events() for all of them.")
    return wanted  # type: ignore[return-value]  # each is one of the known names


def deliver(name: Name, measurements: dict[str, Any], metadata: dict[str, Any]) -> None:
    """Call the handlers of an event. Their exceptions are logged and do not propagate."""
    attachments = handlers_by_event.get(name)
    if not attachments:
        return
    event = Event(name, MappingProxyType(measurements), MappingProxyType(metadata))
    for each in attachments:
        try:
            each.handler(event, each.config)
        except BaseException as error:  # not a cancellation of ours: nothing is awaited here
            if is_interrupt(error):
                raise
            now = time.monotonic()
            if each.last_logged_at is None or now - each.last_logged_at >= LOG_INTERVAL_SECONDS:
                each.last_logged_at = now
                text = sanitize_text(format_traceback(error), tail=True)  # `logging` cannot format every exception
                log.error("the handler %r failed at %s; it stays attached\n%s", each.id, dotted(name), text)
