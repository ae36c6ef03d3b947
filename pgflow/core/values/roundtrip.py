"""Compare a value with the one read back from its JSON, and sort sets, so that equal values have equal JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, get_args, get_origin

from pydantic import BaseModel, RootModel

from pgflow.core.values.flat import PLAIN

__all__ = ["dataclass_items", "difference", "is_untyped", "items_by_alias", "sort_sets"]


def difference(given: Any, back: Any, where: str) -> str | None:
    """Return where `back`, the value read back, differs from `given`; None when nothing is lost.

    Fields that pydantic excludes from JSON may be lost.

    difference({"at": date(2030, 1, 1)}, {"at": "2030-01-01"}, "input")
    # "input['at'] is a date, and would come back as a str"
    """
    if isinstance(given, BaseModel) and isinstance(back, BaseModel) and type(given) is type(back):
        if _are_plainly_equal(given, back):
            return None
        return next(_differences(_stored_items(given), _stored_items(back), where), None)
    if is_dataclass(given) and type(given) is type(back):
        return next(_differences(dataclass_items(given), dataclass_items(back), where), None)
    if isinstance(given, dict) and isinstance(back, dict):
        return next(_differences(given, back, where), None)
    if isinstance(given, list | tuple) and type(given) is type(back) and len(given) == len(back):
        pairs = zip(given, back, strict=True)
        found = (difference(one, other, f"{where}[{index}]") for index, (one, other) in enumerate(pairs))
        return next((each for each in found if each is not None), None)
    if type(given) is type(back):
        # A class without `__eq__` compares by identity, which cannot show a difference in value.
        is_same = "__eq__" not in _attributes(type(given)) or _are_same(given, back)
        # The message does not quote the values, which may be secrets.
        return None if is_same else f"{where} would come back as another {type(given).__name__}"
    if _are_same(given, back) and (isinstance(back, type(given)) or isinstance(given, type(back))):
        return None
    return f"{where} is a {type(given).__name__}, and would come back as a {type(back).__name__}"


def _are_same(given: Any, back: Any) -> bool:
    """Whether two values that contain no others are the same value.

    `comparable` decides, because the types' own equality has exceptions: NaN is unequal to itself, a signalling NaN
    cannot be compared at all, and a datetime in a repeated or missing hour equals none in another zone (PEP 495).
    """
    if isinstance(given, datetime | Decimal | AbstractSet) and isinstance(back, datetime | Decimal | AbstractSet):
        return bool(comparable(given) == comparable(back))
    return bool(given == back or (given != given and back != back))


def comparable(value: Any) -> Any:
    """Return a value that is equal, and hashes equal, where the moments and numbers in `value` are the same.

    An aware datetime becomes the time since the year 1 in UTC, a NaN its digits; containers are converted recursively.
    """
    match value:
        case datetime():
            wall, offset = value.replace(tzinfo=None, fold=0), value.utcoffset()
            return wall if offset is None else wall - datetime.min - offset  # noqa: DTZ901 -- no overflow at the ends
        case Decimal() if value.is_nan():
            return Decimal, value.as_tuple()
        case tuple():
            return type(value), tuple(map(comparable, value))
        case AbstractSet():
            return frozenset(map(comparable, value))
        case BaseModel():
            return type(value), tuple(map(comparable, _stored_items(value).values()))
        case _ if is_dataclass(value) and not isinstance(value, type):
            return type(value), tuple(map(comparable, dataclass_items(value).values()))
    return value


def _are_plainly_equal(given: BaseModel, back: BaseModel) -> bool:
    """Whether all fields are plain numbers and text and equal: the cheap check that most inputs pass."""
    mine, theirs = given.__dict__, back.__dict__
    return (
        not given.__pydantic_extra__
        and all(type(item) in PLAIN and type(theirs.get(name)) is type(item) for name, item in mine.items())
        and mine == theirs
    )


def is_untyped(kind: Any) -> bool:
    """Whether a type is a dict of Any: its values become JSON, as where no type is declared."""
    return kind is dict or (get_origin(kind) in (dict, Mapping) and get_args(kind)[1] is Any)


def sort_sets(value: Any, plain: Any) -> Any:
    """Return `plain`, the JSON of `value`, with the lists that come from sets sorted."""
    if isinstance(plain, dict) and not any(isinstance(item, list | dict) for item in plain.values()):
        return plain
    if isinstance(value, RootModel):
        return sort_sets(value.root, plain)
    match plain:
        case list() if isinstance(value, AbstractSet):
            return sorted(plain, key=_order)
        case list() if isinstance(value, list | tuple) and len(value) == len(plain):
            return [sort_sets(one, other) for one, other in zip(value, plain, strict=True)]
        case dict() if isinstance(value, BaseModel):
            items = dict(items_by_alias(value))
            return {key: sort_sets(items.get(key), item) for key, item in plain.items()}
        case dict() if is_dataclass(value):
            items = dataclass_items(value)
            return {key: sort_sets(items.get(key), item) for key, item in plain.items()}
        case dict() if isinstance(value, Mapping):
            return {key: sort_sets(value.get(key), item) for key, item in plain.items()}
    return plain


def _order(element: Any) -> tuple[int, Any]:
    """Sort numbers by value, then text, then everything else by its JSON text."""
    if isinstance(element, int | float) and not isinstance(element, bool):
        return 0, element
    return (1, element) if isinstance(element, str) else (2, json.dumps(element, sort_keys=True))


def _differences(given: Mapping[Any, Any], back: Mapping[Any, Any], where: str) -> Iterator[str]:
    if given.keys() != back.keys():  # keys that are the same moment in different zones differ
        back = _rekeyed(back, given)
    for key, item in given.items():
        path = f"{where}.{key}" if isinstance(key, str) and key.isidentifier() else f"{where}[{key!r}]"
        if key not in back:
            yield f"{path} would not come back"
        elif (found := difference(item, back[key], path)) is not None:
            yield found
    for key in back:
        if key not in given:
            yield f"{where} would come back with {key!r}, too"


def _rekeyed(back: Mapping[Any, Any], given: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """Return `back` with each key that is the same value as a key of `given` replaced by that key."""
    keys = {comparable(key): key for key in given}
    return {keys.get(comparable(key), key): item for key, item in back.items()}


def _stored_items(model: BaseModel) -> dict[str, Any]:
    """Return the field values that are stored. `__dict__` also contains cached properties, which are not."""
    stored = {name: model.__dict__[name] for name, field in type(model).model_fields.items() if not field.exclude}
    return {**stored, **(model.__pydantic_extra__ or {})}


def items_by_alias(model: BaseModel) -> Iterator[tuple[str, Any]]:
    """Yield a model's values under the names that they have in JSON."""
    for name, field in type(model).model_fields.items():
        yield field.serialization_alias or field.alias or name, model.__dict__.get(name)
    yield from (model.__pydantic_extra__ or {}).items()


def dataclass_items(value: Any) -> dict[str, Any]:
    """Return a dataclass's field values by name."""
    return {each.name: getattr(value, each.name) for each in fields(value) if each.init}


def _attributes(kind: type) -> set[str]:
    """Return the names that a class or a parent other than object defines."""
    return {name for each in kind.__mro__[:-1] for name in vars(each)}
