"""Start, signal, cancel and take up again: what callers ask for, as changes of instances in memory."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timedelta
from typing import Any, NoReturn, TypeVar, cast

from pgflow.core.definition.step import Target
from pgflow.core.definition.unique import build_id, build_id_with_suffix
from pgflow.core.definition.workflow import Workflow
from pgflow.core.engine import machine
from pgflow.core.engine.state import ACTIVE
from pgflow.core.models.filters import Filters
from pgflow.core.models.instance import Instance, PendingSignal, Scheduled, Started, Unscheduler
from pgflow.core.models.instance_rules import check_against
from pgflow.core.models.job import Job, JobFilters
from pgflow.core.signal_request import about, addressed, checked_key, consumers, later, payload_text
from pgflow.core.start_request import Starting
from pgflow.core.values.codec import Codec, Location, through
from pgflow.core.values.payload import INPUT_LIMIT, decode, encode
from pgflow.core.values.query_args import check_text
from pgflow.errors import (
    AlreadyRunning,
    AmbiguousSignal,
    ConfigError,
    InstanceNotFound,
    KeyReused,
    NotActive,
    NotBound,
    NotRetryable,
    UnknownWorkflow,
)
from pgflow.local.run import Run, Saved
from pgflow.local.scheduler import Conductor
from pgflow.local.storage import Storage

__all__ = ["Ledger"]

T = TypeVar("T")


class Ledger:
    """What the SQL functions are on PostgreSQL: each call checks and changes under the conductor's lock, and returns.

    `go_on` takes up what was under way in the storage when it was made. Raises `GraphChanged` when an instance under
    way does not fit its workflow.
    """

    def __init__(
        self,
        workflows: Sequence[type[Workflow[Any]]],
        storage: Storage,
        threads: int,
        *,
        allow_transactional: bool,
        codec: Codec | None = None,
    ) -> None:
        self.workflows = list(workflows)
        self.storage = storage
        self.allow_transactional = allow_transactional
        self._answers: dict[str | None, tuple[str, Any]] = {}  # by idempotency key
        self.codec = codec
        self.conductor = Conductor(storage, threads, codec)
        try:
            storage.attach(self)
            stored = [each for each in storage.find(Filters(oldest=True)) if _goes_on(each)]
            self._under_way = [(run, each) for each in stored if (run := self.taken_up(each))]
        except BaseException:
            self.conductor.close()
            storage.detach(self)
            raise

    def go_on(self) -> None:
        """Take up what was under way, once everything is ready for it."""
        with self.conductor.lock:
            for run, stored in self._under_way:
                self._go_on(run, stored)
            self._under_way.clear()

    def adopt(self, workflow: type[Workflow[Any]]) -> None:
        """Take another workflow in, and up what is under way of it."""
        with self.opened():
            if workflow in self.workflows:
                return
            self.workflows.append(workflow)
            for stored in self.storage.find(Filters(workflow=workflow.name, oldest=True)):
                if _goes_on(stored) and stored.run not in self.conductor.runs and (run := self.taken_up(stored)):
                    self._go_on(run, stored)

    def holding(self) -> AbstractContextManager[None]:
        """Hold the lock under which live instances change."""
        return self.conductor.lock

    def now(self) -> datetime:
        """Return the time of its clock."""
        return self.conductor.clock.now()

    def check(self, instance: Instance) -> None:
        """Raise an error for an instance that these workflows could not have, as PostgreSQL does."""
        workflow = next((each for each in self.workflows if each.name == instance.workflow), None)
        if workflow is None:
            raise self._no_workflow(f"this app has no workflow named {instance.workflow!r}")
        check_against(instance, workflow.resolve_version(instance.version)[1].graph)

    @contextmanager
    def replacing(self, instance: Instance) -> Iterator[None]:
        """Let go of what is under way of a run while another instance is put into its place, then take that one up.

        To be called with the lock held. Raises `AlreadyRunning`.
        """
        if self.conductor.is_closed:
            yield
            return
        run = self.taken_up(instance) if _goes_on(instance) else None
        if run is not None and instance.is_active and self.conductor.excluding(run) is not None:
            hint = "Wait until it has ended, cancel it, or put this one when it has ended."
            raise AlreadyRunning(f"{instance.workflow} {instance.id!r} is already running in another run", hint=hint)
        yield
        if (before := self.conductor.runs.get(instance.run)) is not None:
            self.conductor.let_go(before)
        if run is not None:
            self._go_on(run, instance)

    def forget(self, runs: Collection[int]) -> None:
        """Let go of what is under way of these runs; to be called with the lock held."""
        for number in runs:
            if (run := self.conductor.runs.get(number)) is not None:
                self.conductor.let_go(run)

    def start_many(
        self, workflow: type[Workflow[Any]], items: Iterable[tuple[str, Any] | tuple[str]], options: Mapping[str, Any]
    ) -> list[Started]:
        """Start an instance for each (value, input), unless its key is active; all or, when one cannot be, none."""
        self._check(workflow)
        asked = Starting.of(workflow, items, options, reveal=self.codec is not None)
        said = about("start", workflow, *(begin.value for begin in asked.begins))
        return self.once(asked.key, said, lambda: self._start(asked))

    def _start(self, asked: Starting) -> list[Started]:
        metadata = {}
        for version in dict.fromkeys(begin.version for begin in asked.begins):
            self._check_steps(version)
            merged = {**version.metadata, **asked.metadata}
            metadata[version] = encode(merged, what="metadata", limit=INPUT_LIMIT)
        started = []
        with self.opened():
            now = self.conductor.clock.now()
            due = (asked.at or now) + (asked.delay or timedelta(0))
            for begin in asked.begins:
                new_id = _new_id(begin.version, begin.value)
                run = Run(
                    run=self.storage.next_run(),
                    id=new_id,
                    workflow=begin.version,
                    state=machine.new(begin.version.graph),
                    text=through(self.codec, begin.text, Location(begin.version.name, new_id, "input")),
                    metadata=decode(metadata[begin.version]),
                    tags=(*begin.version.graph.tags, *asked.tags),
                    created_at=now,
                    caller=asked.caller,
                )
                active = self.conductor.excluding(run)
                if active is None:
                    self.conductor.begin(run, due)
                started.append(Started(run.id, run.run if active is None else active, created=active is None))
        return started

    def once(self, key: str | None, said: str, call: Callable[[], T]) -> T:
        """Call it, or return what it came to when it was called with this key before, for the same thing `said`."""
        if checked_key(key) is None:
            return call()
        with self.opened():
            if key in self._answers:
                what, answer = self._answers[key]
                if what != said:
                    hint = "Use a different key for each call."
                    raise KeyReused(f"the idempotency key {key!r} was used for another call: {what}", hint=hint)
                return cast("T", answer)
            answer = call()
            self._answers[key] = (said, answer)
            return answer

    def resume(
        self, workflow: type[Workflow[Any]], value: str, event: str, payload: Any, step: str | Target | None
    ) -> str:
        """Send a signal to the newest run of a value."""
        self._check(workflow)
        _, _, nodes = consumers([version.graph for version in workflow.versions.values()], event, step)
        text = payload_text(payload, nodes, reveal=self.codec is not None)
        with self.opened():
            run = self._active(workflow, value, "it takes no more signals", "Start a new instance to run it once more.")
            name, key, nodes = consumers([run.graph], event, step)
            if all(node.key in run.outputs for node in reversed(nodes)):  # the last ones are the most likely to be open
                self._passed(workflow, run, value, name, ", ".join(sorted(node.key for node in nodes)))
            payload = self._payload(run, name, text)
            signal = PendingSignal(name, key, payload, self.conductor.clock.now(), has_payload=text is not None)
            waiting = [token for token in run.tokens_of(key) if token.place == "parked" and name in token.awaits]
            match waiting:
                case []:
                    self.conductor.report.signalled(run, name, key, "kept")
                    self.conductor.keep(run, signal)
                    return "kept"
                case [token]:
                    self.conductor.report.signalled(run, name, key, "delivered")
                    self.conductor.deliver(run, token, signal)
                    return "delivered"
            steps = ", ".join(sorted(token.step for token in waiting))
            raise AmbiguousSignal(
                f"several steps of {workflow.name} {run.id!r} wait for {name!r}", hint=f"Address one of them: {steps}."
            )

    def schedule(
        self,
        workflow: type[Workflow[Any]],
        value: str,
        step: str | Target,
        delay: timedelta,
        event: Any,
        payload: Any,
        app: Unscheduler,
    ) -> Scheduled:
        """Send a signal to a step of the newest run of a value later."""
        self._check(workflow)
        _, _, nodes = later([version.graph for version in workflow.versions.values()], event, step, delay)
        text = payload_text(payload, nodes, reveal=self.codec is not None)
        with self.opened():
            run = self._active(workflow, value, "it takes no more signals", "Start a new instance to run it once more.")
            name, key, _ = later([run.graph], event, step, delay)
            if key in run.outputs:
                self._passed(workflow, run, value, name, key)
            due = self.conductor.clock.now() + delay
            number = self.storage.next_signal()
            self.conductor.report.signalled(run, name, key, "scheduled")
            payload = self._payload(run, name, text)
            signal = PendingSignal(name, key, payload, due, number, has_payload=text is not None)
            self.conductor.schedule(run, number, signal)
        return Scheduled(id=number, run=run.run, step=key, event=name, at=due, app=app)

    def unschedule(self, number: int) -> bool:
        """Call a signal off that is to be sent later."""
        with self.opened():
            return self.conductor.unschedule(number)

    def cancel(self, workflow: type[Workflow[Any]], value: str, reason: str | None) -> None:
        """Cancel the newest run of a value."""
        self._check(workflow)
        check_text("reason", reason)
        with self.opened():
            run = self._active(workflow, value, "it cannot be cancelled", "Only an active instance can be cancelled.")
            self.conductor.report.cancelled(run, reason)
            self.conductor.cancel(run, reason)

    def retry(self, workflow: type[Workflow[Any]], value: str) -> None:
        """Take the newest run of a value up again after it failed."""
        self._check(workflow)
        with self.opened():
            stored = self.newest(workflow, value)
            if stored.status != "failed":
                raise NotRetryable(
                    f"{workflow.name} {stored.id!r} is {stored.status}: only a failed instance can be retried",
                    hint=f"See its state: {workflow.name}.get({value!r})",
                )
            run = self.taken_up(stored, is_retry=True)
            if run is None:
                self._unknown(workflow, stored.version)
            if self.conductor.excluding(run) is not None:
                hint = "Wait until that run has ended, or cancel it."
                raise AlreadyRunning(f"{workflow.name} {stored.id!r} is already running again", hint=hint)
            self.conductor.report.retried(run)
            self.conductor.take_up(run)

    def runs(self, workflow: type[Workflow[Any]], value: str, **page: int | None) -> list[Instance]:
        """Return what is stored of the runs of a value, the newest first; `page` has `before` and `limit`."""
        return self.storage.find(self._filters(workflow, value, **page))

    def _filters(self, workflow: type[Workflow[Any]], value: str, **page: int | None) -> Filters:
        to = addressed(workflow, value)
        business_id = to if "::" in to else build_id(workflow.unique.key, to)
        return Filters.of_query({"id": business_id, "workflow": workflow, **page})

    def jobs(self, workflow: type[Workflow[Any]] | None, filters: JobFilters) -> list[Job]:
        """Return the live jobs that are asked for, the oldest first."""
        with self.conductor.lock:
            found = [run.job(token) for run in self.conductor.runs.values() for token in run.tokens.values()]
        name, version = (None, None) if workflow is None else (workflow.name, workflow.pinned)
        return filters.page(each for each in found if name in (None, each.workflow) and version in (None, each.version))

    def newest(self, workflow: type[Workflow[Any]], value: str) -> Instance:
        """Return what is stored of the newest run of a value. Raises `InstanceNotFound`."""
        found = self.runs(workflow, value, limit=1)
        if not found:
            self._not_found(workflow, value)
        return found[0]

    def taken_up(self, stored: Instance, *, is_retry: bool = False) -> Run | None:
        """Return the run of a stored instance; None when no workflow here is its own."""
        for workflow in self.workflows:
            version = workflow.versions.get(stored.version) if workflow.name == stored.workflow else None
            if version is not None:
                return Run.taken_up(stored, version, is_retry=is_retry)
        return None  # somebody else's: left as it is

    def _go_on(self, run: Run, stored: Instance) -> None:
        if isinstance(stored, Saved) or stored.status == "failed":
            self.conductor.admit(run)
        elif stored.status == "pending":
            due = [each.until for each in stored.waiting_for if each.until is not None]
            self.conductor.begin(run, min(due, default=self.conductor.clock.now()))
        else:
            self.conductor.take_up(run)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Hold the lock. Raises `NotBound` when all is closed."""
        with self.conductor.lock:
            self.check_open()
            yield

    def check_open(self) -> None:
        """Raise `NotBound` when all is closed."""
        if self.conductor.is_closed:
            raise NotBound("this Local is closed", hint="Make a new one; with the same storage it goes on from there.")

    def _active(self, workflow: type[Workflow[Any]], value: str, why: str, hint: str) -> Run:
        stored = self.storage.newest(self._filters(workflow, value))
        if stored is None:
            self._not_found(workflow, value)
        if stored.status not in ACTIVE:
            raise NotActive(f"{workflow.name} {stored.id!r} is {stored.status}: {why}", hint=hint)
        run = self.conductor.runs.get(stored.run)
        if run is None:  # in a version that this app does not have
            self._unknown(workflow, stored.version)
        return run

    def _payload(self, run: Run, name: str, text: str | None) -> Any:
        if text is None:
            return None
        return decode(through(self.codec, text, Location(run.graph.name, run.id, "payload", name)))

    def _passed(self, workflow: type[Workflow[Any]], run: Run, value: str, name: str, steps: str) -> NoReturn:
        raise NotActive(
            f"{workflow.name} {run.id!r} has gone past the step that takes {name!r} ({steps})",
            hint=f"See what it waits for: {workflow.name}.get({value!r}).waiting_for",
        )

    def _check(self, workflow: type[Workflow[Any]]) -> None:
        if not any(workflow is each or workflow in each.versions.values() for each in self.workflows):
            self._unknown(workflow)

    def _check_steps(self, workflow: type[Workflow[Any]]) -> None:
        steps = [node.key for node in workflow.graph.nodes.values() if node.step.transactional]
        if steps and not self.allow_transactional:
            raise ConfigError(
                f"{workflow.name} has transactional steps ({', '.join(steps)}), and without a database there is no "
                "transaction",
                hint="Run it on PostgreSQL, or pass allow_transactional=True: then ctx.conn is None.",
            )

    def _not_found(self, workflow: type[Workflow[Any]], value: str) -> NoReturn:
        raise InstanceNotFound(f"{workflow.name} has no instance {value!r}", hint=f"List them: {workflow.name}.list()")

    def _unknown(self, workflow: type[Workflow[Any]], version: int | None = None) -> NoReturn:
        """Raise `UnknownWorkflow` for a workflow that the app does not have, or not in this version."""
        own = [number for each in self.workflows if each.name == workflow.name for number in each.versions]
        wanted = workflow.pinned if version is None else version
        if own and wanted is not None and wanted not in own:
            have = ", ".join(map(str, sorted(own)))
            raise UnknownWorkflow(
                f"this app has no version {wanted} of {workflow.name}", hint=f"It has version {have} of it."
            )
        raise self._no_workflow(f"this app has no workflow {workflow.name}")

    def _no_workflow(self, what: str) -> UnknownWorkflow:
        known = ", ".join(sorted(each.name for each in self.workflows)) or "none"
        return UnknownWorkflow(what, hint=f"It has: {known}.")


def _goes_on(stored: Instance) -> bool:
    """Whether a stored instance is active, or has failed with signals that are scheduled for it."""
    return stored.is_active or (stored.status == "failed" and any(each.id is not None for each in stored.signals))


def _new_id(workflow: type[Workflow[Any]], value: str) -> str:
    unique = workflow.unique
    if unique.scope == "none":
        return build_id_with_suffix(unique.key, value, secrets.token_hex(4))
    return build_id(unique.key, value)
