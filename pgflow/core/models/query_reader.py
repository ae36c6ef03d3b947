"""Read a filter text: keys, values and their positions."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

from pgflow.core.engine.state import Status
from pgflow.core.models.query_terms import Comparison, Key, Kind, Path, Root, Term, Words
from pgflow.errors import FilterFault, InvalidFilter

__all__ = ["read_terms"]

NUMBER_KEYS = {"version": 2**31 - 1, "run": 2**63 - 1, "worker": 2**63 - 1, "attempt": 2**31 - 1, "priority": 2**15 - 1}
COMPARED = ("age", "attempt", "priority")
PATHS = get_args(Root)
OF_WORKFLOWS = ("workflow", "version", "run", "step", "input")
OF_TASKS = ("task", "args")
REPEATABLE = ("tag", "error", *COMPARED, *PATHS)
NAMES = {"status": "state", "meta": "metadata"}  # accepted, too: the words of the options and of the JSON documents
ALL_KEYS = (*(key for key in get_args(Key) if key not in PATHS), *(f"{root}.PATH" for root in PATHS))
OPERATORS = re.compile(r"[<>]=?")
DURATION = re.compile(r"(?:[0-9]{1,9}(?:\.[0-9]{1,6})?(?:ms|s|m|h|d|w))+")
DURATION_PART = re.compile(r"([0-9.]+)(ms|s|m|h|d|w)")
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?")
MAX_LENGTH = 10_000  # characters of a filter
MAX_VALUE = 1000  # characters of a value
MAX_SECONDS = 36_525 * 86_400.0  # a hundred years
COMPARED_HINT = f"Only {', '.join(COMPARED)} can; quote the value to take it as it is."
STATES_HINT = f"States: {', '.join(get_args(Status))}."
DURATION_HINT = "Write a number and a unit, such as 30s, 5m, 2h, 1h30m or 7d."


@dataclass(frozen=True, slots=True)
class Piece:
    """A value as written: its text without quotes, and whether it was quoted; the position in the filter."""

    text: str
    is_quoted: bool
    start: int
    end: int


def read_terms(text: str, kind: Kind | None) -> tuple[tuple[Term, ...], tuple[Kind, ...]]:
    """Return the terms of a filter, and what it can match. Raises `InvalidFilter` with every fault."""
    reader = _Reader(text, kind)
    terms = tuple(reader.terms())
    if reader.faults:
        raise InvalidFilter(text, reader.faults)
    return terms, reader.kinds


class _Reader:
    """Reads one filter from left to right, and collects what is wrong."""

    def __init__(self, text: str, kind: Kind | None) -> None:
        self.faults: list[FilterFault] = []
        self.kinds: tuple[Kind, ...] = ("workflow", "task") if kind is None else (kind,)
        self._text = text
        self._at = 0
        self._seen: set[tuple[str, bool]] = set()

    def terms(self) -> Iterator[Term]:
        """Yield the terms that can be read."""
        if len(self._text) > MAX_LENGTH:
            self._fault(0, len(self._text), f"a filter has at most {MAX_LENGTH:,} characters")
            return
        while True:
            while self._at < len(self._text) and self._text[self._at].isspace():
                self._at += 1
            if self._at >= len(self._text):
                return
            yield from self._term()

    def _fault(self, start: int, end: int, message: str, hint: str | None = None) -> None:
        self.faults.append(FilterFault(start, max(end, start + 1), message, hint))

    def _term(self) -> Iterator[Term]:
        start = self._at
        is_negated = self._peek() == "-"
        self._at += is_negated
        parts, colon = self._key()
        if colon is None:
            word = self._text[start : self._at]
            self._fault(
                start,
                self._at,
                f"{word!r} is not a filter: it needs a key and a value",
                "Write key:value, as in state:failed.",
            )
            return
        name = NAMES.get(parts[0], parts[0])
        pieces = list(self._values())
        if not self._check_key(name, parts, start, colon):
            return
        if not pieces:
            self._fault(start, self._at, f"{name} needs a value", f"Write {'.'.join(parts)}:value.")
            return
        for root in (OF_WORKFLOWS, OF_TASKS):
            if name in root:
                self._narrow("workflow" if root is OF_WORKFLOWS else "task", name, start, colon)
        if (name, is_negated) in self._seen and name not in REPEATABLE and not is_negated:
            self._fault(start, self._at, f"{name} is given twice", f"For one of several values, write {name}:a,b.")
            return
        self._seen.add((name, is_negated))
        yield from self._typed(name, parts[1:], pieces, is_negated)

    def _typed(self, name: str, path: list[str], pieces: list[Piece], is_negated: bool) -> Iterator[Term]:
        count = len(self.faults)
        key: Any = name
        if name in PATHS:
            values = [value for piece in pieces for value in self._scalars(piece, name)]
            term: Term = Path(key, tuple(path), tuple(values), is_negated)
        elif name in COMPARED and (name == "age" or (not pieces[0].is_quoted and OPERATORS.match(pieces[0].text))):
            found = self._comparison(name, pieces, is_negated)
            if found is None:
                return
            term = found
        elif name in NUMBER_KEYS:
            term = Words(key, tuple(self._whole(piece, name) for piece in pieces), is_negated)
        else:
            term = Words(key, tuple(self._word(piece, name) for piece in pieces), is_negated)
        if len(self.faults) == count:
            yield term

    # -- keys

    def _key(self) -> tuple[list[str], int | None]:
        """Read a key, in parts at its dots, up to the colon; returns the parts and the position of the colon."""
        parts = [""]
        while self._at < len(self._text):
            each = self._text[self._at]
            if each == ":":
                self._at += 1
                return parts, self._at - 1
            if each.isspace():
                break
            if each == '"':
                piece = self._quoted()
                parts[-1] += piece
            elif each == ".":
                parts.append("")
                self._at += 1
            else:
                parts[-1] += each
                self._at += 1
        return parts, None

    def _check_key(self, name: str, parts: list[str], start: int, end: int) -> bool:
        written = ".".join(parts)
        if name not in get_args(Key):
            found = difflib.get_close_matches(name, [*get_args(Key), *NAMES], 2)
            near = list(dict.fromkeys(NAMES.get(each, str(each)) for each in found))
            did_you = f"Did you mean {' or '.join(near)}? " if near else ""
            self._fault(start, end, f"there is no key {written!r}", f"{did_you}Keys: {', '.join(ALL_KEYS)}.")
            return False
        if name in PATHS and (len(parts) < 2 or "" in parts[1:]):
            self._fault(start, end, f"{name} needs a path", f"Write {name}.customer.id:7.")
            return False
        if name not in PATHS and len(parts) > 1:
            self._fault(start, end, f"{name} has no path, got {written!r}", f"Write {name}:value.")
            return False
        return True

    def _narrow(self, kind: Kind, name: str, start: int, end: int) -> None:
        if kind not in self.kinds:
            other = "instances of workflows" if kind == "task" else "tasks"
            self._fault(start, end, f"{name} does not apply to {other}, which this filter is for")
            return
        self.kinds = (kind,)

    # -- values

    def _values(self) -> Iterator[Piece]:
        """Read the values after a colon, separated by commas."""
        while self._at < len(self._text) and not self._text[self._at].isspace():
            start, text, is_quoted = self._at, "", False
            while self._at < len(self._text) and (each := self._text[self._at]) != "," and not each.isspace():
                if each == '"':
                    text, is_quoted = text + self._quoted(), True
                else:
                    text, self._at = text + each, self._at + 1
            if not text and not is_quoted:
                self._fault(start, self._at, "a value is empty", 'For an empty text, write "".')
            else:
                yield Piece(text, is_quoted, start, self._at)
            if self._peek() == ",":
                self._at += 1
                if self._at >= len(self._text) or self._text[self._at].isspace():
                    self._fault(self._at - 1, self._at, "a value is missing after the comma")

    def _quoted(self) -> str:
        start, text = self._at, ""
        self._at += 1
        while self._at < len(self._text):
            each = self._text[self._at]
            self._at += 1
            if each == '"':
                return text
            if each == "\\" and self._at < len(self._text):
                each = self._text[self._at]
                self._at += 1
            text += each
        self._fault(start, self._at, 'a quote is not closed: add "')
        return text

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _word(self, piece: Piece, name: str) -> str:
        if not piece.is_quoted and OPERATORS.match(piece.text):
            self._fault(
                piece.start,
                piece.end,
                f"{name} cannot be compared",
                COMPARED_HINT,
            )
        elif name == "state" and piece.text not in get_args(Status):
            near = difflib.get_close_matches(piece.text, get_args(Status), 1)
            did_you = f"Did you mean {near[0]}? " if near else ""
            self._fault(
                piece.start,
                piece.end,
                f"there is no state {piece.text!r}",
                f"{did_you}{STATES_HINT}",
            )
        self._check_text(piece)
        return piece.text

    def _check_text(self, piece: Piece) -> None:
        if "\0" in piece.text or not _is_unicode(piece.text):
            self._fault(piece.start, piece.end, "a value contains a character that PostgreSQL cannot store")
        elif len(piece.text) > MAX_VALUE:
            self._fault(piece.start, piece.end, f"a value has at most {MAX_VALUE:,} characters")

    def _whole(self, piece: Piece, name: str) -> int:
        most = NUMBER_KEYS[name]
        least = -most - 1 if name == "priority" else 0
        if re.fullmatch(r"-?[0-9]{1,19}", piece.text, re.ASCII) and least <= int(piece.text) <= most:
            return int(piece.text)
        self._fault(piece.start, piece.end, f"{name} must be a whole number from {least} to {most}, got {piece.text!r}")
        return 0

    def _scalars(self, piece: Piece, name: str) -> Iterator[Any]:
        """Yield what a value at a path may stand for: an unquoted 7 is the number and the text."""
        if not piece.is_quoted and OPERATORS.match(piece.text):
            self._fault(piece.start, piece.end, f"{name} cannot be compared", "Quote the value to take it as it is.")
        self._check_text(piece)
        if not piece.is_quoted:
            if piece.text in ("true", "false", "null"):
                yield {"true": True, "false": False, "null": None}[piece.text]
            elif NUMBER.fullmatch(piece.text):
                yield json.loads(piece.text)
        yield piece.text

    def _comparison(self, name: str, pieces: list[Piece], is_negated: bool) -> Comparison | None:
        piece = pieces[0]
        operator = OPERATORS.match(piece.text)
        if len(pieces) > 1:
            self._fault(
                pieces[1].start,
                pieces[-1].end,
                f"{name} takes one comparison",
                f"For a range, write {name}:>1 {name}:<5.",
            )
            return None
        if operator is None:
            self._fault(
                piece.start, piece.end, "age needs a comparison", "Write age:>2h (older) or age:<30m (younger)."
            )
            return None
        value = piece.text[operator.end() :]
        sign, is_strict = operator[0][0], len(operator[0]) == 1
        if is_negated:
            sign, is_strict = "<" if sign == ">" else ">", not is_strict
        key: Any = name
        if name == "age":
            seconds = _seconds(value)
            if seconds is None:
                self._fault(
                    piece.start + operator.end(),
                    piece.end,
                    f"{value!r} is not a duration",
                    "Write a number and a unit, such as 30s, 5m, 2h, 1h30m or 7d.",
                )
                return None
            return Comparison(key, low=seconds) if sign == ">" else Comparison(key, high=seconds)
        number = self._whole(Piece(value, False, piece.start + operator.end(), piece.end), name)
        if sign == ">":
            return Comparison(key, low=number + is_strict)
        return Comparison(key, high=number - is_strict)


def _seconds(text: str) -> float | None:
    if not DURATION.fullmatch(text):
        return None
    total = sum(float(number) * UNITS[unit] for number, unit in DURATION_PART.findall(text))
    return total if total <= MAX_SECONDS else None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
