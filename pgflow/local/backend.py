"""Execute commands in memory: check each one and change instances under one lock, as SQL does in a transaction."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timedelta
from typing import Any, NoReturn, TypeVar

from pgflow.client.addressing import runs_filters
from pgflow.client.commands import (
    Cancel,
    Command,
    Delete,
    Get,
    List,
    ListJobs,
    Load,
    Put,
    Query,
    Register,
    Retry,
    Runs,
    ScheduleSignal,
    Signal,
    Start,
    Unschedule,
)
from pgflow.client.signal_request import consumers, payload_text, scheduled_consumers
from pgflow.client.start_request import StartRequest
from pgflow.core.definition.definition import Definition, VersionSet
from pgflow.core.definition.registry import Registry
from pgflow.core.definition.unique import build_id, build_id_with_suffix
from pgflow.core.engine import machine
from pgflow.core.engine.state import ACTIVE
from pgflow.core.models.filters import Filters
from pgflow.core.models.instance import Instance, PendingSignal, Scheduled, Started
from pgflow.core.models.instance_rules import check_against
from pgflow.core.models.job import Job
from pgflow.core.values.codec import Codec, Location, through
from pgflow.core.values.payload import INPUT_LIMIT, decode, encode
from pgflow.core.values.query_args import check_text
from pgflow.errors import (
    AlreadyRunning,
    AmbiguousSignal,
    ConfigError,
    InstanceNotFound,
    NotActive,
    NotBound,
    NotRetryable,
    UnknownWorkflow,
)
from pgflow.local.live import LiveInstance, SavedInstance
from pgflow.local.scheduler import Scheduler
from pgflow.local.storage import Storage, read

__all__ = ["MemoryBackend"]

R = TypeVar("R")

ENDED_HINT = "Start a new instance to run it once more."


class MemoryBackend:
    """A `Backend` in memory, and the owner of a storage: it runs the active instances in it.

    No command blocks, so that the async twin only calls the other. What a command needs of PostgreSQL is refused by
    name. `take_up_stored` continues what was active in the storage. Raises `GraphChanged` when an active instance does
    not fit its workflow.
    """

    def __init__(
        self,
        registry: Registry,
        storage: Storage,
        threads: int,
        *,
        allow_transactional: bool,
        codec: Codec | None = None,
    ) -> None:
        self.storage = storage
        self.scheduler = Scheduler(storage, threads, codec)
        self._registry = registry
        self._allow_transactional = allow_transactional
        self._codec = codec
        try:
            storage.attach(self)
            stored = [each for each in storage.find(Filters(oldest=True)) if _continues(each)]
            self._active_stored = [(live, each) for each in stored if (live := self._restored(each))]
        except BaseException:
            self.scheduler.close()
            storage.detach(self)
            raise

    # -- commands

    def execute(self, command: Command[R], session: Any = None) -> R:
        """Execute a command, or refuse it by name."""
        if session is not None:
            raise ConfigError(
                "Local takes no conn: it has no database, and so no transaction to join", hint="Leave conn out."
            )
        if getattr(command, "idempotency_key", None) is not None:
            raise ConfigError(
                "Local takes no idempotency_key: it keeps no answers of earlier calls",
                hint="Leave it out, or use an app on PostgreSQL: Pgflow(dsn, workflows=[…]).",
            )
        answer: R = self._execute(command)
        return answer

    async def aexecute(self, command: Command[R], session: Any = None) -> R:
        """`execute`, async."""
        return self.execute(command, session)

    def _execute(self, command: Command[Any]) -> Any:
        match command:
            case Start():
                return self._start(command)
            case Signal():
                return self._signal(command)
            case ScheduleSignal():
                return self._schedule(command)
            case Unschedule():
                with self.opened():
                    return self.scheduler.unschedule(command.id)
            case Cancel():
                return self._cancel(command)
            case Retry():
                return self._retry(command)
            case Get():
                return read(self._newest(command.workflow, command.value))
            case List():
                return _page(self.storage.find(command.filters))
            case Runs(workflow, value, before, limit):
                return _page(self.storage.find(runs_filters(workflow, value, before=before, limit=limit)))
            case ListJobs():
                return self._jobs(command)
            case Put():
                return self.storage.put(command.instance)
            case Load(filters):
                return self.storage.get(filters.id or "", workflow=filters.workflow, version=filters.version)
            case Delete(filters):
                return self.storage.delete(filters.id or "", workflow=filters.workflow, version=filters.version)
            case Query(filters):
                return [read(each) for each in self.storage.find(filters)]
            case Register():
                return None  # definitions are stored for clients and workers in other processes
        name = type(command).__name__.lower()
        raise ConfigError(
            f"Local has no {name}: its instances last as long as its storage",
            hint="Use app.storage.delete, or an app on PostgreSQL: Pgflow(dsn, workflows=[…]).",
        )

    def _start(self, command: Start) -> list[Started]:
        """Start an instance for each item, unless its key is active; all of them or, when one is refused, none."""
        self._check_known(command.workflow)
        request = StartRequest.of(command, reveal=self._codec is not None)
        metadata = {}
        for definition in dict.fromkeys(each.definition for each in request.instances):
            self._check_steps(definition)
            merged = {**definition.options.metadata, **request.metadata}
            metadata[definition] = encode(merged, what="metadata", limit=INPUT_LIMIT)
        started = []
        with self.opened():
            now = self.scheduler.clock.now()
            due = (request.at or now) + (request.delay or timedelta(0))
            for each in request.instances:
                new_id = _new_id(command.workflow, each.value)
                live = LiveInstance(
                    run=self.storage.next_run(),
                    id=new_id,
                    definition=each.definition,
                    state=machine.new(each.definition.graph),
                    text=through(self._codec, each.text, Location(command.workflow.name, new_id, "input")),
                    metadata=decode(metadata[each.definition]),
                    tags=(*each.definition.graph.tags, *request.tags),
                    created_at=now,
                    telemetry=request.telemetry,
                )
                active = self.scheduler.excluding(live)
                if active is None:
                    self.scheduler.begin(live, due)
                started.append(Started(live.id, live.run if active is None else active, created=active is None))
        return started

    def _signal(self, command: Signal) -> str:
        workflow, value = command.workflow, command.value
        self._check_known(workflow)
        _, _, nodes = consumers(workflow.graphs, command.event, command.step)
        text = payload_text(command.payload, nodes, reveal=self._codec is not None)
        with self.opened():
            live = self._active(workflow, value, "it takes no more signals", ENDED_HINT)
            event, key, nodes = consumers([live.graph], command.event, command.step)
            if all(node.key in live.outputs for node in reversed(nodes)):  # the last ones are most likely not to be
                self._refuse_completed(workflow, live, value, event, ", ".join(sorted(node.key for node in nodes)))
            payload = self._payload(live, event, text)
            signal = PendingSignal(event, key, payload, self.scheduler.clock.now(), has_payload=text is not None)
            waiting = [job for job in live.jobs_of(key) if job.state == "parked" and event in job.awaits]
            if len(waiting) > 1:
                steps = ", ".join(sorted(job.step for job in waiting))
                raise AmbiguousSignal(
                    f"several steps of {workflow.name} {live.id!r} wait for {event!r}",
                    hint=f"Address one of them: {steps}.",
                )
            outcome = "delivered" if waiting else "kept"
            self.scheduler.report.signalled(live, event, key, outcome)
            if waiting:
                self.scheduler.deliver(live, waiting[0], signal)
            else:
                self.scheduler.keep(live, signal)
            return outcome

    def _schedule(self, command: ScheduleSignal) -> Scheduled:
        workflow, value, delay = command.workflow, command.value, command.delay
        self._check_known(workflow)
        _, _, nodes = scheduled_consumers(workflow.graphs, command.event, command.step, delay)
        text = payload_text(command.payload, nodes, reveal=self._codec is not None)
        with self.opened():
            live = self._active(workflow, value, "it takes no more signals", ENDED_HINT)
            event, key, _ = scheduled_consumers([live.graph], command.event, command.step, delay)
            if key in live.outputs:
                self._refuse_completed(workflow, live, value, event, key)
            due = self.scheduler.clock.now() + delay
            number = self.storage.next_signal()
            self.scheduler.report.signalled(live, event, key, "scheduled")
            payload = self._payload(live, event, text)
            signal = PendingSignal(event, key, payload, due, number, has_payload=text is not None)
            self.scheduler.schedule(live, number, signal)
        return Scheduled(id=number, run=live.run, step=key, event=event, at=due, app=command.app)

    def _cancel(self, command: Cancel) -> None:
        self._check_known(command.workflow)
        check_text("reason", command.reason)
        with self.opened():
            hint = "Only an active instance can be cancelled."
            live = self._active(command.workflow, command.value, "it cannot be cancelled", hint)
            self.scheduler.report.cancelled(live, command.reason)
            self.scheduler.cancel(live, command.reason)

    def _retry(self, command: Retry) -> None:
        workflow, value = command.workflow, command.value
        self._check_known(workflow)
        with self.opened():
            stored = self._newest(workflow, value)
            if stored.status != "failed":
                raise NotRetryable(
                    f"{workflow.name} {stored.id!r} is {stored.status}: only a failed instance can be retried",
                    hint=f"See its state: {workflow.name}.get({value!r})",
                )
            live = self._restored(stored, is_retry=True)
            if live is None:
                self._refuse_unknown(workflow, stored.version)
            if (run := self.scheduler.excluding(live)) is not None:
                hint = "Wait until that run has ended, or cancel it."
                name = self.scheduler.live[run].graph.name
                raise AlreadyRunning(f"{name} {stored.id!r} is already running, in run {run}", hint=hint)
            self.scheduler.report.retried(live)
            self.scheduler.restart(live)

    def _jobs(self, command: ListJobs) -> list[Job]:
        with self.scheduler.lock:
            found = [live.as_job(job) for live in self.scheduler.live.values() for job in live.jobs.values()]
        if (workflow := command.workflow) is not None:
            name, pinned = workflow.name, workflow.pinned
            found = [each for each in found if each.workflow == name and pinned in (None, each.version)]
        return command.filters.page(found)

    # -- the owner of a storage

    def holding(self) -> AbstractContextManager[None]:
        """Hold the lock under which live instances change."""
        return self.scheduler.lock

    def now(self) -> datetime:
        """Return the time of its clock."""
        return self.scheduler.clock.now()

    def check(self, instance: Instance) -> None:
        """Raise an error for an instance that these workflows could not have, as PostgreSQL does."""
        check_against(instance, self._registry.definitions(instance.workflow).resolve(instance.version).graph)

    @contextmanager
    def replacing(self, instance: Instance) -> Iterator[None]:
        """Stop what is active of a run while another instance is put in its place, then run that one.

        Called with the lock held. Raises `AlreadyRunning`.
        """
        if self.scheduler.is_closed:
            yield
            return
        live = self._restored(instance) if _continues(instance) else None
        if live is not None and instance.is_active and self.scheduler.excluding(live) is not None:
            hint = "Wait until it has ended, cancel it, or put this one when it has ended."
            raise AlreadyRunning(f"{instance.workflow} {instance.id!r} is already running in another run", hint=hint)
        yield
        self.forget([instance.run])
        if live is not None:
            self._continue(live, instance)

    def forget(self, runs: Collection[int]) -> None:
        """Stop what is active of these runs. Called with the lock held."""
        for number in runs:
            if (live := self.scheduler.live.get(number)) is not None:
                self.scheduler.release(live)

    # -- stored instances

    def take_up_stored(self) -> None:
        """Continue what was active in the storage when this backend was made."""
        with self.scheduler.lock:
            for live, stored in self._active_stored:
                self._continue(live, stored)
            self._active_stored.clear()

    def take_up(self, workflow: VersionSet) -> None:
        """Continue what is active in the storage of a workflow that was added."""
        with self.opened():
            for stored in self.storage.find(Filters(workflow=workflow.name, oldest=True)):
                if _continues(stored) and stored.run not in self.scheduler.live and (live := self._restored(stored)):
                    self._continue(live, stored)

    def _restored(self, stored: Instance, *, is_retry: bool = False) -> LiveInstance | None:
        """Return a stored instance as a live one; None when this app does not have its workflow and version."""
        workflow = self._registry.by_name.get(stored.workflow)
        definition = None if workflow is None else workflow.definitions.versions.get(stored.version)
        return None if definition is None else LiveInstance.restored(stored, definition, is_retry=is_retry)

    def _continue(self, live: LiveInstance, stored: Instance) -> None:
        if isinstance(stored, SavedInstance) or stored.status == "failed":
            self.scheduler.admit(live)
        elif stored.status == "pending":
            due = [each.until for each in stored.waiting_for if each.until is not None]
            self.scheduler.begin(live, min(due, default=self.scheduler.clock.now()))
        else:
            self.scheduler.restart(live)

    def _newest(self, workflow: VersionSet, value: str) -> Instance:
        found = self.storage.find(runs_filters(workflow, value))
        if not found:
            self._refuse_missing(workflow, value)
        return found[0]

    def _active(self, workflow: VersionSet, value: str, refusal: str, hint: str) -> LiveInstance:
        stored = self.storage.newest(runs_filters(workflow, value))
        if stored is None:
            self._refuse_missing(workflow, value)
        if stored.status not in ACTIVE:
            raise NotActive(f"{workflow.name} {stored.id!r} is {stored.status}: {refusal}", hint=hint)
        live = self.scheduler.live.get(stored.run)
        if live is None:  # in a version that this app does not have
            self._refuse_unknown(workflow, stored.version)
        return live

    def _payload(self, live: LiveInstance, event: str, text: str | None) -> Any:
        if text is None:
            return None
        return decode(through(self._codec, text, Location(live.graph.name, live.id, "payload", event)))

    # -- refusals

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Hold the lock. Raises `NotBound` when this backend is closed."""
        with self.scheduler.lock:
            self.check_open()
            yield

    def check_open(self) -> None:
        """Raise `NotBound` when this backend is closed."""
        if self.scheduler.is_closed:
            raise NotBound("this Local is closed", hint="Make a new one; with the same storage it goes on from there.")

    def _check_known(self, workflow: VersionSet) -> None:
        own = self._registry.by_name.get(workflow.name)
        if own is None or all(workflow is not each.definitions for each in (own, *own.versions.values())):
            self._refuse_unknown(workflow)

    def _check_steps(self, definition: Definition) -> None:
        steps = [node.key for node in definition.graph.nodes.values() if node.step.transactional]
        if steps and not self._allow_transactional:
            raise ConfigError(
                f"{definition.name} has transactional steps ({', '.join(steps)}), and without a database there is no "
                "transaction",
                hint="Run it on PostgreSQL, or pass allow_transactional=True: then ctx.conn is None.",
            )

    def _refuse_completed(
        self, workflow: VersionSet, live: LiveInstance, value: str, event: str, steps: str
    ) -> NoReturn:
        raise NotActive(
            f"{workflow.name} {live.id!r} has gone past the step that takes {event!r} ({steps})",
            hint=f"See what it waits for: {workflow.name}.get({value!r}).waiting_for",
        )

    def _refuse_missing(self, workflow: VersionSet, value: str) -> NoReturn:
        version = "" if workflow.pinned is None else f" of version {workflow.pinned}"
        hint = f"List them: {workflow.name}.list()"
        raise InstanceNotFound(f"{workflow.name} has no instance {value!r}{version}", hint=hint)

    def _refuse_unknown(self, workflow: VersionSet, version: int | None = None) -> NoReturn:
        """Raise `UnknownWorkflow` for a workflow that the app does not have, or not in this version."""
        own = self._registry.by_name.get(workflow.name)
        known = {} if own is None else own.versions
        wanted = workflow.pinned if version is None else version
        if known and wanted is not None and wanted not in known:
            have = ", ".join(map(str, sorted(known)))
            raise UnknownWorkflow(
                f"this app has no version {wanted} of {workflow.name}", hint=f"It has version {have} of it."
            )
        names = ", ".join(self._registry.names) or "none"
        raise UnknownWorkflow(f"this app has no workflow {workflow.name}", hint=f"It has: {names}.")


def _page(found: Iterable[Instance]) -> list[Instance]:
    return [read(each, is_whole=False) for each in found]


def _continues(stored: Instance) -> bool:
    """Whether a stored instance is active, or has failed with scheduled signals."""
    return stored.is_active or (stored.status == "failed" and any(each.id is not None for each in stored.signals))


def _new_id(workflow: VersionSet, value: str) -> str:
    unique = workflow.unique
    if unique.scope == "none":
        return build_id_with_suffix(unique.key, value, secrets.token_hex(4))
    return build_id(unique.key, value)
