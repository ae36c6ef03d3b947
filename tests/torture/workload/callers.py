"""Callers: threads that start, signal, cancel, retry and read instances as users do, and record each answer.

An answer is "ok", "fail" (certainly not done) or "info" (outcome unknown). A call with an unknown outcome is repeated
with its idempotency key; a start in a caller's own transaction has no key, and stays "info".
"""

from __future__ import annotations

import heapq
import itertools
import random
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psycopg

from pgflow.app import Pgflow
from pgflow.client.job_handle import JobHandle
from pgflow.client.workflow import Workflow
from pgflow.core.models.task import TaskInstance
from pgflow.database.connect import connect
from pgflow.database.db_errors import is_outcome_unknown, is_transient
from pgflow.errors import OutcomeUnknown, PgflowError, SequenceError, StatementTimeout, Unreachable
from tests.torture.trial.journal import Journal
from tests.torture.workload import flows, steps
from tests.torture.workload.steps import Script
from tests.torture.workload.task_calls import TaskCalls
from tests.torture.workload.tasks import TASKS

__all__ = ["Caller", "Load"]

REPEAT_SECONDS = 0.3
SLOW = 0.1  # of the instances
TASK_SHARE = 0.8  # enqueues for each start
RUSH_SECONDS = 0.4  # during which "rush" callers use the same business value


@dataclass(frozen=True, slots=True)
class Shape:
    """A kind of instance, its weight, and what callers do to it afterwards."""

    workflow: type[Workflow[Any]]
    weight: float
    follow: str = ""


SHAPES = (
    Shape(flows.Chain, 5),
    Shape(flows.Chain, 1, "cancel"),
    Shape(flows.Chain, 1, "rush"),
    Shape(flows.Chain, 1, "own transaction"),
    Shape(flows.Diamond, 3),
    Shape(flows.Fan, 1),
    Shape(flows.Fan, 0.5, "cancel"),
    Shape(flows.Wide, 0.2),
    Shape(flows.Branch, 2),
    Shape(flows.Routed, 2),
    Shape(flows.Waiting, 2, "signal"),
    Shape(flows.Waiting, 0.5, "cancel"),
    Shape(flows.Timed, 2, "signal"),
    Shape(flows.Booking, 2),
    Shape(flows.Broken, 1, "retry"),
    Shape(flows.Exhausted, 1.5, "operator"),
    Shape(flows.Visit, 1, "many"),
)

WEIGHTS = [each.weight for each in SHAPES]


@dataclass(order=True)
class Action:
    """An action scheduled on the monotonic clock."""

    at: float
    number: int
    do: Callable[[], object] = field(compare=False)


class Caller:
    """One thread of calls, which starts `rate` instances a second at random times.

    It uses an app of its own, unless it is given one.
    """

    def __init__(
        self, number: int, dsn: str, folder: Path, seed: int, rate: float, *, app: Pgflow | None = None
    ) -> None:
        self.unanswered = 0
        self.started = 0
        self.is_done = False
        self._number = number
        self._dsn = dsn
        self._folder = folder
        self._rate = rate
        self._dice = random.Random(f"{seed} {number}")  # noqa: S311 -- repeatable, not secret
        self._first = self._dice.sample(SHAPES, len(SHAPES))  # each once, before the weights apply
        self._app = app or Pgflow(dsn, workflows=flows.WORKFLOWS, tasks=TASKS)
        self._journal = Journal(folder / "calls.jsonl")
        self._task_calls = TaskCalls(self, self._app, dsn, folder, self._dice)
        self._actions: list[Action] = []
        self._numbers = itertools.count()
        self._is_closing = threading.Event()
        self._wanted = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"caller-{number}", daemon=True)

    def start(self) -> None:
        """Start calling."""
        self._thread.start()

    def close(self) -> None:
        """Start no more instances; open calls continue until they are answered."""
        self._is_closing.set()

    def join(self, seconds: float) -> bool:
        """Wait until all calls are answered; returns False on a timeout.

        Raises `RuntimeError` when the thread has died of an error.
        """
        self._thread.join(seconds)
        if not self.is_done and not self._thread.is_alive():
            raise RuntimeError(f"{self._thread.name} died: see its traceback above")
        return self.is_done

    # -- the thread

    def _run(self) -> None:
        self.later(0.0, self._begin_another)
        self.later(0.0, self._enqueue_another)
        while self._actions:
            action = heapq.heappop(self._actions)
            early = action.at - time.monotonic()
            if early > 0:
                time.sleep(min(0.05, early))
                heapq.heappush(self._actions, action)
                continue
            action.do()
        self._app.close()
        self._journal.close()
        self.is_done = True

    def later(self, delay: float, do: Callable[[], object]) -> None:
        """Do something after a delay in seconds."""
        heapq.heappush(self._actions, Action(time.monotonic() + delay, next(self._numbers), do))

    def _begin_another(self) -> None:
        if self._is_closing.is_set():
            return
        self.later(self._dice.expovariate(self._rate), self._begin_another)
        (shape,) = [self._first.pop()] if self._first else self._dice.choices(SHAPES, WEIGHTS)
        number = next(self._numbers)
        value = f"c{self._number}-{number}"
        if shape.follow == "rush":
            value = f"rush-{int(time.monotonic() / RUSH_SECONDS)}"
        script = self._script(shape)
        match shape.follow:
            case "own transaction":
                self._start_in_own_transaction(shape.workflow, value, script)
            case "many":
                self._start_many(shape.workflow, f"v{number % 3}", script)
            case _:
                self._start(shape, value, script)

    def _enqueue_another(self) -> None:
        if not self._is_closing.is_set():
            self.later(self._dice.expovariate(TASK_SHARE * self._rate), self._enqueue_another)
            self._task_calls.enqueue()

    def _script(self, shape: Shape) -> Script:
        dice = self._dice
        # Some are slow enough to be cancelled in time, or to run elsewhere when their stopped worker continues.
        slow = dice.uniform(0.4, 0.8) if shape.follow == "cancel" else dice.uniform(0.5, 2.0)
        is_slow = shape.follow == "cancel" or dice.random() < SLOW
        return Script(
            pause=round(slow if is_slow else dice.choice((0.0, dice.uniform(0.0, 0.15))), 3),
            errors=dice.choices((0, 1, 2), (0.9, 0.07, 0.03))[0],
            way=dice.choice(("yes", "no")),
        )

    # -- calls

    def call(
        self, op: str, about: dict[str, Any], call: Callable[[], Any], then: Callable[[Any], object] | None = None
    ) -> None:
        """Make a call and record its answer; repeat it later when its outcome is unknown."""
        before = time.monotonic_ns()
        answer: dict[str, Any]
        try:
            result = call()
            answer = {"r": "ok", "answer": _plain(result)}
        except OutcomeUnknown as error:
            answer = {"r": "info", "why": error.code}
        except (PgflowError, psycopg.Error, OSError) as error:
            doubt = "info" if is_outcome_unknown(error) else "fail"
            repeated = OSError | SequenceError | StatementTimeout | Unreachable
            is_outage = is_transient(error) or isinstance(error, repeated)
            code = getattr(error, "code", type(error).__name__)
            answer = {"r": doubt, "why": code, "outage": is_outage}
        self._journal.write(op=op, caller=self._number, t0=before, t1=time.monotonic_ns(), **about, **answer)
        if answer["r"] == "ok":
            if then is not None:
                then(result)
        elif about.get("key") and (answer["r"] == "info" or answer["outage"]):
            self.unanswered += 1

            def repeat() -> None:
                self.unanswered -= 1
                self.call(op, about, call, then)

            self.later(REPEAT_SECONDS, repeat)

    def _start(self, shape: Shape, value: str, script: Script) -> None:
        key, workflow = secrets.token_hex(8), shape.workflow
        about = {"workflow": workflow.name, "value": value, "key": key, "follow": shape.follow}
        self.started += 1

        def follow(started: Any) -> None:
            dice = self._dice
            match shape.follow:
                case "signal" if workflow is flows.Waiting:
                    self.later(dice.uniform(0.0, 2.0), lambda: self._signal(workflow, value, "approved"))
                    self.later(dice.uniform(0.0, 2.0), lambda: self._signal(workflow, value, "word"))
                case "signal":
                    self.later(dice.uniform(0.2, 1.5), lambda: self._signal(workflow, value, "arrived"))
                case "cancel":
                    self.later(dice.uniform(0.0, 1.5), lambda: self._cancel(workflow, value))
                case "operator":
                    self.later(0.5, lambda: self._operate(workflow, value))
                case "retry":
                    self.later(0.5, lambda: self._retry_when_failed(workflow, value))
            if dice.random() < 0.3:
                for _ in range(3):
                    self.later(dice.uniform(0.0, 2.0), lambda: self._read(workflow, value))

        self.call("start", about, lambda: self._app.start(workflow, value, script, idempotency_key=key), follow)

    def _start_many(self, workflow: type[Workflow[Any]], value: str, script: Script) -> None:
        key = secrets.token_hex(8)
        about = {"workflow": workflow.name, "value": value, "key": key, "count": 3}
        items = [(value, script)] * 3
        self.started += 3
        self.call("start_many", about, lambda: self._app.start_many(workflow, items, idempotency_key=key))

    def _start_in_own_transaction(self, workflow: type[Workflow[Any]], value: str, script: Script) -> None:
        """Start in a transaction that also writes a row; one in four is rolled back."""
        is_kept = self._dice.random() < 0.75
        about = {"workflow": workflow.name, "value": value, "kept": is_kept}
        self.started += is_kept

        def call() -> Any:
            with connect(self._dsn) as conn, conn.transaction(force_rollback=not is_kept):
                conn.execute(steps.ENTER, [0, value, workflow.name])
                return self._app.start(workflow, value, script, conn=conn)

        self.call("start_in_own", about, call)

    def _signal(self, workflow: type[Workflow[Any]], value: str, event: str) -> None:
        key, nonce = secrets.token_hex(8), secrets.token_hex(8)
        about = {"workflow": workflow.name, "value": value, "key": key, "event": event, "nonce": nonce}
        payload = {"nonce": nonce}
        self.call("signal", about, lambda: self._app.resume(workflow, value, event, payload, idempotency_key=key))

    def _cancel(self, workflow: type[Workflow[Any]], value: str) -> None:
        key = secrets.token_hex(8)
        about = {"workflow": workflow.name, "value": value, "key": key}
        self.call(
            "cancel",
            about,
            lambda: self._app.cancel(workflow, value, idempotency_key=key),
            lambda _: self.later(0.1, lambda: self._read(workflow, value)),
        )

    def _retry_when_failed(self, workflow: type[Workflow[Any]], value: str) -> None:
        """Fix an instance once it has failed, and retry it."""

        def look(instance: Any) -> None:
            if instance.status == "failed":
                (self._folder / "fixed" / value).touch()
                key = secrets.token_hex(8)
                about = {"workflow": workflow.name, "value": value, "key": key}
                self.call("retry", about, lambda: self._app.retry(workflow, value, idempotency_key=key))
            elif instance.is_active:
                self.later(0.5, lambda: self._retry_when_failed(workflow, value))

        self._read(workflow, value, look, "retry")

    def _operate(self, workflow: type[Workflow[Any]], value: str) -> None:
        """Decide what happens to a step that waits for an operator: retry it, complete it, or fail it."""

        def look(instance: Any) -> None:
            if not any(each.kind == "operator" for each in instance.waiting_for):
                if instance.is_active:
                    self.later(0.5, lambda: self._operate(workflow, value))
                return
            key = secrets.token_hex(8)
            about = {"workflow": workflow.name, "value": value, "key": key}
            match self._dice.choice(("retry", "complete", "fail")):
                case "retry":
                    (self._folder / "fixed" / value).touch()
                    call = partial(self._app.retry, workflow, value, step="halt", idempotency_key=key)
                    self.call("retry_step", about, call)
                case "complete":
                    output = {"operator": secrets.token_hex(8)}
                    call = partial(self._app.complete_step, workflow, value, "halt", output, idempotency_key=key)
                    self.call("complete_step", about, call)
                case _:
                    call = partial(self._app.fail_step, workflow, value, "halt", idempotency_key=key)
                    self.call("fail_step", about, call, lambda _: self._retry_when_failed(workflow, value))

        self._read(workflow, value, look, "operate")

    def _read(
        self,
        workflow: type[Workflow[Any]],
        value: str,
        then: Callable[[Any], object] | None = None,
        key: str | None = None,
    ) -> None:
        about = {"workflow": workflow.name, "value": value, "key": key}
        self.call("read", about, lambda: self._app.get(workflow, value), then)


class Load:
    """Several callers."""

    def __init__(self, dsns: Sequence[str], folder: Path, seed: int, rate: float) -> None:
        self.callers = [Caller(number, dsn, folder, seed, rate / len(dsns)) for number, dsn in enumerate(dsns, start=1)]

    @property
    def started(self) -> int:
        """How many instances were requested."""
        return sum(each.started for each in self.callers)

    def start(self) -> None:
        """Start calling."""
        for each in self.callers:
            each.start()

    def finish(self, seconds: float) -> bool:
        """Start no more instances and wait until each call is answered; returns False on a timeout."""
        for each in self.callers:
            each.close()
        deadline = time.monotonic() + seconds
        return sum(each.join(max(0.1, deadline - time.monotonic())) for each in self.callers) == len(self.callers)


def _plain(result: Any) -> Any:
    """Return the recorded part of a call's result."""
    match result:
        case list():
            return [_plain(each) for each in result]
        case str() | bool() | None:
            return result
    if isinstance(result, JobHandle):
        return {"job": result.id, "created": result.created}
    if isinstance(result, TaskInstance):
        return {"job": result.id, "status": result.status, "steps": []}
    if hasattr(result, "created"):
        return {"run": result.run, "id": result.id, "created": result.created}
    return {"run": result.run, "status": result.status, "steps": [entry.step for entry in result.history]}
