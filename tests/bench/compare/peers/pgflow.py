"""pgflow: default is `pgflow worker` without options; best has a higher concurrency and logs warnings only."""

from __future__ import annotations

import os
import sys
import time

from pgflow import Pgflow
from pgflow.bench import flows
from pgflow.bench.flows import TASKS, WORKFLOWS, Chain, Fan, Load, Single
from tests.bench.compare.peers.contestant import BATCH, Contestant, become

LOOK_SECONDS = 0.002
BEST = ("--queue", "default=500", "--log-level", "warning")
WORKFLOW = {"workflow": Single, "chain": Chain, "fan": Fan}


class Ours(Contestant):
    """This project."""

    done = "select not exists (select from pgflow.jobs)"
    failed = """
        select (select count(*) from pgflow.instances where status <> 'completed')
            + (select count(*) from pgflow.task_results where status <> 'completed')
    """

    def prepare(self) -> None:
        """Migrate."""
        Pgflow(self.dsn).migrate()

    def open(self) -> None:
        """Make the app."""
        self.app = Pgflow(self.dsn, WORKFLOWS, TASKS)
        self.number = 0

    def start(self, kind: str, sent: int) -> str:
        """Enqueue a task, or start a workflow."""
        if kind == "task":
            return str(flows.count.enqueue(sent).id)
        self.number += 1
        value = str(self.number)
        self.app.start(WORKFLOW[kind], value, Load(sent=sent))
        return value

    def start_many(self, kind: str, count: int) -> None:
        """Start a thousand in a call."""
        for begin in range(0, count, BATCH):
            batch = range(begin, min(begin + BATCH, count))
            if kind == "task":
                flows.count.enqueue_many([()] * len(batch))
            else:
                self.app.start_many(WORKFLOW[kind], [(f"many-{number}", Load()) for number in batch])

    def finish(self, kind: str, sent: int) -> None:
        """Start one and poll until it ends."""
        value = self.start(kind, sent)
        while self.app.get(WORKFLOW[kind], value).is_active:
            time.sleep(LOOK_SECONDS)

    def serve(self) -> None:
        """Become a worker."""
        options = BEST if self.is_best else ()
        main = ("-c", "from pgflow.cli import main; main()", "worker", "--app", "pgflow.bench.flows:app")
        os.environ["PGFLOW_DSN"] = self.dsn
        become([sys.executable, *main, *options])


ENGINE = Ours
