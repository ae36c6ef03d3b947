"""Strategies for text and JSON values that often cause defects, for property tests."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

__all__ = ["ANYTHING", "EDGE_TEXT", "NAMES", "PLAIN"]

QUOTES = ["'", '"', "''", '"; drop table pgflow.jobs; --', "$$", "\\", "%s", "%(x)s", "%", "{}", "{0}", "a::b", "::"]
LENGTHS = [letter * times for letter in ("x", "ü", "😀") for times in (31, 32, 63, 64, 65, 100, 101, 200, 201)]
# Right-to-left, zero-width, visually identical, or identical after case folding.
LOOKS = [
    "\u202eevil",
    "\u200b",
    "\ufeff",
    "p\u0430ypal",
    "paypal",
    "\ufb01",
    "fi",
    "\u0130",
    "\u0131",
    "ß",
    "SS",
    "e\u0301",
    "é",
]
BAD = [
    "\0",
    "a\0b",
    "\ud800",
    "\udc00\ud800",
    "\ud83d\ude00",
    "\n",
    "\r\n",
    "\t",
    "\x1b[2J",
    "\x7f",
    "\x85",
    "\u2028",
    "\xa0",
]
WORDS = [
    "pg_catalog",
    "information_schema",
    "public",
    "user",
    "select",
    "null",
    "true",
    "1",
    "-1",
    "1e5",
    "NaN",
    "done",
    "pgflow",
]
ATTRIBUTES = [
    "pgflow.jobs",
    "__class__",
    "__init__",
    "self",
    "key",
    "../../etc/passwd",
    "C:\\con",
    "a b",
    "a-b",
    "a.b",
    "",
    " ",
]
ODD = [*QUOTES, *LENGTHS, *LOOKS, *BAD, *WORDS, *ATTRIBUTES]
EDGE_TEXT = st.sampled_from(ODD) | st.text(st.characters(), max_size=12)
NAMES = EDGE_TEXT | st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,12}", fullmatch=True)


def _large(digits: int) -> int:
    return int(10**digits)


NUMBERS = (
    st.integers()
    | st.sampled_from([2**53 + 1, 10**22, 10**308])
    | st.sampled_from([4299, 4300, 5000]).map(_large)
    | st.floats()
    | st.sampled_from([1e22, 1e23, 1e308, 5e-324, -0.0, 1e16, 123456789012345680000.0, 0.1])
)
KEYS = EDGE_TEXT | st.integers(-9, 9) | st.floats() | st.booleans() | st.none() | st.just((1, 2)) | st.dates()
OTHERS = (
    st.binary(max_size=9)
    | st.sampled_from(
        [b"\xff", "ü".encode(), {1, 2}, {"b", "a"}, frozenset(), (1, (2,)), Decimal("1.50"), Decimal("NaN")]
    )
    | st.sampled_from([date(2030, 1, 2), datetime(2030, 1, 2, tzinfo=UTC), timedelta(minutes=5), object(), print, int])
)
SCALARS = st.none() | st.booleans() | NUMBERS | EDGE_TEXT


def _nested(depth: int, core: Any, *, as_dict: bool) -> Any:
    for _ in range(depth):
        core = {"a": core} if as_dict else [core]
    return core


DEEP = st.builds(
    _nested, st.sampled_from([1, 62, 63, 64, 65, 66, 200, 10_000]), st.sampled_from([1, [], {}]), as_dict=st.booleans()
)
PLAIN = st.recursive(
    SCALARS | OTHERS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=8
)
ANYTHING = PLAIN | DEEP
