"""A worker whose stages a test runs one at a time: claim, run, decide, settle and adopt, on any connection."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import psycopg

from pgflow.client.workflow import Workflow
from pgflow.database.statement import run
from pgflow.store import job, signal, worker
from pgflow.store.job import SettleResult
from pgflow.worker.claimed_task import HeldJob
from pgflow.worker.decide_task import AnyDecision
from pgflow.worker.held_jobs import HeldJobs
from pgflow.worker.queue_buffer import QueueBuffer
from pgflow.worker.runner import Runner
from pgflow.worker.settler import Settler

LEASE = timedelta(hours=1)


class Driver:
    """A worker that a test drives. Its steps run in `run_steps`, and outcomes are settled in `settle`."""

    def __init__(
        self,
        conn: psycopg.Connection[Any],
        workflows: Sequence[type[Workflow[Any]]],
        *,
        room: int = 100,
        queues: Sequence[str] = ("default",),
    ) -> None:
        self.conn = conn
        self.buffers = {queue: QueueBuffer(queue, room) for queue in queues}
        self.ready: list[HeldJob] = []
        self.held_jobs = HeldJobs(self.buffers, start=self.ready.append, drop=self._drop)
        for workflow in workflows:
            self.held_jobs.register(workflow)
        self.settler = Settler("pgflow", self.held_jobs, notify=lambda notifications: None)
        self.held_jobs.worker = run(
            conn, worker.register("pgflow", node="test", pid=0, queues=list(queues), version="0", nonce="", lease=LEASE)
        )
        self.runner = Runner(ThreadPoolExecutor(1))
        self.decisions: list[AnyDecision] = []
        self.settled: list[SettleResult] = []

    def _drop(self, token: HeldJob) -> None:
        if token in self.ready:
            self.ready.remove(token)

    def claim(self, limit: int = 100, conn: psycopg.Connection[Any] | None = None) -> int:
        """Claim jobs and hold them."""
        rows = run(conn or self.conn, job.claim("pgflow", self.settler.worker, dict.fromkeys(self.buffers, limit)))
        self.held_jobs.add_claimed(rows)
        return len(rows)

    def run_steps(self, *steps: str) -> None:
        """Run the held jobs (only those at `steps`, if given) to their outcomes."""
        self.held_jobs.run_waiting()
        chosen = [token for token in self.ready if not steps or token.step in steps]
        for token in chosen:
            self.ready.remove(token)
            outcome = asyncio.run(self.runner.run(token))
            self.settler.finished(self.runner.by_policy(outcome))

    def decide(self) -> None:
        """Decide on the outcomes so far, with the cached state of their instances."""
        self.decisions = self.settler.take()

    def send(self, conn: psycopg.Connection[Any] | None = None) -> None:
        """Send the settle statement of the decisions."""
        if self.decisions or self.settler.has_outcomes:
            statement = self.settler.statement(self.decisions, self.held_jobs.take_rejected())
            self.settled = run(conn or self.conn, statement)

    def adopt(self) -> None:
        """Adopt its results."""
        decisions, self.decisions = self.decisions, []
        settled, self.settled = self.settled, []
        if decisions:
            self.settler.adopt(decisions, settled)

    def settle(self) -> None:
        """Decide, send and adopt."""
        self.decide()
        self.send()
        self.adopt()

    def turn(self) -> int:
        """Run one turn of a worker: settle, make due jobs ready, claim, run.

        Return how many jobs it holds.
        """
        self.settle()
        run(self.conn, job.stage("pgflow"))
        run(self.conn, signal.send_due("pgflow"))
        self.claim()
        self.run_steps()
        return len(self.held_jobs.jobs)
