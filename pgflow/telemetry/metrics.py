"""The recommended metrics, as data for any metrics library, and a small in-memory collector."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

from pgflow.errors import ConfigError
from pgflow.process import Lock
from pgflow.telemetry import names
from pgflow.telemetry.bus import Event, attach, detach
from pgflow.telemetry.names import Name

__all__ = ["BOUNDS", "Collector", "Distribution", "Metric", "metrics"]

Kind: TypeAlias = Literal["counter", "distribution", "last_value"]
Tags: TypeAlias = tuple[Any, ...]

BOUNDS = (1.0, 5.0, 10.0, 50.0, 100.0, 500.0, 1_000.0, 5_000.0, 10_000.0, 60_000.0, 600_000.0, 3_600_000.0)  # in ms


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric of `event`, with one value for each combination of the `tags` in its metadata.

    `kind` is "counter" (of events, without a `measurement`), "distribution" or "last_value". `unit` is "ms" for a
    measurement in seconds that has to be multiplied by 1000, else "1".
    """

    name: str
    kind: Kind
    event: Name
    measurement: str | None
    unit: str
    tags: tuple[str, ...]


def _counter(event: Name, *tags: str) -> Metric:
    return Metric(f"{names.dotted(event)}.count", "counter", event, None, "1", tags)


def _distribution(event: Name, measurement: str, *tags: str) -> Metric:
    return Metric(f"{names.dotted(event)}.{measurement}", "distribution", event, measurement, "ms", tags)


METRICS: Mapping[str, tuple[Metric, ...]] = {
    "workflow": (
        _counter(names.WORKFLOW_START, "workflow"),
        _counter(names.WORKFLOW_STOP, "workflow"),
        _counter(names.WORKFLOW_EXCEPTION, "workflow", "failed_step"),
        _distribution(names.WORKFLOW_STOP, "duration", "workflow"),
    ),
    "step": (
        _distribution(names.STEP_STOP, "duration", "workflow", "step"),
        _counter(names.STEP_EXCEPTION, "workflow", "step", "kind"),
        _counter(names.STEP_ASYNC, "workflow", "step"),
        _distribution(names.STEP_RESUME, "wait_duration", "workflow", "step", "source"),
    ),
    "task": (
        _counter(names.TASK_ENQUEUE, "task"),
        _counter(names.TASK_STOP, "task"),
        _counter(names.TASK_EXCEPTION, "task", "kind"),
        _distribution(names.TASK_STOP, "duration", "task"),
        _distribution(names.TASK_STOP, "age", "task"),
    ),
    "engine": (
        Metric(
            f"{names.dotted(names.ENGINE_ADVANCE)}.active_steps_count",
            "last_value",
            names.ENGINE_ADVANCE,
            "active_steps_count",
            "1",
            ("workflow",),
        ),
    ),
}


def metrics(scope: str | None = None) -> tuple[Metric, ...]:
    """Return the metrics of a scope ("workflow", "step", "task" or "engine"), or all.

    Raises `ConfigError` for another scope.

    metrics("engine")[0].name    # "pgflow.engine.advance.active_steps_count"
    """
    if scope is None:
        return tuple(metric for scoped in METRICS.values() for metric in scoped)
    if scope not in METRICS:
        raise ConfigError(f"there is no metrics scope {scope!r}", hint=f"Use one of: {', '.join(METRICS)}.")
    return METRICS[scope]


@dataclass(slots=True)
class Distribution:
    """A distribution of values: their number, sum, minimum and maximum, and a histogram.

    `buckets[i]` counts the values up to `BOUNDS[i]` that are in no lower bucket; the last bucket counts those above all
    bounds.
    """

    count: int = 0
    total: float = 0.0
    min: float = float("inf")
    max: float = float("-inf")
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))

    def add(self, value: float) -> None:
        """Add a value."""
        self.count += 1
        self.total += value
        self.min, self.max = min(self.min, value), max(self.max, value)
        self.buckets[bisect_left(BOUNDS, value)] += 1

    def copy(self) -> Distribution:
        """Return a snapshot."""
        return Distribution(self.count, self.total, self.min, self.max, [*self.buckets])


class Collector:
    """Collects metrics in memory, for a status page or a test. Attach it with `with`, or with `attach` and `detach`.

    with Collector() as collector:
        app.run_worker(drain=True)
    collector.read()["pgflow.workflow.stop.count"]    # {("OrderFlow",): 3}
    """

    def __init__(self, scope: str | None = None, *, handler_id: str = "pgflow-metrics") -> None:
        self._handler_id = handler_id
        self._values: dict[str, dict[Tags, Any]] = {}
        self._by_event: dict[Name, list[Metric]] = {}
        self._lock = Lock()
        for metric in metrics(scope):
            self._values[metric.name] = {}
            self._by_event.setdefault(metric.event, []).append(metric)

    def __enter__(self) -> Self:
        self.attach()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()

    def attach(self) -> None:
        """Start collecting. Raises `AlreadyAttached`."""
        attach(self._handler_id, self._by_event, self._collect)

    def detach(self) -> None:
        """Stop collecting; the collected values stay. Raises `NotAttached`."""
        detach(self._handler_id)

    def read(self) -> dict[str, dict[Tags, Any]]:
        """Return the values by metric name and tag values: a number, or a `Distribution` in the metric's unit."""
        with self._lock:
            return {
                name: {tags: value.copy() if isinstance(value, Distribution) else value for tags, value in kept.items()}
                for name, kept in self._values.items()
            }

    def _collect(self, event: Event, config: object) -> None:
        with self._lock:
            for metric in self._by_event[event.name]:
                kept = self._values[metric.name]
                tags = tuple(event.metadata.get(tag) for tag in metric.tags)
                value = 1 if metric.measurement is None else event.measurements.get(metric.measurement)
                if value is None:  # an unknown duration
                    continue
                match metric.kind:
                    case "counter":
                        kept[tags] = kept.get(tags, 0) + 1
                    case "last_value":
                        kept[tags] = value
                    case "distribution":
                        kept.setdefault(tags, Distribution()).add(value * 1000 if metric.unit == "ms" else value)
