"""What a peer's program provides: a schema, starting jobs, workers; and its command loop."""

from __future__ import annotations

import json
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg

__all__ = ["BATCH", "BRANCHES", "CHAIN", "Contestant", "become", "play", "program"]

BATCH = 1000  # jobs in a call, or in a transaction where a call takes one
CHAIN = 5  # steps in a row
BRANCHES = 10  # in parallel


class Contestant(ABC):
    """One engine. Its kinds of jobs: "task", "workflow" (one step), "chain" (five in a row), "fan" (ten, joined)."""

    done: str  # a query: whether no work is left
    failed: str  # a query: the number of failed or unfinished jobs

    def __init__(self, dsn: str, config: str) -> None:
        self.dsn = dsn
        self.is_best = config == "best"

    @abstractmethod
    def prepare(self) -> None:
        """Install what the engine needs into an empty database."""

    @abstractmethod
    def open(self) -> None:
        """Connect, to start jobs."""

    @abstractmethod
    def start(self, kind: str, sent: int) -> object:
        """Start one job, in a commit of its own."""

    @abstractmethod
    def start_many(self, kind: str, count: int) -> None:
        """Start many in the fastest way, at most `BATCH` in a commit."""

    def finish(self, kind: str, sent: int) -> None:
        """Start one and wait until its result is seen."""
        raise AssertionError(f"{type(self).__name__} has no {kind}")

    @abstractmethod
    def serve(self) -> None:
        """Be a worker until SIGTERM comes."""


def play(engine: type[Contestant], order: str) -> None:
    """Run a command: `prepare`, `serve`, or `drive`, which reads further commands."""
    contestant = engine(os.environ["BENCH_DSN"], os.environ["BENCH_CONFIG"])
    match order:
        case "prepare":
            contestant.prepare()
        case "serve":
            contestant.serve()
        case "drive":
            _drive(contestant)
            os._exit(0)  # regardless of threads that an engine left running


def program(name: str) -> str:
    """Return the path of a program of this environment."""
    return os.path.join(os.path.dirname(sys.executable), name)


def become(command: Sequence[str]) -> None:
    """Replace this process by another program, which then gets our signals."""
    os.execv(command[0], [*command])  # noqa: S606 -- intentionally without a shell


def _drive(contestant: Contestant) -> None:
    """Answer each command, a line of JSON, with a line of JSON."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # output of an engine must not be taken for an answer
    contestant.open()
    with psycopg.connect(contestant.dsn, autocommit=True) as conn:
        for line in sys.stdin:
            answers.write(json.dumps(_answer(contestant, conn, json.loads(line))) + "\n")


def _answer(contestant: Contestant, conn: psycopg.Connection[Any], order: Mapping[str, Any]) -> Any:
    kind, count = order.get("kind", "task"), order.get("count", 0)
    match order["do"]:
        case "start":
            began = time.monotonic_ns()
            for _ in range(count):
                contestant.start(kind, 0)
            return time.monotonic_ns() - began
        case "start_many":
            began = time.monotonic_ns()
            contestant.start_many(kind, count)
            return time.monotonic_ns() - began
        case "pace":
            due = time.monotonic()
            for _ in range(count):
                time.sleep(max(0.0, due - time.monotonic()))
                due += 1 / order["rate"]
                contestant.start(kind, time.monotonic_ns())
            return count
        case "finish":
            return [_finish(contestant, kind, number) for number in range(count)]
        case "is_done":
            return bool(_one(conn, contestant.done))
        case "failed":
            return int(_one(conn, contestant.failed))
    raise AssertionError(order)


def _finish(contestant: Contestant, kind: str, number: int) -> int:
    time.sleep(0.005 * (number % 7))  # avoid running in phase with polling
    sent = time.monotonic_ns()
    contestant.finish(kind, sent)
    return time.monotonic_ns() - sent


def _one(conn: psycopg.Connection[Any], query: str) -> Any:
    row = conn.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]
