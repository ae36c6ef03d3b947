"""A worker's identity in the database: registration, lease and heartbeat."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version

import psycopg

from pgflow.database.connect import AsyncConnection, aconnect
from pgflow.database.statement import Statement, arun
from pgflow.database.transaction_status import is_idle
from pgflow.errors import PgflowError
from pgflow.logs import Logger
from pgflow.migrations import migrate
from pgflow.store import job, worker
from pgflow.worker import points, report
from pgflow.worker.lease.heartbeat import Heartbeat
from pgflow.worker.lease.heartbeat_process import HeartbeatProcess
from pgflow.worker.settler import Settler

__all__ = ["Lease"]

log = Logger("pgflow.worker")


class Lease:
    """The lease of one run of a worker; after it expired, `register` takes a new identity.

    `on_lost` is called once, in the heartbeat's thread, when the lease has expired. `process` sends heartbeats while
    Python's global lock is held.
    """

    def __init__(
        self,
        dsn: str,
        settler: Settler,
        *,
        queues: Mapping[str, int],
        lease: timedelta,
        on_lost: Callable[[], object],
        process: HeartbeatProcess | None = None,
        pooler: bool = False,
    ) -> None:
        self.heartbeat = Heartbeat(dsn, settler.schema, lease, on_lost, process, pooler=pooler)
        self._dsn = dsn
        self._pooler = pooler
        self._settler = settler
        self._queues = queues
        self._lease = lease
        self._nonce = ""

    @property
    def is_safe(self) -> bool:
        """Whether this worker has surely still a lease, and will have it for a while."""
        return bool(self._settler.worker) and self.heartbeat.lease_is_safe()

    async def register(self, conn: AsyncConnection) -> None:
        """Take an identity, and start the heartbeat. Raises `SchemaError` where this code must not work."""
        schema, asked_at, nonce = self._settler.schema, time.monotonic(), secrets.token_hex(16)
        statement = worker.register(
            schema,
            node=socket.gethostname(),
            pid=os.getpid(),
            queues=list(self._queues),
            version=own_version(),
            nonce=nonce,
            backend=conn.info.backend_pid,
            lease=self._lease,
        )
        while not (number := await arun(conn, statement)):
            await migrate.acheck(conn, schema)  # raises the reason, unless it is gone again
        self._nonce = nonce
        self._settler.held_jobs.worker = number
        points.reached("worker.registered")
        self.heartbeat.start(number, nonce, asked_at)
        log.info("worker %d is ready: %s", number, ", ".join(f"{name}={limit}" for name, limit in self._queues.items()))
        report.ready(number, self._queues, schema)

    def attach(self, conn: AsyncConnection) -> Statement[bool]:
        """Return the statement that goes on under this identity on a new connection; False: the lease has expired."""
        return worker.attach(self._settler.schema, self._settler.worker, self._nonce, conn.info.backend_pid)

    async def end(self, conn: AsyncConnection | None, *, is_drained: bool) -> None:
        """End the lease, and close `conn`.

        After an error or a cancellation (`is_drained` False) give the jobs back first: a rescue would count a crash.
        """
        schema, me = self._settler.schema, self._settler.worker
        try:
            if me and not is_drained and (conn is None or not is_idle(conn)):
                if conn is not None:
                    await conn.close()
                conn = await aconnect(self._dsn, role="worker", pooler=self._pooler)
            if me and conn is not None and not conn.closed:
                if not is_drained:
                    await arun(conn, job.reconcile(schema, me, ()))
                await arun(conn, worker.leave(schema, me))
        except (psycopg.Error, PgflowError, OSError) as error:
            log.info("worker %d cannot end its lease, which will expire: %s", me, error)
        finally:
            if conn is not None:
                await conn.close()


def own_version() -> str:
    """Return the version of pgflow that runs here."""
    try:
        return version("pgflow-engine")
    except PackageNotFoundError:  # run from a folder, without being installed
        return "unknown"
