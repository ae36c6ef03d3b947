"""Store an app's definitions, and refuse one whose graph has changed under its version."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pgflow.core.definition.hooks import hook_spec
from pgflow.core.definition.registry import Registry
from pgflow.core.definition.task import TaskDefinition
from pgflow.database.statement import Statement
from pgflow.errors import GraphChanged
from pgflow.store import definition, task
from pgflow.store.definition import StoredDefinition
from pgflow.store.task import StoredTask

__all__ = ["check", "registering", "registering_tasks"]


def registering(schema: str, registry: Registry) -> Statement[list[StoredDefinition]]:
    """Store the graph of each version of each workflow that is not stored yet; returns all as stored."""
    definitions = [
        StoredDefinition(
            graph.name, graph.version, graph.digest(), graph.spec(), graph.version == workflow.current_version
        )
        for workflow in registry.workflows
        for graph in workflow.definitions.graphs
    ]
    return definition.register(schema, definitions)


def registering_tasks(schema: str, registry: Registry) -> Statement[int]:
    """Store what SQL needs to know of each task; the options of an app that registers later replace the stored ones."""
    return task.register(schema, [StoredTask(each.name, task_options(each.definition)) for each in registry.tasks])


def task_options(definition: TaskDefinition) -> dict[str, Any]:
    """Return the options of a task as JSON, those that it has."""
    options = {
        "queue": definition.queue,
        "priority": definition.priority,
        "max_attempts": definition.retry.max_attempts,
        "tags": list(definition.tags),
        "metadata": dict(definition.metadata),
        "retain": None if definition.retain is None else dict(definition.retain.spec()),
        "hooks": hook_spec(definition.hooks),
        "expires_in": None if definition.expires_in is None else definition.expires_in.total_seconds(),
        "unique": None if definition.unique is None else definition.unique.spec(),
        "partition_by": list(definition.partition_by),
        "weight": definition.weight if definition.weight > 1 else None,
    }
    return {key: value for key, value in options.items() if value not in (None, [], {})}


def check(registry: Registry, stored: Iterable[StoredDefinition]) -> None:
    """Raise `GraphChanged`, with the difference, when a version is stored with another graph, unique key or scope.

    A stored definition without a unique key is from an earlier release; its key is not compared.
    """
    for known in stored:
        workflow = registry.definitions(known.workflow)
        graph = workflow.resolve(known.version).graph
        where = f"{known.workflow} version {known.version}"
        spec = graph.spec()
        if known.hash != graph.digest():
            raise GraphChanged(
                f"{where} has another graph in the database: {_difference(known.graph, spec)}",
                hint=f"It may have active instances: give the changed workflow version={max(workflow.versions) + 1}.",
            )
        unique = known.graph.get("unique")
        if unique and unique != spec["unique"]:
            change = "another name" if workflow.is_versioned else f"version={max(workflow.versions) + 1}"
            raise GraphChanged(
                f"{where} has another unique key or scope in the database: "
                f"{_unique(unique)}, not {_unique(spec['unique'])}",
                hint="Two instances with one value could be active at once. Restore what is stored, or give the "
                f"changed workflow {change}.",
            )


def _unique(unique: Mapping[str, Any] | None) -> str:
    """Return a unique key and scope as in a class statement."""
    return "none" if unique is None else f"Unique({unique['key']!r}, scope={unique['scope']!r})"


def _difference(stored: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    """Return the edges that differ, those of the stored graph first."""
    before, after = _edges(stored), _edges(own)
    gone = [f"-{edge}" for edge in sorted(before - after)]
    new = [f"+{edge}" for edge in sorted(after - before)]
    return ", ".join([*gone, *new]) or "its steps declare other events"


def _edges(graph: Mapping[str, Any]) -> set[str]:
    return {f"{edge['from']}.{edge['event']} → {target}" for edge in graph["edges"] for target in edge["targets"]}
