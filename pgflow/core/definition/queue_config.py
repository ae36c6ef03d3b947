"""Settings of queues that an app declares in its code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pgflow.core.models.queue import MAX_WORKER_CONCURRENCY, Rate, check_limit_name, check_places
from pgflow.core.values.query_args import refuse
from pgflow.errors import DefinitionError, InvalidValue

__all__ = ["QueueConfig", "check_queues", "check_weight"]


@dataclass(frozen=True, slots=True)
class QueueConfig:
    """Limits and settings of a queue, declared in code: `Pgflow(..., queues=[QueueConfig("mail", concurrency=10)])`.

    They are stored when the app registers, and hold for all workers. What is set at run time, with `app.limits.set`
    and `app.queues.scale`, takes precedence until it is cleared.

    - `concurrency`: how many jobs of the queue run at once on all workers; `key_concurrency`: of each partition key.
    - `rate`: how many start in a period; `key_rate`: of each partition key.
    - `worker_concurrency`: how many run at once on each worker, 1 to 10,000, in place of what it was started with.

    None, the default: no such limit. Raises `DefinitionError` that names the field.

        QueueConfig("mail", concurrency=10, rate=Rate(100, per=timedelta(minutes=1)), worker_concurrency=5)
    """

    name: str
    concurrency: int | None = None
    key_concurrency: int | None = None
    rate: Rate | None = None
    key_rate: Rate | None = None
    worker_concurrency: int | None = None

    def __post_init__(self) -> None:
        try:
            check_limit_name(self.name)
            check_places("concurrency", self.concurrency)
            check_places("key_concurrency", self.key_concurrency)
            check_places("worker_concurrency", self.worker_concurrency, most=MAX_WORKER_CONCURRENCY)
            for field in ("rate", "key_rate"):
                given = getattr(self, field)
                if given is not None and not isinstance(given, Rate):
                    refuse(field, given, "it must be a Rate", "Rate(100, per=timedelta(minutes=1), burst=20)")
        except InvalidValue as error:
            raise DefinitionError(f"QueueConfig({self.name!r}): {error}", hint=error.hint) from None

    def spec(self) -> Mapping[str, Any]:
        """Return the settings as JSON, without those that are not given; rates are starts per second."""
        settings: dict[str, Any] = {
            "concurrency": self.concurrency,
            "key_concurrency": self.key_concurrency,
            "rate": self.rate and self.rate.per_second,
            "burst": self.rate and self.rate.burst,
            "key_rate": self.key_rate and self.key_rate.per_second,
            "key_burst": self.key_rate and self.key_rate.burst,
            "worker_concurrency": self.worker_concurrency,
        }
        return {name: value for name, value in settings.items() if value is not None}


def check_queues(given: Iterable[Any]) -> Mapping[str, QueueConfig]:
    """Return the declared queues of an app by name. Raises `DefinitionError` for others, and for one declared twice."""
    found: dict[str, QueueConfig] = {}
    for each in given:
        if not isinstance(each, QueueConfig):
            hint = 'Pass QueueConfig objects: queues=[QueueConfig("mail", concurrency=10)].'
            raise DefinitionError(f"{each!r} is not a queue's configuration", hint=hint)
        if each.name in found:
            raise DefinitionError(f"the queue {each.name} is declared twice", hint="Write its settings in one place.")
        found[each.name] = each
    return found


def check_weight(who: str, weight: int, used: Iterable[str], declared: Mapping[str, QueueConfig]) -> None:
    """Raise `DefinitionError` if a queue that a task or a workflow uses has a concurrency below its weight."""
    for queue in sorted(used):
        most = declared[queue].concurrency if queue in declared else None
        if most is not None and weight > most:
            raise DefinitionError(
                f"{who}: its weight must be between 1 and {most}, the concurrency of the queue {queue}, got {weight}",
                hint="Give the queue a higher concurrency, or the task a lower weight or another queue.",
            )
