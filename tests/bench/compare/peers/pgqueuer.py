"""PgQueuer: default is `pgq run`; best claims 500 at a time, after `pgq autovac`, and logs warnings only."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import psycopg
from pgqueuer import PgQueuer
from pgqueuer.db import SyncPsycopgDriver
from pgqueuer.models import Job
from pgqueuer.queries import SyncQueries

from tests.bench.compare.peers.contestant import BATCH, Contestant, become, program
from tests.bench.compare.peers.mark import mark

FACTORY = f"{__name__}:main"
BEST = ("--batch-size", "500", "--log-level", "WARNING")


@asynccontextmanager
async def main() -> AsyncIterator[PgQueuer]:
    """What `pgq run` runs."""
    queue = PgQueuer.from_asyncpg_connection(await asyncpg.connect(os.environ["BENCH_DSN"]))

    @queue.entrypoint("task")
    async def task(job: Job) -> None:
        mark(int(job.payload or b"0"))

    yield queue


class PgQueuerOnes(Contestant):
    """PgQueuer, on asyncpg."""

    done = "select not exists (select from pgqueuer)"
    failed = "select count(*) from pgqueuer_log where status in ('exception', 'failed', 'canceled')"

    def _command(self, *order: str) -> list[str]:
        return [program("pgq"), "--pg-dsn", self.dsn, *order]

    def prepare(self) -> None:
        """Install with its command."""
        subprocess.run(self._command("install"), check=True, capture_output=True)
        if self.is_best:
            subprocess.run(self._command("autovac"), check=True, capture_output=True)

    def open(self) -> None:
        """Connect."""
        self.queries = SyncQueries(SyncPsycopgDriver(psycopg.connect(self.dsn, autocommit=True)))

    def start(self, kind: str, sent: int) -> Any:
        """Enqueue one."""
        return self.queries.enqueue(kind, str(sent).encode())

    def start_many(self, kind: str, count: int) -> None:
        """Enqueue a thousand in a call."""
        for begin in range(0, count, BATCH):
            size = min(BATCH, count - begin)
            self.queries.enqueue([kind] * size, [b"0"] * size, [0] * size)

    def serve(self) -> None:
        """Become `pgq run`."""
        command = self._command("run", FACTORY, *(BEST if self.is_best else ()))
        become(command)


ENGINE = PgQueuerOnes
