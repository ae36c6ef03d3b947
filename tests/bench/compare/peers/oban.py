"""oban-py, the free edition: default is `oban start` with ten jobs at once; best with 500, logging errors only."""

from __future__ import annotations

import asyncio
import subprocess
from typing import Any

from oban import Oban, job

from tests.bench.compare.peers.contestant import BATCH, Contestant, become, program
from tests.bench.compare.peers.mark import mark

DEFAULT = ("--queues", "default:10")
BEST = ("--queues", "default:500", "--log-level", "error")


@job(queue="default")
def task(sent: int) -> None:
    """The job."""
    mark(sent)


class ObanOnes(Contestant):
    """oban-py."""

    done = "select not exists (select from oban_jobs where state <> 'completed')"
    failed = "select count(*) from oban_jobs where state <> 'completed'"

    def prepare(self) -> None:
        """Install with its command."""
        subprocess.run([program("oban"), "install", "--dsn", self.dsn], check=True, capture_output=True)

    def open(self) -> None:
        """Make a pool, and a loop to use it in."""
        self.loop = asyncio.new_event_loop()
        self.oban = self.loop.run_until_complete(self._oban())

    async def _oban(self) -> Any:
        return Oban(pool=await Oban.create_pool(dsn=self.dsn))

    def start(self, kind: str, sent: int) -> Any:
        """Enqueue one."""
        return self.loop.run_until_complete(self.oban.enqueue(task.new(sent)))

    def start_many(self, kind: str, count: int) -> None:
        """Enqueue a thousand in a call."""
        for begin in range(0, count, BATCH):
            jobs = [task.new(0) for _ in range(min(BATCH, count - begin))]
            self.loop.run_until_complete(self.oban.enqueue_many(jobs))

    def serve(self) -> None:
        """Become `oban start`."""
        command = [program("oban"), "start", "--dsn", self.dsn, *(BEST if self.is_best else DEFAULT)]
        become(command)


ENGINE = ObanOnes
