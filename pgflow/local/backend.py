"""Execute commands in memory: check each one and change instances under one lock, as SQL does in a transaction."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, NoReturn, TypeVar, cast

from pgflow.client import commands
from pgflow.client.addressing import runs_filters
from pgflow.client.operator_request import completed_event, steps_of
from pgflow.client.queue_commands import QueueCommand
from pgflow.client.schedule_commands import ScheduleCommand
from pgflow.client.signal_request import consumers, payload_text, scheduled_consumers
from pgflow.client.start_request import StartRequest
from pgflow.core.definition.definition import Definition, VersionSet
from pgflow.core.definition.middleware import Middleware
from pgflow.core.definition.registry import Registry
from pgflow.core.definition.step import Target
from pgflow.core.definition.unique import build_id, build_id_with_suffix
from pgflow.core.engine import machine
from pgflow.core.models.instance import Instance, PendingSignal, Scheduled, Started
from pgflow.core.models.job import Job
from pgflow.core.models.query import Subject
from pgflow.core.values.absent import ABSENT
from pgflow.core.values.codec import Location, roundtrip
from pgflow.core.values.names import OPERATOR
from pgflow.core.values.payload import METADATA_LIMIT, decode, encode
from pgflow.core.values.query_args import check_text
from pgflow.errors import (
    AlreadyRunning,
    AmbiguousSignal,
    ConfigError,
    NotActive,
    NotRetryable,
)
from pgflow.local.instances import Instances
from pgflow.local.live import LiveInstance, LocalJob
from pgflow.local.scheduler import Scheduler
from pgflow.local.schedules import LocalSchedules
from pgflow.local.storage import Storage, read
from pgflow.local.task_backend import TASK_COMMANDS, TaskBackend
from pgflow.payloads.policy import DEFAULT, PayloadPolicy

__all__ = ["MemoryBackend"]

R = TypeVar("R")

ENDED_HINT = "Start a new instance to run it once more."


class MemoryBackend:
    """A `Backend` in memory: it checks and changes `instances`, and the scheduler runs them.

    No command but `AwaitTask` blocks, so the async method calls the other for all else. What a command needs of
    PostgreSQL is refused by name.
    """

    def __init__(
        self,
        registry: Registry,
        storage: Storage,
        threads: int,
        *,
        allow_transactional: bool,
        policy: PayloadPolicy = DEFAULT,
        middleware: Sequence[Middleware] = (),
    ) -> None:
        self.scheduler = Scheduler(storage, threads, policy, middleware)
        self.instances = Instances(registry, storage, self.scheduler)
        self._tasks = TaskBackend(registry, self.instances, self.scheduler, allow_transactional=allow_transactional)
        self.schedules = LocalSchedules(registry, self.scheduler, self._execute, policy.codec)
        self.scheduler.use_schedules(self.schedules)
        self._storage = storage
        self._allow_transactional = allow_transactional
        self._policy = policy

    def execute(self, command: commands.Command[R], session: Any = None) -> R:
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

    async def aexecute(self, command: commands.Command[R], session: Any = None) -> R:
        """`execute`, async."""
        if isinstance(command, commands.AwaitTask):
            answer: Any = await self._tasks.wait(command)
            return cast("R", answer)
        return self.execute(command, session)

    def _execute(self, command: commands.Command[Any]) -> Any:
        if isinstance(command, TASK_COMMANDS):
            return self._tasks.execute(command)
        if isinstance(command, ScheduleCommand):
            with self.instances.opened():
                return self.schedules.execute(command)
        match command:
            case commands.Start():
                return self._start(command)
            case commands.Signal():
                return self._signal(command)
            case commands.ScheduleSignal():
                return self._schedule(command)
            case commands.Unschedule():
                with self.instances.opened():
                    return self.scheduler.unschedule(command.id)
            case commands.Cancel():
                return self._cancel(command)
            case commands.Retry():
                return self._retry(command)
            case commands.CompleteStep():
                return self._complete_step(command)
            case commands.FailStep():
                return self._fail_step(command)
            case commands.Get():
                return read(self.instances.newest(command.workflow, command.value))
            case commands.List():
                return _page(self._storage.find(command.filters))
            case commands.Find():
                return self._find(command)
            case commands.Bulk() | commands.ResumeBulk():
                raise ConfigError(
                    "Local has no bulk operations: it has no queues, no priorities and no audit",
                    hint="Call retry or cancel for each of app.find(…), or use an app on PostgreSQL.",
                )
            case commands.Runs(workflow, value, before, limit):
                return _page(self._storage.find(runs_filters(workflow, value, before=before, limit=limit)))
            case commands.ListJobs():
                return self._jobs(command)
            case commands.Put():
                return self._storage.put(command.instance)
            case commands.Load(filters):
                return self._storage.get(filters.id or "", workflow=filters.workflow, version=filters.version)
            case commands.Delete(filters):
                count = len(self._storage.find(replace(filters, limit=None)))
                self._storage.delete(filters.id or "", workflow=filters.workflow, version=filters.version)
                return count
            case commands.Query(filters):
                return [read(each) for each in self._storage.find(filters)]
            case commands.Register():
                return None  # definitions are stored for clients and workers in other processes
            case QueueCommand():
                raise ConfigError(
                    "Local has no queues and no limits: every step that is ready runs",
                    hint="Use an app on PostgreSQL: Pgflow(dsn, workflows=[…]).",
                )
        name = type(command).__name__.lower()
        raise ConfigError(
            f"Local has no {name}: its instances last as long as its storage",
            hint="Use app.storage.delete, or an app on PostgreSQL: Pgflow(dsn, workflows=[…]).",
        )

    def _start(self, command: commands.Start) -> list[Started]:
        """Start an instance for each item, unless its key is active; all of them or, when one is refused, none."""
        self.instances.check_known(command.workflow)
        request = StartRequest.of(command, reveal=self._policy.reveal, limit=self._policy.limit)
        metadata = {}
        for definition in dict.fromkeys(each.definition for each in request.instances):
            self._check_steps(definition)
            merged = {**definition.options.metadata, **request.metadata}
            metadata[definition] = encode(merged, what="metadata", limit=METADATA_LIMIT)
        started = []
        with self.instances.opened():
            now = self.scheduler.clock.now()
            due = (request.at or now) + (request.delay or timedelta(0))
            for each in request.instances:
                new_id = _new_id(command.workflow, each.value)
                live = LiveInstance(
                    run=self._storage.next_run(),
                    id=new_id,
                    definition=each.definition,
                    state=machine.new(each.definition.graph),
                    text=roundtrip(self._policy.codec, each.text, Location(command.workflow.name, new_id, "input")),
                    metadata=decode(metadata[each.definition]),
                    tags=(*each.definition.graph.tags, *request.tags),
                    created_at=now,
                    telemetry=request.telemetry,
                    deadline=_later(due, request.deadline or each.definition.options.deadline),
                )
                active = self.scheduler.excluding(live)
                if active is None:
                    self.scheduler.begin(live, due, _later(due, request.expires_in))
                started.append(Started(live.id, live.run if active is None else active, created=active is None))
        return started

    def _signal(self, command: commands.Signal) -> str:
        workflow, value = command.workflow, command.value
        self.instances.check_known(workflow)
        _, _, nodes = consumers(workflow.graphs, command.event, command.step)
        text = payload_text(command.payload, nodes, reveal=self._policy.reveal, limit=self._policy.limit)
        with self.instances.opened():
            live = self.instances.active(workflow, value, "it takes no more signals", ENDED_HINT)
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
                self.scheduler.outcomes.deliver(live, waiting[0], signal)
            else:
                self.scheduler.keep(live, signal)
            return outcome

    def _schedule(self, command: commands.ScheduleSignal) -> Scheduled:
        workflow, value, delay = command.workflow, command.value, command.delay
        self.instances.check_known(workflow)
        _, _, nodes = scheduled_consumers(workflow.graphs, command.event, command.step, delay)
        text = payload_text(command.payload, nodes, reveal=self._policy.reveal, limit=self._policy.limit)
        with self.instances.opened():
            live = self.instances.active(workflow, value, "it takes no more signals", ENDED_HINT)
            event, key, _ = scheduled_consumers([live.graph], command.event, command.step, delay)
            if key in live.outputs:
                self._refuse_completed(workflow, live, value, event, key)
            due = self.scheduler.clock.now() + delay
            number = self._storage.next_signal()
            self.scheduler.report.signalled(live, event, key, "scheduled")
            payload = self._payload(live, event, text)
            signal = PendingSignal(event, key, payload, due, number, has_payload=text is not None)
            self.scheduler.schedule(live, number, signal)
        return Scheduled(id=number, run=live.run, step=key, event=event, at=due, app=command.app)

    def _cancel(self, command: commands.Cancel) -> None:
        self.instances.check_known(command.workflow)
        check_text("reason", command.reason)
        with self.instances.opened():
            hint = "Only an active instance can be cancelled."
            live = self.instances.active(command.workflow, command.value, "it cannot be cancelled", hint)
            self.scheduler.report.cancelled(live, command.reason)
            self.scheduler.cancel(live, command.reason)

    def _retry(self, command: commands.Retry) -> None:
        workflow, value = command.workflow, command.value
        self.instances.check_known(workflow)
        if command.step is not None:
            with self._paused(workflow, value, command.step) as (of, job):
                self.scheduler.run_paused_again(of, job)
            return
        with self.instances.opened():
            stored = self.instances.newest(workflow, value)
            live = self.scheduler.live.get(stored.run)
            paused = [] if live is None else [job for job in live.jobs.values() if job.is_paused]
            if live is not None and paused:
                for job in paused:
                    self.scheduler.run_paused_again(live, job)
                return
            if stored.status != "failed":
                raise NotRetryable(
                    f"{workflow.name} {stored.id!r} is {stored.status}: only a failed instance can be retried, or "
                    "a step that waits for an operator",
                    hint=f"See its state: {workflow.name}.get({value!r})",
                )
            restored = self.instances.restored(stored, is_retry=True)
            if restored is None:
                self.instances.refuse_unknown(workflow, stored.version)
            if (run := self.scheduler.excluding(restored)) is not None:
                hint = "Wait until that run has ended, or cancel it."
                name = self.scheduler.live[run].graph.name
                raise AlreadyRunning(f"{name} {stored.id!r} is already running, in run {run}", hint=hint, run=run)
            self.scheduler.report.retried(restored)
            self.scheduler.restart(restored)

    def _complete_step(self, command: commands.CompleteStep) -> None:
        self.instances.check_known(command.workflow)
        _, nodes = steps_of(command.workflow.graphs, command.step)
        event = completed_event(nodes, command.event)
        text = payload_text(command.output, nodes, reveal=self._policy.reveal, limit=self._policy.limit, what="output")
        with self._paused(command.workflow, command.value, command.step) as (live, job):
            payload = ABSENT if text is None else self._payload(live, OPERATOR, text)
            self.scheduler.outcomes.complete_paused(live, job, event, payload)

    def _fail_step(self, command: commands.FailStep) -> None:
        self.instances.check_known(command.workflow)
        check_text("reason", command.reason)
        with self._paused(command.workflow, command.value, command.step) as (live, job):
            self.scheduler.outcomes.fail_paused(live, job, command.reason)

    @contextmanager
    def _paused(self, workflow: VersionSet, value: str, step: str | Target) -> Iterator[tuple[LiveInstance, LocalJob]]:
        """Hold the lock, with an active instance and its step that waits for an operator."""
        key, _ = steps_of(workflow.graphs, step)
        with self.instances.opened():
            live = self.instances.active(workflow, value, "no step of it waits for an operator", "See its state.")
            live.graph.node(key)
            job = live.jobs.get(key)
            if job is None or not job.is_paused:
                raise NotActive(
                    f"step {key!r} of {workflow.name} {live.id!r} does not wait for an operator",
                    hint=f"See what it waits for: {workflow.name}.get({value!r})",
                )
            yield live, job

    def _find(self, command: commands.Find) -> list[Instance]:
        page = command.page
        now = self.scheduler.clock.now()
        found = self._storage.find(replace(page, limit=None))
        with self.scheduler.lock:
            subjects = [Subject.of_instance(each, self.instances.places(each), now) for each in found]
        kept = [each for each, seen in zip(found, subjects, strict=True) if command.filter.matches(seen)]
        return _page(kept[: page.limit])

    def _jobs(self, command: commands.ListJobs) -> list[Job]:
        with self.scheduler.lock:
            found = [live.as_job(job) for live in self.scheduler.live.values() for job in live.jobs.values()]
        if (workflow := command.workflow) is not None:
            name, pinned = workflow.name, workflow.pinned
            found = [each for each in found if each.workflow == name and pinned in (None, each.version)]
        return command.filters.page(found)

    def _payload(self, live: LiveInstance, event: str, text: str | None) -> Any:
        if text is None:
            return None
        return decode(roundtrip(self._policy.codec, text, Location(live.graph.name, live.id, "payload", event)))

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


def _page(found: Iterable[Instance]) -> list[Instance]:
    return [read(each, is_whole=False) for each in found]


def _new_id(workflow: VersionSet, value: str) -> str:
    unique = workflow.unique
    if unique.scope == "none":
        return build_id_with_suffix(unique.key, value, secrets.token_hex(4))
    return build_id(unique.key, value)


def _later(moment: datetime, span: timedelta | None) -> datetime | None:
    return None if span is None else moment + span
