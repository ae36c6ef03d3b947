"""What connects a step or task that runs in memory with its job: progress, checkpoint, and whether it is cancelled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from pgflow.core.definition.control import Control, Progress
from pgflow.core.values.codec import Codec, Location, roundtrip
from pgflow.errors import NotActive
from pgflow.local.lock import DeferringLock

__all__ = ["LocalControl"]


class Reporting(Protocol):
    """A job, as far as it keeps what its attempts report."""

    progress: Progress | None
    checkpoint: str | None


class LocalControl(Control):
    """The connection of one attempt. `changed()` is called with the lock held, when something was reported.

    The backend sets `is_cancelled` with the lock held: from then on nothing is kept.
    """

    __slots__ = ("_changed", "_codec", "_job", "_location", "_lock")

    def __init__(
        self,
        job: Reporting,
        location: Location,
        lock: DeferringLock,
        changed: Callable[[], None],
        codec: Codec | None,
    ) -> None:
        super().__init__(job.checkpoint)
        self._job = job
        self._location = location
        self._lock = lock
        self._changed = changed
        self._codec = codec

    @property
    def reveal(self) -> bool:  # type: ignore[override]  # per instance here
        """Whether a checkpoint may contain secrets, as it would be encrypted on PostgreSQL."""
        return self._codec is not None

    def report(self, progress: Progress) -> None:
        """Show the progress, unless the job was dropped."""
        with self._lock:
            if not self.is_cancelled:
                self._job.progress = progress

    def save(self, text: str) -> None:
        """Keep the checkpoint with the job."""
        text = roundtrip(self._codec, text, self._location)
        with self._lock:
            if self.is_cancelled:
                raise NotActive("the checkpoint is not stored: the job was cancelled")
            self.text = self._job.checkpoint = text
            self._changed()
