"""Register workers, renew their leases and wake them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta

from pgflow.store import files
from pgflow.store.statement import Row, Statement

__all__ = ["attach", "beat", "channel", "evict", "forget", "leave", "register", "wake"]


def _nothing(rows: Sequence[Row]) -> None:
    return None


def register(
    schema: str,
    *,
    node: str,
    pid: int,
    queues: Sequence[str],
    version: str,
    nonce: str,
    lease: timedelta,
    backend: int | None = None,
) -> Statement[int]:
    """Add a worker with its first lease; returns its id, which no other process start ever gets from this server.

    `nonce` is known to nobody else: whoever attaches or beats says it, too. `backend` is the server process that the
    connection was promised (`conn.info.backend_pid`). If it is the one that answers, which is not so behind a pooler,
    it is noted, for `evict`.
    """
    params = {
        "node": node,
        "pid": pid,
        "queues": list(queues),
        "version": version,
        "nonce": nonce,
        "backend": backend,
        "lease": lease.total_seconds(),
    }
    return Statement(
        "worker/register", files.load("queries/worker/register.sql", schema), params, lambda rows: int(rows[0][0])
    )


def attach(schema: str, worker: int, nonce: str, backend: int | None = None) -> Statement[bool]:
    """Note that a worker goes on with this connection; returns False when it may not, because its lease has ended.

    `backend` as in `register`.
    """
    params = {"worker": worker, "nonce": nonce, "backend": backend}
    return Statement("worker/attach", files.load("queries/worker/attach.sql", schema), params, bool)


def evict(schema: str) -> Statement[int]:
    """End the transactions that workers without a lease have left open; returns how many there were."""
    return Statement("worker/evict", files.load("queries/worker/evict.sql", schema), {}, lambda rows: int(rows[0][0]))


def beat(schema: str, worker: int, nonce: str, lease: timedelta) -> Statement[bool]:
    """Renew a lease; returns False when it has ended already, because then it stays ended."""
    params = {"worker": worker, "nonce": nonce, "lease": lease.total_seconds()}
    return Statement("worker/beat", files.load("queries/worker/beat.sql", schema), params, bool, prepare=True)


def leave(schema: str, worker: int) -> Statement[None]:
    """End a worker's lease at once."""
    return Statement("worker/leave", files.load("queries/worker/leave.sql", schema), {"worker": worker}, _nothing)


def forget(schema: str, age: timedelta) -> Statement[None]:
    """Delete the rows of workers whose lease ended longer than `age` ago."""
    return Statement(
        "worker/forget", files.load("queries/worker/forget.sql", schema), {"age": age.total_seconds()}, _nothing
    )


def wake(schema: str, queues: Iterable[str]) -> Statement[None]:
    """Notify the workers of these queues.

    An empty name asks every worker to look whether its steps are still wanted.
    """
    return Statement(
        "worker/wake", files.load("queries/worker/wake.sql", schema), {"queues": sorted(queues)}, _nothing, prepare=True
    )


def channel(schema: str) -> Statement[str]:
    """Return the name of the channel on which `wake` speaks."""
    return Statement(
        "worker/channel", files.load("queries/worker/channel.sql", schema), {}, lambda rows: str(rows[0][0])
    )
