"""A workflow with several versions: check that the classes in `versions` belong together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pgflow.core.definition.options import Options, is_version
from pgflow.core.definition.rules.problems import Problems
from pgflow.errors import DefinitionError

__all__ = ["Versions", "is_nested", "read_versions"]


@dataclass(frozen=True, slots=True)
class Versions:
    """The versions of a workflow by number, and the current one, which a start uses by default."""

    by_number: Mapping[int, type[Any]]
    current: int


def is_nested(cls: type[Any]) -> bool:
    """Whether a class is defined in the body of another, which can then provide the options it leaves out."""
    outer = cls.__qualname__.rpartition(".")[0]
    return bool(outer) and not outer.endswith("<locals>")


def read_versions(cls: type[Any], kind: type[Any], options: Options, given: Any, current: Any) -> Versions | None:
    """Return the `versions` and `current` of a versioned workflow class; `kind` is the base class of all workflows.

    Raises `DefinitionError` for broken rules: the keys, the current version, then each version (a workflow with that
    number, in the class or a module below it, with the same business key, and not a version of another class). Returns
    None if a version class is invalid, which its own definition has already reported.
    """
    who = options.name
    problems = Problems()
    for name in ("initial", "transitions"):
        if name in cls.__dict__:
            problems.add([f"{who} has versions, so it cannot have {name} of its own: move it into one of them"])
    current = problems.check(None, _current, who, given, current)
    if isinstance(given, Mapping):
        for number, version in sorted(filter(lambda each: is_version(each[0]), given.items())):
            problems.check(None, _check_version, cls, kind, options, number, version)
    problems.raise_if_any()
    if not all(version.is_valid for version in given.values()):
        return None
    return Versions(MappingProxyType(dict(sorted(given.items()))), current)


def _current(who: str, given: Any, current: Any) -> int:
    if not isinstance(given, Mapping) or not given:
        raise DefinitionError(f"{who}: versions is {given!r}: write versions = {{1: V1, 2: V2}}")
    wrong = [number for number in given if not is_version(number)]
    if wrong:
        raise DefinitionError(
            f"{who}: the keys of versions must be whole numbers from 1, these are not: {', '.join(map(repr, wrong))}"
        )
    numbers = ", ".join(map(str, sorted(given)))
    if current is None:
        raise DefinitionError(
            f"{who} has no current version: choose the one that starts use, as in current={max(given)}"
        )
    if not is_version(current) or current not in given:
        raise DefinitionError(
            f"{who}: current={current!r} is not a key of versions (available: {numbers}): use one of these, or add it"
        )
    return int(current)


def _check_version(cls: type[Any], kind: type[Any], options: Options, number: int, version: Any) -> None:
    who = f"{options.name}: version {number}"
    if not _is_a(version, kind):
        raise DefinitionError(f"{who} is {version!r}, which is not a workflow: write class V{number}(Workflow[…], …)")
    if not version.is_valid:
        return
    called = version.__qualname__.rpartition("<locals>.")[2]
    if version.is_versioned:
        raise DefinitionError(f"{who} is {called}, which has versions itself: give it an initial step and transitions")
    if version.version != number:
        raise DefinitionError(f"{who} is {called}, which has version={version.version}: make the two equal")
    if not _lies_within(version, cls):
        raise DefinitionError(
            f"{who} is {called}, which must be nested under {options.name}: put its class into that of {options.name}, "
            f"begin its name with {cls.__name__}, or move it to a module below {cls.__module__}"
        )
    if version.pinned is not None:
        raise DefinitionError(f"{who} is {called}, which is already a version of {version.name}: write another class")
    own = version.declared_unique()
    if own not in (None, options.unique):
        raise DefinitionError(f"{who} has a business key of its own, {own!r}: leave it out, all versions share one")


def _is_a(given: Any, kind: type[Any]) -> bool:
    return isinstance(given, type) and issubclass(given, kind)


def _lies_within(version: type[Any], versioned: type[Any]) -> bool:
    if version.__module__ == versioned.__module__:
        return version.__qualname__.startswith(versioned.__qualname__)
    return version.__module__.startswith(f"{versioned.__module__}.")
