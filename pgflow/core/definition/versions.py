"""Several versions of a workflow under one name: check that they belong together, and choose one for a start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pgflow.core.definition.options import Options, is_version
from pgflow.core.definition.rules.problems import Problems
from pgflow.errors import DefinitionError

__all__ = ["Umbrella", "is_nested", "read_umbrella"]


@dataclass(frozen=True, slots=True)
class Umbrella:
    """The versions of a workflow by number, and the one that a start takes by itself."""

    versions: Mapping[int, type[Any]]
    current: int


def is_nested(cls: type[Any]) -> bool:
    """Whether a class is made in the body of another: only then can that one still say what this one leaves open."""
    outer = cls.__qualname__.rpartition(".")[0]
    return bool(outer) and not outer.endswith("<locals>")


def read_umbrella(cls: type[Any], kind: type[Any], options: Options, given: Any, current: Any) -> Umbrella | None:
    """Return what a class with `versions` and `current` declares; `kind` is the class of all workflows.

    Raises `DefinitionError` for the rules that are broken: the keys, the current one, then each version by itself
    (a workflow, with this number, that lies within the umbrella, has its business key, and belongs to no other). None
    when nothing is wrong but a version itself, whose own class has told so.
    """
    who = options.name
    problems = Problems()
    for name in ("initial", "transitions"):
        if name in cls.__dict__:
            problems.add([f"{who} has versions, so it has no {name} of its own: move it into one of them"])
    current = problems.check(None, _current, who, given, current)
    if isinstance(given, Mapping):
        for number, version in sorted(filter(lambda each: is_version(each[0]), given.items())):
            problems.check(None, _check_version, cls, kind, options, number, version)
    problems.refuse()
    if not all(version.is_valid for version in given.values()):
        return None
    return Umbrella(MappingProxyType(dict(sorted(given.items()))), current)


def _current(who: str, given: Any, current: Any) -> int:
    if not isinstance(given, Mapping) or not given:
        raise DefinitionError(f"{who}: versions is {given!r}: write versions = {{1: V1, 2: V2}}")
    wrong = [number for number in given if not is_version(number)]
    if wrong:
        raise DefinitionError(
            f"{who}: all keys of versions are positive whole numbers, these are not: {', '.join(map(repr, wrong))}"
        )
    numbers = ", ".join(map(str, sorted(given)))
    if current is None:
        raise DefinitionError(f"{who} has no current version: say which one a start takes, as in current={max(given)}")
    if not is_version(current) or current not in given:
        raise DefinitionError(
            f"{who}: current={current!r} is not a key of versions (available: {numbers}): name one of these, or add it"
        )
    return int(current)


def _check_version(cls: type[Any], kind: type[Any], options: Options, number: int, version: Any) -> None:
    who = f"{options.name}: version {number}"
    if not _is_a(version, kind):
        raise DefinitionError(f"{who} is {version!r}, which is no workflow: write class V{number}(Workflow[…], …)")
    if not version.is_valid:
        return
    called = version.__qualname__.rpartition("<locals>.")[2]
    if version.is_versioned:
        raise DefinitionError(f"{who} is {called}, which has versions itself: give it an initial step and transitions")
    if version.version != number:
        raise DefinitionError(f"{who} is {called}, which says version={version.version}: let the two agree")
    if not _lies_within(version, cls):
        raise DefinitionError(
            f"{who} is {called}, which must be nested under {options.name}: put its class into that of {options.name}, "
            f"begin its name with {cls.__name__}, or move it to a module below {cls.__module__}"
        )
    if version.pinned is not None:
        raise DefinitionError(f"{who} is {called}, which is a version of {version.name} already: make a class for each")
    own = version.own_unique()
    if own not in (None, options.unique):
        raise DefinitionError(f"{who} has a business key of its own, {own!r}: leave it out, all versions share one")


def _is_a(given: Any, kind: type[Any]) -> bool:
    return isinstance(given, type) and issubclass(given, kind)


def _lies_within(version: type[Any], umbrella: type[Any]) -> bool:
    if version.__module__ == umbrella.__module__:
        return version.__qualname__.startswith(umbrella.__qualname__)
    return version.__module__.startswith(f"{umbrella.__module__}.")
