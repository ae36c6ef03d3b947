"""How often a failing step is tried again, and how long the pauses between are."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, Protocol, TypeAlias, get_args

from pgflow.core.definition.rules.problems import collect_or_raise
from pgflow.errors import DefinitionError

__all__ = ["DEFAULT", "Backoff", "Retry", "prevailing", "resolve"]

Backoff: TypeAlias = Literal["exponential", "linear", "constant"]
MAX_ATTEMPTS = 32_767  # what a smallint holds
MAX_PAUSE = timedelta(days=3650)


@dataclass(frozen=True, slots=True)
class Retry:
    """A retry policy: `max_attempts` counts the first attempt too, so 1 means "never again".

    Before attempt n + 1 there is a pause of `base * 2**(n - 1)` (exponential), `base * n` (linear) or `base`
    (constant), never longer than `max_backoff`; chance takes off up to the share `jitter` (0 to 1) of it, so that steps
    which failed together are not tried together. An exception that is an instance of one in `never_on` ends the step
    at once. Raises `DefinitionError` for values that make no sense.

        Retry(max_attempts=8, backoff="exponential", max_backoff=timedelta(minutes=1), never_on=(CardExpired,))
    """

    max_attempts: int = 5
    backoff: Backoff = "exponential"
    base: timedelta = timedelta(seconds=1)
    max_backoff: timedelta = timedelta(seconds=60)
    jitter: float = 0.1
    never_on: tuple[type[BaseException], ...] = ()

    def __post_init__(self) -> None:
        try:
            self._check()
        except DefinitionError as error:
            collect_or_raise(self, error)

    def _check(self) -> None:
        if not _is_count(self.max_attempts):
            raise _refusal("max_attempts", self.max_attempts, f"a whole number from 1 to {MAX_ATTEMPTS}")
        if self.backoff not in get_args(Backoff):
            raise _refusal("backoff", self.backoff, "one of " + ", ".join(map(repr, get_args(Backoff))))
        for name, pause in (("base", self.base), ("max_backoff", self.max_backoff)):
            if not isinstance(pause, timedelta) or not timedelta(0) <= pause <= MAX_PAUSE:
                raise _refusal(name, pause, f"a timedelta from 0 to {MAX_PAUSE.days} days")
        if isinstance(self.jitter, bool) or not isinstance(self.jitter, int | float) or not 0 <= self.jitter <= 1:
            raise _refusal("jitter", self.jitter, "a share from 0 to 1")
        if not isinstance(self.never_on, tuple) or not all(_is_exception(kind) for kind in self.never_on):
            raise _refusal("never_on", self.never_on, "a tuple of exception classes, as in never_on=(ValueError,)")

    def delay(self, attempt: int, dice: float = 0.0) -> timedelta:
        """Return the pause after the failed attempt number `attempt` (from 1); `dice` in [0, 1) is the caller's chance.

        Retry(base=timedelta(seconds=1)).delay(3)    # timedelta(seconds=4)
        """
        match self.backoff:
            case "constant":
                factor = 1
            case "linear":
                factor = attempt
            case "exponential":
                factor = 2 ** (min(attempt, 32) - 1)
        seconds = min(self.max_backoff.total_seconds(), self.base.total_seconds() * factor)
        return timedelta(seconds=seconds * (1 - self.jitter * dice))

    def ends(self, error: BaseException) -> bool:
        """Whether this exception ends the step at once, however many attempts are left."""
        return isinstance(error, self.never_on)


class HasRetry(Protocol):
    """A step, for `resolve`."""

    @property
    def retry(self) -> Retry | None:
        """Its own policy, if it has one."""


class HasPolicy(Protocol):
    """A workflow, for `resolve`; its `retry` is the call that takes a failed instance up again."""

    @property
    def retry_policy(self) -> Retry | None:
        """The policy of its steps that have none of their own."""


def resolve(step: HasRetry, workflow: HasPolicy) -> Retry:
    """Return the policy that counts: the step's own, else the workflow's, else the default of five attempts.

    resolve(charge, OrderFlow).max_attempts    # 8
    """
    return prevailing(step.retry, workflow.retry_policy)


def prevailing(step: Retry | None, workflow: Retry | None) -> Retry:
    """Return the policy that counts, of a step's own and its workflow's: the most specific that there is."""
    return step or workflow or DEFAULT


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_ATTEMPTS


def _is_exception(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException)


def _refusal(name: str, value: object, rule: str) -> DefinitionError:
    return DefinitionError(f"Retry({name}={value!r}): give {rule}")


DEFAULT = Retry()
