"""What telemetry tells while a test listens."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pgflow import telemetry
from pgflow.telemetry import Event, Name
from tests.worker.patience import until

__all__ = ["Told", "listening"]


class Told:
    """The events so far, in order."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._lock = threading.Lock()

    def hear(self, event: Event, config: object) -> None:
        """Take an event in."""
        with self._lock:
            self.events.append(event)

    def of(self, name: Name) -> list[Event]:
        """Return the events of a name."""
        with self._lock:
            return [event for event in self.events if event.name == name]

    def until(self, name: Name, number: int = 1) -> list[Event]:
        """Wait for so many events of a name: they come a moment after what they tell of is true."""
        until(lambda: len(self.of(name)) >= number, f"{number} of {name}", pause=0.005)
        return self.of(name)

    def about(self, name: Name, *keys: str) -> list[Any]:
        """Return what events of a name say: of one key its values, of several tuples."""
        found = [tuple(event.metadata[key] for key in keys) for event in self.of(name)]
        return [each[0] for each in found] if len(keys) == 1 else found


@contextmanager
def listening() -> Iterator[Told]:
    """Listen to everything as long as the `with` lasts."""
    listener = Told()
    telemetry.attach("told", telemetry.events(), listener.hear)
    try:
        yield listener
    finally:
        telemetry.detach("told")
