"""Read what an attempt at a step came to, from what it returned or raised: the same for every stack."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, assert_never

from pgflow.core.definition.context import Context
from pgflow.core.definition.graph import Graph
from pgflow.core.definition.results import Async, Error, Ok, Result, Snooze
from pgflow.core.definition.retry import Retry
from pgflow.core.definition.step import Parking, Step
from pgflow.core.values.absent import ABSENT
from pgflow.core.values.duration import is_duration, plain
from pgflow.core.values.names import TELEMETRY
from pgflow.core.values.payload import INPUT_LIMIT, OUTPUT_LIMIT, decode, encode
from pgflow.core.values.sanitize import error_message, guarded, sanitize_text, trace, type_name
from pgflow.errors import (
    InvalidInput,
    InvalidPayload,
    InvalidValue,
    RouteError,
    UndeclaredEvent,
    UnencryptedSecret,
    UnsupportedAction,
)
from pgflow.process import call_in_parent

__all__ = [
    "KEPT_ERRORS",
    "Attempt",
    "AttemptError",
    "EncodedResult",
    "call",
    "decide",
    "failing",
    "finish",
    "overdue",
    "read",
    "taken",
    "waits",
]

KEPT_ERRORS = 20  # of the failed attempts of one step, the newest
SILENT = {"CancelledError": "the step was cancelled from within"}  # reasons of exceptions without a message
# Another attempt would come to the same.
NON_RETRYABLE = (InvalidInput, InvalidPayload, UnencryptedSecret, RouteError, UndeclaredEvent, UnsupportedAction)


@dataclass(frozen=True, slots=True)
class AttemptError:
    """The attempt failed. `reason` is text for people; `retry` False ends the step at once."""

    reason: str
    type: str
    retry: bool = True
    details: dict[str, Any] = field(default_factory=dict)

    def entry(self, attempt: int) -> dict[str, Any]:
        """Return it as the JSON that is kept of a failed attempt."""
        return {"reason": self.reason, "type": self.type, "attempt": attempt, **self.details}


@dataclass(frozen=True, slots=True)
class EncodedResult:
    """The step completed: its output as the JSON `text` to store and as the `value` that later steps see.

    `targets` is what a route chose, None for the event's declared targets. `failing` is the error of a route that
    failed: the result is recorded nevertheless, and the instance fails. A retry calls the route again, not the step.
    """

    event: str
    text: str | None = None
    value: Any = None
    metadata: dict[str, Any] | None = None
    targets: tuple[str, ...] | None = None
    failing: AttemptError | None = None


Attempt: TypeAlias = EncodedResult | AttemptError | Async | Snooze


def call(step: Step, ctx: Context[Any], policy: Retry) -> Any:
    """Run a sync step in its thread and return its result, or a `AttemptError` for what it raised.

    No exception of the step passes through a future, which cannot hold StopIteration and treats CancelledError as its
    own; and the exception's `__str__`, which may be slow, runs in the step's thread. A child that the step forks ends
    here, before its exception becomes a `AttemptError`.
    """
    try:
        return call_in_parent(step.execute, ctx)
    except BaseException as error:
        return failing(error, policy)


def read(
    graph: Graph, step: str, result: object, context: Callable[[], Context[Any]], *, reveal: bool = False
) -> Attempt:
    """Return what a step came to that has returned `result`; `context()` gives what a route is to see.

    With `reveal` the output may hold secrets, because it is encrypted later. Raises `InvalidPayload`,
    `UnencryptedSecret` or `UndeclaredEvent` for a result that cannot be.
    """
    if type(result) is AttemptError:  # by `call`
        return result
    if not isinstance(result, Result):
        returned = f"step {step} returned {type_name(result)}; a step returns Ok, Async, Error or Snooze"
        return AttemptError(returned, "TypeError", retry=False)
    match result:
        case Ok(event, output, metadata):
            own, what = graph.nodes[step].step, f"{step}.output"
            if output is ABSENT:
                text = own.absent_text()
                value = None
            else:
                text = own.encode_output(output, what, OUTPUT_LIMIT, reveal=reveal)
                value = decode(text)
                if own.output is not None:
                    # Refused here rather than in a step that reads it later.
                    own.check_output(output, value, what)
            if metadata is not None:
                metadata = decode(encode(metadata, what=f"{step}.metadata", limit=INPUT_LIMIT))
                if TELEMETRY in metadata:
                    raise InvalidPayload(f"{step}.metadata has the key {TELEMETRY!r}, which is pgflow's own")
            return _written(graph, step, event, text, value, context, metadata)
        case Error(reason, retry):
            return AttemptError(
                sanitize_text(guarded(lambda: str.__str__(str(reason)), "")) or "Error", "Error", bool(retry)
            )
        case Snooze(delay):
            return Snooze(plain(delay))
        case Async():
            return result
    assert_never(result)


def waits(graph: Graph, step: Step) -> Parking:
    """Return what ends the wait of a step that returned `Async`.

    Raises `UndeclaredEvent` for an event that leads nowhere, `InvalidValue` for a delay that cannot be.
    """
    parking = step.parking()
    if parking.delay is not None and not is_duration(parking.delay):
        raise InvalidValue(
            f"step {step.key} cannot wait for {parking.delay!r}: a delay is a timedelta of zero or more, and of 100 "
            "years at most"
        )
    events = [*parking.awaits.values(), *([] if parking.timeout_event is None else [parking.timeout_event])]
    for event in events:
        graph.choice(step.key, event)
    return parking if parking.delay is None else replace(parking, delay=plain(parking.delay))


def taken(graph: Graph, step: str, signal: str, payload: Any) -> str | None:
    """Return the payload of a signal that ends a wait as the JSON text of the step's output, None for none.

    A payload that came through SQL has not been checked before. Raises `InvalidPayload`, which names step and signal,
    when it is not of the type that the step declares.
    """
    own = graph.nodes[step].step
    if payload is ABSENT:
        return own.absent_text()
    try:
        own.read_output(payload)
        return encode(payload, what="payload", limit=OUTPUT_LIMIT)
    except InvalidPayload as error:
        raise InvalidPayload(f"step {step} cannot take the payload of the signal {signal!r}: {error}") from None


def finish(
    graph: Graph,
    step: str,
    event: str,
    text: str | None,
    context: Callable[[], Context[Any]],
) -> EncodedResult:
    """Return the end of a wait: its output is what a replay would read, and a route has chosen or failed.

    Raises `UndeclaredEvent`.
    """
    return _written(graph, step, event, text, None if text is None else decode(text), context, None)


def _written(
    graph: Graph,
    step: str,
    event: str,
    text: str | None,
    value: Any,
    context: Callable[[], Context[Any]],
    metadata: Mapping[str, Any] | None,
) -> EncodedResult:
    targets, why = decide(graph, step, event, {} if text is None else value, context)
    return EncodedResult(event, text, value, None if metadata is None else dict(metadata), targets, why)


def decide(
    graph: Graph, step: str, event: str, value: Any, context: Callable[[], Context[Any]]
) -> tuple[tuple[str, ...] | None, AttemptError | None]:
    """Call the route of a completed step's event, if it has one; `value` is the step's output as a context shows it.

    Returns the targets it chose, None for the event's declared targets; and the error of a route that failed, whatever
    it raised. It is an error of the route: the step is not run again. Raises `UndeclaredEvent`.
    """
    if not graph.is_dynamic(step, event):
        return None, None
    try:
        ctx = context()
        return graph.select(step, event, ctx.with_output(step, value)), None
    except BaseException as error:  # nothing is awaited here, so no exception is a cancellation of this task
        if isinstance(error, RouteError):
            reason, cause = str(error), error.__cause__
        else:
            reason, cause = f"{graph.name}: {step}.{event}: the route cannot be called: {error_message(error)}", error
        details = {} if cause is None else {"trace": sanitize_text(trace(cause), tail=True)}
        return None, AttemptError(sanitize_text(reason), "RouteError", retry=False, details=details)


def overdue(graph: Graph, step: str) -> AttemptError:
    """Return what becomes of an attempt that still ran when its step's `max_runtime` was over."""
    node = graph.nodes[step]
    return failing(TimeoutError(f"it still ran after {node.step.max_runtime}, its max_runtime"), node.retry)


def failing(error: BaseException, policy: Retry) -> AttemptError:
    """Return what an exception makes of an attempt: whether another one may help, and what is kept of it.

    It raises nothing, whatever the exception's own code does, and its result is bounded in size.
    """
    kind, reason = type_name(error), sanitize_text(error_message(error))
    is_hopeless = issubclass(type(error), NON_RETRYABLE)  # isinstance() would ask the exception for its __class__
    retry = not is_hopeless and not guarded(lambda: policy.ends(error), False)
    details = {} if is_hopeless else {"trace": sanitize_text(trace(error), tail=True)}
    return AttemptError(reason or SILENT.get(kind, kind), kind, retry, details)
