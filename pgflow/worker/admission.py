"""Decide how much a worker may claim from each of its queues."""

from __future__ import annotations

from collections.abc import Mapping

from pgflow.worker.held_jobs import HeldJobs

__all__ = ["NONE", "claim_capacity"]

NONE: Mapping[str, int] = {}


def claim_capacity(
    held_jobs: HeldJobs, now: float, settling: Mapping[str, int] = NONE, *, may_claim: bool = True
) -> dict[str, int]:
    """Return how many jobs to claim at `now` (monotonic seconds), by queue; queues without capacity are left out.

    `settling` are jobs that the same turn settles. In a queue with a gate they have left their slots.

    The one place where this worker decides whether a queue may be claimed from. Nothing is claimed while the lease is
    not safe or the worker stops (`may_claim` is False), and while a quarantined job is held: it has to run alone.
    Whether a queue is paused, a worker learns up to a second late (chores/read_queues.py), so the claims
    (sql/queries/job/claim.sql, sql/functions/claim_limited.sql) skip it, too.
    """
    if not may_claim or held_jobs.has_quarantined:
        return {}
    return {
        name: capacity
        for name, buffer in held_jobs.buffers.items()
        if (capacity := buffer.capacity(now, settling.get(name, 0))) > 0
    }
