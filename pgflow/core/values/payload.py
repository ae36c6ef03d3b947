"""JSON text: `encode` checks every value before it is stored, `decode` every text that is read."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from datetime import datetime, time, timedelta
from typing import Any, NamedTuple, NoReturn

from pydantic import BaseModel, Secret, SecretBytes, SecretStr
from pydantic_core import PydanticSerializationError, to_jsonable_python

from pgflow.core.values.names import event_name
from pgflow.core.values.roundtrip import sort_sets
from pgflow.core.values.secret import MASK, SECRETS, reveal_secrets, secret_error, type_has_secrets
from pgflow.errors import InvalidPayload, PgflowError

__all__ = [
    "DEPTH_LIMIT",
    "ENCRYPTED_MARKER",
    "INPUT_LIMIT",
    "MAX_PAYLOAD_BYTES",
    "METADATA_LIMIT",
    "OUTPUT_LIMIT",
    "REFERENCE_MARKER",
    "decode",
    "encode",
    "refuse_lost",
]

# Bytes of JSON text. An app may raise the limit of inputs, payloads and outputs up to MAX_PAYLOAD_BYTES, which
# pgflow.json_fault checks, too.
INPUT_LIMIT = 1_048_576  # of an input or a signal's payload
OUTPUT_LIMIT = INPUT_LIMIT
MAX_PAYLOAD_BYTES = 16_777_216
METADATA_LIMIT = 65_536  # of metadata, of a step's configuration, and of a value to search for
WRITTEN_LIMIT = 67_108_864  # of an input, a payload or an output as PostgreSQL writes it: the check constraints
MAX_EXPANSION = 48  # PostgreSQL writes at most so many bytes for a byte of JSON text: 5e-324 has 326 digits
DEPTH_LIMIT = 64  # nested containers
ENCRYPTED_MARKER = "pgflow:sealed"  # the only key of a stored object that a codec has encrypted
REFERENCE_MARKER = "pgflow:ref"  # the only key of a stored object that refers to a payload store
RESERVED_PREFIXES = tuple(f'{{"{marker}"' for marker in (ENCRYPTED_MARKER, REFERENCE_MARKER))
CLOCK = re.compile(r":\d\d:\d\d")  # in the JSON text of every time and datetime
STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"')
SMALL_NUMBERS = re.compile(r"([0-9.]+)e-([0-9]+)")

SMALL_ITEMS = 8  # of an object whose text is built without a general encoder
SMALL_LENGTH = 4096  # characters; no limit of an expansion applies to so short a text
PLAIN_INTEGERS = range(-(2**63), 2**63)

# `sort_keys` raises TypeError when keys of different types are mixed, which is the only way for two keys to become the
# same string: those values take the slow path, which checks for it.
_quoted = json.encoder.encode_basestring  # in C
_dumps = json.JSONEncoder(allow_nan=False, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode


class Encoding(NamedTuple):
    """Options of encoding: secrets in clear, and models in a form that can be validated again."""

    reveal: bool
    round_trip: bool


def encode(value: Any, *, what: str, limit: int, reveal: bool = False, round_trip: bool = False) -> str:
    """Return `value` as compact JSON text of at most `limit` bytes that PostgreSQL's jsonb accepts.

    Accepts JSON values, pydantic models, dataclasses, datetimes, dates, timedeltas, UUIDs, Decimals, enums, sets
    (sorted), tuples and UTF-8 bytes. Numbers are written as PostgreSQL keeps them: 1e22 as an integer, -0.0 as 0.0.
    With `round_trip`, models are written so that they can be validated again: without computed fields, and `Json`
    fields as the text that they contain.

    Raises `InvalidPayload` with the path of the offending value, which begins with `what`: NaN and infinities, NUL
    characters and lone surrogates, keys that become the same string, more than 64 levels, integers of more than 4300
    digits, times whose offset cannot be written, and objects that are not data. Raises `UnencryptedSecret` for one of
    pydantic's secrets, unless `reveal`, which callers pass when they encrypt the text.

        encode({"at": date(2030, 1, 1)}, what="input", limit=INPUT_LIMIT)    # '{"at":"2030-01-01"}'
        encode({"items": [{"name": "\\0"}]}, what="input", limit=INPUT_LIMIT)
        # InvalidPayload: input.items[0].name holds a NUL character, which PostgreSQL cannot store
    """
    small = _small_text(value)
    if small is not None and len(small) <= min(limit, SMALL_LENGTH):
        return small
    try:
        plain = sort_sets(value, _in_full(value, round_trip)) if isinstance(value, BaseModel) else value
        text = _dumps(plain)
        # Cheap checks for values that need the slow path; a false positive only costs time.
        is_plain = not ("\\u0000" in text or _may_change(text) or _may_be_deep(text))
        if is_plain and isinstance(value, BaseModel):
            is_plain = not (MASK in text or type_has_secrets(type(value)))
        size = len(text) if text.isascii() else len(text.encode())
    except (TypeError, ValueError, RecursionError):  # UnicodeEncodeError is a ValueError
        is_plain = False
        text, size = "", 0
    if is_plain and plain is not value:
        refuse_lost(value, what, text)
    if not is_plain:
        text = _dumps(_plain(value, what, 0, Encoding(reveal, round_trip)))
        size = len(text.encode())
    if size > limit:
        raise InvalidPayload(
            f"{what} is {size:,} bytes of JSON, more than the {limit:,} allowed: {_size_advice(limit)}"
        )
    if size * MAX_EXPANSION > WRITTEN_LIMIT and (written := _written_size(text, size)) > WRITTEN_LIMIT:
        raise InvalidPayload(
            f"{what} is {written:,} bytes as PostgreSQL writes its numbers, more than the {WRITTEN_LIMIT:,} allowed: "
            "round numbers such as 5e-324"
        )
    if text.startswith(RESERVED_PREFIXES):
        marker = ENCRYPTED_MARKER if text.startswith(RESERVED_PREFIXES[0]) else REFERENCE_MARKER
        raise InvalidPayload(f"the key {marker!r} of {what} is reserved for pgflow")
    return text


def decode(text: str, extra_levels: int = 0, *, is_written: bool = False) -> Any:
    """Return the value of JSON text.

    Raises `InvalidPayload` for text that is not JSON, has a number beyond the range of a float, or is more than 64
    levels deep. `extra_levels` allows for containers that a query puts around the stored value. `is_written` is for
    text that a person wrote: unlike jsonb it may repeat a key in an object, which is refused.

        decode('{"count":3}')    # {"count": 3}
    """
    try:
        if is_written or text[:1].isspace():
            value = (_loads_written if is_written else _loads)(text)
        else:
            value, end = _scan(text)
            if end != len(text):  # blanks after it, or something else
                value = _loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidPayload(f"stored JSON cannot be read: {error}") from error
    if _may_be_deep(text) and _is_deep(value, DEPTH_LIMIT + extra_levels):
        raise InvalidPayload(f"stored JSON is more than {DEPTH_LIMIT} levels deep")
    return value


def _small_text(value: Any) -> str | None:
    """Return the text of a scalar, or of a small object of scalars, which most outputs are; None for any other value.

    It is what `encode` returns for it in general, several times as fast.
    """
    if type(value) is not dict:
        return _scalar_text(value)
    if len(value) > SMALL_ITEMS:
        return None
    parts = []
    try:
        keys = sorted(value)
    except TypeError:  # of different types
        return None
    for key in keys:
        item = _scalar_text(value[key])
        if item is None or type(key) is not str or not (key.isascii() and key.isprintable()):
            return None
        parts.append(f"{_quoted(key)}:{item}")
    text = f"{{{','.join(parts)}}}"
    return None if text.startswith(RESERVED_PREFIXES) else text


def _scalar_text(value: Any) -> str | None:
    kind = type(value)
    if kind is str:
        return _quoted(value) if value.isascii() and value.isprintable() else None
    if kind is int:
        return repr(value) if value in PLAIN_INTEGERS else None
    if kind is bool:
        return "true" if value else "false"
    return "null" if value is None else None


def refuse_lost(value: Any, where: str, text: str) -> None:
    """Raise `InvalidPayload` for a value that pydantic silently changed in `text`, the JSON of `value`.

    A NaN or an infinity becomes null, and a time may lose its zone. Only text that contains null or a time is checked.
    """
    if "null" in text or CLOCK.search(text):
        _refuse_lost(value, where)


def _size_advice(limit: int) -> str:
    if limit == METADATA_LIMIT:
        return "keep large data elsewhere and pass a reference to it"
    return "raise max_payload_bytes of the app, or give it a payload_store"


def _written_size(text: str, size: int) -> int:
    """Return how long PostgreSQL's text of a JSON text is at most: with blanks, and without exponents."""
    bare = STRINGS.sub("", text)
    expanded = sum(len(digits) + int(exponent) for digits, exponent in SMALL_NUMBERS.findall(bare))
    return size + bare.count(",") + bare.count(":") + expanded


def _refuse_lost(value: Any, where: str) -> None:
    match value:
        case float() if not math.isfinite(value):
            raise _not_finite(value, where)
        case datetime() | time():
            _refuse_offset(value, where)
        case SecretStr() | SecretBytes() | Secret():
            _refuse_lost(value.get_secret_value(), where)
        case BaseModel():
            _refuse_lost({**value.__dict__, **(value.__pydantic_extra__ or {})}, where)
        case Mapping():
            for key, item in value.items():
                _refuse_lost(key, f"a key of {where}")
                _refuse_lost(item, _inside(where, str(key)))
        case list() | tuple():
            for index, item in enumerate(value):
                _refuse_lost(item, f"{where}[{index}]")
        case AbstractSet():
            for item in value:
                _refuse_lost(item, f"{where}{{…}}")
        case _ if is_dataclass(value) and not isinstance(value, type):
            _refuse_lost({field.name: getattr(value, field.name) for field in fields(value)}, where)


def _refuse_offset(value: datetime | time, where: str) -> None:
    """Refuse a time whose UTC offset cannot be written in JSON: the text has only hours and minutes."""
    if value.tzinfo is None:
        return
    offset = value.utcoffset()
    if offset is None:
        fix = (
            "pass a datetime, a time with a fixed offset, or a time without a zone and the zone's name"
            if isinstance(value, time)
            else "pass a datetime with an offset, or one without a zone"
        )
        without = " without a date" if isinstance(value, time) else ""
        raise InvalidPayload(
            f"{where} is a {type(value).__name__} whose zone, {value.tzinfo!r}, has no UTC offset{without}: {fix}"
        )
    if offset % timedelta(minutes=1):
        raise InvalidPayload(
            f"{where} has the UTC offset {offset}, but an offset is stored in whole minutes: convert it to UTC"
        )


def _not_finite(value: float, where: str) -> InvalidPayload:
    return InvalidPayload(f"{where} is {value}, which JSON cannot hold: use None or a string")


def _inside(where: str, key: str) -> str:
    return f"{where}.{key}" if key.isidentifier() else f"{where}[{key!r}]"


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("a number is beyond the range of a float")
    return number


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    items = dict(pairs)
    if len(items) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"an object has the key {next(name for name in names if names.count(name) > 1)!r} twice")
    return items


_decoder = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)
_loads, _scan = _decoder.decode, _decoder.raw_decode
_loads_written = json.JSONDecoder(
    parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_unique_keys
).decode


def _may_change(text: str) -> bool:
    """Whether text may have a number that PostgreSQL writes differently. The search for one character is fastest."""
    return ("+" in text and "e+" in text) or ("-" in text and "-0.0" in text)


def _may_be_deep(text: str) -> bool:
    return text.count("[") + text.count("{") > DEPTH_LIMIT


def _is_deep(value: Any, most: int) -> bool:
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(most):
        level = [child for parent in level for child in _children(parent) if isinstance(child, dict | list)]
        if not level:
            return False
    return True


def _children(container: Any) -> Any:
    return container.values() if isinstance(container, dict) else container


def _plain(value: Any, where: str, depth: int, how: Encoding) -> Any:
    """Return `value` converted to JSON's own types. Raises `InvalidPayload` with the path of what cannot be."""
    value = event_name(value)
    if depth >= DEPTH_LIMIT and isinstance(value, Mapping | list | tuple | AbstractSet):
        raise InvalidPayload(f"{where} is more than {DEPTH_LIMIT} levels deep: flatten it, or look for a cycle")
    match value:
        case None | bool():
            return value
        case str():
            return _plain_text(value, where)
        case int():
            return _plain_integer(value, where)
        case float():
            return _plain_float(value, where)
        case Mapping():
            return dict(_plain_items(value, where, depth, how))
        case list() | tuple():
            return [_plain(item, f"{where}[{index}]", depth + 1, how) for index, item in enumerate(value)]
        case AbstractSet():
            items = [_plain(item, f"{where}{{…}}", depth + 1, how) for item in value]
            return sort_sets(value, items)
        case _ if isinstance(value, SECRETS):
            if not how.reveal:
                raise secret_error(where)
            return _plain(value.get_secret_value(), where, depth, how)
    return _plain(_converted(value, where, how), where, depth, how)


def _plain_text(value: str, where: str) -> str:
    if "\0" in value:
        raise InvalidPayload(f"{where} holds a NUL character, which PostgreSQL cannot store: remove it")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidPayload(
            f"{where} holds a lone surrogate, which is not a character: decode it with another error handler"
        ) from None
    return str(value)


def _plain_integer(value: int, where: str) -> int:
    try:
        str(int(value))
    except ValueError:
        raise InvalidPayload(f"{where} is an integer of more than 4300 digits: pass it as a string") from None
    return int(value)


def _plain_float(value: float, where: str) -> float:
    """Return an equal number that PostgreSQL keeps unchanged: numeric has neither exponents nor a negative zero."""
    if not math.isfinite(value):
        raise _not_finite(value, where)
    return int(value) if "e+" in repr(float(value)) else float(value) or 0.0


def _plain_items(value: Mapping[Any, Any], where: str, depth: int, how: Encoding) -> Iterator[tuple[str, Any]]:
    seen: dict[str, Any] = {}
    for key, item in value.items():
        name = _plain_key(key, where, how)
        if name in seen:
            raise InvalidPayload(f"{where} has the keys {seen[name]!r} and {key!r}, which are the same in JSON")
        seen[name] = key
        yield name, _plain(item, _inside(where, name), depth + 1, how)


def _plain_key(key: Any, where: str, how: Encoding) -> str:
    key = event_name(key)
    match key:
        case str():
            return _plain_text(key, f"a key of {where}")
        case None | bool() | int() | float():
            _plain(key, f"a key of {where}", 0, how)
            return _dumps(key)
    converted = _converted(key, f"a key of {where}", how)
    if not isinstance(converted, str):
        raise InvalidPayload(f"{where} has the key {key!r}, which cannot be a JSON key: use a string")
    return _plain_text(converted, f"a key of {where}")


def _converted(value: Any, where: str, how: Encoding) -> Any:
    _refuse_lost(value, where)
    try:
        if isinstance(value, BaseModel):
            plain = _in_full(value, how.round_trip)
        else:
            plain = to_jsonable_python(value, round_trip=how.round_trip)
        return sort_sets(value, reveal_secrets(value, plain, where, reveal=how.reveal))
    except UnicodeDecodeError:
        raise InvalidPayload(f"{where} is bytes that are not UTF-8: encode them, for example with base64") from None
    except PgflowError:
        raise
    except (PydanticSerializationError, RecursionError, ValueError) as error:
        raise InvalidPayload(f"{where} cannot be stored as JSON: {_reason(value, error)}") from None


def _in_full(model: BaseModel, round_trip: bool) -> Any:
    return model.model_dump(mode="json", by_alias=True, round_trip=round_trip)


def _reason(value: Any, error: Exception) -> str:
    if "unknown type" in str(error):
        return f"{type(value).__name__} is not a data type; pass a dict, a pydantic model or a string"
    return str(error)
