"""The filter language: one text that selects instances and tasks, for `find`, bulk operations and the command line.

    state:failed queue:mail workflow:OrderFlow -tag:gift error:"timed out" age:>2h input.tenant:7

White space means "and", a comma "or" between values, a leading minus "not". A value with white space, commas or quotes
is written in double quotes, where a backslash keeps the next character. `parse` reads the text into a `Query`, or
reports every fault with its position. `Query.document` is what the SQL function `matching_runs` takes; `Query.matches`
decides the same in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Self

from pgflow.core.models.instance import Instance
from pgflow.core.models.query_reader import read_terms
from pgflow.core.models.query_terms import Comparison, Kind, Path, Term, Words
from pgflow.core.models.task import TaskInstance
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
    """What a filter looks at: `names` has the values of the keys that are compared as a whole.

    `places` is where an instance is, `errors` its error and the last ones of its jobs, `documents` its JSON by root.
    """

    names: Mapping[str, Any]
    tags: Sequence[str]
    errors: Sequence[Mapping[str, Any]]
    documents: Mapping[str, Any]
    places: Sequence[Place]
    age: timedelta

    @classmethod
    def of_instance(cls, each: Instance, places: Sequence[Place], now: datetime) -> Self:
        """Return what a filter looks at of an instance of a workflow."""
        errors = [each.error, *(place.error for place in places)]
        return cls(
            {
                "state": {each.status},
                "workflow": {each.workflow},
                "version": {each.version},
                "run": {each.run},
                "id": {each.id, each.id.partition("::")[2]},
            },
            each.tags,
            [error for error in errors if error is not None],
            {"input": each.input, "metadata": each.metadata},
            places,
            now - each.created_at,
        )

    @classmethod
    def of_task(cls, each: TaskInstance, now: datetime) -> Self:
        """Return what a filter looks at of an execution of a task: its job is its only place."""
        last = each.error if each.finished_at is not None else (each.errors[-1] if each.errors else None)
        return cls(
            {"state": {each.status}, "task": {each.task}, "id": {str(each.id)}},
            each.tags,
            [] if last is None else [last],
            {"args": each.args, "metadata": each.metadata},
            [Place("", each.queue, each.attempt, each.priority, each.worker)],
            now - each.enqueued_at,
        )


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
        """Return the filter as the JSON document that sql/functions/matching.sql and matching_tasks.sql take."""
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
    match term:
        case Words():
            return _has_words(term, subject) is not term.is_negated
        case Comparison(low=low, high=high):  # age; the others are of a place
            age = subject.age / timedelta(seconds=1)
            return (low is None or age > low) and (high is None or age < high)
        case Path(root=root, keys=keys, values=values):
            items = list(_select(subject.documents.get(root), keys))
            return any(is_same(item, value) for item in items for value in values) is not term.is_negated


def _has_words(term: Words, subject: Subject) -> bool:
    match term.key:
        case "tag":
            return any(value in subject.tags for value in term.values)
        case "error":
            texts = [_ascii_lower(_text_of(error)) for error in subject.errors]
            return any(_ascii_lower(value) in text for value in term.values for text in texts)
        case key if key in PLACED:  # a negated one; the others are matched together
            return any(_place_matches(term, each) for each in subject.places)
    return any(value in subject.names.get(term.key, ()) for value in term.values)


def _place_matches(term: Term, place: Place) -> bool:
    value = getattr(place, term.key)
    if isinstance(term, Words):
        return value in term.values
    assert isinstance(term, Comparison)  # noqa: S101 -- for the type checker: a path is of no place
    return value is not None and (term.low is None or value >= term.low) and (term.high is None or value <= term.high)


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
