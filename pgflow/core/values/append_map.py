"""An immutable mapping with insertion in constant time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar, overload

__all__ = ["AppendMap"]

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")


class AppendMap(Mapping[K, V], Generic[K, V]):
    """One version of a mapping that only grows. Versions share their items; each sees the first `len(self)` of them.

    `adding` appends to the shared items if this is the newest version, and copies them otherwise. A history of n steps
    therefore costs n appends instead of n copies, and no version ever changes. An existing key keeps its value.

        one = AppendMap().adding("a", 1)
        two = one.adding("b", 2)     # one == {"a": 1}, two == {"a": 1, "b": 2}
    """

    __slots__ = ("_claims", "_items", "_keys", "_size")

    def __init__(self, items: Mapping[K, V] | None = None) -> None:
        given = {} if items is None else dict(items)
        self._keys: list[K] = list(given)
        self._items: dict[K, tuple[int, V]] = {key: (place, given[key]) for place, key in enumerate(self._keys)}
        self._claims: dict[int, object] = {}
        self._size = len(self._keys)

    def adding(self, key: K, value: V) -> AppendMap[K, V]:
        """Return a version with one more key, or this one if it already has the key."""
        found = self._items.get(key)
        if found is not None and found[0] < self._size:
            return self
        # Only one caller may append to this version, also among threads: `setdefault` is atomic.
        mine = object()
        base = self
        if self._claims.setdefault(self._size, mine) is not mine:
            base = self._copy()
            base._claims[base._size] = mine
        base._items[key] = (base._size, value)
        base._keys.append(key)
        new: AppendMap[K, V] = AppendMap.__new__(AppendMap)
        new._keys, new._items, new._claims, new._size = base._keys, base._items, base._claims, base._size + 1
        return new

    def _copy(self) -> AppendMap[K, V]:
        return AppendMap(dict(self))

    @overload
    def get(self, key: K, /) -> V | None: ...

    @overload
    def get(self, key: K, /, default: V | T) -> V | T: ...

    def get(self, key: K, /, default: Any = None) -> Any:
        """Return the value of a key, or `default`; faster than the inherited method, which catches a KeyError."""
        found = self._items.get(key)
        return default if found is None or found[0] >= self._size else found[1]

    def __getitem__(self, key: K) -> V:
        place, value = self._items[key]
        if place >= self._size:
            raise KeyError(key)
        return value

    def __contains__(self, key: object) -> bool:
        found = self._items.get(key)  # type: ignore[arg-type]  # `in` accepts any object
        return found is not None and found[0] < self._size

    def __iter__(self) -> Iterator[K]:
        return iter(self._keys[: self._size])

    def __len__(self) -> int:
        return self._size

    def __repr__(self) -> str:
        return repr(dict(self))
