"""Retry policies: how many attempts a failing step has, and the pauses between them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, Protocol, TypeAlias, get_args

from pgflow.core.definition.rules.problems import collect_or_raise
from pgflow.core.values.names import event_name, is_event
from pgflow.errors import DefinitionError

__all__ = [
    "DEFAULT",
    "MAX_ATTEMPTS",
    "POLICIES",
    "Backoff",
    "BackoffFunction",
    "BackoffName",
    "Retry",
    "most_specific",
    "resolve",
]

BackoffFunction: TypeAlias = Callable[[int, Any], timedelta]
BackoffName: TypeAlias = Literal["exponential", "linear", "constant"]
Backoff: TypeAlias = BackoffName | BackoffFunction
POLICIES = ("fail", "transition", "skip", "pause")
FAILED = "failed"  # the event of the policy "transition"
MAX_ATTEMPTS = 32_767  # the largest smallint
MAX_PAUSE = timedelta(days=3650)


@dataclass(frozen=True, slots=True)
class Retry:
    """A retry policy for a step or for all steps of a workflow.

    - `max_attempts`: attempts in all, including the first, from 1 (no retry) to 32,767.
    - `backoff`: the pause after attempt n is `base * 2**(n - 1)` ("exponential"), `base * n` ("linear") or `base`
      ("constant"), but at most `max_backoff`. Or a function of (n, error), called on the worker: `error` is the
      exception, or the `Error` that was returned, and its result the pause, from 0 to 3650 days. If it raises or
      returns anything else, that is recorded with the error, and the pause is that of "exponential".
    - `jitter`: the share of the pause, from 0 to 1, of which a random part is subtracted, so that steps that failed
      together are not retried together.
    - `never_on`: exception classes that fail the step without a further attempt.
    - `on_exhausted`: the policy for a step without a further attempt. "fail" fails the instance. "transition" completes
      the step with its event "failed", any other name with that event, which it must declare. "skip" takes none of
      its transitions: the branch ends there, and joins do not wait for it. "pause" lets the step wait for an operator,
      who retries it, completes it or fails it. A task has no transitions: it may "fail" or "pause".

    Raises `DefinitionError` for a value out of range.

        Retry(max_attempts=8, backoff="exponential", max_backoff=timedelta(minutes=1), never_on=(CardExpired,))
    """

    max_attempts: int = 5
    backoff: Backoff = "exponential"
    base: timedelta = timedelta(seconds=1)
    max_backoff: timedelta = timedelta(seconds=60)
    jitter: float = 0.1
    never_on: tuple[type[BaseException], ...] = ()
    on_exhausted: str = "fail"

    def __post_init__(self) -> None:
        try:
            self._check()
        except DefinitionError as error:
            collect_or_raise(self, error)

    def _check(self) -> None:
        if not _is_count(self.max_attempts):
            raise _option_error("max_attempts", self.max_attempts, f"a whole number from 1 to {MAX_ATTEMPTS}")
        if callable(self.backoff):
            _check_function(self.backoff)
        elif self.backoff not in get_args(BackoffName):
            names = ", ".join(map(repr, get_args(BackoffName)))
            raise _option_error("backoff", self.backoff, f"one of {names}, or a function of (attempt, error)")
        for name, pause in (("base", self.base), ("max_backoff", self.max_backoff)):
            if not isinstance(pause, timedelta) or not timedelta(0) <= pause <= MAX_PAUSE:
                raise _option_error(name, pause, f"a timedelta from 0 to {MAX_PAUSE.days} days")
        if isinstance(self.jitter, bool) or not isinstance(self.jitter, int | float) or not 0 <= self.jitter <= 1:
            raise _option_error("jitter", self.jitter, "a number from 0 to 1")
        if not isinstance(self.never_on, tuple) or not all(_is_exception(kind) for kind in self.never_on):
            raise _option_error("never_on", self.never_on, "a tuple of exception classes, as in never_on=(ValueError,)")
        policy = event_name(self.on_exhausted)
        if not is_event(policy):
            rule = f"one of {', '.join(map(repr, POLICIES))}, or the name of an event of the step"
            raise _option_error("on_exhausted", self.on_exhausted, rule)
        object.__setattr__(self, "on_exhausted", str(policy))

    @property
    def formula(self) -> BackoffName:
        """The formula of the pause; for a function the one that replaces it when it fails."""
        return "exponential" if callable(self.backoff) else self.backoff

    @property
    def failure_event(self) -> str | None:
        """The event with which an exhausted step completes, None if the policy is another one."""
        match self.on_exhausted:
            case "transition":
                return FAILED
            case "fail" | "skip" | "pause":
                return None
        return self.on_exhausted

    def chosen_pause(self, attempt: int, error: Any) -> timedelta | None:
        """Return the pause that the function `backoff` chooses, None if the policy has a formula.

        Raises what the function raises, and `TypeError` for a result that is not a pause.
        """
        if not callable(self.backoff):
            return None
        pause: Any = self.backoff(attempt, error)
        if not isinstance(pause, timedelta) or not timedelta(0) <= pause <= MAX_PAUSE:
            raise TypeError(f"backoff returned {pause!r}, not a timedelta from 0 to {MAX_PAUSE.days} days")
        return pause

    def delay(self, attempt: int, random: float = 0.0) -> timedelta:
        """Return the pause after the failed attempt `attempt`, from 1; `random` is a random number in [0, 1).

        Retry(base=timedelta(seconds=1)).delay(3)    # timedelta(seconds=4)
        """
        match self.formula:
            case "constant":
                factor = 1
            case "linear":
                factor = attempt
            case "exponential":
                factor = 2 ** (min(attempt, 32) - 1)
        seconds = min(self.max_backoff.total_seconds(), self.base.total_seconds() * factor)
        return timedelta(seconds=seconds * (1 - self.jitter * random))

    def ends(self, error: BaseException) -> bool:
        """Whether this exception fails the step without a further attempt."""
        return isinstance(error, self.never_on)


class HasRetry(Protocol):
    """A step, as `resolve` needs it."""

    @property
    def retry(self) -> Retry | None:
        """Its own policy, or None."""


class HasPolicy(Protocol):
    """A workflow, as `resolve` needs it; its `retry` is the call that retries a failed instance."""

    @property
    def retry_policy(self) -> Retry | None:
        """The policy of its steps without one of their own."""


def resolve(step: HasRetry, workflow: HasPolicy) -> Retry:
    """Return the policy that applies to a step: its own, else the workflow's, else the default of five attempts.

    resolve(charge, OrderFlow).max_attempts    # 8
    """
    return most_specific(step.retry, workflow.retry_policy)


def most_specific(step: Retry | None, workflow: Retry | None) -> Retry:
    """Return the step's policy if it has one, else the workflow's, else the default."""
    return step or workflow or DEFAULT


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_ATTEMPTS


def _is_exception(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException)


def _check_function(function: Callable[..., Any]) -> None:
    try:
        inspect.signature(function).bind(1, None)
    except TypeError:
        raise _option_error("backoff", function, "a function of (attempt, error)") from None
    except ValueError:  # a builtin without a signature
        pass
    if inspect.iscoroutinefunction(function):
        raise _option_error("backoff", function, "a plain function: it is called between attempts and must not wait")


def _option_error(name: str, value: object, rule: str) -> DefinitionError:
    return DefinitionError(f"Retry({name}={value!r}): give {rule}")


DEFAULT = Retry()
