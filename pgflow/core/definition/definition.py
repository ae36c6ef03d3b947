"""The value that a workflow class or a task produces: its graph, options and input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pgflow.core.definition.graph import Graph
from pgflow.core.definition.input import Input
from pgflow.core.definition.options import Options, is_version
from pgflow.core.definition.unique import Unique
from pgflow.core.values.absent import Absent
from pgflow.core.values.payload import INPUT_LIMIT
from pgflow.core.values.secret import secrets_in_type
from pgflow.errors import InvalidValue

__all__ = ["Definition", "VersionSet"]


@dataclass(frozen=True, slots=True, eq=False)
class Definition:
    """One validated version of a workflow: all that the registry, the backends and the workers need of a class.

    OrderFlow.definition.graph.initial    # "validate_order"
    """

    graph: Graph
    options: Options
    input: Input

    @property
    def name(self) -> str:
        """The workflow's name."""
        return self.graph.name

    @property
    def version(self) -> int:
        """Its version, from 1."""
        return self.graph.version

    @property
    def secrets(self) -> tuple[str, ...]:
        """The paths at which its input and the outputs of its steps declare secrets."""
        outputs = [
            place
            for node in self.graph.nodes.values()
            for place in secrets_in_type(node.step.output, f"{node.key}.output")
        ]
        return (*self.input.secrets, *outputs)

    def write_input(self, value: Any | Absent, *, reveal: bool = False, limit: int = INPUT_LIMIT) -> str:
        """Return an input, validated, as JSON text: see `Input.write`."""
        return self.input.write(value, reveal=reveal, limit=limit)

    def read_input(self, text: str) -> Any:
        """Return a stored input in its declared type. Raises `InvalidInput`, `InvalidPayload`."""
        return self.input.read(text)


@dataclass(frozen=True, slots=True, eq=False)
class VersionSet:
    """The definitions of one workflow by version: those that a call on `OrderFlow` addresses.

    `current` is the version of a start that does not name one. The class of a single version addresses that
    version only, and `pinned` is its number. `choose` is the workflow's `version_for`, given the options of a start.
    """

    name: str
    unique: Unique
    versions: Mapping[int, Definition]
    current: int
    is_versioned: bool = False
    pinned: int | None = None
    choose: Callable[[Mapping[str, Any]], int | None] | None = None

    @property
    def graphs(self) -> tuple[Graph, ...]:
        """The graph of each version."""
        return tuple(each.graph for each in self.versions.values())

    @property
    def secrets(self) -> tuple[str, ...]:
        """The paths at which inputs and outputs declare secrets, in all versions: inputs first."""
        inputs = [place for each in self.versions.values() for place in each.input.secrets]
        return tuple(dict.fromkeys([*inputs, *(place for each in self.versions.values() for place in each.secrets)]))

    def resolve(self, version: int | None = None) -> Definition:
        """Return the definition of a version, the current one for None. Raises `InvalidValue` for an unknown one."""
        number = self.current if version is None else version
        if is_version(number) and number in self.versions:
            return self.versions[number]
        if self.is_versioned:
            raise InvalidValue(f"version {version!r} not found in {self.name}. Available: {sorted(self.versions)}")
        raise InvalidValue(
            f"{self.name} is not a versioned workflow; it only supports version {self.current}, not {version!r}"
        )

    def choose_for(self, options: Mapping[str, Any]) -> Definition:
        """Return the version for a start that does not name one: that of `version_for`, else the current one.

        Raises `InvalidValue`.
        """
        return self.resolve(self.choose(options) if self.choose is not None else None)
