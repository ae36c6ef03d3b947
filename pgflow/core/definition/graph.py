"""A workflow as plain data: steps by key, and the targets of each event of each step."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from pgflow.core.definition.context import Context
from pgflow.core.definition.retain import Retain
from pgflow.core.definition.retry import DEFAULT, Retry, most_specific
from pgflow.core.definition.route import Chooser, choose
from pgflow.core.definition.step import Step, Target
from pgflow.core.definition.unique import Unique
from pgflow.errors import DefinitionError, UndeclaredEvent, UnknownStep

__all__ = ["DONE", "Choice", "Edge", "Graph", "Node"]

DONE = "done"  # the key of the step that ends every workflow


@dataclass(frozen=True, slots=True)
class Choice:
    """The target of an event: all of `targets`, or those among them that `chooser` chooses."""

    targets: tuple[str, ...]
    chooser: Chooser | None = None


@dataclass(frozen=True, slots=True)
class Edge:
    """One transition, for pictures and comparisons; `dynamic` if a route chooses among the targets."""

    source: str
    event: str
    targets: tuple[str, ...]
    dynamic: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """A step in a graph. `config`, `queue` and `retry` are the effective ones, with the workflow's as defaults.

    `sole_successor` is the next step if it is the only successor and this is its only predecessor: such a transition
    needs no join logic.
    """

    key: str
    step: Step
    choices: Mapping[str, Choice]
    predecessors: tuple[str, ...]
    successors: tuple[str, ...]
    config: dict[str, Any] | None = None
    queue: str = "default"
    retry: Retry = DEFAULT
    sole_successor: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """The graph of one version of a workflow. Immutable; compare two by `digest()`.

    `nodes` are in topological order: each step comes after its predecessors.
    """

    name: str
    version: int
    initial: str
    nodes: Mapping[str, Node]
    unique: Unique | None = None
    priority: int = 0
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] | None = None
    orchestration_queue: str | None = None
    retain: Retain | None = None  # how long ended instances are kept, where it differs from the app's
    _by_signal: dict[str, tuple[Node, ...]] = field(default_factory=dict, init=False, repr=False)
    has_optional_input: bool = False  # an input that is left out is None instead of {}
    partition_by: tuple[str, ...] = ()  # the path of the partition key in the input
    weight: int = 1
    deadline: timedelta | None = None
    hooks: Mapping[str, str] = field(default_factory=dict)  # names of tasks, by "success", "failure" and "cancel"
    links: dict[tuple[str, str], Any] = field(default_factory=dict, init=False, repr=False)  # cache of engine.stretch

    @classmethod
    def build(
        cls,
        name: str,
        initial: str,
        steps: Iterable[Step],
        choices: Mapping[str, Mapping[str, Choice]],
        *,
        version: int = 1,
        unique: Unique | None = None,
        priority: int = 0,
        tags: tuple[str, ...] = (),
        metadata: Mapping[str, Any] | None = None,
        retry: Retry | None = None,
        queue: str = "default",
        orchestration_queue: str | None = None,
        deadline: timedelta | None = None,
        retain: Retain | None = None,
        hooks: Mapping[str, str] | None = None,
        has_optional_input: bool = False,
        partition_by: tuple[str, ...] = (),
        weight: int = 1,
    ) -> Graph:
        """Build a graph from steps and their choices by step key and event; `retry` and `queue` are defaults for steps.

        Raises `DefinitionError` for a cycle; a `Workflow` class checks everything else.

            Graph.build("Tiny", "greet", [greet, Done()], {"greet": {"done": Choice(("done",))}})
        """
        by_key = {step.key: step for step in steps}
        successors = {
            key: tuple(dict.fromkeys(target for choice in choices.get(key, {}).values() for target in choice.targets))
            for key in by_key
        }
        predecessors: dict[str, list[str]] = {key: [] for key in by_key}
        for source, targets in successors.items():
            for target in targets:
                predecessors[target].append(source)
        nodes = {}
        for key in _topological(name, successors, predecessors):
            step, after = by_key[key], successors[key]
            nodes[key] = Node(
                key=key,
                step=step,
                choices=dict(choices.get(key, {})),
                predecessors=tuple(predecessors[key]),
                successors=after,
                config=step.config(),
                queue=step.queue or queue,
                retry=most_specific(step.retry, retry),
                sole_successor=after[0] if len(after) == 1 and len(predecessors[after[0]]) == 1 else None,
            )
        return cls(
            name,
            version,
            initial,
            nodes,
            unique,
            priority,
            tags,
            metadata,
            orchestration_queue,
            has_optional_input=has_optional_input,
            partition_by=partition_by,
            weight=weight,
            deadline=deadline,
            retain=retain,
            hooks=hooks or {},
        )

    def node(self, step: str) -> Node:
        """Return the node of a step. Raises `UnknownStep`."""
        try:
            return self.nodes[step]
        except KeyError:
            hint = f"It has: {', '.join(self.nodes)}."
            raise UnknownStep(f"{self.name} has no step {step!r}", hint=hint) from None

    def consumers(self, signal: str) -> tuple[Node, ...]:
        """Return the steps that may consume a signal, in topological order. The index of all signals is cached."""
        if not self._by_signal:
            found: dict[str, list[Node]] = {}
            for node in self.nodes.values():
                for name in node.step.signals():
                    found.setdefault(name, []).append(node)
            self._by_signal.update({name: tuple(nodes) for name, nodes in found.items()})
        return self._by_signal.get(signal, ())

    def orchestration_queue_of(self, step: str) -> str:
        """Return the queue of a step's advance and resume jobs: the orchestration queue, else the step's own.

        The step's execute jobs always run in its own queue. Raises `UnknownStep`.
        """
        return self.orchestration_queue or self.node(step).queue

    def queues(self) -> frozenset[str]:
        """Return all queues that workers have to serve for this graph."""
        return frozenset(
            queue
            for key, node in self.nodes.items()
            if key != DONE
            for queue in (node.queue, self.orchestration_queue_of(key))
        )

    def choice(self, step: str, event: str) -> Choice:
        """Return the choice for an event of a step. Raises `UndeclaredEvent`, `UnknownStep`."""
        node = self.node(step)
        choice = node.choices.get(event)
        if choice is None:
            declared = ", ".join(map(repr, node.choices)) or "none"
            raise UndeclaredEvent(f"{self.name}: step {step!r} has no event {event!r}; it declares {declared}")
        return choice

    def targets(self, step: str, event: str) -> tuple[str, ...]:
        """Return the declared targets of an event. Raises `UndeclaredEvent`, `UnknownStep`."""
        return self.choice(step, event).targets

    def is_dynamic(self, step: str, event: str) -> bool:
        """Whether a route chooses among the targets. Raises `UndeclaredEvent`, `UnknownStep`."""
        return self.choice(step, event).chooser is not None

    def is_route_pending(self, step: str, event: str, targets: tuple[str, ...] | None) -> bool:
        """Whether a recorded result still has no targets because its route failed when the step completed."""
        node = self.nodes.get(step)
        choice = None if node is None else node.choices.get(event)
        return choice is not None and choice.chooser is not None and targets is None

    def select(self, step: str, event: str, ctx: Context[Any]) -> tuple[str, ...]:
        """Return the targets to take: a route's choice among the declared ones, or all of them.

        Raises `RouteError` if the route raises or chooses an undeclared target, `UndeclaredEvent`, `UnknownStep`.
        """
        choice = self.choice(step, event)
        if choice.chooser is None:
            return choice.targets
        declared = {target: self.nodes[target].step for target in choice.targets}
        return choose(choice.chooser, declared, ctx, f"{self.name}: {step}.{event}")

    def edges(self) -> tuple[Edge, ...]:
        """Return every transition, in topological order."""
        return tuple(
            Edge(node.key, event, choice.targets, choice.chooser is not None)
            for node in self.nodes.values()
            for event, choice in node.choices.items()
        )

    def predecessors(self, step: str | Target) -> frozenset[str]:
        """Return the keys of the steps with an event that leads to this step; empty for a step not in the graph."""
        node = self.nodes.get(step if isinstance(step, str) else step.key)
        return frozenset(node.predecessors) if node else frozenset()

    def spec(self) -> dict[str, Any]:
        """Return the graph as JSON values. The database stores this form, and the SQL function `start` uses it."""
        unique = {"key": self.unique.key, "scope": self.unique.scope} if self.unique else None
        return {
            "workflow": self.name,
            "version": self.version,
            "initial": self.initial,
            "priority": self.priority,
            "orchestration_queue": self.orchestration_queue,
            "unique": unique,
            "tags": list(self.tags),
            "metadata": dict(self.metadata or {}),
            # Only if they differ from the default, so that the specs stored by earlier releases do not change.
            **({"absent_input": None} if self.has_optional_input else {}),
            **({"partition_by": list(self.partition_by)} if self.partition_by else {}),
            **({"weight": self.weight} if self.weight > 1 else {}),
            **({"deadline": self.deadline.total_seconds()} if self.deadline is not None else {}),
            **({"retain": self.retain.spec()} if self.retain else {}),
            **({"hooks": dict(self.hooks)} if self.hooks else {}),
            "steps": {key: _node_spec(node) for key, node in self.nodes.items()},
            "edges": [
                {"from": edge.source, "event": edge.event, "targets": list(edge.targets), "dynamic": edge.dynamic}
                for edge in self.edges()
            ],
        }

    def digest(self) -> str:
        """Return a hash of the parts that running instances depend on: initial step, events and transitions.

        Configuration, retry policies, queues, tags and the order of declaration do not affect it.
        """
        events = {key: sorted(node.step.emits()) for key, node in self.nodes.items()}
        edges = sorted([edge.source, edge.event, sorted(edge.targets), edge.dynamic] for edge in self.edges())
        text = json.dumps([self.initial, events, edges], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def _node_spec(node: Node) -> dict[str, Any]:
    return {
        "name": type(node.step).__name__,
        "events": list(node.step.emits()),
        "signals": list(node.step.signals()),
        "config": node.config,
        "queue": node.queue,
        "max_attempts": node.retry.max_attempts,
    }


def _topological(
    name: str, successors: Mapping[str, tuple[str, ...]], predecessors: Mapping[str, list[str]]
) -> list[str]:
    """Return the keys in topological order (Kahn's algorithm). Raises `DefinitionError` for a cycle."""
    open_edges = {key: len(sources) for key, sources in predecessors.items()}
    order = [key for key, count in open_edges.items() if not count]
    for key in order:  # grows during the iteration
        for target in successors[key]:
            open_edges[target] -= 1
            if not open_edges[target]:
                order.append(target)
    if len(order) < len(successors):
        cyclic = ", ".join(key for key in successors if key not in order)
        raise DefinitionError(f"{name}: cycle among the steps {cyclic}")
    return order
