"""Only values that PostgreSQL can store and Python can read are encoded; an error has the path of the value."""

from __future__ import annotations

import json
import math
import uuid
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from pgflow.core.values import payload
from pgflow.core.values.payload import DEPTH_LIMIT, INPUT_LIMIT, decode, encode
from pgflow.errors import InvalidPayload


class Color(Enum):
    RED = "red"


class Size(IntEnum):
    BIG = 3


class Word(StrEnum):
    YES = "yes"


class Point(NamedTuple):
    x: int
    y: int


@dataclass
class Box:
    width: int


class Order(BaseModel):
    at: date
    price: Decimal = Decimal("1.50")
    ratio: float = 1.0
    more: Any = "x"


def text_of(value: Any) -> str:
    return encode(value, what="input", limit=INPUT_LIMIT)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), inner)
    ),
    max_leaves=20,
)


@given(PLAIN)
def test_plain_values_are_read_back_unchanged(value: Any) -> None:
    assert decode(text_of(value)) == value


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC), "2030-01-02T03:04:05Z"),
        (date(2030, 1, 2), "2030-01-02"),
        (timedelta(minutes=5), "PT5M"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Decimal("1.50"), "1.50"),
        (Color.RED, "red"),
        (Size.BIG, 3),
        (Word.YES, "yes"),
        ((1, 2), [1, 2]),
        (Point(1, 2), [1, 2]),
        ({3, 1, 2}, [1, 2, 3]),
        (frozenset({"b", "a"}), ["a", "b"]),
        (b"caf\xc3\xa9", "café"),
        (Box(3), {"width": 3}),
        (Order(at=date(2030, 1, 2)), {"at": "2030-01-02", "price": "1.50", "ratio": 1.0, "more": "x"}),
        ({"box": [Box(3)], Color.RED: 1}, {"box": [{"width": 3}], "red": 1}),
        ({1: "a", None: "b"}, {"1": "a", "null": "b"}),
        ({1: "a", "b": 2}, {"1": "a", "b": 2}),
        ({date(2030, 1, 2): 1}, {"2030-01-02": 1}),
        ("a \\u0000 that is only text", "a \\u0000 that is only text"),
    ],
)  # fmt: skip
def test_common_types_become_json(value: Any, stored: Any) -> None:
    assert decode(text_of(value)) == stored


CYCLE: list[Any] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"items": [{}, {"name": "a\0b"}]}, r"^input\.items\[1\]\.name holds a NUL character"),
        ({"a\0": 1}, r"^a key of input holds a NUL character"),
        ({"odd key": "\ud800"}, r"^input\['odd key'\] holds a lone surrogate"),
        ([1, math.nan], r"^input\[1\] is nan, which JSON cannot hold"),
        ({"a": -math.inf}, r"^input\.a is -inf"),
        ({"order": Order(at=date(2030, 1, 2), ratio=math.inf)}, r"^input\.order\.ratio is inf"),
        (Order(at=date(2030, 1, 2), ratio=math.nan), r"^input\.ratio is nan"),
        (Order(at=date(2030, 1, 2), more=[{"a": math.nan}]), r"^input\.more\[0\]\.a is nan"),
        ({"box": [Box(math.inf)]}, r"^input\.box\[0\]\.width is inf"),  # type: ignore[arg-type] # Python lets it pass
        ({"a": 10**4301}, r"^input\.a is an integer of more than 4300 digits"),
        ({"deep": nested(DEPTH_LIMIT)}, r"is more than 64 levels deep"),
        (nested(5000), r"is more than 64 levels deep"),
        (CYCLE, r"is more than 64 levels deep: flatten it, or look for a cycle"),
        ({"a": [object()]}, r"^input\.a\[0\] cannot be stored as JSON: object is not a data type"),
        ({"a": test_common_types_become_json}, r"^input\.a cannot be stored as JSON: function is not a data type"),
        ({"a": b"\xff"}, r"^input\.a is bytes that are not UTF-8"),
        ({1: "a", "1": "b"}, r"^input has the keys 1 and '1', which are the same in JSON"),
        ({None: 1, "null": 2}, r"^input has the keys None and 'null'"),
        ({"x": {True: 1, "true": 2}}, r"^input\.x has the keys True and 'true'"),
        ({(1, 2): 1}, r"^input has the key \(1, 2\), which cannot be a JSON key"),
        ({math.nan: 1}, r"^a key of input is nan"),
    ],
    ids=range(21),
)  # fmt: skip
def test_an_error_has_the_path_and_the_reason(value: Any, expected: str) -> None:
    with pytest.raises(InvalidPayload, match=expected):
        text_of(value)


def test_depth_is_counted_in_containers_not_in_brackets() -> None:
    assert decode(text_of(nested(DEPTH_LIMIT))) == nested(DEPTH_LIMIT)
    wide = [{"a": [number]} for number in range(1000)]
    assert decode(text_of(wide)) == wide
    assert decode(text_of("[" * 1000)) == "[" * 1000


@pytest.mark.parametrize("letter", ["a", "é", "😀"])
def test_the_limit_counts_bytes(letter: str) -> None:
    size = len(text_of(letter * 20).encode())
    assert encode(letter * 20, what="input", limit=size) == f'"{letter * 20}"'
    message = rf"input is {size} bytes of JSON, more than the {size - 1} allowed: raise max_payload_bytes"
    with pytest.raises(InvalidPayload, match=message):
        encode(letter * 20, what="input", limit=size - 1)


@pytest.mark.parametrize(
    "text", ["", "{", "NaN", "[Infinity]", "[-Infinity]", "9" * 4301, "[" * 5000, "[" * 65 + "]" * 65, "{'a': 1}"]
)
def test_invalid_text_is_refused(text: str) -> None:
    with pytest.raises(InvalidPayload, match="stored JSON"):
        decode(text)


def test_text_is_compact_and_keeps_letters() -> None:
    assert text_of({"b": [1, 2], "a": "é"}) == '{"a":"é","b":[1,2]}'
    assert json.loads(text_of({"a": 1})) == {"a": 1}


SCALARS = st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False)


@given(SCALARS | st.dictionaries(st.text(), SCALARS, max_size=10))
def test_the_short_way_for_small_values_gives_the_text_of_the_general_encoder(value: Any) -> None:
    small = payload._small_text(value)
    assert small is None or small == payload._dumps(value)


def test_small_values_take_the_short_way_and_what_it_cannot_write_does_not() -> None:
    assert payload._small_text({"b": 1, "a": None, 'z "1"': "c:\\x"}) == r'{"a":null,"b":1,"z \"1\"":"c:\\x"}'
    refused = [{1: 2}, {"a": []}, {"a": 2**80}, "é", "a\nb", {"pgflow:ref": 1}, {"a": 1.5}, {1: 1, "a": 2}, Word.YES]
    assert [payload._small_text(value) for value in refused] == [None] * len(refused)
    with pytest.raises(InvalidPayload, match="is reserved for pgflow"):
        encode({"pgflow:ref": 1}, what="input", limit=100)
    with pytest.raises(InvalidPayload, match="more than the 5 allowed"):
        encode({"a": "12345"}, what="input", limit=5)
