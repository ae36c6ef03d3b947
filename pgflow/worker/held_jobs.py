"""Hold what a worker has claimed: its tokens, what is known of their instances, and the buffers they run in."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pgflow.core.definition.definition import Definition
from pgflow.core.definition.workflow import DefinedWorkflow
from pgflow.core.values.codec import Codec
from pgflow.core.values.sanitize import error_message, sanitize_line, sanitize_text, type_name
from pgflow.errors import DecryptionUnavailable
from pgflow.logs import Logger
from pgflow.store.job import ClaimedRow
from pgflow.store.job_updates import Effect, End, Fail, InstanceUpdate, JobUpdate, Snooze
from pgflow.worker.claimed_job import CachedInstance, ClaimedJob, caller, known, token
from pgflow.worker.queue_buffer import QueueBuffer

__all__ = ["HeldJobs", "RejectedJob"]

log = Logger("pgflow.worker")

PASS_ON_SECONDS = 10.0  # how long a token waits for a worker that knows its workflow, or opens what is sealed


@dataclass(frozen=True, slots=True)
class RejectedJob:
    """A token that cannot run here: its verdict, and with `failure` what its instance fails with.

    `head` is the row that came with what is known of the instance, `caller` what its starter gave along for telemetry.
    """

    update: JobUpdate
    failure: dict[str, Any] | None = None
    head: ClaimedRow | None = None
    caller: Mapping[str, Any] = field(default_factory=dict)

    @property
    def instance_update(self) -> InstanceUpdate | None:
        """How the instance changes with it."""
        if self.failure is None:
            return None
        return InstanceUpdate(self.update.run, None, "failed", error=json.dumps(self.failure))


class UnknownHere(Exception):
    """No app of this worker defines the token's workflow, version or step."""


class HeldJobs:
    """The tokens in a worker's memory.

    `start(token)` begins to run a token, `drop(token)` stops running one that is not ours any more; `codec` opens what
    is sealed.
    """

    def __init__(
        self,
        buffers: Mapping[str, QueueBuffer],
        *,
        start: Callable[[ClaimedJob], None],
        drop: Callable[[ClaimedJob], None],
        codec: Codec | None = None,
    ) -> None:
        self.buffers = buffers
        self.tokens: dict[int, ClaimedJob] = {}
        self.refused: list[RejectedJob] = []
        self._workflows: dict[tuple[str, int], Definition] = {}
        self._runs: dict[int, CachedInstance] = {}
        self._start = start
        self._drop = drop
        self._codec = codec
        self._suspects: list[ClaimedJob] = []  # to run alone, when all else has ended
        self._on_trial: ClaimedJob | None = None

    @property
    def has_quarantined(self) -> bool:
        """Whether a token is held that has to run alone: it waits for the others to end, or runs."""
        return bool(self._suspects) or self._on_trial is not None

    def learn(self, workflow: type[DefinedWorkflow[Any]]) -> None:
        """Know a workflow, in all its versions, by its name."""
        self._workflows.update({(each.name, each.version): each for each in workflow.definitions.versions.values()})

    def holds(self, held: ClaimedJob) -> bool:
        """Whether this very token is held still: not moved on, not given up."""
        return self.tokens.get(held.id) is held

    def rooms(self, now: float) -> dict[str, int]:
        """How many tokens to claim, by queue, at `now` (monotonic seconds).

        Empty when every lane is full, and while a token is held that has to run alone.
        """
        if self.has_quarantined:
            return {}
        return {name: room for name, lane in self.buffers.items() if (room := lane.room(now)) > 0}

    def take_in(self, rows: list[ClaimedRow]) -> None:
        """Hold what was claimed.

        A row that nobody here can run is passed on, one that cannot be read fails its instance, and one whose instance
        was deleted from the table alone is deleted.
        """
        now = time.monotonic()
        heads = {row.run: row for row in rows if row.business_id is not None}
        learned = {number: self._learn(row) for number, row in heads.items()}
        for row in rows:
            run = learned.get(row.run)
            if run is None:
                log.warning("job %d belongs to run %d, which does not exist: the job is deleted", row.id, row.run)
                self.refused.append(RejectedJob(_refused(row, End())))
                continue
            try:
                if isinstance(run, BaseException):
                    raise run
                if row.step and row.step not in run.graph.nodes:
                    raise UnknownHere(f"version {run.version} of {run.graph.name} has no step {row.step!r} here")
                self.hold(token(row, run, now))
            except (
                UnknownHere,
                DecryptionUnavailable,
            ) as error:  # a rolling deployment: who knows it, or has the key, is on its way
                log.warning("%s: token %d is left to another worker", sanitize_line(error_message(error)), row.id)
                self.refused.append(RejectedJob(_refused(row, Snooze(PASS_ON_SECONDS))))
            except BaseException as error:  # code of the codec's; nothing is awaited here
                reason = f"stored data cannot be read: {sanitize_text(error_message(error))}"
                log.error("token %d of run %d: %s", row.id, row.run, sanitize_line(reason))
                failure = {
                    "step": row.step,
                    "reason": reason,
                    "type": type_name(error),
                }
                head = heads[row.run]
                self.refused.append(RejectedJob(_refused(row, Fail()), failure, head, caller(head.metadata)))
        for run in learned.values():
            if isinstance(run, CachedInstance) and not run.tokens:
                self._runs.pop(run.run, None)

    def _learn(self, row: ClaimedRow) -> CachedInstance | BaseException:
        workflow = self._workflows.get((row.workflow or "", row.version or 0))
        if workflow is None:
            return UnknownHere(f"no app here defines {row.workflow} in version {row.version}")
        try:
            run = known(row, workflow, self._codec)
        except BaseException as error:  # code of the codec's; nothing is awaited here
            return error
        older = self._runs.get(row.run)
        if older is None:
            self._runs[row.run] = run
            return run
        # Tokens that run now keep their CachedInstance: what is known of the instance is renewed in place.
        older.status, older.revision, older.state = run.status, run.revision, run.state
        older.metadata, older.outputs, older.unapplied, older.signals = (
            run.metadata,
            run.outputs,
            run.unapplied,
            run.signals,
        )
        return older

    def take_rejected(self) -> list[RejectedJob]:
        """Take out what was claimed and refused, to settle it."""
        refused, self.refused = self.refused, []
        return refused

    def hold(self, new: ClaimedJob) -> None:
        """Keep a token and run it as soon as its lane has a free slot."""
        new.run.tokens += 1
        self._runs[new.run.run] = new.run
        self.tokens[new.id] = new
        new.since = time.monotonic()
        if new.is_quarantined:
            self._suspects.append(new)
        else:
            self.buffers[new.queue].push(new)

    def run_waiting(self) -> None:
        """Start as many tokens as the buffers have free slots; one that has to run alone once nothing else is held."""
        if self._suspects and len(self.tokens) == len(self._suspects) and not self.refused:
            self._on_trial = self._suspects.pop(0)
            self.buffers[self._on_trial.queue].push(self._on_trial)
        for lane in self.buffers.values():
            while (next_one := lane.pop()) is not None:
                if self.holds(next_one):
                    self._start(next_one)
                else:
                    lane.running -= 1

    def forget(self, held: ClaimedJob) -> None:
        """Hold a token no more."""
        if self.holds(held):
            del self.tokens[held.id]
        if held is self._on_trial:
            self._on_trial = None
        elif held in self._suspects:
            self._suspects.remove(held)
        held.run.tokens -= 1
        if held.run.tokens <= 0:
            self._runs.pop(held.run.run, None)

    def give_up(self, held: ClaimedJob) -> None:
        """Hold a token no more and stop running it: it is not ours."""
        if self.holds(held):
            self.forget(held)
            self._drop(held)

    def give_up_instance(self, run: CachedInstance) -> None:
        """Give up every token of an instance that has ended."""
        for held in [held for held in self.tokens.values() if held.run is run]:
            self.give_up(held)

    def abandon(self) -> None:
        """Give up everything: the lease is gone, somebody else has the tokens."""
        for lane in self.buffers.values():
            lane.drain()
            lane.settling = 0
        self.refused.clear()
        for held in list(self.tokens.values()):
            self.give_up(held)

    def stale(self, older_than: float) -> Iterable[ClaimedJob]:
        """Take out the tokens that have waited in vain since before `older_than` (monotonic seconds) for a slot."""
        return [held for lane in self.buffers.values() for held in lane.drain(older_than) if self.holds(held)]

    def not_started(self) -> Iterable[ClaimedJob]:
        """Take out every token that has not begun to run."""
        suspects, self._suspects = self._suspects, []
        return [*self.stale(older_than=float("inf")), *suspects]


def _refused(row: ClaimedRow, effect: Effect) -> JobUpdate:
    return JobUpdate(id=row.id, run=row.run, attempt=row.attempt, step=row.step, kind=row.kind, effect=effect)
