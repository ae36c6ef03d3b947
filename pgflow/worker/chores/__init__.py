"""Upkeep: statements that any worker runs along with its turns, a file each.

A chore decides when it is due, gives the statement, and takes over the answer. All that the rest of the worker knows
of them is the list below; adding a chore takes its file and one entry.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pgflow.worker.chores.check_migrations import CheckMigrations
from pgflow.worker.chores.check_revoked import CheckRevoked
from pgflow.worker.chores.chore import Chore
from pgflow.worker.chores.delete_payloads import DeletePayloads
from pgflow.worker.chores.end_expired import EndExpired
from pgflow.worker.chores.fire_schedules import FireSchedules
from pgflow.worker.chores.forget_audit import ForgetAudit
from pgflow.worker.chores.forget_limits import ForgetLimits
from pgflow.worker.chores.forget_requests import ForgetRequests
from pgflow.worker.chores.forget_workers import ForgetWorkers
from pgflow.worker.chores.peek import Peek
from pgflow.worker.chores.prune import Prune
from pgflow.worker.chores.read_queues import ReadQueues
from pgflow.worker.chores.reconcile import Reconcile
from pgflow.worker.chores.repair_orphans import RepairOrphans
from pgflow.worker.chores.rescue import Rescue
from pgflow.worker.chores.save_reports import SaveReports
from pgflow.worker.chores.send_signals import SendSignals
from pgflow.worker.chores.stage import Stage
from pgflow.worker.chores.terminate_backends import TerminateBackends
from pgflow.worker.turns.state import WorkerState

__all__ = ["Chores", "chores"]


@dataclass(frozen=True, slots=True)
class Chores:
    """The chores of one worker, by their place in a turn's transaction; in this order."""

    before_settle: tuple[Chore[Any], ...]
    before_claim: tuple[Chore[Any], ...]
    after_claim: tuple[Chore[Any], ...]


def chores(state: WorkerState) -> Chores:
    """Return a new worker's chores."""
    return Chores(
        # Reconcile must come before the settle, which gives this worker jobs that its memory does not hold yet.
        before_settle=(
            TerminateBackends(state),
            Rescue(state),
            RepairOrphans(state),
            CheckMigrations(state),
            ForgetWorkers(state),
            ForgetRequests(state),
            DeletePayloads(state),
            ForgetLimits(state),
            ForgetAudit(state),
            Reconcile(state),
            SaveReports(state),
        ),
        # What these make ready, the claim of the same turn can take; and what has expired, it must not.
        before_claim=(Stage(state), SendSignals(state), EndExpired(state), FireSchedules(state)),
        after_claim=(ReadQueues(state), Peek(state), CheckRevoked(state), Prune(state)),
    )
