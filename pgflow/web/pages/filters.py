"""A filter text in its parts, for chips and tabs of lists; `pgflow.core.models.query` reads what they mean."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from pydantic import BaseModel

from pgflow.web.routing.page import Model

__all__ = ["Chip", "Listing", "Tab", "chips", "pieces", "quoted", "tabs"]

# A term: characters that are not white space, with quoted parts in between, where a backslash keeps the next one.
TERM = re.compile(r'(?:"(?:[^"\\]|\\.)*"?|[^\s"])+')
PLAIN = re.compile(r'[^\s",\\]+')
STATE = re.compile(r"(?:state|status):")


class Chip(BaseModel):
    """One term of the filter; `without` is the filter without it."""

    key: str
    value: str
    without: str


class Tab(BaseModel):
    """A state, the number of rows in it (bounded; None: not counted), and the filter that shows them."""

    state: str | None
    count: int | None
    q: str
    is_current: bool


class Listing(Model):
    """A page of a list, newest first. `matching` counts all that match, at most `COUNT_LIMIT` + 1."""

    q: str
    chips: tuple[Chip, ...] = ()
    tabs: tuple[Tab, ...] = ()
    matching: int | None = None
    newer: str | None = None
    older: str | None = None
    is_first_use: bool = False
    has_workers: bool = True


def pieces(text: str) -> list[str]:
    """Return the terms of a filter as they are written.

    pieces('state:failed error:"timed out"')    # ["state:failed", 'error:"timed out"']
    """
    return TERM.findall(text)


def quoted(value: str) -> str:
    """Return a value as a filter has it, in quotes if it needs them."""
    if PLAIN.fullmatch(value):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def chips(text: str) -> list[Chip]:
    """Return the terms of a valid filter, each with the filter that remains without it."""
    terms = pieces(text)
    found = []
    for number, term in enumerate(terms):
        key, _, value = term.partition(":")
        without = " ".join([*terms[:number], *terms[number + 1 :]])
        found.append(Chip(key=key, value=value, without=without))
    return found


def tabs(text: str, states: Sequence[str], counts: Mapping[str, int | None]) -> list[Tab]:
    """Return the tabs of a list: all, then each state, keeping the other terms of the filter.

    `counts` are those of the whole list, so they are shown only where there is no other term.
    """
    terms = pieces(text)
    rest = " ".join(term for term in terms if not STATE.match(term))
    chosen = [term.partition(":")[2] for term in terms if STATE.match(term)]
    every = Tab(state=None, count=None, q=rest, is_current=not chosen)
    return [
        every,
        *(
            Tab(
                state=state,
                count=None if rest else counts.get(state, 0),
                q=f"state:{state} {rest}".strip(),
                is_current=chosen == [state],
            )
            for state in states
        ),
    ]
