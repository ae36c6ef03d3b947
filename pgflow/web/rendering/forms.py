"""Fields of a form from a JSON schema, and the JSON value that a filled form means."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from pgflow.core.values.payload import decode
from pgflow.errors import InvalidPayload, InvalidValue

__all__ = ["Field", "FieldErrors", "fields_of", "filled", "read_form"]

Kind: TypeAlias = Literal["text", "lines", "integer", "number", "boolean", "choice", "time", "json", "hidden"]
MAX_DEPTH = 3  # groups within groups; anything deeper is written as JSON
LONG_TEXT = 120  # a text that may be longer gets several lines


@dataclass(frozen=True, slots=True)
class Field:
    """One field: `name` is the path of its value, such as "payload.amount".

    `about` follows the label in grey: the type and its limits. `value` is text as the browser shows it. A field is
    ignored where the one that `unless` names is filled.
    """

    name: str
    label: str
    kind: Kind = "text"
    about: str = ""
    hint: str = ""
    value: str = ""
    choices: Sequence[tuple[str, str]] = ()
    required: bool = False
    minimum: str = ""
    maximum: str = ""
    step: str = ""
    pattern: str = ""
    error: str = ""
    mono: bool = False
    folded: bool = False
    reloads: bool = False  # the other fields depend on its value
    unless: str = ""

    @property
    def id(self) -> str:
        """An id for the element."""
        return "f-" + "".join(each if each.isalnum() else "-" for each in self.name)


class FieldErrors(Exception):
    """What is wrong with a filled form, by field."""

    def __init__(self, errors: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {message}" for name, message in errors.items()))
        self.errors = dict(errors)


def fields_of(schema: Mapping[str, Any], values: Mapping[str, Any] | None = None, prefix: str = "") -> list[Field]:
    """Return the fields of an object's JSON schema, filled with `values`; what has no field of its own is JSON text."""
    found = list(_fields(schema, schema.get("$defs", {}), prefix, 0))
    return [filled(each, values) for each in found] if values else found


def filled(field: Field, values: Mapping[str, Any]) -> Field:
    """Return a field with its value out of `values`, by its name or by its path."""
    value: Any = values.get(field.name)
    if value is None:
        value = values
        for part in field.name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
    if value is None:
        return field
    if isinstance(value, bool):
        return replace(field, value="true" if value else "")
    return replace(field, value=value if isinstance(value, str) and field.kind != "json" else _json(value))


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _fields(schema: Mapping[str, Any], defs: Mapping[str, Any], prefix: str, depth: int) -> Iterator[Field]:
    required = schema.get("required", ())
    for name, declared in schema.get("properties", {}).items():
        path = f"{prefix}{name}"
        each = _resolved(declared, defs)
        if each.get("type") == "object" and each.get("properties") and depth < MAX_DEPTH:
            yield from _fields(each, defs, f"{path}.", depth + 1)
        else:
            yield _field(path, name if not depth else path.removeprefix("payload."), each, name in required)


def _resolved(declared: Mapping[str, Any], defs: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema without a reference, and without an alternative of null."""
    each = dict(declared)
    for _ in range(MAX_DEPTH):
        if (reference := each.get("$ref")) is not None:
            each = {**defs.get(str(reference).rpartition("/")[2], {}), **{k: v for k, v in each.items() if k != "$ref"}}
        options = each.get("anyOf")
        if isinstance(options, list):
            others = [option for option in options if option.get("type") != "null"]
            if len(others) != 1:
                return {k: v for k, v in each.items() if k != "anyOf"}
            each = {**others[0], **{k: v for k, v in each.items() if k != "anyOf"}}
    return each


def _field(path: str, label: str, each: Mapping[str, Any], is_required: bool) -> Field:
    kind, about = _kind(each)
    default = each.get("default")
    words = [about, *_limits(each), "" if is_required else "optional"]
    choices = [(str(value), str(value)) for value in each.get("enum", ())]
    return Field(
        name=path,
        label=str(each.get("label", label)),
        kind=kind,
        about=", ".join(filter(None, words)),
        hint=str(each.get("description", "")),
        value="" if default is None else ("true" if default else "") if kind == "boolean" else _json(default),
        choices=choices if is_required or not choices else [("", "not given"), *choices],
        required=is_required and kind != "boolean",
        minimum=str(each.get("minimum", each.get("exclusiveMinimum", ""))),
        maximum=str(each.get("maximum", each.get("exclusiveMaximum", ""))),
        step="1" if kind == "integer" else "any" if kind == "number" else "",
        pattern=str(each.get("pattern", "")) if kind == "text" else "",
        mono=kind == "json",
    )


def _kind(each: Mapping[str, Any]) -> tuple[Kind, str]:
    if "enum" in each:
        return "choice", "one of"
    match each.get("type"), each.get("format"):
        case "string", "date-time":
            return "time", "date and time, UTC"
        case "string", "password":
            return "text", "secret"
        case "string", _:
            length = each.get("maxLength")
            return ("lines" if isinstance(length, int) and length > LONG_TEXT else "text"), "text"
        case "integer", _:
            return "integer", "integer"
        case "number", _:
            return "number", "number"
        case "boolean", _:
            return "boolean", "true or false"
    return "json", "JSON"


def _limits(each: Mapping[str, Any]) -> Iterator[str]:
    low, high = each.get("minimum"), each.get("maximum")
    if low is not None and high is not None:
        yield f"{low} to {high}"
    elif low is not None:
        yield f"{low} or more"
    elif high is not None:
        yield f"up to {high}"
    if (above := each.get("exclusiveMinimum")) is not None:
        yield f"more than {above}"
    if (length := each.get("maxLength")) is not None:
        yield f"up to {length} characters"


def read_form(fields: Sequence[Field], data: Mapping[str, str]) -> dict[str, Any]:
    """Return the JSON object that a filled form means; fields left empty are left out.

    Raises `FieldErrors`, and `InvalidValue` for a field that the form does not have.
    """
    known = {field.name for field in fields}
    if unknown := sorted(data.keys() - known):
        raise InvalidValue(f"the form has no field {unknown[0]!r}", hint=f"Fields: {', '.join(sorted(known))}.")
    result: dict[str, Any] = {}
    errors: dict[str, str] = {}
    for field in fields:
        if field.unless and data.get(field.unless, "").strip():
            continue
        text = data.get(field.name, "")
        try:
            value = _value(field, text)
        except (ValueError, InvalidPayload) as error:
            errors[field.name] = str(error)
            continue
        if value is not None:
            _put(result, field.name.split("."), value)
        elif field.required:
            errors[field.name] = "Fill in a value."
    if errors:
        raise FieldErrors(errors)
    return result


def _value(field: Field, text: str) -> Any:
    """Return a field's value, None for one that was left empty. Raises `ValueError`."""
    if field.kind == "boolean":
        return text in ("true", "on", "1")
    if not text.strip():
        return None
    match field.kind:
        case "integer":
            try:
                return int(text)
            except ValueError:
                raise ValueError(f"{text!r} is not a whole number.") from None
        case "number":
            try:
                return decode(text)
            except InvalidPayload:
                raise ValueError(f"{text!r} is not a number.") from None
        case "json":
            try:
                return decode(text)
            except InvalidPayload as error:
                raise ValueError(f"It is not JSON: {error}") from None
        case "time":
            return text if text.endswith("Z") or "+" in text else f"{text}Z"
    return text


def _put(result: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for part in path[:-1]:
        result = result.setdefault(part, {})
    result[path[-1]] = value
