"""The public names with their signatures, as text: `python -m tests.unit.surface` rewrites surface.txt."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any, get_origin

from pgflow.errors import PgflowError

SNAPSHOT = Path(__file__).with_suffix(".txt")
MODULES = (
    *("pgflow", "pgflow.local", "pgflow.errors", "pgflow.telemetry", "pgflow.embedded", "pgflow.steps"),
    "pgflow.testing",
)
OPTIONS = {
    "pgflow.client.commands": (
        "StartOptions",
        "SignalOptions",
        "ScheduleOptions",
        "UnscheduleOptions",
        "CancelOptions",
        "CompleteStepOptions",
        "FailStepOptions",
        "RetryOptions",
        "RetryStepOptions",
    ),
    "pgflow.core.models.filters": ("ListOptions", "QueryOptions"),
    "pgflow.core.models.job": ("JobOptions",),
}  # the TypedDicts behind `**options`
ADDRESS = re.compile(r" at 0x[0-9a-f]+")
QUOTED = re.compile(r"(: |-> )'([^']*)'")  # annotations are strings


def surface() -> str:
    """Return one line for each public name, and below each class its members."""
    lines = []
    for module in MODULES:
        public = import_module(module)
        lines += [f"{module}", *(f"  {line}" for name in sorted(public.__all__) for line in _of(public, name)), ""]
    for module, names in OPTIONS.items():
        lines += [f"{module}", *(f"  {line}" for name in names for line in _of(import_module(module), name)), ""]
    return "\n".join(lines).replace("pathlib._local.", "pathlib.")  # Path's module in Python 3.13


def _of(module: Any, name: str) -> Iterator[str]:
    value = getattr(module, name)
    if not isinstance(value, type):
        if get_origin(value) is not None:  # its text depends on the version of Python
            yield f"{name}: type alias"
        else:
            yield f"{name}{_signature(value)}" if callable(value) else f"{name}: {type(value).__name__}"
        return
    bases = ", ".join(each.__name__ for each in value.__bases__ if each is not object)
    code = f" {value.code!r}, exit code {value.exit_code}" if issubclass(value, PgflowError) else ""
    yield f"class {name}({bases}){code}"
    for special in ("__init__", "__init_subclass__"):
        if _own(value, special) and isinstance(found := getattr(value, special), FunctionType | MethodType):
            yield f"    {special}{_signature(found)}"
    for each in sorted(_members(value)):
        yield f"    {each}"


def _members(kind: type) -> set[str]:
    found = set()
    for owner in kind.__mro__:
        for name, annotation in vars(owner).get("__annotations__", {}).items():
            if not name.startswith("_") and _own(kind, name, owner):
                found.add(f"{name}: {annotation}")
    for name in dir(kind):
        member = inspect.getattr_static(kind, name)
        if name.startswith(("_", "model_")) or not _own(kind, name):
            continue
        if isinstance(member, property):
            found.add(f"{name} -> {getattr(member.fget, '__annotations__', {}).get('return')}")
        elif isinstance(member, FunctionType | classmethod | staticmethod):
            prefix = "async " if inspect.iscoroutinefunction(getattr(kind, name)) else ""
            found.add(f"{prefix}{name}{_signature(getattr(kind, name))}")
    return found


def _own(kind: type, name: str, owner: type | None = None) -> bool:
    """Whether a member comes from the class or from a parent of ours that is not listed by itself."""
    source = owner or next((each for each in kind.__mro__ if name in vars(each)), object)
    if source is kind:
        return True
    is_listed = any(getattr(import_module(module), source.__name__, None) is source for module in MODULES)
    return source.__module__.startswith("pgflow.") and not is_listed


def _signature(value: Any) -> str:
    try:
        return ADDRESS.sub("", QUOTED.sub(r"\1\2", str(inspect.signature(value))))
    except (TypeError, ValueError):
        return "(…)"


if __name__ == "__main__":
    SNAPSHOT.write_text(surface())
