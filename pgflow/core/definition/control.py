"""What connects a running attempt with its backend: whether it is cancelled, its progress and its checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pgflow.core.values.payload import decode, encode
from pgflow.core.values.sanitize import sanitize_line
from pgflow.errors import InvalidValue

__all__ = ["Control", "Controlled", "Progress"]

MAX_NOTE_LENGTH = 200
CHECKPOINT_LIMIT = 65_536  # bytes: it is part of a row that each claim reads


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a running step or task is: `at` from 0 to 1, and a `note` for people.

    OrderFlow.get("abc123").waiting_for[0].progress    # Progress(at=0.4, note="40 of 100 pages")
    """

    at: float
    note: str = ""


def _checked_progress(at: Any, note: Any) -> Progress:
    """Return a valid progress; a note is one line of at most 200 characters. Raises `InvalidValue`."""
    if isinstance(at, bool) or not isinstance(at, int | float) or not 0 <= at <= 1:
        raise InvalidValue(f"progress must be a number from 0 to 1, got {at!r}")
    if not isinstance(note, str):
        raise InvalidValue(f"the note of a progress must be a string, got {note!r}")
    return Progress(float(at), sanitize_line(note, MAX_NOTE_LENGTH))


class Control:
    """The connection of one attempt. This one keeps everything to itself, as in a unit test of a step.

    A backend overrides `report`, `save`, `asave` and `stored`. They may be called from any thread. `reveal`: a
    checkpoint may contain secrets, because the backend encrypts it.
    """

    __slots__ = ("is_cancelled", "latest", "text")
    reveal = False

    def __init__(self, text: str | None = None) -> None:
        self.is_cancelled = False
        self.latest: Progress | None = None
        self.text = text  # of the last checkpoint, as it is stored

    def report(self, progress: Progress) -> None:
        """Take the progress."""
        self.latest = progress

    def save(self, text: str) -> None:
        """Store a checkpoint, and return when it is stored."""
        self.text = text

    async def asave(self, text: str) -> None:
        """`save`, async."""
        self.save(text)

    def stored(self) -> str | None:
        """Return the last checkpoint as JSON text, None if there is none."""
        return self.text

    def encoded(self, data: Any) -> str:
        """Return a checkpoint as JSON text. Raises `InvalidPayload`, `UnencryptedSecret`."""
        return encode(data, what="checkpoint", limit=CHECKPOINT_LIMIT, reveal=self.reveal)

    def decoded(self) -> Any:
        """Return the last checkpoint as JSON values, None if there is none."""
        text = self.stored()
        return None if text is None else decode(text)


class Controlled:
    """The part of a step's and a task's context that reports to its backend."""

    __slots__ = ()
    control: Control

    @property
    def cancelled(self) -> bool:
        """Whether the outcome of this attempt will be dropped: a long loop should look at it, and end.

        while not ctx.cancelled and (page := fetch(page)) is not None: ...
        """
        return self.control.is_cancelled

    def progress(self, at: float, note: str = "") -> None:
        """Report how far the step or task is, from 0 to 1, with a note for people; `get`, `list` and `jobs` show it.

        It costs next to nothing: the worker writes the last one, at most once a second. It is not encrypted. Raises
        `InvalidValue`.

            ctx.progress(page / pages, f"page {page} of {pages}")
        """
        self.control.report(_checked_progress(at, note))

    def checkpoint(self, data: Any) -> None:
        """Store what the next attempt needs to go on from here, JSON of up to 64 KiB, in place of the last checkpoint.

        Returns when it is stored, so that it survives a crash. It is kept by retries, snoozes and an operator's pause,
        and by `retry` for the step that failed its instance; it is gone when the step completes. In a transactional
        step it is stored at once, too, and kept when the transaction is rolled back. An async step writes `await
        ctx.acheckpoint(…)`. Raises `InvalidPayload`, and `NotActive` when the attempt was cancelled.

            for page in range((ctx.checkpointed or {"page": 0})["page"], pages):
                import_page(page)
                ctx.checkpoint({"page": page + 1})
        """
        self.control.save(self.control.encoded(data))

    async def acheckpoint(self, data: Any) -> None:
        """`checkpoint`, async."""
        await self.control.asave(self.control.encoded(data))

    @property
    def checkpointed(self) -> Any:
        """The last checkpoint, of this attempt or an earlier one, as JSON values; None if there is none."""
        return self.control.decoded()
