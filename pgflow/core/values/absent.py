"""A marker for an argument that was left out, as opposed to None or `{}`, and its default for a declared type."""

from __future__ import annotations

from types import NoneType, UnionType
from typing import Annotated, Any, Final, Union, final, get_args, get_origin

__all__ = ["ABSENT", "Absent", "default_for", "is_optional"]


@final
class Absent:
    """The type of `ABSENT`, the default of inputs, outputs and payloads: the argument was left out."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "ABSENT"

    def __bool__(self) -> bool:
        return False

    def __reduce__(self) -> str:
        return "ABSENT"  # so that copying and unpickling give the same object


ABSENT: Final = Absent()


def is_optional(kind: Any) -> bool:
    """Whether a type includes None: `None` itself, a union with it, or an alias of either. `Any` does not count.

    is_optional(Receipt | None)    # True
    """
    if kind is None or kind is NoneType:
        return True
    origin = get_origin(kind)
    alias = getattr(kind if origin is None else origin, "__value__", None)  # type Name = …
    if alias is not None:
        return is_optional(alias)
    if origin is Annotated:
        return is_optional(get_args(kind)[0])
    return origin in (Union, UnionType) and any(map(is_optional, get_args(kind)))


def default_for(kind: Any) -> Any:
    """Return the JSON value stored for an argument that was left out: None if its type includes None, else `{}`."""
    return None if is_optional(kind) else {}
