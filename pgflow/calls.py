"""Turn what an application asks of a workflow into a statement, and say whom to wake once it has committed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Generic, TypeVar

from pgflow.core.definition.step import Target
from pgflow.core.definition.unique import build_id
from pgflow.core.definition.workflow import Workflow
from pgflow.core.models.filters import Filters
from pgflow.core.models.instance import Instance, Scheduled, Started, Unscheduler
from pgflow.core.models.instance_codec import decrypt_instance
from pgflow.core.signal_request import about, addressed, checked_key, consumers, later, payload_text
from pgflow.core.start_request import Starting
from pgflow.core.values.codec import Codec, Location, sealed
from pgflow.core.values.names import SEPARATOR, TELEMETRY
from pgflow.core.values.query_args import check_text
from pgflow.database.statement import Statement
from pgflow.errors import InvalidValue
from pgflow.store import instance, signal
from pgflow.telemetry import emit
from pgflow.telemetry.emit import InstanceRef

__all__ = [
    "Call",
    "cancelling",
    "getting",
    "history",
    "listing",
    "opening",
    "resuming",
    "retrying",
    "scheduling",
    "sealed_input",
    "starting",
    "unscheduling",
]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """A statement that changes something, and the queues to wake once it has committed.

    `key` is its idempotency key, None when the caller gave none. `about` says what is called, with which names: a key
    that was used for something else is refused by it. `recall` makes the result out of the answer that the database
    has noted of an earlier call with the same key.

    `statement(notify)` builds it: with True it notifies itself, inside the transaction, which is right only where the
    transaction is the caller's. A NOTIFY takes a lock on the whole database at commit, so ours comes after it.
    `tell(result, in_transaction)` tells telemetry afterwards; in the caller's transaction it may yet be rolled back.
    """

    about: str
    statement: Callable[[bool], Statement[T]]
    recall: Callable[[Any], T]
    key: str | None = None
    queues: frozenset[str] = frozenset()
    tell: Callable[[T, bool], None] = field(default=lambda result, in_transaction: None)


def starting(
    schema: str,
    workflow: type[Workflow[Any]],
    items: Iterable[tuple[str, Any] | tuple[str]],
    options: Mapping[str, Any],
    codec: Codec | None = None,
) -> Call[list[Started]]:
    """Start an instance for each (value, input). Raises before anything is sent when one of them cannot be."""
    asked = Starting.of(workflow, items, options, reveal=codec is not None)
    inputs = [sealed_input(codec, workflow, begin.value, begin.text) for begin in asked.begins]
    kinds = {begin.version for begin in asked.begins} or {workflow.resolve_version(options.get("version"))[1]}
    if len(kinds) > 1:
        several = ", ".join(map(str, sorted(kind.current_version for kind in kinds)))
        raise InvalidValue(
            f"{workflow.name}: version_for chooses several versions for one call: {several}",
            hint="Start those of each version by themselves, with version=.",
        )
    (kind,) = kinds

    def statement(notify: bool) -> Statement[list[Started]]:
        return instance.start(
            schema,
            workflow=workflow.name,
            values=[begin.value for begin in asked.begins],
            inputs=inputs,
            version=kind.current_version,
            at=asked.at,
            delay=asked.delay,
            tags=asked.tags,
            metadata={**asked.metadata, TELEMETRY: asked.caller} if asked.caller else asked.metadata,
            priority=asked.priority,
            notify=notify,
        )

    # What starts later is made ready by a worker; nobody has to be woken for it.
    is_due = asked.at is None and asked.delay is None
    queues = frozenset({kind.graph.nodes[kind.graph.initial].queue}) if is_due else frozenset[str]()
    said = about("start", workflow, *(begin.value for begin in asked.begins))
    return Call(said, statement, instance.decode_started, asked.key, queues)


def sealed_input(codec: Codec | None, workflow: type[Workflow[Any]], value: str, text: str) -> str:
    """Return the input of an instance as it is to be stored: sealed, if there is a codec."""
    if codec is None:
        return text
    return sealed(codec, text, Location(workflow.name, build_id(workflow.unique.key, value), "input"))


def _sealed_payload(
    codec: Codec | None, workflow: type[Workflow[Any]], value: str, name: str, text: str | None
) -> str | None:
    if codec is None or text is None:
        return text
    return sealed(codec, text, Location(workflow.name, _subject(workflow, value).instance_id, "payload", name))


def resuming(
    schema: str,
    workflow: type[Workflow[Any]],
    value: str,
    event: Any,
    payload: Any,
    step: str | Target | None,
    codec: Codec | None = None,
    idempotency_key: str | None = None,
) -> Call[str]:
    """Send a signal. Raises `UndeclaredEvent` or `UnknownStep` at once for what no step of any version takes."""
    graphs = [version.graph for version in workflow.versions.values()]
    name, key, nodes = consumers(graphs, event, step)
    text = payload_text(payload, nodes, reveal=codec is not None)
    text = _sealed_payload(codec, workflow, value, name, text)
    to, pinned = addressed(workflow, value), workflow.pinned

    def statement(notify: bool) -> Statement[str]:
        if pinned is None:
            return signal.send(
                schema, workflow=workflow.name, value=to, event=name, payload=text, step=key, notify=notify
            )
        return signal.send_version(
            schema, workflow=workflow.name, version=pinned, value=to, event=name, payload=text, step=key, notify=notify
        )

    def tell(outcome: str, in_transaction: bool) -> None:
        subject = _subject(workflow, value)
        emit.workflow_signal(subject, signal=name, step=key, outcome=outcome, in_transaction=in_transaction)

    queues = {
        graph.orchestration_queue_of(node.key)
        for graph in graphs
        for node in nodes
        if graph.nodes.get(node.key) is node
    }
    said = about("resume", workflow, value, name, key or "")
    return Call(said, statement, str, checked_key(idempotency_key), frozenset(queues), tell)


def scheduling(
    schema: str,
    workflow: type[Workflow[Any]],
    value: str,
    step: str | Target,
    delay: timedelta,
    event: Any,
    payload: Any,
    app: Unscheduler,
    codec: Codec | None = None,
    idempotency_key: str | None = None,
) -> Call[Scheduled]:
    """Send a signal to a step later. No one has to be woken: workers look for what is due."""
    name, key, nodes = later([version.graph for version in workflow.versions.values()], event, step, delay)
    text = payload_text(payload, nodes, reveal=codec is not None)
    text = _sealed_payload(codec, workflow, value, name, text)
    to, pinned = addressed(workflow, value), workflow.pinned

    def statement(notify: bool) -> Statement[Scheduled]:
        stored = signal.schedule(
            schema, workflow=workflow.name, version=pinned, value=to, step=key, delay=delay, event=name, payload=text
        )
        return stored.then(lambda row: scheduled(*row))

    def scheduled(run: int, number: int, due: datetime) -> Scheduled:
        return Scheduled(id=number, run=run, step=key, event=name, at=due, app=app)

    def recall(answer: Any) -> Scheduled:
        return scheduled(*signal.decode_scheduled(answer))

    def tell(_: Scheduled, in_transaction: bool) -> None:
        subject = _subject(workflow, value)
        emit.workflow_signal(subject, signal=name, step=key, outcome="scheduled", in_transaction=in_transaction)

    said = about("schedule_resume", workflow, value, key, name)
    return Call(said, statement, recall, checked_key(idempotency_key), tell=tell)


def unscheduling(schema: str, number: int, idempotency_key: str | None = None) -> Call[bool]:
    """Call off a signal that was to be sent later."""
    key = checked_key(idempotency_key)
    return Call(f"unschedule {number}", lambda notify: signal.unschedule(schema, number), bool, key)


def cancelling(
    schema: str, workflow: type[Workflow[Any]], value: str, reason: str | None, idempotency_key: str | None = None
) -> Call[None]:
    """Cancel the newest run of a value."""
    name, to, pinned = workflow.name, addressed(workflow, value), workflow.pinned
    check_text("reason", reason)

    def statement(notify: bool) -> Statement[None]:
        if pinned is None:
            return instance.cancel(schema, workflow=name, value=to, reason=reason, notify=notify)
        return instance.cancel_version(schema, workflow=name, version=pinned, value=to, reason=reason, notify=notify)

    def tell(_: None, in_transaction: bool) -> None:
        emit.workflow_cancel(_subject(workflow, value), reason=reason, in_transaction=in_transaction)

    # Woken without a queue's name, workers look whether their steps are wanted.
    key = checked_key(idempotency_key)
    return Call(about("cancel", workflow, value), statement, lambda answer: None, key, frozenset({""}), tell)


def retrying(schema: str, workflow: type[Workflow[Any]], value: str, idempotency_key: str | None = None) -> Call[None]:
    """Take the newest run of a value up again after it failed."""
    name, to, pinned = workflow.name, addressed(workflow, value), workflow.pinned

    def statement(notify: bool) -> Statement[None]:
        if pinned is None:
            return instance.retry(schema, workflow=name, value=to, notify=notify)
        return instance.retry_version(schema, workflow=name, version=pinned, value=to, notify=notify)

    def tell(_: None, in_transaction: bool) -> None:
        emit.workflow_retry(_subject(workflow, value), in_transaction=in_transaction)

    queues = {
        graph.orchestration_queue_of(graph.initial) for graph in (each.graph for each in workflow.versions.values())
    }
    key = checked_key(idempotency_key)
    return Call(about("retry", workflow, value), statement, lambda answer: None, key, frozenset(queues), tell)


def _subject(workflow: type[Workflow[Any]], value: str) -> InstanceRef:
    return InstanceRef(value if SEPARATOR in value else f"{workflow.unique.key}{SEPARATOR}{value}", workflow.name)


def getting(schema: str, workflow: type[Workflow[Any]], value: str, codec: Codec | None = None) -> Statement[Instance]:
    """Read the newest run of a value."""
    to = addressed(workflow, value)
    found = instance.get(schema, workflow=workflow.name, value=to, version=workflow.pinned)
    return found.then(partial(decrypt_instance, codec))


def listing(
    schema: str, workflow: type[Workflow[Any]] | None, options: Mapping[str, Any], codec: Codec | None = None
) -> Statement[list[Instance]]:
    """Read a page of a workflow's instances, or of all."""
    return opening(instance.list(schema, Filters.of(options, workflow)), codec)


def opening(found: Statement[list[Instance]], codec: Codec | None) -> Statement[list[Instance]]:
    """The same, with what is sealed opened."""
    return found.then(lambda each: [decrypt_instance(codec, one) for one in each])


def history(
    schema: str, workflow: type[Workflow[Any]], value: str, before: int | None, limit: int, codec: Codec | None = None
) -> Statement[list[Instance]]:
    """Read a page of the runs of a value."""
    to = addressed(workflow, value)
    whole = to if "::" in to else build_id(workflow.unique.key, to)
    return opening(instance.list(schema, Filters.of({"id": whole, "before": before, "limit": limit}, workflow)), codec)
