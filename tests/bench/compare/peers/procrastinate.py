"""Procrastinate: default is its command with a sync task; best runs ten async ones at once, and sets up no logging."""

from __future__ import annotations

import os
from typing import Any

from procrastinate import App, PsycopgConnector, SyncPsycopgConnector

from tests.bench.compare.peers.contestant import BATCH, Contestant, become, program
from tests.bench.compare.peers.mark import mark

APP = f"{__name__}.app"
CONCURRENCY = 10

POOL = {"min_size": CONCURRENCY + 1, "max_size": CONCURRENCY + 1} if os.environ.get("BENCH_CONFIG") == "best" else {}
app = App(connector=PsycopgConnector(conninfo=os.environ["BENCH_DSN"], **POOL))


@app.task(queue="q", name="sync")
def sync_task(sent: int) -> None:
    """The task of the first page."""
    mark(sent)


@app.task(queue="q", name="async")
async def async_task(sent: int) -> None:
    """The same, async."""
    mark(sent)


class Procrastinators(Contestant):
    """Procrastinate, on psycopg."""

    done = "select not exists (select from procrastinate_jobs where status in ('todo', 'doing'))"
    failed = "select count(*) from procrastinate_jobs where status <> 'succeeded'"

    def _client(self) -> Any:
        return App(connector=SyncPsycopgConnector(conninfo=self.dsn))

    def prepare(self) -> None:
        """Apply the schema."""
        with self._client().open() as client:
            client.schema_manager.apply_schema()

    def open(self) -> None:
        """Connect."""
        self.client = self._client()
        self.task = self.client.configure_task("async" if self.is_best else "sync", queue="q")
        self.client.open()

    def start(self, kind: str, sent: int) -> Any:
        """Defer one."""
        return self.task.defer(sent=sent)

    def start_many(self, kind: str, count: int) -> None:
        """Defer a thousand in a call."""
        for begin in range(0, count, BATCH):
            self.task.batch_defer(*[{"sent": 0}] * min(BATCH, count - begin))

    def serve(self) -> None:
        """Run the worker, as a program or with its command."""
        if self.is_best:
            app.run_worker(concurrency=CONCURRENCY)
        else:
            become([program("procrastinate"), f"--app={APP}", "worker"])


ENGINE = Procrastinators
