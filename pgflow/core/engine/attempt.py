"""The outcome of an attempt at a step, from what the step returned or raised; the same for every backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import Any, NamedTuple, TypeAlias, assert_never

from pgflow.core.definition.context import Context
from pgflow.core.definition.graph import Graph
from pgflow.core.definition.results import Async, Error, Ok, Result, Snooze
from pgflow.core.definition.retry import Retry
from pgflow.core.definition.step import Parking, Step
from pgflow.core.engine.state import SKIPPED
from pgflow.core.values.absent import ABSENT
from pgflow.core.values.duration import is_duration, plain
from pgflow.core.values.names import TELEMETRY
from pgflow.core.values.payload import MAX_PAYLOAD_BYTES, METADATA_LIMIT, OUTPUT_LIMIT, decode, encode
from pgflow.core.values.sanitize import error_message, format_traceback, guarded, sanitize_text, type_name
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
    "CHECKPOINT",
    "EXHAUSTED",
    "KEPT_ERRORS",
    "AttemptError",
    "AttemptResult",
    "EncodedResult",
    "attempt_error",
    "call",
    "decide",
    "error_of",
    "finish",
    "overdue",
    "parking_of",
    "passed_over",
    "read",
    "signal_output",
]

CHECKPOINT = "checkpoint"  # in the stored error of an instance: that of the failed step, for a retry
EXHAUSTED = "exhausted"  # marks the stored error of the last attempt of a step that waits for an operator
KEPT_ERRORS = 20  # errors of one step's failed attempts that are stored, the newest
DEFAULT_REASONS = {"CancelledError": "the step was cancelled from within"}  # for exceptions without a message
PAUSE_ATTRIBUTES = ("retry_in", "retry_after")  # of an exception: the pause that it asks for
# Another attempt would fail in the same way.
NON_RETRYABLE = (InvalidInput, InvalidPayload, UnencryptedSecret, RouteError, UndeclaredEvent, UnsupportedAction)


@dataclass(frozen=True, slots=True)
class AttemptError:
    """The attempt failed. `reason` is text for people; `retry` is False if another attempt is pointless.

    `pause` is the pause until the next attempt that the step or the policy's function asked for, None for the policy's
    formula.
    """

    reason: str
    type: str
    retry: bool = True
    details: dict[str, Any] = field(default_factory=dict)
    pause: timedelta | None = None

    def entry(self, attempt: int) -> dict[str, Any]:
        """Return the JSON that is stored for a failed attempt."""
        return {**self.summary(attempt), **self.details}

    def summary(self, attempt: int) -> dict[str, Any]:
        """Return the part of it that a later step sees."""
        return {"reason": self.reason, "type": self.type, "attempt": attempt}


class EncodedResult(NamedTuple):  # not a dataclass: one for each step, and made several times as fast
    """The step completed: its output as the JSON `text` to store, and as the `value` that later steps see.

    `targets` are those that a route chose, None for the event's declared targets. `route_error` is the error of a route
    that failed: the result is recorded, and the instance fails. A retry then calls the route again, not the step.
    """

    event: str
    text: str | None = None
    value: Any = None
    metadata: dict[str, Any] | None = None
    targets: tuple[str, ...] | None = None
    route_error: AttemptError | None = None


AttemptResult: TypeAlias = EncodedResult | AttemptError | Async | Snooze


def call(step: Step, ctx: Context[Any], policy: Retry) -> Any:
    """Run a sync step in its thread and return its result, or an `AttemptError` for an exception.

    The exception does not pass through a future, which cannot carry StopIteration and treats CancelledError as its own;
    and its `__str__`, which may be slow, runs in the step's thread. A child process that the step forks exits here,
    before its exception becomes an `AttemptError`.
    """
    try:
        return call_in_parent(step.execute, ctx)
    except BaseException as error:
        return attempt_error(error, policy, ctx.attempt)


def read(
    graph: Graph,
    step: str,
    result: object,
    context: Callable[[], Context[Any]],
    number: int = 1,
    *,
    reveal: bool = False,
    limit: int = OUTPUT_LIMIT,
) -> AttemptResult:
    """Return the outcome of attempt `number`, which returned `result`; `context()` creates the context for a route.

    With `reveal` the output may contain secrets, because the caller encrypts it; `limit` is its size in bytes. Raises
    `InvalidPayload`, `UnencryptedSecret` or `UndeclaredEvent` for an invalid result.
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
                text = own.encode_output(output, what, limit, reveal=reveal)
                value = decode(text)
                if own.output is not None:
                    # Fail this step rather than the later one that reads its output.
                    own.check_output(output, value, what)
            if metadata is not None:
                metadata = decode(encode(metadata, what=f"{step}.metadata", limit=METADATA_LIMIT))
                if TELEMETRY in metadata:
                    raise InvalidPayload(f"{step}.metadata has the key {TELEMETRY!r}, which is reserved for pgflow")
            return _encoded(graph, step, event, text, value, context, metadata)
        case Error():
            return error_of(result, graph.nodes[step].retry, number)
        case Snooze(delay):
            return Snooze(plain(delay))
        case Async():
            return result
    assert_never(result)


def parking_of(graph: Graph, step: Step) -> Parking:
    """Return how the wait of a step that returned `Async` ends.

    Raises `UndeclaredEvent` for an event without a transition, and `InvalidValue` for an invalid delay.
    """
    parking = step.parking()
    if parking.delay is not None and not is_duration(parking.delay):
        raise InvalidValue(
            f"step {step.key} cannot wait for {parking.delay!r}: a delay must be a timedelta from zero to 100 years"
        )
    events = [*parking.awaits.values(), *([] if parking.timeout_event is None else [parking.timeout_event])]
    for event in events:
        graph.choice(step.key, event)
    return parking if parking.delay is None else replace(parking, delay=plain(parking.delay))


def signal_output(graph: Graph, step: str, signal: str, payload: Any, limit: int = MAX_PAYLOAD_BYTES) -> str | None:
    """Return the payload of a signal that ends a wait as the JSON text of the step's output, None for no output.

    A payload that was sent with plain SQL has not been checked before; the database's limit applies to it. Raises
    `InvalidPayload` with step and signal if it does not fit the type that the step declares.
    """
    own = graph.nodes[step].step
    if payload is ABSENT:
        return own.absent_text()
    try:
        own.read_output(payload)
        return encode(payload, what="payload", limit=limit)
    except InvalidPayload as error:
        raise InvalidPayload(f"step {step} cannot accept the payload of the signal {signal!r}: {error}") from None


def finish(
    graph: Graph,
    step: str,
    event: str,
    text: str | None,
    context: Callable[[], Context[Any]],
) -> EncodedResult:
    """Return the result of a step whose wait has ended, with `text` as its output; calls the event's route.

    Raises `UndeclaredEvent`.
    """
    return _encoded(graph, step, event, text, None if text is None else decode(text), context, None)


def _encoded(
    graph: Graph,
    step: str,
    event: str,
    text: str | None,
    value: Any,
    context: Callable[[], Context[Any]],
    metadata: Mapping[str, Any] | None,
) -> EncodedResult:
    targets, route_error = decide(graph, step, event, {} if text is None else value, context)
    return EncodedResult(event, text, value, None if metadata is None else dict(metadata), targets, route_error)


def decide(
    graph: Graph, step: str, event: str, value: Any, context: Callable[[], Context[Any]]
) -> tuple[tuple[str, ...] | None, AttemptError | None]:
    """Call the route of a completed step's event, if it has one; `value` is the step's output in the route's context.

    Returns the chosen targets, or None for the event's declared targets; and the error of a route that failed, whatever
    it raised. Such an error does not run the step again. Raises `UndeclaredEvent`.
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
        details = {} if cause is None else {"trace": sanitize_text(format_traceback(cause), tail=True)}
        return None, AttemptError(sanitize_text(reason), "RouteError", retry=False, details=details)


def error_of(returned: Error, policy: Retry, number: int) -> AttemptError:
    """Return the error of attempt `number`, which returned an `Error`."""
    text = sanitize_text(guarded(lambda: str.__str__(str(returned.reason)), "")) or "Error"
    details: dict[str, Any] = {}
    will_retry = bool(returned.retry)
    pause = None if returned.retry_in is None else plain(returned.retry_in)
    if will_retry and pause is None:
        pause = _chosen_pause(policy, number, returned, details)
    return AttemptError(text, "Error", will_retry, details, pause)


def passed_over(
    graph: Graph, step: str, failed: AttemptError, number: int, context: Callable[[], Context[Any]]
) -> EncodedResult | None:
    """Return how a step completes whose last attempt failed, by its policy; None if it fails the instance or pauses.

    With the policy "transition" it completes with that event; with "skip" it has no targets. Its output is the error,
    `{"error": {"reason": …, "type": …, "attempt": …}}`. Raises `UndeclaredEvent` when the graph has lost the event.
    """
    policy = graph.nodes[step].retry
    event = policy.failure_event
    if event is None and policy.on_exhausted != "skip":
        return None
    text = encode({"error": failed.summary(number)}, what=f"{step}.output", limit=OUTPUT_LIMIT)
    if event is None:
        return EncodedResult(SKIPPED, text, decode(text), targets=())
    return finish(graph, step, event, text, context)


def overdue(graph: Graph, step: str, number: int) -> AttemptError:
    """Return the error of attempt `number`, which exceeded its step's `max_runtime`."""
    node = graph.nodes[step]
    error = TimeoutError(f"it still ran after {node.step.max_runtime}, its max_runtime")
    return attempt_error(error, node.retry, number)


def attempt_error(error: BaseException, policy: Retry, number: int = 1) -> AttemptError:
    """Return the error of attempt `number`, which raised: whether it may be retried, and the text to store.

    It never raises, whatever the exception's own code does, and its result is bounded in size.
    """
    kind, reason = type_name(error), sanitize_text(error_message(error))
    is_final = issubclass(type(error), NON_RETRYABLE)  # isinstance() would call the exception's __class__
    retry = not is_final and not guarded(lambda: policy.ends(error), False)
    details: dict[str, Any] = {} if is_final else {"trace": sanitize_text(format_traceback(error), tail=True)}
    pause = None
    if retry:
        pause = _requested_pause(error, details)
        if pause is None:
            pause = _chosen_pause(policy, number, error, details)
    return AttemptError(reason or DEFAULT_REASONS.get(kind, kind), kind, retry, details, pause)


def _requested_pause(error: BaseException, details: dict[str, Any]) -> timedelta | None:
    """Return the pause that an exception asks for; record in `details` one that cannot be."""
    for name in PAUSE_ATTRIBUTES:
        asked: Any = guarded(partial(getattr, error, name, None), None)
        if asked is None:
            continue
        pause = guarded(partial(_pause_of, asked), None)
        if pause is not None:
            return pause
        details[name] = sanitize_text(
            f"ignored: {guarded(partial(repr, asked), type_name(asked))} is neither a timedelta nor a number of "
            "seconds, from zero to 100 years"
        )
    return None


def _pause_of(asked: Any) -> timedelta | None:
    if isinstance(asked, int | float) and not isinstance(asked, bool):
        asked = timedelta(seconds=float(asked))
    return plain(asked) if is_duration(asked) else None


def _chosen_pause(policy: Retry, number: int, error: Any, details: dict[str, Any]) -> timedelta | None:
    """Return the pause that the policy's function chooses; record in `details` why it does not."""
    try:
        pause = policy.chosen_pause(number, error)
        return None if pause is None else plain(pause)
    except BaseException as fault:  # user code between two attempts: it must not cost the worker
        details["backoff"] = sanitize_text(f"the back-off function failed: {type_name(fault)}: {error_message(fault)}")
        return None
