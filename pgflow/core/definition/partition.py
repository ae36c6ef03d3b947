"""Partition keys: a value of an input, or an argument of a task, by which limits and turns are kept apart."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from decimal import Decimal
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from pgflow.core.values.payload import decode
from pgflow.core.values.query_args import is_integer
from pgflow.errors import DefinitionError

__all__ = ["MAX_WEIGHT", "check_partition", "partition_key", "read_partition", "read_weight"]

MAX_WEIGHT = 1000
LONGEST = 200  # bytes of a key that is stored as it is; sql/functions/partition_key.sql has the same limit


def read_partition(who: str, given: Any) -> tuple[str, ...]:
    """Return the path of a partition key: "customer" or "order.customer". Raises `DefinitionError`."""
    if given is None:
        return ()
    if not isinstance(given, str) or not all(given.split(".")):
        raise DefinitionError(
            f'{who}: partition_by is {given!r}: name an argument or a field, as in partition_by="tenant"'
        )
    return tuple(given.split("."))


def read_weight(who: str, given: Any) -> int:
    """Return how many places of a limit a job takes. Raises `DefinitionError`."""
    if not is_integer(given, 1, MAX_WEIGHT):
        raise DefinitionError(f"{who}: weight must be a whole number from 1 to {MAX_WEIGHT}, got {given!r}")
    return int(given)


def check_partition(who: str, path: Sequence[str], kind: Any, secrets: Iterable[str] = ()) -> None:
    """Check the path of a partition key against a declared type. Raises `DefinitionError` that names the field.

    Below a dict, or a field without a type, anything may follow. `secrets` are paths such as "input.card".
    """
    if not path:
        return
    shown = ".".join(path)
    if any(secret.partition(".")[2] == shown for secret in secrets):
        raise DefinitionError(f"{who}: partition_by names the secret {shown!r}, and a key is stored in plain")
    for place, name in enumerate(path):
        known = _names(kind)
        if known is None:
            return
        if name not in known:
            has = ", ".join(known) or "no fields"
            where = f"{'.'.join(path[:place])} has {has}" if place else f"there are {has}"
            raise DefinitionError(f"{who}: partition_by names {shown!r}, which does not exist: {where}")
        kind = known[name]


def _names(kind: Any) -> dict[str, Any] | None:
    """Return the types of a type's fields by their names in JSON; None where any name may follow."""
    if get_origin(kind) is not None and type(None) in get_args(kind):
        (kind, *others) = [each for each in get_args(kind) if each is not type(None)]
        if others:
            return None
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        stored = kind.model_fields.items()
        return {each.serialization_alias or each.alias or name: each.annotation for name, each in stored}
    if is_dataclass(kind):
        return {each.name: each.type if not isinstance(each.type, str) else Any for each in fields(kind)}
    if hasattr(kind, "__total__"):  # a TypedDict, of typing or of typing_extensions
        return dict(kind.__annotations__)
    return {} if kind in (str, int, float, bool) else None


def partition_key(text: str, path: Sequence[str]) -> str | None:
    """Return the partition key of a JSON document: the string, number or boolean at a path, None if there is none.

    The SQL function `pgflow.partition_key` returns the same.
    """
    value = decode(text)
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    match value:
        case bool():
            key = "true" if value else "false"
        case int() | str():
            key = str(value)
        case float():
            key = format(Decimal(repr(value)), "f")
        case _:
            return None
    if key in ("", "*"):
        return None if key == "" else '"*"'
    if len(key.encode()) > LONGEST:
        return f"{key[:40]} {hashlib.md5(key.encode(), usedforsecurity=False).hexdigest()}"
    return key
