"""Decide what outcomes come to, and take over in memory what the database says became of the decisions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from pgflow.core.values.sanitize import error_message, sanitize_line, sanitize_text, type_name
from pgflow.database.statement import Statement
from pgflow.logs import Logger, is_interrupt
from pgflow.store import job
from pgflow.store.job import Branch, SettleResult, Verdict
from pgflow.telemetry.bus import handlers_by_event
from pgflow.worker import report
from pgflow.worker.claimed_job import CachedInstance, ClaimedJob
from pgflow.worker.decide import Decision, decide
from pgflow.worker.held_jobs import HeldJobs, RejectedJob
from pgflow.worker.outcome import AttemptFailed, Outcome, Released

__all__ = ["Settler", "Stats"]

log = Logger("pgflow.worker")

BATCH_LIMIT = 1000  # outcomes in one settle


@dataclass(slots=True)
class Stats:
    """What a worker has done since it started: counters that only grow.

    `round_trips` are those for tokens; the heartbeats, one in a quarter of a lease, come on top.
    """

    steps: int = 0
    retries: int = 0
    round_trips: int = 0
    claimed: int = 0
    conflicts: int = 0
    fenced: int = 0
    rescued: int = 0


class Settler:
    """Outcomes in, decisions out, and after the database has spoken the consequences in memory.

    `wake(queues)` tells other workers that there is work; the empty name, that steps may have lost their instance.
    """

    def __init__(
        self,
        schema: str,
        held_jobs: HeldJobs,
        *,
        wake: Callable[[Iterable[str]], None],
        stats: Stats | None = None,
    ) -> None:
        self.schema = schema
        self.held_jobs = held_jobs
        self.worker = 0
        self.stats = Stats() if stats is None else stats
        self.is_draining = False
        self.is_held_up = False
        self._outcomes: list[Outcome] = []
        self._deferred: list[list[Outcome]] = []  # by instance
        self._spare: dict[str, int] = {}
        self._wake = wake

    def finished(self, outcome: Outcome) -> None:
        """Take the outcome of a token that ran."""
        lane = self.held_jobs.buffers[outcome.job.queue]
        lane.finished()
        if self.held_jobs.holds(outcome.job):
            self._outcomes.append(outcome)
        else:
            lane.settled()

    def release(self, tokens: Iterable[ClaimedJob]) -> None:
        """Give back tokens that have not begun to run."""
        for held in tokens:
            self.held_jobs.buffers[held.queue].settling += 1
            self._outcomes.append(Released(held))

    @property
    def has_outcomes(self) -> bool:
        """Whether anything waits to be settled."""
        return bool(self._outcomes or self.held_jobs.refused)

    @property
    def has_deferred(self) -> bool:
        """Whether outcomes are kept that the database has refused through no fault of their steps."""
        return bool(self._deferred)

    def defer(self, decision: Decision) -> None:
        """Keep the outcomes of a decision that the database refuses for now, behind those that are kept already.

        Their tokens stay with this worker and occupy slots of their queues: it claims less, and finally nothing, while
        it cannot record what steps return.
        """
        self._deferred.append(list(decision.outcomes))

    def take_deferred(self) -> Decision | None:
        """Take out the outcomes that have been kept the longest, decided on what is known of their instance now."""
        while self._deferred:
            kept = []
            for outcome in self._deferred.pop(0):
                if self.held_jobs.holds(outcome.job):
                    kept.append(outcome)
                else:
                    self.held_jobs.buffers[outcome.job.queue].settled()
            if kept:
                return self._decide_or_fail(kept)
        return None

    def take(self) -> list[Decision]:
        """Decide over the outcomes that wait, one decision an instance."""
        batch, self._outcomes = self._outcomes[:BATCH_LIMIT], self._outcomes[BATCH_LIMIT:]
        self._spare = {name: lane.free() for name, lane in self.held_jobs.buffers.items()}
        by_run: dict[int, list[Outcome]] = {}
        for outcome in batch:
            if self.held_jobs.holds(outcome.job):
                by_run.setdefault(outcome.job.run.run, []).append(outcome)
            else:
                self.held_jobs.buffers[outcome.job.queue].settled()
        return [self._decide_or_fail(outcomes) for outcomes in by_run.values()]

    def _decide_or_fail(self, outcomes: list[Outcome]) -> Decision:
        """Decide; where that is not possible, fail this instance, so that no other one has to wait."""
        try:
            return self.decide(outcomes)
        except BaseException as error:  # nothing is awaited here, so it is not a cancellation
            if is_interrupt(error):
                raise
            log.exception("nothing can be decided on %s", outcomes[0].job.run.id)
            text = sanitize_text(f"what the step came to makes no sense here: {error_message(error)}")
            return self.decide([AttemptFailed(each.job, text, type_name(error), retry=False) for each in outcomes])

    def decide(self, outcomes: list[Outcome]) -> Decision:
        """Decide over outcomes of one instance."""
        if not handlers_by_event:
            return decide(outcomes[0].job.run, outcomes, self._keep)
        began = time.perf_counter()
        decision = decide(outcomes[0].job.run, outcomes, self._keep)
        decision.seconds = time.perf_counter() - began
        return decision

    def _keep(self, queue: str, needs_place: bool) -> bool:
        """Whether a token that goes on may stay here: one that comes into the queue needs a free slot."""
        if queue not in self.held_jobs.buffers or self.is_draining or self.held_jobs.has_quarantined:
            return False
        if not needs_place:
            return True
        self._spare[queue] = self._spare.get(queue, 0) - 1
        return self._spare[queue] >= 0

    def statement(
        self, decisions: list[Decision], refused: Iterable[RejectedJob] = ()
    ) -> Statement[list[SettleResult]]:
        """The settle statement for decisions, and for tokens that were claimed and refused."""
        verdicts = [verdict for decision in decisions for verdict in decision.verdicts]
        verdicts += [each.verdict for each in refused]
        changes = [decision.change for decision in decisions if decision.change is not None]
        changes += {change.run: change for each in refused if (change := each.change) is not None}.values()
        branches = [branch for decision in decisions for branch in decision.branches]
        return job.settle(self.schema, self.worker, verdicts, changes, branches)

    def adopt(self, decisions: list[Decision], settled: list[SettleResult]) -> None:
        """Take over what became of decisions: tokens move on here, or are forgotten."""
        fates = {row.id: row for row in settled if row.what == "token"}
        born = [row for row in settled if row.what == "branch"]
        elsewhere: set[str] = set()
        again = len(self._outcomes)
        for decision in decisions:
            is_written = self._learn(decision, fates)
            for outcome, verdict in zip(decision.outcomes, decision.verdicts, strict=True):
                self._follow(decision.run, outcome, verdict, fates[verdict.id], elsewhere)
            self._end(decision, elsewhere)
            if handlers_by_event:
                report.settled(decision, fates, is_written=is_written)
        branches = {
            (branch.run, branch.step): (branch, decision.run) for decision in decisions for branch in decision.branches
        }
        for row in born:
            self._branch(row, *branches[row.run, row.step], elsewhere)
        # Nothing but tokens that somebody holds up: the next try may wait a moment.
        self.is_held_up = 0 < len(self._outcomes) - again == len(fates)
        if elsewhere:
            self._wake(elsewhere)

    def drop(self, decision: Decision) -> None:
        """Forget the tokens of a decision that cannot be written."""
        for outcome in decision.outcomes:
            self.held_jobs.buffers[outcome.job.queue].settled()
            self.held_jobs.give_up(outcome.job)

    def adopt_rejected(self, refused: Iterable[RejectedJob], settled: list[SettleResult]) -> None:
        """Tell which instances failed because a token of theirs cannot be read, each once."""
        done = {row.id for row in settled if row.what == "token" and row.status == "done"}
        for refusal in {each.verdict.run: each for each in refused if each.verdict.id in done}.values():
            report.refused(refusal)

    def abandon(self) -> None:
        """Forget all: the lease is gone."""
        self._outcomes.clear()
        self._deferred.clear()
        self.held_jobs.abandon()

    def _learn(self, decision: Decision, fates: Mapping[int, SettleResult]) -> bool:
        """Know of the instance what has been written; a guarded decision is written in whole or not at all.

        Returns whether it has been.
        """
        done = [verdict for verdict in decision.verdicts if fates[verdict.id].status == "done"]
        if len(done) < len(decision.verdicts) and not any(verdict.guarded for verdict in done):
            return False
        run = decision.run
        run.advances += 1
        run.state = decision.state
        run.outputs.update(decision.outputs)
        run.metadata.update(decision.metadata)
        if decision.consumed:
            run.signals = [signal for signal in run.signals if signal not in decision.consumed]
        if decision.change is not None:
            run.revision += 1
            run.status = decision.change.status or run.status
        return True

    def _follow(
        self, run: CachedInstance, outcome: Outcome, verdict: Verdict, fate: SettleResult, elsewhere: set[str]
    ) -> None:
        """Let a token go on here, or forget it."""
        held, lane = outcome.job, self.held_jobs.buffers[outcome.job.queue]
        if not self.held_jobs.holds(held):
            lane.settled()
            return
        if fate.status == "busy":
            self._outcomes.append(outcome)
            return
        lane.settled()
        self.held_jobs.forget(held)
        match fate.status:
            case "conflict":
                self.stats.conflicts += 1
                elsewhere.add(verdict.orchestration or held.queue)
            case "fenced":
                self.stats.fenced += 1
                log.info("step %s of %s is not ours any more: what it came to is dropped", verdict.step, run.id)
            case _:
                self.stats.steps += verdict.event is not None
                self.stats.retries += verdict.op == "retry"
                if verdict.op == "move" and fate.kept:
                    self.held_jobs.hold(_moved(held, verdict))
                elif verdict.op in ("move", "release"):
                    elsewhere.add(verdict.next_queue or held.queue)

    def _branch(self, row: SettleResult, branch: Branch, run: CachedInstance, elsewhere: set[str]) -> None:
        if row.kept:
            self.held_jobs.hold(
                ClaimedJob(
                    row.id,
                    run,
                    "execute",
                    row.step,
                    branch.config,
                    branch.queue,
                    branch.priority,
                    1,
                    branch.max,
                    solo=False,
                )
            )
        else:
            elsewhere.add(branch.queue)

    def _end(self, decision: Decision, elsewhere: set[str]) -> None:
        run, failure = decision.run, decision.failure
        if failure is not None and run.status == "failed":
            reason = sanitize_line(failure["reason"])
            log.warning("%s %s failed at step %s: %s", run.graph.name, run.id, failure["step"], reason)
            self.held_jobs.give_up_instance(run)
            if not all(outcome.job.solo for outcome in decision.outcomes):
                elsewhere.add("")  # whoever runs a sibling: it is not wanted any more


def _moved(held: ClaimedJob, verdict: Verdict) -> ClaimedJob:
    """The token at its next step."""
    assert verdict.next_step is not None  # noqa: S101 -- a move names it
    assert verdict.next_queue is not None  # noqa: S101 -- likewise
    return ClaimedJob(
        held.id,
        held.run,
        "execute",
        verdict.next_step,
        verdict.next_config,
        verdict.next_queue,
        verdict.next_priority or 0,
        1,
        verdict.next_max or held.max_attempts,
        solo=bool(verdict.next_solo),
    )
