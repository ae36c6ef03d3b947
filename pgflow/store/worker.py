"""Register workers, renew their leases and notify them."""

from __future__ import annotations

from builtins import list as Builtin
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from pgflow.core.models.overview import WorkerInfo
from pgflow.database import files
from pgflow.database.arrays import Texts
from pgflow.database.migration_files import migrations
from pgflow.database.statement import Row, Statement
from pgflow.store.notification import Notification, encode

__all__ = [
    "Alive",
    "alive",
    "attach",
    "beat",
    "block_registration",
    "channel",
    "forget",
    "leave",
    "list",
    "notify",
    "register",
    "require_none",
    "terminate_expired_backends",
    "terminate_stale_sessions",
]


@dataclass(frozen=True, slots=True)
class Alive:
    """A worker whose lease has not expired."""

    id: int
    node: str
    pid: int
    version: str

    def __str__(self) -> str:
        return f"worker {self.id} ({self.node}, pid {self.pid}, pgflow {self.version})"


def _nothing(rows: Sequence[Row]) -> None:
    return None


def _count(rows: Sequence[Row]) -> int:
    return int(rows[0][0])


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
    """Add a worker with its first lease; returns its id, which this server never gives to another process start.

    `nonce` is a secret of this registration: `attach` and `beat` must present it. `backend` is the process id of the
    server process that `conn` reports (`conn.info.backend_pid`). It is stored, for `terminate_expired_backends`, only
    if that process executes the statement, which is not so behind a pooler. Returns 0 and adds nothing if an applied
    or announced migration breaks this code.
    """
    params = {
        "node": node,
        "pid": pid,
        "queues": Builtin(queues),
        "version": version,
        "nonce": nonce,
        "backend": backend,
        "lease": lease.total_seconds(),
        "latest": len(migrations()),
    }
    query = files.load("queries/worker/register.sql", schema)
    return Statement("worker/register", query, params, lambda rows: int(rows[0][0]) if rows else 0)


def alive(schema: str) -> Statement[Builtin[Alive]]:
    """Return the workers whose lease has not expired, on a schema of any age."""
    query = files.load("queries/worker/alive.sql", schema)
    return Statement("worker/alive", query, {}, lambda rows: [Alive(*row) for row in rows])


def block_registration(schema: str) -> Statement[None]:
    """Let no worker register until the transaction ends."""
    query = files.load("queries/worker/block_registration.sql", schema)
    return Statement("worker/block_registration", query, {}, _nothing)


def terminate_stale_sessions(schema: str) -> Statement[int]:
    """Terminate sessions of workers that still have a transaction open, once no worker is alive; returns how many."""
    query = files.load("queries/worker/terminate_stale_sessions.sql", schema)
    return Statement("worker/terminate_stale_sessions", query, {}, _count)


def terminate_expired_backends(schema: str) -> Statement[int]:
    """Terminate backends in which workers with an expired lease still have a transaction open; returns how many."""
    query = files.load("queries/worker/terminate_expired_backends.sql", schema)
    return Statement("worker/terminate_expired_backends", query, {}, _count)


def require_none(schema: str) -> Statement[None]:
    """Raise an error while a worker is alive; for a script that runs in psql."""
    return Statement("worker/require_none", files.load("queries/worker/require_none.sql", schema), {}, _nothing)


def attach(schema: str, worker: int, nonce: str, backend: int | None = None) -> Statement[bool]:
    """Record that a worker has reconnected; returns False when its lease has expired, so that it must not go on.

    `backend` as in `register`.
    """
    params = {"worker": worker, "nonce": nonce, "backend": backend}
    return Statement("worker/attach", files.load("queries/worker/attach.sql", schema), params, bool)


def beat(schema: str, worker: int, nonce: str, lease: timedelta) -> Statement[bool]:
    """Renew a lease; returns False when it has expired: an expired lease is never renewed."""
    params = {"worker": worker, "nonce": nonce, "lease": lease.total_seconds()}
    return Statement("worker/beat", files.load("queries/worker/beat.sql", schema), params, bool, prepare=True)


def leave(schema: str, worker: int) -> Statement[None]:
    """End a worker's lease at once."""
    return Statement("worker/leave", files.load("queries/worker/leave.sql", schema), {"worker": worker}, _nothing)


def forget(schema: str, age: timedelta) -> Statement[None]:
    """Delete the rows of workers whose lease expired longer than `age` ago."""
    query = files.load("queries/worker/forget.sql", schema)
    return Statement("worker/forget", query, {"age": age.total_seconds()}, _nothing)


def list(schema: str, *, only_alive: bool = True) -> Statement[Builtin[WorkerInfo]]:  # noqa: A001 -- path is name: worker/list.sql
    """Read the workers, the newest first; also those whose lease has expired, unless `only_alive`."""
    query = files.load("queries/worker/list.sql", schema)
    return Statement("worker/list", query, {"only_alive": only_alive}, lambda rows: [*map(_info, rows)])


def notify(schema: str, notifications: Iterable[Notification]) -> Statement[None]:
    """Notify all workers that listen."""
    params = {"payloads": Texts(sorted(map(encode, notifications)))}
    return Statement("worker/notify", files.load("queries/worker/notify.sql", schema), params, _nothing, prepare=True)


def channel(schema: str) -> Statement[str]:
    """Return the name of the channel that `notify` uses."""
    query = files.load("queries/worker/channel.sql", schema)
    return Statement("worker/channel", query, {}, lambda rows: str(rows[0][0]))


def _info(row: Row) -> WorkerInfo:
    id_, node, pid, version, queues, *rest = row
    return WorkerInfo(id_, node, pid, version, tuple(queues), *rest)
