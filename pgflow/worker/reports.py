"""Progress and checkpoints of the jobs that run here, collected and written in one statement for all of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from pgflow.core.definition.control import Control, Progress
from pgflow.core.values.codec import Codec, Location, decrypt_text, encrypt
from pgflow.errors import ConfigError, NotActive
from pgflow.store.job import Report
from pgflow.worker.claimed_task import ClaimedTask, HeldJob

__all__ = ["JobControl", "Reports"]


class JobControl(Control):
    """The connection of one claimed job. Steps call it from any thread; the rest happens in the worker's event loop."""

    __slots__ = ("_is_noted", "_job", "_reports", "waiting")

    def __init__(self, reports: Reports, job: HeldJob) -> None:
        super().__init__(job.checkpoint)
        self._reports = reports
        self._job = job
        self._is_noted = False
        self.waiting: list[Future[None]] = []  # for the checkpoint to write

    @property
    def reveal(self) -> bool:  # type: ignore[override]  # per instance here
        """Whether a checkpoint is encrypted."""
        return self._reports.codec is not None

    @property
    def job(self) -> HeldJob:
        """The job that runs."""
        return self._job

    def report(self, progress: Progress) -> None:
        """Remember the progress: only the last one is written, at most once a second."""
        if progress == self.latest:
            return
        self.latest = progress
        if not self._is_noted:  # not once for each call, of which there may be a million
            self._is_noted = True
            self._reports.call(self._note)

    def _note(self) -> None:
        self._is_noted = False
        self._reports.add(self)

    def save(self, text: str) -> None:
        """Wait in the step's thread until the checkpoint is written."""
        if self._reports.is_here():
            raise ConfigError(
                "checkpoint() waits until it is stored, which would block the worker's event loop",
                hint="In an async step, write `await ctx.acheckpoint(…)`.",
            )
        stored: Future[None] = Future()
        self._reports.call(self._reports.save, self, self._encrypted(text), stored)
        stored.result()

    async def asave(self, text: str) -> None:
        """Wait until the checkpoint is written."""
        stored: Future[None] = Future()
        self._reports.call(self._reports.save, self, self._encrypted(text), stored)
        await asyncio.wrap_future(stored)

    def stored(self) -> str | None:
        """Return the last checkpoint, decrypted."""
        text = self.text
        return None if text is None else decrypt_text(self._reports.codec, text, self._location())

    def _encrypted(self, text: str) -> str:
        codec = self._reports.codec
        return text if codec is None else encrypt(codec, text, self._location())

    def _location(self) -> Location:
        if isinstance(self._job, ClaimedTask):
            return Location(self._job.work.name, str(self._job.id), "checkpoint")
        instance = self._job.instance
        return Location(instance.graph.name, instance.id, "checkpoint", self._job.step)


@dataclass(slots=True)
class Sent:
    """What a statement writes for one job, to compare with later reports."""

    control: JobControl
    progress: Progress | None
    checkpoint: str | None
    waiting: list[Future[None]] = field(default_factory=list)


class Reports:
    """Collects what the jobs of a worker report. `wake()` makes the worker take a turn."""

    def __init__(self, codec: Codec | None = None, wake: Callable[[], object] = lambda: None) -> None:
        self.codec = codec
        self.is_urgent = False  # a step waits for its checkpoint
        self._wake = wake
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed: dict[JobControl, None] = {}
        self._checkpoints: dict[JobControl, str] = {}
        self._written: dict[JobControl, Progress | None] = {}
        self._sent: list[Sent] = []

    def begin(self) -> None:
        """Use the running event loop from now on."""
        self._loop = asyncio.get_running_loop()

    def is_here(self) -> bool:
        """Whether the caller runs in the event loop, which must not wait."""
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False

    def call(self, function: Callable[..., object], *args: object) -> None:
        """Call a function in the worker's event loop."""
        assert self._loop is not None  # noqa: S101 -- a step runs
        self._loop.call_soon_threadsafe(function, *args)

    @property
    def has_changes(self) -> bool:
        """Whether there is something to write."""
        return bool(self._changed)

    def add(self, control: JobControl) -> None:
        """Write the progress of a job with a later turn."""
        if not control.is_cancelled:
            self._changed[control] = None

    def save(self, control: JobControl, text: str, stored: Future[None]) -> None:
        """Write a checkpoint with the next turn, and complete `stored`."""
        if control.is_cancelled:
            _refuse(stored)
            return
        self._changed[control] = None
        self._checkpoints[control] = text
        control.waiting.append(stored)
        self.is_urgent = True
        self._wake()

    def take(self) -> Sequence[Report]:
        """Return what to write now, and keep it until `written` confirms it."""
        self.is_urgent = False
        self._sent = [
            Sent(control, control.latest, self._checkpoints.get(control), list(control.waiting))
            for control in self._changed
            if not control.is_cancelled
        ]
        return [
            Report(
                each.control.job.id,
                each.control.job.attempt,
                each.control.job.step,
                None if each.progress is None else json.dumps({"at": each.progress.at, "note": each.progress.note}),
                each.checkpoint,
            )
            for each in self._sent
        ]

    def written(self, jobs: Sequence[int]) -> bool:
        """Take over which of them were written. Returns whether some were not: they are locked, or not ours."""
        done, has_left = set(jobs), False
        for each in self._sent:
            control = each.control
            if control.job.id not in done:
                has_left = has_left or not control.is_cancelled
                continue
            if each.checkpoint is not None:
                control.text = control.job.checkpoint = each.checkpoint
                if self._checkpoints.get(control) is each.checkpoint:
                    del self._checkpoints[control]
            for stored in each.waiting:
                control.waiting.remove(stored)
                if stored.set_running_or_notify_cancel():
                    stored.set_result(None)
            if control.latest is each.progress and control not in self._checkpoints:
                self._changed.pop(control, None)
        self._sent = []
        return has_left

    def forget(self, control: JobControl) -> None:
        """Drop what a job has reported: it has ended, or is no longer ours."""
        self._changed.pop(control, None)
        self._checkpoints.pop(control, None)
        waiting, control.waiting = control.waiting, []
        for stored in waiting:
            _refuse(stored)


def _refuse(stored: Future[None]) -> None:
    if stored.set_running_or_notify_cancel():
        stored.set_exception(
            NotActive("the checkpoint is not stored: the job was cancelled, or another worker has taken it over")
        )
