"""Gather everything that is wrong with definitions: in one class before it is refused, in a module when all is asked.

Usually the first wrong thing that a module defines ends its import, with a `DefinitionError`. Within `collecting()` it
does not: what is wrong stays as it is, unusable and noted, and the import goes on to what comes next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pgflow.errors import DefinitionError

__all__ = ["Collected", "Problems", "collect_or_raise", "collecting", "defect_of", "try_collect"]

T = TypeVar("T")
D = TypeVar("D")


class Problems:
    """What is wrong with one definition, in the order of its rules."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def __bool__(self) -> bool:
        return bool(self.found)

    def add(self, messages: Iterable[str]) -> None:
        """Note what is wrong."""
        self.found += messages

    def check(self, instead: D, rule: Callable[..., T], *args: Any, **options: Any) -> T | D:
        """Return what `rule` returns; when it refuses, note that and return `instead`."""
        try:
            return rule(*args, **options)
        except DefinitionError as error:
            self.add(error.problems)
            return instead

    def refuse(self) -> None:
        """Raise `DefinitionError` if anything is wrong: with the first message, and all of them as `problems`."""
        if self.found:
            raise DefinitionError(self.found[0], problems=self.found) from None


@dataclass(slots=True)
class Fault:
    """Why something that a definition is made of is unusable; `is_told` when a workflow that uses it has said so."""

    subject: object  # kept, so that its id stays its own
    message: str
    is_told: bool = False


@dataclass(slots=True)
class Collected:
    """What was found wrong within `collecting()`."""

    told: list[str] = field(default_factory=list)
    faults: dict[int, Fault] = field(default_factory=dict)

    @property
    def problems(self) -> list[str]:
        """Every problem once: those that name their workflow, then those of what no workflow uses."""
        loose = [fault.message for fault in self.faults.values() if not fault.is_told]
        return list(dict.fromkeys([*self.told, *loose]))


OPEN: ContextVar[Collected | None] = ContextVar("pgflow_collected", default=None)


@contextmanager
def collecting() -> Iterator[Collected]:
    """Let what is wrong be noted instead of raised, for as long as the `with` lasts.

    with collecting() as collected:
        import_module("myapp.flows")
    collected.problems    # ["OrderFlow: charge does not declare …", …]
    """
    collected = Collected()
    token = OPEN.set(collected)
    try:
        yield collected
    finally:
        OPEN.reset(token)


def try_collect(error: DefinitionError) -> bool:
    """Whether a class that is wrong may stay, unusable: its problems are noted then."""
    collected = OPEN.get()
    if collected is not None:
        collected.told += error.problems
    return collected is not None


def collect_or_raise(subject: object, error: DefinitionError) -> None:
    """Let `subject`, which a workflow may be made of, stay though it is wrong; raise `error` when nobody collects."""
    collected = OPEN.get()
    if collected is None:
        raise error
    collected.faults[id(subject)] = Fault(subject, str(error))


def defect_of(*subjects: object) -> str | None:
    """Return why one of these is unusable, None when all are sound. Whoever asks tells it, with its own name before."""
    collected = OPEN.get()
    for subject in subjects if collected is not None else ():
        fault = collected.faults.get(id(subject)) if collected is not None else None
        if fault is not None:
            fault.is_told = True
            return fault.message
    return None
