"""Turn each command into SQL: a statement to read with, or a write and the notifications that follow its commit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Generic, TypeVar

from pgflow.client import commands
from pgflow.client.addressing import address, call_name, checked_key, runs_filters
from pgflow.client.operator_request import completed_event, steps_of
from pgflow.client.signal_request import consumers, payload_text, scheduled_consumers
from pgflow.client.start_request import StartRequest
from pgflow.core.definition.definition import Definition, VersionSet
from pgflow.core.definition.graph import Node
from pgflow.core.definition.partition import partition_key
from pgflow.core.definition.unique import build_id
from pgflow.core.models.instance import Instance, Scheduled, Started
from pgflow.core.models.instance_codec import close_values, decrypt_instance
from pgflow.core.models.instance_rules import check_against, checked, unique_key
from pgflow.core.models.job import Job
from pgflow.core.values.codec import Location
from pgflow.core.values.names import OPERATOR, SEPARATOR, TELEMETRY
from pgflow.core.values.query_args import check_text
from pgflow.database.statement import Statement
from pgflow.errors import InvalidValue
from pgflow.payloads.policy import DEFAULT, PayloadPolicy, StoredObject
from pgflow.store import instance, job, signal
from pgflow.store.notification import CheckCancels, Notification, QueueReady
from pgflow.telemetry import emit
from pgflow.telemetry.emit import InstanceRef

__all__ = ["Statements", "Write", "closed_input"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Write(Generic[T]):
    """A statement that changes something, and the notifications to send once it has committed.

    `key` is the caller's idempotency key, None without one. `name` is what is called and on what, so that a key that
    was used for another call is refused. `decode` makes the result out of the answer stored for an earlier call with
    the same key.

    `claiming(key)` builds a statement that claims an idempotency key itself, None for a function that cannot.
    `statement(notify)` builds it. With True it notifies workers itself, inside the transaction, which is right only
    where the transaction is the caller's: a NOTIFY takes a database-wide lock at commit, so ours follows the commit.
    `objects` have to be in the payload store before it is sent. `emit(result, in_transaction)` emits telemetry
    afterwards; the caller's transaction may still be rolled back then.
    """

    name: str
    statement: Callable[[bool], Statement[T]]
    decode: Callable[[Any], T]
    key: str | None = None
    notifications: frozenset[Notification] = frozenset()
    objects: tuple[StoredObject, ...] = ()
    emit: Callable[[T, bool], None] = field(default=lambda result, in_transaction: None)
    claiming: Callable[[str], Statement[T]] | None = None


@dataclass(frozen=True, slots=True)
class Statements:
    """Makes the SQL of each command, for one schema; inputs, outputs and payloads are stored by `policy`.

    Statements("pgflow").signal(Signal(OrderFlow.definitions, "abc123", "paid")).statement(False)
    """

    schema: str
    policy: PayloadPolicy = DEFAULT

    # -- writes

    def start(self, command: commands.Start) -> Write[list[Started]]:
        """Start instances. Raises before anything is sent when one of them cannot be started."""
        workflow, request = (
            command.workflow,
            StartRequest.of(command, reveal=self.policy.reveal, limit=self.policy.limit),
        )
        closed = [closed_input(self.policy, workflow, each.value, each.text) for each in request.instances]
        inputs = [text for text, _ in closed]
        chosen = {each.definition for each in request.instances} or {workflow.resolve(command.version)}
        if len(chosen) > 1:
            several = ", ".join(map(str, sorted(each.version for each in chosen)))
            raise InvalidValue(
                f"{workflow.name}: version_for chooses several versions for one call: {several}",
                hint="Start those of each version by themselves, with version=.",
            )
        (definition,) = chosen
        path = definition.options.partition_by
        # Here, because the stored input may be encrypted, or a reference.
        keys = [partition_key(each.text, path) for each in request.instances] if path else None
        metadata = {**request.metadata, TELEMETRY: request.telemetry} if request.telemetry else request.metadata

        name = call_name("start", workflow.name, *(each.value for each in request.instances))

        def statement(notify: bool, key: str | None = None) -> Statement[list[Started]]:
            return instance.start(
                self.schema,
                workflow=workflow.name,
                values=[each.value for each in request.instances],
                inputs=inputs,
                version=definition.version,
                at=request.at,
                delay=request.delay,
                tags=request.tags,
                metadata=metadata,
                priority=request.priority,
                expires_in=request.expires_in,
                deadline=request.deadline,
                notify=notify,
                keys=keys,
                key=key,
                call=None if key is None else name,
            )

        # A worker makes ready what starts later; there is nothing to wake workers for now.
        is_due = request.at is None and request.delay is None
        graph = definition.graph
        ready = frozenset({QueueReady(graph.nodes[graph.initial].queue)}) if is_due else frozenset[QueueReady]()
        return Write(
            name,
            statement,
            instance.decode_started,
            request.key,
            ready,
            _objects(each for _, each in closed),
            claiming=partial(statement, False),
        )

    def signal(self, command: commands.Signal) -> Write[str]:
        """Send a signal. Raises `UndeclaredEvent` or `UnknownStep` at once when no step of any version takes it."""
        workflow, value = command.workflow, command.value
        event, key, nodes = consumers(workflow.graphs, command.event, command.step)
        payload, objects = self._payload(workflow, value, event, command.payload, nodes)
        params: dict[str, Any] = {
            "workflow": workflow.name,
            "event": event,
            "payload": payload,
            "value": address(workflow, value),
            "step": key,
        }

        def statement(notify: bool) -> Statement[str]:
            if workflow.pinned is None:
                return signal.send(self.schema, **params, notify=notify)
            return signal.send_version(self.schema, **params, version=workflow.pinned, notify=notify)

        def report(outcome: str, in_transaction: bool) -> None:
            ref = _ref(workflow, value)
            emit.workflow_signal(ref, signal=event, step=key, outcome=outcome, in_transaction=in_transaction)

        ready = {
            QueueReady(graph.orchestration_queue_of(node.key))
            for graph in workflow.graphs
            for node in nodes
            if graph.nodes.get(node.key) is node
        }
        name = call_name("resume", workflow.name, value, event, key or "")
        return Write(name, statement, str, checked_key(command.idempotency_key), frozenset(ready), objects, report)

    def schedule_signal(self, command: commands.ScheduleSignal) -> Write[Scheduled]:
        """Send a signal to a step later. It wakes nothing: workers look for signals that are due."""
        workflow, value, delay = command.workflow, command.value, command.delay
        event, key, nodes = scheduled_consumers(workflow.graphs, command.event, command.step, delay)
        payload, objects = self._payload(workflow, value, event, command.payload, nodes)
        to = address(workflow, value)

        def statement(notify: bool) -> Statement[Scheduled]:
            stored = signal.schedule(
                self.schema,
                workflow=workflow.name,
                version=workflow.pinned,
                value=to,
                step=key,
                delay=delay,
                event=event,
                payload=payload,
            )
            return stored.then(lambda row: handle(*row))

        def handle(run: int, number: int, due: datetime) -> Scheduled:
            return Scheduled(id=number, run=run, step=key, event=event, at=due, app=command.app)

        def decode(answer: Any) -> Scheduled:
            return handle(*signal.decode_scheduled(answer))

        def report(_: Scheduled, in_transaction: bool) -> None:
            ref = _ref(workflow, value)
            emit.workflow_signal(ref, signal=event, step=key, outcome="scheduled", in_transaction=in_transaction)

        name = call_name("schedule_resume", workflow.name, value, key, event)
        return Write(name, statement, decode, checked_key(command.idempotency_key), objects=objects, emit=report)

    def unschedule(self, command: commands.Unschedule) -> Write[bool]:
        """Cancel a scheduled signal."""
        key = checked_key(command.idempotency_key)
        return Write(f"unschedule {command.id}", lambda notify: signal.unschedule(self.schema, command.id), bool, key)

    def cancel(self, command: commands.Cancel) -> Write[None]:
        """Cancel the newest run of a value."""
        workflow, value, reason = command.workflow, command.value, command.reason
        params: dict[str, Any] = {"workflow": workflow.name, "value": address(workflow, value), "reason": reason}
        check_text("reason", reason)

        def statement(notify: bool) -> Statement[None]:
            if workflow.pinned is None:
                return instance.cancel(self.schema, **params, notify=notify)
            return instance.cancel_version(self.schema, **params, version=workflow.pinned, notify=notify)

        def report(_: None, in_transaction: bool) -> None:
            emit.workflow_cancel(_ref(workflow, value), reason=reason, in_transaction=in_transaction)

        key, name = checked_key(command.idempotency_key), call_name("cancel", workflow.name, value)
        return Write(name, statement, lambda answer: None, key, frozenset({CheckCancels()}), emit=report)

    def retry(self, command: commands.Retry) -> Write[None]:
        """Retry the newest run of a value after it failed."""
        workflow, value = command.workflow, command.value
        params: dict[str, Any] = {"workflow": workflow.name, "value": address(workflow, value)}
        step, nodes = ("", ()) if command.step is None else steps_of(workflow.graphs, command.step)

        def statement(notify: bool) -> Statement[None]:
            if step:
                return instance.retry_step(self.schema, **params, step=step, version=workflow.pinned, notify=notify)
            if workflow.pinned is None:
                return instance.retry(self.schema, **params, notify=notify)
            return instance.retry_version(self.schema, **params, version=workflow.pinned, notify=notify)

        def report(_: None, in_transaction: bool) -> None:
            emit.workflow_retry(_ref(workflow, value), in_transaction=in_transaction)

        ready = frozenset(QueueReady(graph.orchestration_queue_of(graph.initial)) for graph in workflow.graphs)
        if step:
            ready = frozenset(QueueReady(node.queue) for node in nodes)
        name = call_name("retry", workflow.name, value, *filter(None, [step]))
        key = checked_key(command.idempotency_key)
        return Write(name, statement, lambda answer: None, key, ready, emit=report)

    def complete_step(self, command: commands.CompleteStep) -> Write[None]:
        """Complete a step that waits for an operator."""
        workflow, value = command.workflow, command.value
        step, nodes = steps_of(workflow.graphs, command.step)
        event = completed_event(nodes, command.event)
        output, objects = self._payload(workflow, value, OPERATOR, command.output, nodes, "output")
        to = address(workflow, value)

        def statement(notify: bool) -> Statement[None]:
            return instance.complete_step(
                self.schema,
                workflow=workflow.name,
                value=to,
                step=step,
                event=event,
                output=output,
                version=workflow.pinned,
                notify=notify,
            )

        queues = {graph.orchestration_queue_of(step) for graph in workflow.graphs if step in graph.nodes}
        key, name = checked_key(command.idempotency_key), call_name("complete_step", workflow.name, value, step, event)
        return Write(name, statement, lambda answer: None, key, frozenset(map(QueueReady, queues)), objects)

    def fail_step(self, command: commands.FailStep) -> Write[None]:
        """Fail a step that waits for an operator."""
        workflow, value = command.workflow, command.value
        step, _ = steps_of(workflow.graphs, command.step)
        reason, to = check_text("reason", command.reason), address(workflow, value)

        def statement(notify: bool) -> Statement[None]:
            return instance.fail_step(
                self.schema,
                workflow=workflow.name,
                value=to,
                step=step,
                reason=reason,
                version=workflow.pinned,
                notify=notify,
            )

        key, name = checked_key(command.idempotency_key), call_name("fail_step", workflow.name, value, step)
        return Write(name, statement, lambda answer: None, key, frozenset({CheckCancels()}))

    def put(self, command: commands.Put, definition_of: Callable[[str, int], Definition]) -> Write[int]:
        """Store a whole instance. Raises before anything is sent when its workflow could not have it."""
        each = checked(command.instance, self.policy.limit)
        graph = definition_of(each.workflow, each.version).graph
        queue = graph.nodes[graph.initial].queue
        check_against(each, graph)
        waits = each.waiting_for if each.status == "pending" else ()
        due = min((wait.until for wait in waits if wait.until is not None), default=None)
        key, stored, objects = unique_key(graph, each.id), *self._closed(each)

        def statement(notify: bool) -> Statement[int]:
            return instance.put(self.schema, stored, unique_key=key, due=due, queue=queue, notify=notify)

        return Write(
            f"put {each.id} {each.run}",
            statement,
            int,
            notifications=frozenset({QueueReady(queue), CheckCancels()}),
            objects=objects,
        )

    def delete(self, command: commands.Delete) -> Write[int]:
        """Delete all runs with a business id."""
        filters, business_id = command.filters, command.filters.id or ""

        def statement(notify: bool) -> Statement[int]:
            return instance.delete(
                self.schema, id=business_id, workflow=filters.workflow, version=filters.version, notify=notify
            )

        return Write(f"delete {business_id}", statement, int, notifications=frozenset({CheckCancels()}))

    # -- reads

    def get(self, command: commands.Get) -> Statement[Instance]:
        """Read the newest run of a value."""
        workflow, to = command.workflow, address(command.workflow, command.value)
        found = instance.get(self.schema, workflow=workflow.name, value=to, version=workflow.pinned)
        return found.then(partial(decrypt_instance, self.policy.codec))

    def instances(self, command: commands.List) -> Statement[list[Instance]]:
        """Read a page of instances."""
        return self._decrypted(instance.list(self.schema, command.filters))

    def find(self, command: commands.Find) -> Statement[list[Instance]]:
        """Read a page of the instances that a filter matches."""
        page = command.page
        return self._decrypted(
            instance.find(
                self.schema,
                command.filter.document(),
                oldest=page.oldest,
                before=page.before,
                after=page.after,
                limit=page.limit,
            )
        )

    def runs(self, command: commands.Runs) -> Statement[list[Instance]]:
        """Read a page of the runs of a value."""
        filters = runs_filters(command.workflow, command.value, before=command.before, limit=command.limit)
        return self._decrypted(instance.list(self.schema, filters))

    def query(self, command: commands.Query) -> Statement[list[Instance]]:
        """Read whole instances."""
        return self._decrypted(instance.list(self.schema, command.filters, whole=True))

    def jobs(self, command: commands.ListJobs) -> Statement[list[Job]]:
        """Read a page of live jobs."""
        workflow = command.workflow
        name, version = (None, None) if workflow is None else (workflow.name, workflow.pinned)
        return job.list(self.schema, command.filters, workflow=name, version=version)

    # -- encryption and the payload store

    def _payload(
        self,
        workflow: VersionSet,
        value: str,
        event: str,
        payload: Any,
        nodes: Sequence[Node],
        what: str = "payload",
    ) -> tuple[str | None, tuple[StoredObject, ...]]:
        text = payload_text(payload, nodes, reveal=self.policy.reveal, limit=self.policy.limit, what=what)
        if text is None:
            return None, ()
        location = Location(workflow.name, _ref(workflow, value).instance_id, "payload", event)
        text, stored = self.policy.close(text, location)
        return text, _objects([stored])

    def _closed(self, instance: Instance) -> tuple[Instance, tuple[StoredObject, ...]]:
        if self.policy.codec is None and self.policy.store is None:
            return instance, ()
        objects: list[StoredObject | None] = []

        def close(text: str, location: Location) -> str:
            closed, stored = self.policy.close(text, location)
            objects.append(stored)
            return closed

        return close_values(instance, close), _objects(objects)

    def _decrypted(self, found: Statement[list[Instance]]) -> Statement[list[Instance]]:
        return found.then(lambda each: [decrypt_instance(self.policy.codec, one) for one in each])


def closed_input(policy: PayloadPolicy, workflow: VersionSet, value: str, text: str) -> tuple[str, StoredObject | None]:
    """Return the input of a new instance as its row holds it, and the object for the payload store, if any."""
    return policy.close(text, Location(workflow.name, build_id(workflow.unique.key, value), "input"))


def _objects(stored: Iterable[StoredObject | None]) -> tuple[StoredObject, ...]:
    return tuple(each for each in stored if each is not None)


def _ref(workflow: VersionSet, value: str) -> InstanceRef:
    return InstanceRef(value if SEPARATOR in value else f"{workflow.unique.key}{SEPARATOR}{value}", workflow.name)
