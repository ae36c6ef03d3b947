"""Find the fields of a type that are written to JSON under one name and read under another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import TypeAdapter

__all__ = ["unreadable_field"]

FIELDS = ("model-fields", "dataclass-args", "typed-dict")
CUSTOM = ("function-before", "function-wrap", "function-plain")


def unreadable_field(adapter: TypeAdapter[Any]) -> str | None:
    """Return the first field whose JSON pydantic cannot read back, with its names and the fix, or None.

    Values are stored as JSON by alias and validated when they are read, so the alias that a field is written with must
    be one of the names that it is read from. A model with a custom serializer or a `mode="before"` validator may rename
    fields itself; it is not checked here, but each of its values is. Returns None for a type whose schema cannot be
    built yet.

        unreadable_field(TypeAdapter(Order))    # "Order.number is written as 'no' and read from 'number': …"
    """
    try:
        schema: Any = adapter.core_schema
        return next(_unreadable(schema, "", {}, set(), is_custom=False), None)
    except Exception:  # a forward reference that is not defined yet: pydantic reports it when the type is used
        return None


def _unreadable(node: Any, owner: str, config: Mapping[str, Any], seen: set[int], *, is_custom: bool) -> Iterator[str]:
    if not isinstance(node, dict | list | tuple) or id(node) in seen:
        return
    seen.add(id(node))
    if not isinstance(node, dict):
        for each in node:
            yield from _unreadable(each, owner, config, seen, is_custom=False)
        return
    kind, serializer = node.get("type"), node.get("serialization")
    is_custom |= kind in CUSTOM or (isinstance(serializer, dict) and str(serializer.get("type")).startswith("function"))
    if kind in ("model", "dataclass", "typed-dict"):
        config = node.get("config", config)
    if "cls" in node:
        owner = node["cls"].__name__
    if kind in FIELDS:
        fields = node["fields"]
        named = fields.items() if isinstance(fields, dict) else [(each["name"], each) for each in fields]
        for name, field in named:
            written = field.get("serialization_alias") or name
            read = _read_names(name, field, config)
            is_written = not field.get("serialization_exclude") and field.get("init", True)
            if is_written and written not in read and not is_custom:
                places = ", ".join(map(repr, read)) or repr(field["validation_alias"])
                yield (
                    f"{owner or 'it'}.{name} is written as {written!r} and read from {places}: "
                    "give it one alias for both, or a validation alias that includes the name it is written as"
                )
    for key, each in node.items():
        if key not in ("config", "metadata", "serialization", "cls"):
            yield from _unreadable(each, owner, config, seen, is_custom=is_custom and kind not in FIELDS)


def _read_names(name: str, field: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """Return the top-level keys that a field is read from; a path into a nested value is not one."""
    alias = field.get("validation_alias")
    by_name = config.get("validate_by_name") or config.get("populate_by_name")
    if alias is None:
        return [name]
    paths: list[Any] = [[alias]] if isinstance(alias, str) else alias if isinstance(alias[0], list) else [alias]
    names = [path[0] for path in paths if len(path) == 1] if config.get("validate_by_alias", True) else []
    return [*names, *([name] if by_name and name not in names else [])]
