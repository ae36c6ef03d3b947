"""Record what happens while work is drained: how each attempt ended, and the errors that a test raises again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from pgflow import telemetry
from pgflow.core.definition.middleware import Proceed, StepCall
from pgflow.core.definition.results import Result
from pgflow.telemetry import Event

__all__ = ["Drained", "Recorder", "StepFailed", "current"]

# The last part of the name of an event about an attempt at a step or a task.
OUTCOMES = {"stop": "completed", "snooze": "snoozed", "async": "waiting"}
EXCEPTION = "exception"
EVENTS = tuple(name for name in telemetry.events() if name[1] in ("step", "task") and name[2] in (*OUTCOMES, EXCEPTION))

NUMBERS = count(1)

# The recorder of the drain that this code runs in; tasks and threads of its steps inherit it.
current: ContextVar[Recorder | None] = ContextVar("pgflow.testing.recorder", default=None)


class StepFailed(AssertionError):
    """A step or task failed without an exception of its own: it returned an `Error`, or what cannot be stored."""


@dataclass(slots=True)
class Drained:
    """How the attempts of steps and tasks ended while work was drained, in numbers.

    - `completed`: with a result; a wait that a signal or a timer ended counts, too.
    - `failed`: for good, and an instance with its step; `retried`: another attempt will follow.
    - `snoozed`: to be called again later; `waiting`: for a signal or a timer.

        assert drain(app) == Drained(completed=3)
    """

    completed: int = 0
    failed: int = 0
    retried: int = 0
    snoozed: int = 0
    waiting: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.completed + self.failed + self.retried + self.snoozed + self.waiting


@dataclass(slots=True, eq=False)
class Recorder:
    """Counts the outcomes of one drain, and keeps the exceptions of its steps.

    With `is_local` it records what any `Local` runs, which emits events in threads of its own.
    """

    is_local: bool = False
    counts: Drained = field(default_factory=Drained)
    errors: list[BaseException] = field(default_factory=list)
    _raised: dict[tuple[Any, ...], BaseException] = field(default_factory=dict)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record the telemetry of work that runs in this context."""
        handler_id = f"pgflow.testing.{next(NUMBERS)}"
        telemetry.attach(handler_id, [*EVENTS, telemetry.WORKFLOW_EXCEPTION], self._on_event)
        try:
            yield
        finally:
            telemetry.detach(handler_id)

    @contextmanager
    def in_context(self) -> Iterator[None]:
        """Mark this context, and what it starts, as that of the drain."""
        token = current.set(self)
        try:
            yield
        finally:
            current.reset(token)

    async def middleware(self, call: StepCall, proceed: Proceed) -> Result:
        """Keep the exception of a step, with its traceback, before it becomes text."""
        try:
            with self.in_context():
                return await proceed()
        except Exception as error:
            self._raised[call.ctx.run, call.ctx.step, call.ctx.attempt] = error
            raise

    def raise_first(self) -> None:
        """Raise the error of the first attempt that failed, if there is one."""
        errors, self.errors = [*self.errors, *self._raised.values()], []
        self._raised.clear()
        if not errors:
            return
        first, *others = errors
        if others:
            first.add_note(f"and {len(others)} more: {'; '.join(map(repr, others[:5]))}")
        raise first

    def _on_event(self, event: Event, config: object) -> None:
        data, what = event.metadata, event.name[2]
        if current.get() is not self and not (self.is_local and data.get("worker") is None):
            return
        if event.name == telemetry.WORKFLOW_EXCEPTION:
            if not any(data["reason"] in str(each) for each in self.errors):  # not because of an attempt
                self.errors.append(self._error(data, data["failed_step"]))
            return
        if what == EXCEPTION:
            self.errors.append(self._error(data, data.get("step", data.get("task"))))
            what = "retried" if data["will_retry"] else "failed"
        else:
            what = OUTCOMES[what]
        setattr(self.counts, what, getattr(self.counts, what) + 1)

    def _error(self, data: Mapping[str, Any], step: str | None) -> BaseException:
        """Return the exception that a step or a task raised, else one with the reason of its failure."""
        run, attempt = data.get("run", data.get("job")), data.get("attempt")
        where = (
            f"step {step} of {data['workflow']} {data['instance_id']}" if "run" in data else f"task {step}, job {run}"
        )
        raised = self._raised.pop((run, step, attempt), None)
        if raised is not None:
            raised.add_note(f"in {where}, attempt {attempt}")
            return raised
        kind = "" if data["kind"] == "Error" else f"{data['kind']}: "
        error = StepFailed(f"{where} failed: {kind}{data['reason']}")
        if data["stacktrace"]:
            error.add_note(data["stacktrace"])
        return error
