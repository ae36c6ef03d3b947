"""The filter language: one text that selects instances, for `find`, bulk operations and the command line.

    state:failed queue:mail workflow:OrderFlow -tag:gift error:"timed out" age:>2h input.tenant:7

White space means "and", a comma "or" between values, a leading minus "not". A value with white space, commas or quotes
is written in double quotes, where a backslash keeps the next character. `parse` reads the text into a `Query`, or
reports every fault with its position. `Query.document` is what the SQL function `matching_runs` takes; `Query.matches`
decides the same in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from pgflow.core.models.instance import Instance
from pgflow.core.models.query_reader import read_terms
from pgflow.core.models.query_terms import Comparison, Key, Kind, Path, Term, Words
from pgflow.core.values.containment import is_same

__all__ = ["Place", "Query", "Subject", "parse"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where an instance is: one live job, or the step that failed. None for what a backend does not have."""

    step: str
    queue: str | None = None
    attempt: int | None = None
    priority: int | None = None
    worker: int | None = None
    error: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Subject:
    """What a filter looks at: an instance, its places, and the time."""

    instance: Instance
    places: tuple[Place, ...]
    now: datetime


@dataclass(frozen=True, slots=True)
class Query:
    """A validated filter.

    `text` is the filter as it was written. `kinds` are what it can match: "workflow" for instances of workflows, "task"
    for executions of tasks. A filter without terms matches everything.

        parse("state:failed tag:gift").document()    # {"state": ["failed"], "tag": [["gift"]]}
    """

    text: str
    terms: tuple[Term, ...] = field(default=(), repr=False)
    kinds: tuple[Kind, ...] = ("workflow", "task")

    def __bool__(self) -> bool:
        return bool(self.terms)

    def document(self) -> dict[str, Any]:
        """Return the filter as the JSON document that sql/functions/matching.sql describes."""
        found: dict[str, Any] = {}
        negated: dict[str, list[Any]] = {}
        for term in self.terms:
            match term:
                case Words(key=key, values=values, is_negated=True):
                    negated.setdefault(key, []).extend(values)
                case Words(key="tag" | "error" as key, values=values):
                    found.setdefault(key, []).append(list(values))
                case Words(key="attempt" | "priority" as key, values=values):
                    bounds = found.setdefault(key, {})
                    bounds["any"] = [each for each in values if each in bounds.get("any", values)]
                case Words(key=key, values=values):
                    found[key] = list(values)
                case Comparison(key="age", low=low, high=high):
                    if low is not None:
                        found["older_than"] = max(low, found.get("older_than", low))
                    if high is not None:
                        found["younger_than"] = min(high, found.get("younger_than", high))
                case Comparison(key=key, low=low, high=high):
                    bounds = found.setdefault(key, {})
                    if low is not None:
                        bounds["min"] = max(low, bounds.get("min", low))
                    if high is not None:
                        bounds["max"] = min(high, bounds.get("max", high))
                case Path(root=root):
                    predicates = [found[root], term.jsonpath()] if root in found else [term.jsonpath()]
                    found[root] = " && ".join(predicates)
        if negated:
            found["not"] = negated
        return found

    def matches(self, subject: Subject) -> bool:
        """Whether an instance matches: the same as in SQL."""
        is_placed = [term for term in self.terms if term.key in PLACED and not term.is_negated]
        return all(_matches(term, subject) for term in self.terms if term not in is_placed) and (
            not is_placed or any(all(_place_matches(term, each) for term in is_placed) for each in subject.places)
        )


PLACED = frozenset({"queue", "step", "attempt", "priority", "worker"})


def parse(text: str, kind: Kind | None = None) -> Query:
    """Read a filter. With `kind`, only keys that instances of workflows ("workflow") or tasks ("task") have.

    Raises `InvalidFilter`, whose `faults` are all that is wrong, each with its position.

        parse('state:failed error:"timed out" age:>2h').terms
        parse("statee:failed")    # InvalidFilter: column 1: there is no key 'statee'
    """
    terms, kinds = read_terms(text, kind)
    return Query(text.strip(), terms, kinds)


def _matches(term: Term, subject: Subject) -> bool:
    instance = subject.instance
    match term:
        case Words():
            return _has_words(term, subject) is not term.is_negated
        case Comparison(low=low, high=high):  # age; the others are of a place
            age = (subject.now - instance.created_at) / timedelta(seconds=1)
            return (low is None or age > low) and (high is None or age < high)
        case Path(root=root, keys=keys, values=values):
            document = instance.input if root == "input" else instance.metadata
            items = list(_select(document, keys))
            return any(is_same(item, value) for item in items for value in values) is not term.is_negated
    return False


def _has_words(term: Words, subject: Subject) -> bool:
    instance, values = subject.instance, term.values
    known: dict[Key, Callable[[], bool]] = {
        "state": lambda: instance.status in values,
        "workflow": lambda: instance.workflow in values,
        "version": lambda: instance.version in values,
        "run": lambda: instance.run in values,
        "id": lambda: instance.id in values or instance.id.partition("::")[2] in values,
        "tag": lambda: any(value in instance.tags for value in values),
        "error": lambda: any(_has_error(subject, str(value)) for value in values),
    }
    if term.key in known:
        return known[term.key]()
    return any(_place_matches(term, each) for each in subject.places)  # a negated one; the others are matched together


def _place_matches(term: Term, place: Place) -> bool:
    value = getattr(place, term.key)
    if isinstance(term, Words):
        return value in term.values
    assert isinstance(term, Comparison)  # noqa: S101 -- for the type checker: a path is of no place
    return value is not None and (term.low is None or value >= term.low) and (term.high is None or value <= term.high)


def _has_error(subject: Subject, part: str) -> bool:
    errors = [subject.instance.error, *(place.error for place in subject.places)]
    return any(_ascii_lower(part) in _ascii_lower(_text_of(error)) for error in errors if error is not None)


def _text_of(error: Mapping[str, Any]) -> str:
    return ": ".join(str(error[key]) for key in ("type", "reason") if error.get(key) is not None)


def _ascii_lower(text: str) -> str:
    # PostgreSQL's lower() in the collation "C": the same in any locale.
    return "".join(each.lower() if each.isascii() else each for each in text)


def _select(document: Any, keys: Iterable[str]) -> Iterator[Any]:
    """Yield the scalars that PostgreSQL's lax jsonpath compares: arrays are unwrapped at each key and at the end."""
    items = [document]
    for key in keys:
        unwrapped = _unwrapped(items)
        items = [each[key] for each in unwrapped if isinstance(each, dict) and key in each]
    yield from _unwrapped(_unwrapped(items))


def _unwrapped(items: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for each in items:
        found.extend(each if isinstance(each, list) else [each])
    return found
