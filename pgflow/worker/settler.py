"""Settle what steps came to and claim the next ones: a batch in one round trip and one commit."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pgflow.core.graph import Graph
from pgflow.core.workflow import Workflow
from pgflow.store import job
from pgflow.store.job import Change, Claimed, Settled, Verdict
from pgflow.store.statement import Statement
from pgflow.worker.decide import Decision, decide
from pgflow.worker.lane import Lane
from pgflow.worker.outcome import Outcome, Released
from pgflow.worker.token import Run, Token, known, token

__all__ = ["Settler", "Stats"]

log = logging.getLogger("pgflow.worker")

BATCH_LIMIT = 1000  # outcomes in one settle
PASS_ON_SECONDS = 10.0  # how long a token of an unknown workflow waits for a worker that knows it


@dataclass(slots=True)
class Stats:
    """What a worker has done since it started: counters that only grow."""

    steps: int = 0
    retries: int = 0
    round_trips: int = 0
    claimed: int = 0
    conflicts: int = 0
    fenced: int = 0
    rescued: int = 0


class UnknownHere(Exception):
    """No app of this worker defines the token's workflow, version or step."""


class Settler:
    """The tokens in a worker's memory and how they change; it decides and remembers, its caller talks to the database.

    `start(token)` begins to run a token, `drop(token)` stops running one that is not ours any more, `wake(queues)` tells other
    workers that there is work. `workflows` maps (name, version) to the workflow class.
    """

    def __init__(
        self,
        schema: str,
        workflows: Mapping[tuple[str, int], type[Workflow[Any]]],
        lanes: Mapping[str, Lane],
        *,
        start: Callable[[Token], None],
        drop: Callable[[Token], None],
        wake: Callable[[Iterable[str]], None],
    ) -> None:
        self.schema = schema
        self.worker = 0
        self.lanes = lanes
        self.held: dict[int, Token] = {}
        self.stats = Stats()
        self.is_draining = False
        self._workflows = workflows
        self._graphs: dict[tuple[str, int], Graph] = {key: workflow.graph for key, workflow in workflows.items()}
        self._runs: dict[int, Run] = {}
        self._outcomes: list[Outcome] = []
        self._refused: list[tuple[Verdict, Change | None]] = []
        self._start = start
        self._drop = drop
        self._wake = wake

    # -- what steps came to

    def finished(self, outcome: Outcome) -> bool:
        """Take the outcome of a running token; returns False when the token is not ours any more."""
        lane = self.lanes[outcome.token.queue]
        lane.finished()
        if self.held.get(outcome.token.id) is not outcome.token:
            lane.settled()
            return False
        self._outcomes.append(outcome)
        return True

    @property
    def has_outcomes(self) -> bool:
        """Whether anything waits to be settled."""
        return bool(self._outcomes or self._refused)

    def take(self) -> list[Decision]:
        """Decide over the outcomes that wait, one decision an instance."""
        batch, self._outcomes = self._outcomes[:BATCH_LIMIT], self._outcomes[BATCH_LIMIT:]
        by_run: dict[int, list[Outcome]] = {}
        for outcome in batch:
            if self.held.get(outcome.token.id) is outcome.token:
                by_run.setdefault(outcome.token.run.run, []).append(outcome)
            else:
                self.lanes[outcome.token.queue].settled()
        return [self.decide(outcomes) for outcomes in by_run.values()]

    def decide(self, outcomes: list[Outcome]) -> Decision:
        """Decide over outcomes of one instance."""
        return decide(outcomes[0].token.run, outcomes, self._keep)

    def _keep(self, queue: str, is_branch: bool) -> bool:
        lane = self.lanes.get(queue)
        if lane is None or self.is_draining:
            return False
        return not is_branch or lane.free() > 0

    def statement(self, decisions: list[Decision]) -> Statement[list[Settled]]:
        """The settle statement for decisions."""
        refused, self._refused = self._refused, []
        verdicts = [verdict for decision in decisions for verdict in decision.verdicts]
        verdicts += [verdict for verdict, _ in refused]
        changes = [decision.change for decision in decisions if decision.change is not None]
        changes += {change.run: change for _, change in refused if change is not None}.values()
        branches = [branch for decision in decisions for branch in decision.branches]
        return job.settle(self.schema, self.worker, verdicts, changes, branches)

    def adopt(self, decisions: list[Decision], settled: list[Settled]) -> None:
        """Take over in memory what the database says became of decisions."""
        fates = {row.id: row for row in settled if row.what == "token"}
        born: dict[int, list[Settled]] = {}
        for row in settled:
            if row.what == "branch":
                born.setdefault(row.run, []).append(row)
        elsewhere: set[str] = set()
        for decision in decisions:
            self._adopt(decision, fates, born.get(decision.run.run, []), elsewhere)
        if elsewhere:
            self._wake(elsewhere)

    def _adopt(
        self, decision: Decision, fates: Mapping[int, Settled], born: list[Settled], elsewhere: set[str]
    ) -> None:
        run = decision.run
        done = [verdict for verdict in decision.verdicts if fates[verdict.id].status == "done"]
        if len(done) == len(decision.verdicts) or any(verdict.guarded for verdict in done):
            run.state = decision.state
            run.outputs.update(decision.outputs)
            run.metadata.update(decision.metadata)
            if decision.consumed:
                run.signals = [signal for signal in run.signals if signal not in decision.consumed]
            if decision.change is not None:
                run.revision += 1
                run.status = decision.change.status or run.status
        for verdict in decision.verdicts:
            held = self.held.get(verdict.id)
            if held is None:
                continue
            self.lanes[held.queue].settled()
            fate = fates[verdict.id]
            match fate.status:
                case "busy":
                    self.lanes[held.queue].settling += 1
                    self._outcomes.append(next(o for o in decision.outcomes if o.token is held))
                    continue
                case "conflict":
                    self.stats.conflicts += 1
                    elsewhere.add(held.queue)
                case "fenced":
                    self.stats.fenced += 1
                    log.info(
                        "step %s of %s: the token is not ours any more; its outcome is dropped", verdict.step, run.id
                    )
                case _:
                    self.stats.steps += verdict.event is not None
                    self.stats.retries += verdict.op == "retry"
                    if verdict.op == "move" and fate.kept:
                        self._continue(held, verdict)
                        continue
                    if verdict.op in ("move", "release"):
                        elsewhere.add(verdict.next_queue or held.queue)
            self.forget(held)
        for row in born:
            branch = next(b for b in decision.branches if b.step == row.step)
            if row.kept:
                self.hold(
                    Token(
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
                        awaits=None,
                    )
                )
            else:
                elsewhere.add(branch.queue)
        if decision.failure is not None and run.status == "failed":
            log.warning(
                "%s %s failed at step %s: %s",
                run.graph.name,
                run.id,
                decision.failure["step"],
                decision.failure["reason"],
            )
            elsewhere.add("")
            for other in [other for other in self.held.values() if other.run is run]:
                self.give_up(other)

    def _continue(self, held: Token, verdict: job.Verdict) -> None:
        """The token has moved to its next step and stays with us."""
        assert verdict.next_step is not None and verdict.next_queue is not None  # noqa: S101 -- a move names its next step
        moved = Token(
            held.id, held.run, "execute", verdict.next_step, verdict.next_config, verdict.next_queue, verdict.next_priority or 0, 1,
            verdict.next_max or held.max_attempts, bool(verdict.next_solo), None,
        )  # fmt: skip
        self.forget(held)
        self.hold(moved)

    # -- what is claimed

    def rooms(self, now: float) -> dict[str, int]:
        """How many tokens to claim, by queue; empty when nothing is wanted."""
        if self.is_draining:
            return {}
        return {name: room for name, lane in self.lanes.items() if (room := lane.room(now)) > 0}

    def take_in(self, rows: list[Claimed], now: float) -> None:
        """Hold what was claimed. A row that nobody here can run is given back, one that cannot be read fails its instance."""
        self.stats.claimed += len(rows)
        learned: dict[int, Run | Exception] = {}
        for row in rows:
            if row.business_id is not None:
                learned[row.run] = self._learn(row)
        for row in rows:
            run = learned[row.run]
            try:
                if isinstance(run, Exception):
                    raise run
                if row.step and row.step not in run.graph.nodes:
                    raise UnknownHere(f"version {run.version} of {run.graph.name} has no step {row.step!r} here")
                self.hold(token(row, run, now))
            except UnknownHere as error:  # a rolling deployment: a worker that knows it is on its way
                log.warning("%s: token %d is left to another worker", error, row.id)
                self._refused.append((_refusal(row, "snooze", delay=PASS_ON_SECONDS), None))
            except Exception as error:
                log.exception("token %d of run %d cannot be read", row.id, row.run)
                failure = {
                    "step": row.step,
                    "reason": f"stored data cannot be read: {error}",
                    "type": type(error).__name__,
                }
                change = Change(row.run, None, "failed", error=json.dumps(failure))
                self._refused.append((_refusal(row, "fail", guarded=True), change))

    def _learn(self, row: Claimed) -> Run | Exception:
        key = (row.workflow or "", row.version or 0)
        if key not in self._graphs:
            return UnknownHere(f"no app here defines {row.workflow} in version {row.version}")
        try:
            run = known(row, self._workflows[key], self._graphs[key])
        except Exception as error:
            return error
        older = self._runs.get(row.run)
        if older is None:
            self._runs[row.run] = run
            return run
        # Tokens that run now keep their Run: what is known of the instance is renewed in place.
        older.status, older.revision, older.state = run.status, run.revision, run.state
        older.metadata, older.outputs, older.unapplied, older.signals = (
            run.metadata,
            run.outputs,
            run.unapplied,
            run.signals,
        )
        return older

    # -- what is held

    def hold(self, new: Token) -> None:
        """Keep a token and run it as soon as its lane has a free slot."""
        new.run.tokens += 1
        self._runs[new.run.run] = new.run
        self.held[new.id] = new
        new.since = time.monotonic()
        self.lanes[new.queue].push(new)

    def run_waiting(self) -> None:
        """Start as many tokens as the lanes have free slots."""
        for lane in self.lanes.values():
            while (token := lane.pop()) is not None:
                if self.held.get(token.id) is token:
                    self._start(token)
                else:
                    lane.running -= 1

    def forget(self, held: Token) -> None:
        """Hold a token no more."""
        if self.held.get(held.id) is held:
            del self.held[held.id]
        held.run.tokens -= 1
        if held.run.tokens <= 0:
            self._runs.pop(held.run.run, None)

    def give_up(self, held: Token) -> None:
        """Stop running a token that is not ours any more."""
        self.forget(held)
        self._drop(held)

    def release(self, tokens: Iterable[Token]) -> None:
        """Give back tokens that have not begun to run."""
        for held in tokens:
            if self.held.get(held.id) is held:
                self.lanes[held.queue].settling += 1
                self._outcomes.append(Released(held))

    def abandon(self) -> None:
        """Forget everything: the lease is gone, somebody else has the tokens."""
        for lane in self.lanes.values():
            lane.drain()
            lane.settling -= sum(1 for outcome in self._outcomes if outcome.token.queue == lane.queue)
        self._outcomes.clear()
        for held in list(self.held.values()):
            self.give_up(held)


def _refusal(row: Claimed, op: str, **more: Any) -> Verdict:
    return Verdict(id=row.id, run=row.run, attempt=row.attempt, step=row.step, kind=row.kind, op=op, **more)
