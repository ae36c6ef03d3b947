"""The terms of a filter as values."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

__all__ = ["Comparison", "Key", "Kind", "Path", "Root", "Term", "Words"]

Kind: TypeAlias = Literal["workflow", "task"]
Root: TypeAlias = Literal["input", "args", "metadata"]
Key: TypeAlias = Literal[
    "state", "workflow", "task", "version", "run", "id", "queue", "step", "worker", "tag", "error",
    "age", "attempt", "priority", "input", "args", "metadata",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Words:
    """One of these values, texts or whole numbers; `is_negated`: none of them."""

    key: Key
    values: tuple[Any, ...]
    is_negated: bool = False


@dataclass(frozen=True, slots=True)
class Comparison:
    """A number between bounds, which are included; seconds, which are not, for "age"."""

    key: Key
    low: float | None = None
    high: float | None = None
    is_negated: bool = False


@dataclass(frozen=True, slots=True)
class Path:
    """One of these scalars at a path of an input, of arguments or of metadata; arrays on the way are searched."""

    root: Root
    keys: tuple[str, ...]
    values: tuple[Any, ...]
    is_negated: bool = False

    @property
    def key(self) -> Key:
        """The key of the term."""
        return self.root

    def jsonpath(self) -> str:
        """Return a predicate in PostgreSQL's jsonpath; each key and value is written as a JSON literal."""
        place = "".join(f".{json.dumps(key)}" for key in self.keys)
        equal = " || ".join(f"@ == {json.dumps(value)}" for value in self.values)
        return f"{'!' if self.is_negated else ''}exists(${place} ? ({equal}))"


Term: TypeAlias = Words | Comparison | Path
