"""The instances of a `Local`, active and stored: the owner of a storage, and what commands look up in it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from typing import NoReturn

from pgflow.client.addressing import runs_filters
from pgflow.core.definition.definition import VersionSet
from pgflow.core.definition.registry import Registry
from pgflow.core.engine.state import ACTIVE
from pgflow.core.models.filters import Filters
from pgflow.core.models.instance import Instance
from pgflow.core.models.instance_rules import check_against
from pgflow.core.models.query import Place
from pgflow.errors import AlreadyRunning, InstanceNotFound, NotActive, NotBound, UnknownWorkflow
from pgflow.local.live import LiveInstance, SavedInstance
from pgflow.local.scheduler import Scheduler
from pgflow.local.storage import Storage

__all__ = ["Instances"]


class Instances:
    """Attaches a storage to a scheduler, and finds instances in both.

    `take_up_stored` continues what was active in the storage. Raises `GraphChanged` when an active instance does not
    fit its workflow, `Conflict` for a storage in use.
    """

    def __init__(self, registry: Registry, storage: Storage, scheduler: Scheduler) -> None:
        self.storage = storage
        self.scheduler = scheduler
        self._registry = registry
        try:
            storage.attach(self)
            stored = [each for each in storage.find(Filters(oldest=True)) if _continues(each)]
            self._active_stored = [(live, each) for each in stored if (live := self.restored(each))]
        except BaseException:
            scheduler.close()
            storage.detach(self)
            raise

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
        live = self.restored(instance) if _continues(instance) else None
        if live is not None and instance.is_active and (run := self.scheduler.excluding(live)) is not None:
            hint = "Wait until it has ended, cancel it, or put this one when it has ended."
            raise AlreadyRunning(
                f"{instance.workflow} {instance.id!r} is already running in another run", hint=hint, run=run
            )
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
        """Continue the instances that were active in the storage when it was attached."""
        with self.scheduler.lock:
            for live, stored in self._active_stored:
                self._continue(live, stored)
            self._active_stored.clear()

    def take_up(self, workflow: VersionSet) -> None:
        """Continue the active instances in the storage of a workflow that was added."""
        with self.opened():
            for stored in self.storage.find(Filters(workflow=workflow.name, oldest=True)):
                if _continues(stored) and stored.run not in self.scheduler.live and (live := self.restored(stored)):
                    self._continue(live, stored)

    def restored(self, stored: Instance, *, is_retry: bool = False) -> LiveInstance | None:
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

    def newest(self, workflow: VersionSet, value: str) -> Instance:
        """Return the newest run of a value. Raises `InstanceNotFound`."""
        found = self.storage.find(runs_filters(workflow, value))
        if not found:
            self._refuse_missing(workflow, value)
        return found[0]

    def active(self, workflow: VersionSet, value: str, refusal: str, hint: str) -> LiveInstance:
        """Return the newest run of a value if it is active. Raises `InstanceNotFound`, `NotActive`."""
        stored = self.storage.newest(runs_filters(workflow, value))
        if stored is None:
            self._refuse_missing(workflow, value)
        if stored.status not in ACTIVE:
            raise NotActive(f"{workflow.name} {stored.id!r} is {stored.status}: {refusal}", hint=hint)
        live = self.scheduler.live.get(stored.run)
        if live is None:  # in a version that this app does not have
            self.refuse_unknown(workflow, stored.version)
        return live

    def places(self, instance: Instance) -> tuple[Place, ...]:
        """Return where an instance is, for a filter: its live jobs, or its failed step. Called with the lock held."""
        live = self.scheduler.live.get(instance.run)
        if live is not None and live.jobs:
            jobs = [live.as_job(job) for job in live.jobs.values()]
            return tuple(
                Place(
                    each.step, each.queue, each.attempt, each.priority, error=each.errors[-1] if each.errors else None
                )
                for each in jobs
            )
        error = instance.error or {}
        if instance.status != "failed" or "step" not in error:
            return ()
        workflow = self._registry.by_name.get(instance.workflow)
        definition = None if workflow is None else workflow.definitions.versions.get(instance.version)
        node = None if definition is None else definition.graph.nodes.get(error["step"])
        return (Place(error["step"], None if node is None else node.queue, error.get("attempt")),)

    # -- refusals

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Hold the lock. Raises `NotBound` when the `Local` is closed."""
        with self.scheduler.lock:
            self.check_open()
            yield

    def check_open(self) -> None:
        """Raise `NotBound` when the `Local` is closed."""
        if self.scheduler.is_closed:
            raise NotBound("this Local is closed", hint="Make a new one; with the same storage it goes on from there.")

    def check_known(self, workflow: VersionSet) -> None:
        """Raise `UnknownWorkflow` unless the app has this workflow itself, not another of its name."""
        own = self._registry.by_name.get(workflow.name)
        if own is None or all(workflow is not each.definitions for each in (own, *own.versions.values())):
            self.refuse_unknown(workflow)

    def _refuse_missing(self, workflow: VersionSet, value: str) -> NoReturn:
        version = "" if workflow.pinned is None else f" of version {workflow.pinned}"
        hint = f"List them: {workflow.name}.list()"
        raise InstanceNotFound(f"{workflow.name} has no instance {value!r}{version}", hint=hint)

    def refuse_unknown(self, workflow: VersionSet, version: int | None = None) -> NoReturn:
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


def _continues(stored: Instance) -> bool:
    """Whether a stored instance is active, or has failed with scheduled signals."""
    return stored.is_active or (stored.status == "failed" and any(each.id is not None for each in stored.signals))
