"""Check what a caller asks for before anything is stored or sent."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from pgflow.core.graph import Graph, Node
from pgflow.core.instance import Started
from pgflow.core.names import event_name
from pgflow.core.step import Target, as_step
from pgflow.errors import AlreadyRunning, ConfigError, UndeclaredEvent

__all__ = ["check_moment", "sole", "takers"]


def check_moment(at: datetime | None, delay: timedelta | None) -> None:
    """Refuse a start at a time and after a delay at once, and a time without a zone. Raises `ConfigError`."""
    if at is not None and delay is not None:
        raise ConfigError("an instance starts at a time or after a delay, not both", hint="Pass either at= or delay=.")
    if at is not None and at.tzinfo is None:
        hint = "Use an aware datetime, such as datetime.now(timezone.utc)."
        raise ConfigError(f"at={at.isoformat()} has no time zone", hint=hint)


def takers(graph: Graph, event: Any, step: str | Target | None) -> tuple[str, str | None, tuple[Node, ...]]:
    """Return a signal's name, the key of the step that it is addressed to, and the steps that may take it.

    Raises `UndeclaredEvent` when there are none, `UnknownStep`.

        name, key, nodes = takers(OrderFlow.graph, "payment_confirmed", None)
    """
    name = event_name(event)
    key = None if step is None else graph.node(step if isinstance(step, str) else as_step(step).key).key
    nodes = tuple(node for node in graph.nodes.values() if name in node.step.signals() and key in (None, node.key))
    if not nodes:
        taken = sorted(f"{each} ({node.key})" for node in graph.nodes.values() for each in node.step.signals())
        where = f"step {key!r} of {graph.name}" if key else graph.name
        raise UndeclaredEvent(f"{where} takes no signal {name!r}", hint=f"{graph.name} takes: {', '.join(taken)}.")
    return name, key, nodes


def sole(workflow: str, started: Iterable[Started]) -> Started:
    """Return the one instance that was started. Raises `AlreadyRunning` when its key was active already."""
    (one,) = started
    if not one.created:
        hint = "Wait until it has ended, cancel it, or use another value."
        raise AlreadyRunning(f"{workflow} {one.id!r} is already running", hint=hint)
    return one
