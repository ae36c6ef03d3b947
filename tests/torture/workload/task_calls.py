"""What callers do with tasks: enqueue them in each way, and cancel, retry and read what they enqueued.

Each job has a `token` among its arguments, by which the checker finds the call that made it.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any, Protocol

from pgflow.app import Pgflow
from pgflow.client.task import Task
from pgflow.database.connect import connect
from tests.torture.workload import steps, tasks

__all__ = ["Calls", "TaskCalls"]

RUSH_SECONDS = 2.5  # during which callers use the same places
PLACES = 3
BULK = 5
SLOW = 0.1  # of the jobs
# A process that was stopped beyond its lease continues such a job while its successor runs it.
SLOW_SECONDS = (1.5, 4.0)


class Calls(Protocol):
    """How a caller makes a call: now and recorded, or later."""

    def call(
        self, op: str, about: dict[str, Any], call: Callable[[], Any], then: Callable[[Any], object] | None = None
    ) -> None:
        """Make a call and record its answer; repeat it later when its outcome is unknown."""

    def later(self, delay: float, do: Callable[[], object]) -> None:
        """Do something after a delay."""


# The weights of the ways to enqueue, some of which are named after the later call.
WAYS: Mapping[str, float] = {
    "one": 4,
    "transactional": 2,
    "delayed": 1,
    "cancel": 1.5,
    "retry": 1,
    "own transaction": 1.5,
    "sql": 1.5,
    "bulk": 0.7,
    "unique": 3,
    "unique bulk": 0.7,
}


class TaskCalls:
    """The calls of one caller."""

    def __init__(self, calls: Calls, app: Pgflow, dsn: str, folder: Path, dice: Random) -> None:
        self._calls = calls
        self._app = app
        self._dsn = dsn
        self._folder = folder
        self._dice = dice
        self._first = dice.sample(list(WAYS), len(WAYS))  # each once, before the weights apply

    def enqueue(self) -> None:
        """Enqueue something, and schedule its later calls."""
        (way,) = [self._first.pop()] if self._first else self._dice.choices(list(WAYS), list(WAYS.values()))
        match way:
            case "one":
                errors = self._dice.choices((0, 1, 2), (0.8, 0.1, 0.1))[0]
                self._one(tasks.toil, {"pause": self._pause(), "errors": errors})
            case "transactional":
                self._one(tasks.book_job, {"pause": self._pause()})
            case "delayed":
                self._one(tasks.jot, {}, delay=timedelta(seconds=round(self._dice.uniform(0.1, 1.0), 3)))
            case "cancel":
                self._one(tasks.toil, {"pause": round(self._dice.uniform(0.2, 1.0), 3)}, self._cancel)
            case "retry":
                self._one(tasks.refuse_job, {}, self._retry_when_failed)
            case "own transaction":
                self._in_own_transaction()
            case "sql":
                self._in_sql()
            case "bulk":
                self._many(tasks.jot, [{} for _ in range(BULK)])
            case "unique":
                self._one(tasks.occupy, {"place": self._place(), "pause": self._pause()})
            case _:
                self._many(tasks.occupy, [{"place": self._place()} for _ in range(BULK)])

    def _pause(self) -> float:
        dice = self._dice
        return round(dice.uniform(*SLOW_SECONDS) if dice.random() < SLOW else dice.uniform(0.0, 0.15), 3)

    def _place(self) -> str:
        return f"{int(time.monotonic() / RUSH_SECONDS)}-{self._dice.randrange(PLACES)}"

    # -- the ways

    def _one(
        self,
        task: Task[Any, Any, Any],
        args: dict[str, Any],
        then: Callable[[Task[Any, Any, Any], str, int], object] | None = None,
        **options: Any,
    ) -> None:
        token, key = secrets.token_hex(8), secrets.token_hex(8)
        about = {"workflow": task.name, "value": token, "key": key, "place": args.get("place")}
        given = {**args, "token": token}
        self._calls.call(
            "enqueue",
            about,
            lambda: self._app.enqueue(task, given, idempotency_key=key, **options),
            None if then is None else lambda handle: then(task, token, handle.id),
        )

    def _many(self, task: Task[Any, Any, Any], args: list[dict[str, Any]]) -> None:
        key = secrets.token_hex(8)
        items = [{**each, "token": secrets.token_hex(8)} for each in args]
        about = {
            "workflow": task.name,
            "value": items[0]["token"],
            "key": key,
            "tokens": [each["token"] for each in items],
            "places": [each.get("place") for each in items],
        }
        self._calls.call("enqueue_many", about, lambda: self._app.enqueue_many(task, items, idempotency_key=key))

    def _in_own_transaction(self) -> None:
        """Enqueue in a transaction that also writes a row; one in four is rolled back."""
        token, is_kept = secrets.token_hex(8), self._dice.random() < 0.75
        about = {"workflow": tasks.toil.name, "value": token, "kept": is_kept}

        def call() -> Any:
            with connect(self._dsn) as conn, conn.transaction(force_rollback=not is_kept):
                conn.execute(steps.ENTER, [0, token, tasks.toil.name])
                return self._app.enqueue(tasks.toil, {"token": token}, conn=conn)

        self._calls.call("enqueue_in_own", about, call)

    def _in_sql(self) -> None:
        token = secrets.token_hex(8)
        args = json.dumps({"token": token, "pause": self._pause()})

        def call() -> Any:
            with connect(self._dsn) as conn:
                ((job,),) = conn.execute("select pgflow.enqueue('toil', %s)", [args]).fetchall()
            return str(job)

        self._calls.call("enqueue_in_sql", {"workflow": tasks.toil.name, "value": token}, call)

    # -- later calls

    def _cancel(self, task: Task[Any, Any, Any], token: str, job: int) -> None:
        key = secrets.token_hex(8)
        about = {"workflow": task.name, "value": token, "key": key, "job": job}
        handle = self._app.job(job, task)
        self._calls.later(
            self._dice.uniform(0.0, 1.5),
            lambda: self._calls.call(
                "cancel", about, lambda: handle.cancel(reason="by a caller", idempotency_key=key),
                lambda _: self._calls.later(0.1, lambda: self._read(task, token, job)),
            ),
        )  # fmt: skip

    def _retry_when_failed(self, task: Task[Any, Any, Any], token: str, job: int) -> None:
        """Fix a job once it has failed, and retry it."""

        def look(found: Any) -> None:
            if found.status == "failed":
                (self._folder / "fixed" / token).touch()
                key = secrets.token_hex(8)
                about = {"workflow": task.name, "value": token, "key": key, "job": job}
                self._calls.call("retry", about, lambda: self._app.job(job, task).retry(idempotency_key=key))
            elif found.status not in ("completed", "cancelled"):
                self._calls.later(0.5, lambda: self._retry_when_failed(task, token, job))

        self._read(task, token, job, look)

    def _read(
        self, task: Task[Any, Any, Any], token: str, job: int, then: Callable[[Any], object] | None = None
    ) -> None:
        about = {"workflow": task.name, "value": token, "key": "retry" if then else None, "job": job}
        self._calls.call("read", about, lambda: self._app.job(job, task).get(), then)
