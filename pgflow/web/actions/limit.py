"""Set and clear limits of queues and of partition keys."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from pydantic import Field

from pgflow.client.limits import LimitOptions
from pgflow.core.models.queue import Rate
from pgflow.errors import InvalidValue
from pgflow.store import limit, queue
from pgflow.web.rendering.forms import Field as FormField
from pgflow.web.rendering.forms import filled
from pgflow.web.routing.action import Act, Action, Done, Form, Input, NoInput
from pgflow.web.routing.page import Params, View

__all__ = ["ACTIONS"]

MOST = 1_000_000


class ForLimit(Params):
    """The queue, and the partition key, that the form is for."""

    queue: str | None = Field(None, max_length=63, description="A queue, for its present limits")
    key: str | None = Field(None, max_length=1000, description="A partition key of it")


class OfLimit(Params):
    """A limit that is set."""

    queue: str = Field(max_length=63, description="The queue")
    key: str | None = Field(None, max_length=1000, description="A partition key; left out: the queue and all its keys")


class SetLimit(Input):
    """Limits over all workers; one that is left out stays as it is."""

    queue: str = Field(min_length=1, max_length=63, description="The queue")
    key: str | None = Field(None, max_length=1000, description="Only for this partition key")
    concurrency: int | None = Field(None, ge=1, le=MOST, description="Jobs at once")
    key_concurrency: int | None = Field(None, ge=1, le=MOST, description="Jobs at once for each partition key")
    rate: int | None = Field(None, ge=1, le=MOST, description="Starts per `per` seconds")
    per: float = Field(1, gt=0, le=31_536_000, description="Seconds")
    burst: int = Field(1, ge=1, le=MOST, description="Starts at once after a pause")
    key_rate: int | None = Field(None, ge=1, le=MOST, description="Starts per `per` seconds for each partition key")
    weight: int | None = Field(None, ge=1, le=MOST, description="Jobs of the key per turn of the keys")


async def ask_set(view: View[ForLimit]) -> Form:
    """Ask for the limits of a queue, filled with those that are set."""
    params = view.params
    names = [each.name for each in await view.read(queue.list(view.schema))]
    now: dict[str, Any] = {}
    if params.queue is not None:
        found = await view.read(limit.list(view.schema, params.queue))
        for each in found:
            if each.key == params.key:
                now = {"concurrency": each.limits.concurrency, "key_concurrency": each.limits.key_concurrency}
                now["weight"] = each.weight
    choices = [(name, name) for name in dict.fromkeys([*([params.queue] if params.queue else []), *names])]
    fields = [FormField("queue", "Queue", "choice", value=params.queue or "", choices=choices)]
    if params.key is None:
        fields += [
            _whole("concurrency", "Jobs at once", "all workers together"),
            _whole("key_concurrency", "Jobs at once, each key", "optional"),
            _whole("rate", "Rate", "starts, optional"),
            FormField("per", "In", "number", "seconds", value="1"),
            _whole("burst", "Burst", "starts at once", value="1"),
            _whole("key_rate", "Rate, each key", "starts, optional"),
            FormField("key", "Partition key", about="optional: only for this one"),
        ]
    else:
        fields += [
            FormField("key", "Partition key", "hidden", value=params.key),
            _whole("concurrency", f"Jobs at once of {params.key}", "optional"),
            _whole("weight", "Weight", "jobs per turn of the keys, optional"),
        ]
    shown = {name: value for name, value in now.items() if value is not None}
    title = "Set limits" if params.queue is None else f"Limits of {params.queue}"
    return Form(
        title,
        "Save limits",
        fields=[filled(each, shown) for each in fields],
        icon="sliders",
        note="An empty field stays as it is. Applied within a second.",
    )


def _whole(name: str, label: str, about: str, value: str = "") -> FormField:
    """Return a field for a whole number from 1."""
    return FormField(name, label, "integer", about, value=value, minimum="1", step="1")


async def set_limit(act: Act[ForLimit, SetLimit]) -> Done:
    """Set limits."""
    given = act.input
    if given.key is not None and (given.key_concurrency or given.rate or given.key_rate):
        raise InvalidValue(
            "a partition key has jobs at once and a weight of its own, and nothing else",
            hint="Leave the key out for limits of the queue.",
        )
    options: LimitOptions = {
        "concurrency": given.concurrency,
        "key_concurrency": given.key_concurrency,
        "rate": _rate(given.rate, given),
        "key_rate": _rate(given.key_rate, given),
        "key": given.key,
        "weight": given.weight,
    }
    async with act.transaction() as conn:
        await act.app.limits.aset(given.queue, conn=conn, **options)
    of = given.queue if given.key is None else f"{given.key} in {given.queue}"
    return Done(message=f"The limits of {of} are set.")


def _rate(count: int | None, given: SetLimit) -> Rate | None:
    return None if count is None else Rate(count, timedelta(seconds=given.per), given.burst)


async def ask_clear(view: View[OfLimit]) -> Form:
    """Ask before removing limits."""
    params = view.params
    if params.key is None:
        of, text = params.queue, "Only the workers will limit its jobs. Those of its keys go, too."
    else:
        of, text = f"{params.key} in {params.queue}", "The limits of the queue hold for this key, too."
    return Form(f"Clear the limits of {of}?", "Clear limits", [text], [], icon="trash", danger=True)


async def clear(act: Act[OfLimit, NoInput]) -> Done:
    """Remove limits."""
    async with act.transaction() as conn:
        had = await act.app.limits.aclear(act.params.queue, key=act.params.key, conn=conn)
    return Done(message="The limits are cleared." if had else "There were none.", details={"cleared": had})


ACTIONS: tuple[Action[Any, Any], ...] = (
    Action(
        *("limit.set", "/limits/set", "limits", "Set limits of a queue or of a partition key"),
        *(set_limit, ask_set, ForLimit, SetLimit),
    ),
    Action(
        *("limit.clear", "/limits/clear", "limits", "Remove limits of a queue or of a partition key"),
        *(clear, ask_clear, OfLimit, NoInput),
    ),
)
