"""Records the telemetry events of this process for a test."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pgflow import telemetry
from pgflow.telemetry import Event, Name
from tests.worker.waiting import until

__all__ = ["EventRecorder", "recording"]


class EventRecorder:
    """The events so far, in order."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._lock = threading.Lock()

    def record(self, event: Event, config: object) -> None:
        """Add an event."""
        with self._lock:
            self.events.append(event)

    def of(self, name: Name) -> list[Event]:
        """Return the events of a name."""
        with self._lock:
            return [event for event in self.events if event.name == name]

    def until(self, name: Name, number: int = 1) -> list[Event]:
        """Wait for so many events of a name: they are emitted after the commit."""
        until(lambda: len(self.of(name)) >= number, f"{number} of {name}", pause=0.005)
        return self.of(name)

    def about(self, name: Name, *keys: str) -> list[Any]:
        """Return metadata of the events of a name: the values of one key, tuples for several."""
        found = [tuple(event.metadata[key] for key in keys) for event in self.of(name)]
        return [each[0] for each in found] if len(keys) == 1 else found


@contextmanager
def recording() -> Iterator[EventRecorder]:
    """Record all events as long as the `with` lasts."""
    recorder = EventRecorder()
    telemetry.attach("recorder", telemetry.events(), recorder.record)
    try:
        yield recorder
    finally:
        telemetry.detach("recorder")
