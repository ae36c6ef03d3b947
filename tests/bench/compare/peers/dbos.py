"""DBOS: default is `register_queue("q")`; best polls often, logs errors only and has a larger pool.

A fan-out is, by default, ten child workflows on a queue; at best ten steps of one async workflow, gathered. There is no
bulk call: many are started with `enqueue_in_transaction`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import threading
from typing import Any

import sqlalchemy
from dbos import DBOS, DBOSClient

from tests.bench.compare.peers.contestant import BATCH, BRANCHES, CHAIN, Contestant, program
from tests.bench.compare.peers.mark import mark

LOOK_SECONDS = 0.002  # in the best configuration; DBOS's default is 1
BEST_QUEUE = {"worker_concurrency": 1000, "polling_interval_sec": 0.05}
BEST = {"log_level": "ERROR", "sys_db_pool_size": 20, "notification_listener_polling_interval_sec": 0.01}
VERSION = "v1"


@DBOS.workflow()
def task(sent: int) -> None:
    """The work of one step, inside the workflow."""
    mark(sent)


@DBOS.step()
def link(sent: int, number: int) -> int:
    """A step of the chain."""
    mark(sent, number)
    return number


@DBOS.workflow()
def chain(sent: int) -> int:
    """Five steps in a row."""
    return sum(link(sent, number) for number in range(1, CHAIN + 1))


@DBOS.workflow()
def child(number: int) -> int:
    """A branch, as a workflow."""
    mark()
    return number


@DBOS.workflow()
def fan_of_children(sent: int) -> int:
    """Ten children on a queue, and the result of each."""
    queue = DBOS.retrieve_queue("children")
    return sum(handle.get_result() for handle in [queue.enqueue(child, number) for number in range(BRANCHES)])


@DBOS.step()
async def branch(number: int) -> int:
    """A branch, as a step."""
    mark()
    return number


@DBOS.workflow()
async def fan_of_steps(sent: int) -> int:
    """Ten parallel steps."""
    return sum(await asyncio.gather(*[branch(number) for number in range(BRANCHES)]))


class Dbos(Contestant):
    """DBOS Transact."""

    done = "select not exists (select from dbos.workflow_status where status in ('ENQUEUED', 'PENDING'))"
    failed = "select count(*) from dbos.workflow_status where status <> 'SUCCESS'"

    def prepare(self) -> None:
        """Migrate with its command."""
        subprocess.run([program("dbos"), "migrate", "-s", self.dsn], check=True, capture_output=True)

    def open(self) -> None:
        """Make a client."""
        self.client = DBOSClient(system_database_url=self.dsn, application_name="bench")
        self.engine = sqlalchemy.create_engine(self.dsn.replace("postgresql://", "postgresql+psycopg://"))

    def _options(self, kind: str) -> Any:
        name = {"task": "task", "chain": "chain", "fan": "fan_of_steps" if self.is_best else "fan_of_children"}[kind]
        return {"queue_name": "q", "workflow_name": name, "app_version": VERSION}

    def start(self, kind: str, sent: int) -> Any:
        """Enqueue one."""
        return self.client.enqueue(self._options(kind), sent)

    def start_many(self, kind: str, count: int) -> None:
        """Enqueue a thousand in a transaction."""
        options = self._options(kind)
        for begin in range(0, count, BATCH):
            with self.engine.begin() as conn:
                for _ in range(min(BATCH, count - begin)):
                    self.client.enqueue_in_transaction(conn, options, 0)

    def finish(self, kind: str, sent: int) -> None:
        """Wait with the handle."""
        handle = self.start(kind, sent)
        handle.get_result(**({"polling_interval_sec": LOOK_SECONDS} if self.is_best else {}))

    def serve(self) -> None:
        """Launch, and serve the queues."""
        stopped = threading.Event()
        signal.signal(signal.SIGTERM, lambda number, frame: stopped.set())
        config: Any = {
            "name": "bench",
            "system_database_url": self.dsn,
            "application_version": VERSION,
            "executor_id": f"executor-{os.getpid()}",
            **(BEST if self.is_best else {}),
        }
        DBOS(config=config)
        DBOS.launch()
        for name in ("q", "children"):
            DBOS.register_queue(name, **(BEST_QUEUE if self.is_best else {}))
        while not stopped.wait(0.2):
            pass
        DBOS.destroy(workflow_completion_timeout_sec=0)
        os._exit(0)


ENGINE = Dbos
