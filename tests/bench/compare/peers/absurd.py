"""Absurd: default is `start_worker()`; best claims fifty tasks at a time and polls often.

A task must not wait for a task of its own queue, so the ten children of a fan-out use a second queue, which a second
thread of each worker serves. There is no bulk call: many tasks are spawned in one transaction of the caller.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from typing import Any

import psycopg
from absurd_sdk import Absurd

from tests.bench.compare.peers.contestant import BATCH, BRANCHES, CHAIN, Contestant, program
from tests.bench.compare.peers.mark import mark

CHILDREN = "children"
BEST = {"batch_size": 50, "poll_interval": 0.05}


class AbsurdOnes(Contestant):
    """Absurd, with its Python SDK."""

    done = "select not exists (select from absurd.t_default where state not in ('completed', 'failed', 'cancelled'))"
    failed = "select count(*) from absurd.t_default where state <> 'completed'"

    def prepare(self) -> None:
        """Install with its command."""
        for order in (["init"], ["create-queue", "default"], ["create-queue", CHILDREN]):
            subprocess.run(
                [program("absurdctl"), order[0], "-d", self.dsn, *order[1:]], check=True, capture_output=True
            )

    def open(self) -> None:
        """Connect."""
        self.conn = psycopg.connect(self.dsn, autocommit=True)
        self.app = Absurd(self.conn, queue_name="default")

    def start(self, kind: str, sent: int) -> Any:
        """Spawn one."""
        return self.app.spawn(kind, {"sent": sent}, queue="default")

    def start_many(self, kind: str, count: int) -> None:
        """Spawn a thousand in a transaction."""
        for begin in range(0, count, BATCH):
            with self.conn.transaction():
                for _ in range(min(BATCH, count - begin)):
                    self.start(kind, 0)

    def finish(self, kind: str, sent: int) -> None:
        """Wait with its own call, which polls after 50 ms, then at growing intervals."""
        task = self.start(kind, sent)
        self.app.await_task_result(str(task["task_id"]), timeout=60, queue_name="default")

    def serve(self) -> None:
        """Run two workers, one for each queue, on two threads."""
        app, children = Absurd(self.dsn), Absurd(self.dsn, queue_name=CHILDREN)
        _register(app, Absurd(self.dsn))
        children.register_task("child")(_child)
        options = BEST if self.is_best else {}
        threading.Thread(target=children.start_worker, kwargs=options, daemon=True).start()
        signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))
        app.start_worker(**options)


def _child(params: Any, ctx: Any) -> Any:
    mark()
    return params["number"]


def _register(app: Any, spawner: Any) -> None:
    """Register the tasks; `spawner` has its own connection."""

    @app.register_task("task")
    def task(params: Any, ctx: Any) -> None:
        mark(params["sent"])

    @app.register_task("chain")
    def chain(params: Any, ctx: Any) -> int:
        total = 0
        for number in range(1, CHAIN + 1):
            total += ctx.step(f"step {number}", lambda number=number: _link(params["sent"], number))
        return total

    @app.register_task("fan")
    def fan(params: Any, ctx: Any) -> int:
        tasks = ctx.step("spawn", lambda: [_spawn(spawner, number) for number in range(BRANCHES)])
        return sum(ctx.await_task_result(task, queue_name=CHILDREN).result for task in tasks)


def _link(sent: int, number: int) -> int:
    mark(sent, number)
    return number


def _spawn(spawner: Any, number: int) -> str:
    return str(spawner.spawn("child", {"number": number}, queue=CHILDREN)["task_id"])


ENGINE = AbsurdOnes
