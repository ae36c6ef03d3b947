"""Containment of JSON values with the semantics of PostgreSQL's `jsonb @> jsonb`."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

__all__ = ["contains", "is_same"]


def contains(whole: Any, part: Any) -> bool:
    """Whether `part` is contained in `whole`; both are decoded JSON.

    An object contains another that has a subset of its keys, with values that its own values contain. An array contains
    another whose elements it all contains, in any order and number; only at the top level, an array also contains a
    scalar that is one of its elements. Scalars contain equal scalars.

        contains({"kind": "gift", "items": [{"sku": "a", "count": 2}]}, {"items": [{"sku": "a"}]})    # True
        contains({"items": ["a", "b"]}, {"items": "a"})                                             # False
    """
    if isinstance(whole, list) and not isinstance(part, dict | list):
        return any(is_same(each, part) for each in whole)
    return _contains(whole, part)


def _contains(whole: Any, part: Any) -> bool:
    match whole, part:
        case dict(), dict():
            return all(key in whole and _contains(whole[key], value) for key, value in part.items())
        case list(), list():
            return all(_holds(whole, each) for each in part)
    return is_same(whole, part)


def _holds(array: list[Any], element: Any) -> bool:
    if isinstance(element, dict | list):
        return any(type(each) is type(element) and _contains(each, element) for each in array)
    return any(is_same(each, element) for each in array)


def is_same(one: Any, other: Any) -> bool:
    """Whether two scalars are equal; 1 and 1.0 are, 1 and true are not."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, int | float) and isinstance(other, int | float):
        return _exact(one) == _exact(other)
    return type(one) is type(other) and not isinstance(one, dict | list) and bool(one == other)


def _exact(number: float) -> Decimal:
    """Return the decimal number of the JSON text, which PostgreSQL stores exactly: 1e23 is 10**23, unlike the float."""
    return Decimal(repr(number) if isinstance(number, float) else number)
