"""Register workers, renew their leases and wake them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from pgflow.database import files
from pgflow.database.migration_files import migrations
from pgflow.database.statement import Row, Statement

__all__ = [
    "SWEEP",
    "Alive",
    "alive",
    "attach",
    "bar",
    "beat",
    "channel",
    "evict",
    "forget",
    "leave",
    "oust",
    "register",
    "require_none",
    "wake",
]

SWEEP = "!"  # no queue's name: every worker sweeps at once, and so looks at the ledger of migrations


@dataclass(frozen=True, slots=True)
class Alive:
    """A worker whose lease runs."""

    id: int
    node: str
    pid: int
    version: str

    def __str__(self) -> str:
        return f"worker {self.id} ({self.node}, pid {self.pid}, pgflow {self.version})"


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
    it is noted, for `evict`. Returns 0 and adds nothing where a migration has broken this code, or is announced that
    will.
    """
    params = {
        "node": node,
        "pid": pid,
        "queues": list(queues),
        "version": version,
        "nonce": nonce,
        "backend": backend,
        "lease": lease.total_seconds(),
        "latest": len(migrations()),
    }
    query = files.load("queries/worker/register.sql", schema)
    return Statement("worker/register", query, params, lambda rows: int(rows[0][0]) if rows else 0)


def alive(schema: str) -> Statement[list[Alive]]:
    """Return the workers whose lease runs, on a schema of any age."""
    query = files.load("queries/worker/alive.sql", schema)
    return Statement("worker/alive", query, {}, lambda rows: [Alive(*row) for row in rows])


def bar(schema: str) -> Statement[None]:
    """Let no worker register until the transaction ends."""
    return Statement("worker/bar", files.load("queries/worker/bar.sql", schema), {}, _nothing)


def oust(schema: str) -> Statement[int]:
    """End the transactions that workers have left open, when none of them is alive; returns how many there were."""
    return Statement("worker/oust", files.load("queries/worker/oust.sql", schema), {}, lambda rows: int(rows[0][0]))


def require_none(schema: str) -> Statement[None]:
    """Refuse to go on while a worker is alive, in words for psql."""
    return Statement("worker/require_none", files.load("queries/worker/require_none.sql", schema), {}, _nothing)


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

    An empty name asks every worker to look whether its steps are still wanted, `SWEEP` to sweep.
    """
    return Statement(
        "worker/wake", files.load("queries/worker/wake.sql", schema), {"queues": sorted(queues)}, _nothing, prepare=True
    )


def channel(schema: str) -> Statement[str]:
    """Return the name of the channel on which `wake` speaks."""
    return Statement(
        "worker/channel", files.load("queries/worker/channel.sql", schema), {}, lambda rows: str(rows[0][0])
    )
