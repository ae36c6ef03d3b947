"""Recognize types whose values are plain fields, so that writing them needs no general walk."""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType
from typing import Any

from pydantic import TypeAdapter

__all__ = ["PLAIN", "are_plain", "is_flat"]

PLAIN = frozenset({bool, int, str, NoneType})  # values of these classes read back from JSON as themselves

# What pydantic's schema of such a type may consist of. A validator, a serializer, an alias or a secret would be another
# entry, or another type of schema.
OBJECTS: Mapping[str, frozenset[str]] = {
    "model": frozenset({"type", "cls", "config", "custom_init", "metadata", "ref", "root_model", "schema"}),
    "dataclass": frozenset(
        {"type", "cls", "config", "fields", "frozen", "metadata", "post_init", "ref", "schema", "slots"}
    ),
}
FIELDS = {"model": "model-fields", "dataclass": "dataclass-args"}
MUST_BE_FALSE = ("custom_init", "root_model", "post_init", "slots")
CONFIG = frozenset({"title", "extra_fields_behavior", "frozen"})
FIELD = frozenset({"type", "name", "schema", "metadata", "init", "kw_only", "frozen"})
WRAPPER = frozenset({"type", "schema", "default", "default_factory", "default_factory_takes_data", "metadata"})
SCALARS: Mapping[str, frozenset[str]] = {
    "none": frozenset({"type", "metadata"}),
    "bool": frozenset({"type", "metadata"}),
    "int": frozenset({"type", "metadata", "ge", "gt", "le", "lt", "multiple_of"}),
    "str": frozenset({"type", "metadata", "min_length", "max_length", "pattern"}),
}


def is_flat(adapter: TypeAdapter[Any]) -> bool:
    """Whether values are objects of a model or a dataclass with plain fields only: numbers, text, booleans, None.

    is_flat(TypeAdapter(Order))    # True for class Order(BaseModel): number: int; note: str | None = None
    """
    schema: Mapping[str, Any] = adapter.core_schema
    kind = schema["type"]
    if kind not in OBJECTS or not schema.keys() <= OBJECTS[kind] or any(map(schema.get, MUST_BE_FALSE)):
        return False
    config = schema.get("config", {})
    fields = schema["schema"]
    if not config.keys() <= CONFIG or config.get("extra_fields_behavior") == "allow" or fields["type"] != FIELDS[kind]:
        return False
    if fields.get("computed_fields") or "extras_schema" in fields:
        return False
    each = fields["fields"]
    return all(map(_is_plain, each.values() if isinstance(each, Mapping) else each))


def are_plain(values: Mapping[str, Any]) -> bool:
    """Whether the values read back from JSON as themselves."""
    return PLAIN.issuperset(map(type, values.values()))


def _is_plain(field: Mapping[str, Any]) -> bool:
    if not field.keys() <= FIELD:
        return False
    schema = field["schema"]
    while schema["type"] in ("default", "nullable"):
        if not schema.keys() <= WRAPPER:
            return False
        schema = schema["schema"]
    return schema["type"] in SCALARS and schema.keys() <= SCALARS[schema["type"]]
