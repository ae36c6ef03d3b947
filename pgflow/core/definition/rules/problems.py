"""Collect the problems of definitions, so that one error lists all of a class, and one report all of a module.

Outside `collecting()`, the first invalid class or step of a module raises `DefinitionError` and ends the import. Inside
it the problem is recorded, the class or step stays as an unusable placeholder, and the import continues.
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
    """The problems of one definition, in the order of the rules."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def __bool__(self) -> bool:
        return bool(self.found)

    def add(self, messages: Iterable[str]) -> None:
        """Record problems."""
        self.found += messages

    def check(self, default: D, rule: Callable[..., T], *args: Any, **options: Any) -> T | D:
        """Return the result of `rule`; if it raises `DefinitionError`, record its problems and return `default`."""
        try:
            return rule(*args, **options)
        except DefinitionError as error:
            self.add(error.problems)
            return default

    def raise_if_any(self) -> None:
        """Raise one `DefinitionError` for all problems: the first is its message."""
        if self.found:
            raise DefinitionError(self.found[0], problems=self.found) from None


@dataclass(slots=True)
class Defect:
    """Why a part of a workflow, such as a step, is unusable; `is_reported` once a workflow that uses it reports it."""

    subject: object  # keeps the object alive, so that its id is not reused
    message: str
    is_reported: bool = False


@dataclass(slots=True)
class Collected:
    """The problems found inside `collecting()`."""

    reported: list[str] = field(default_factory=list)
    defects: dict[int, Defect] = field(default_factory=dict)

    @property
    def problems(self) -> list[str]:
        """Every problem once: first those of workflows, then those of parts that no workflow uses."""
        unused = [defect.message for defect in self.defects.values() if not defect.is_reported]
        return list(dict.fromkeys([*self.reported, *unused]))


CURRENT: ContextVar[Collected | None] = ContextVar("pgflow_collected", default=None)


@contextmanager
def collecting() -> Iterator[Collected]:
    """Record the problems of definitions instead of raising them, inside the `with` block.

    with collecting() as collected:
        import_module("myapp.flows")
    collected.problems    # ["OrderFlow: charge does not declare …", …]
    """
    collected = Collected()
    reset_token = CURRENT.set(collected)
    try:
        yield collected
    finally:
        CURRENT.reset(reset_token)


def try_collect(error: DefinitionError) -> bool:
    """Record the problems of an invalid class; False outside `collecting()`, where the caller raises `error`."""
    collected = CURRENT.get()
    if collected is not None:
        collected.reported += error.problems
    return collected is not None


def collect_or_raise(subject: object, error: DefinitionError) -> None:
    """Record that `subject`, a part of a workflow, is unusable; outside `collecting()` raise `error`."""
    collected = CURRENT.get()
    if collected is None:
        raise error
    collected.defects[id(subject)] = Defect(subject, str(error))


def defect_of(*subjects: object) -> str | None:
    """Return why one of these parts is unusable, or None. The caller reports it, prefixed with its own name."""
    collected = CURRENT.get()
    if collected is None:
        return None
    for subject in subjects:
        defect = collected.defects.get(id(subject))
        if defect is not None:
            defect.is_reported = True
            return defect.message
    return None
