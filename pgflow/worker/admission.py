"""Decide how much a worker may claim from each of its queues."""

from __future__ import annotations

from pgflow.worker.held_jobs import HeldJobs

__all__ = ["claim_capacity"]


def claim_capacity(held_jobs: HeldJobs, now: float, *, may_claim: bool = True) -> dict[str, int]:
    """Return how many jobs to claim at `now` (monotonic seconds), by queue; queues without capacity are left out.

    The one place where this worker decides whether a queue may be claimed from. Nothing is claimed while the lease is
    not safe or the worker stops (`may_claim` is False), and while a quarantined job is held: it has to run alone.
    Whether a queue is paused is known in the database only, so the claim itself (sql/queries/job/claim.sql) skips it.
    """
    if not may_claim or held_jobs.has_quarantined:
        return {}
    return {name: capacity for name, buffer in held_jobs.buffers.items() if (capacity := buffer.capacity(now)) > 0}
