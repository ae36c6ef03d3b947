"""Steps with cpu=True run in processes that can be killed; whatever becomes of one, the worker goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import suppress
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from pgflow import Done, Pgflow, Proceed, Result, StepCall, Unique, Workflow, step, task
from pgflow.client.job_handle import JobHandle
from pgflow.core.models.task import TaskInstance
from pgflow.database.connect import Connection
from pgflow.errors import ConfigError, DefinitionError
from pgflow.worker.cpu.attempts import CpuAttemptFailed
from tests.worker.conftest import Work
from tests.worker.cpu_flows import (
    NAME,
    TASKS,
    WORKFLOWS,
    Die,
    Hang,
    HangForGood,
    One,
    Order,
    Pages,
    Plain,
    Sturdy,
    Sums,
    count,
    count_async,
)
from tests.worker.db_helpers import until_all_ended, until_status
from tests.worker.processes import CHECKOUT, Processes
from tests.worker.thread_worker import Inside
from tests.worker.waiting import PATIENCE, until

__all__ = ["WORKFLOWS"]


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[Path]:
    """The file to which steps write; the processes that it names are killed in the end."""
    path = tmp_path / "pids"
    path.touch()
    yield path
    for pid in pids(path):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def pids(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def until_dead(*processes: int) -> None:
    until(lambda: not any(map(is_alive, processes)), f"the end of {processes}")


def test_steps_run_in_processes_with_all_that_a_context_has(app: Pgflow, work: Work) -> None:
    work(cpu_app=NAME, cpu_processes=2)
    app.start_many(Sums, [(str(number), Order(rows=10)) for number in range(6)])
    seen = set()
    for number in range(6):
        done = until_status(Sums, str(number))
        assert done.error is None
        seen.add(done.steps["add"]["pid"])
        assert done.steps["add"]["total"] == 45
        assert done.steps["scale"] == [135, f"sums::{number}", done.run, "scale", "Sums", str(number)]
        assert done.steps["last"] == ["add", "scale"]
        assert done.metadata == {"attempt": 1}
    assert os.getpid() not in seen
    assert 1 <= len(seen) <= 2


def test_max_runtime_kills_native_code_and_what_it_has_started(app: Pgflow, work: Work, mark: Path) -> None:
    work(cpu_app=NAME, cpu_processes=1)
    app.start(Hang, "a", Order(rows=1, mark=str(mark)))
    done = until_status(Hang, "a")
    assert done.status == "completed"
    assert [(error["type"], error["attempt"]) for error in done.history[0].errors] == [("TimeoutError", 1)]
    assert "it still ran after 0:00:02, its max_runtime" in done.history[0].errors[0]["reason"]
    assert len(pids(mark)) == 2
    until_dead(*pids(mark))


def test_max_runtime_does_not_count_the_time_in_which_no_process_was_free(
    app: Pgflow, work: Work, mark: Path, conn: Connection
) -> None:
    work(cpu_app=NAME, cpu_processes=1)
    app.start_many(Hang, [(str(number), Order(rows=1, mark=str(mark))) for number in range(3)])
    for number in range(3):
        done = until_status(Hang, str(number))
        assert (done.status, len(done.history[0].errors)) == ("completed", 1)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("exit", "the process of the step exited with code 3"),
        ("SIGSEGV", "the process of the step was killed by SIGSEGV"),
        ("SIGKILL", "the process of the step was killed by SIGKILL: it may have used too much memory"),
    ],
)
def test_a_process_that_dies_fails_only_its_own_attempt(how: str, said: str, app: Pgflow, work: Work) -> None:
    inside = work(cpu_app=NAME, cpu_processes=2)
    worker = inside.worker.settler.worker
    app.start_many(Sums, [(str(number), Order(rows=10)) for number in range(4)])
    app.start(Die, "a", Order(rows=1, mark=how))
    done = until_status(Die, "a")
    assert (done.status, done.steps["die"]) == ("completed", 2)
    assert [(error["type"], error["reason"]) for error in done.history[0].errors] == [("ProcessLost", said)]
    for number in range(4):
        assert not until_status(Sums, str(number)).history[0].errors
    assert inside.worker.settler.worker == worker


@pytest.mark.parametrize(
    ("what", "kind", "said", "attempts"),
    [
        ("raise", "Refused", "no more orders", 1),
        ("exit", "SystemExit", "gone", 3),
        ("error", "Error", "declined", 1),
        ("wrong", "TypeError", "step misbehave returned int; a step returns Ok, Async, Error or Snooze", 1),
        ("object", "InvalidPayload", "misbehave.output cannot be stored as JSON", 1),
        ("large", "InvalidPayload", "misbehave.output is 2,000,002 bytes of JSON, more than the 1,048,576", 1),
    ],
)
def test_an_attempt_fails_as_it_would_in_a_thread(
    what: str, kind: str, said: str, attempts: int, app: Pgflow, work: Work
) -> None:
    work(cpu_app=NAME, cpu_processes=1)
    app.start(One, what, Order(rows=1, mark=what))
    error = until_status(One, what).error
    assert error is not None
    assert (error["type"], error["attempt"]) == (kind, attempts)
    assert said in error["reason"]
    assert ("cpu_flows.py" in error.get("trace", "")) is (what in ("raise", "exit"))


def test_a_step_may_wait_snooze_and_fork(app: Pgflow, work: Work) -> None:
    work(cpu_app=NAME, cpu_processes=1)
    for what in ("wait", "snooze", "fork"):
        app.start(One, what, Order(rows=1, mark=what))
    assert until_status(One, "fork").steps["misbehave"] == "the parent"
    until(lambda: [wait.events for wait in app.get(One, "wait").waiting_for] == [("done",)], "the wait")
    app.resume(One, "wait", "done", {"by": "signal"})
    assert until_status(One, "wait").steps["misbehave"] == {"by": "signal"}
    until(lambda: [job.state for job in app.jobs(One)] == ["scheduled"], "the snooze")


def test_progress_and_checkpoints_reach_the_worker(app: Pgflow, work: Work, mark: Path) -> None:
    work(cpu_app=NAME, cpu_processes=2)
    app.start(Pages, "a", Order(rows=1))
    app.start(Pages, "b", Order(rows=1, mark=str(mark)))
    assert until_status(Pages, "a").steps["page"] == 7

    def progress() -> Any:
        (wait,) = app.get(Pages, "b").waiting_for
        return wait.progress

    until(lambda: pids(mark), "the step")
    found = until(progress, "its progress")
    assert (found.at, found.note) == (0.5, "half of it")
    app.cancel(Pages, "b")
    until_dead(*pids(mark))


def test_a_cancellation_kills_the_process(app: Pgflow, work: Work, mark: Path) -> None:
    inside = work(cpu_app=NAME, cpu_processes=1)
    app.start(HangForGood, "a", Order(rows=1, mark=str(mark)))
    until(lambda: pids(mark), "the step")
    app.cancel(HangForGood, "a")
    until_dead(*pids(mark))
    app.start(Sums, "b", Order(rows=3))
    assert until_status(Sums, "b").status == "completed"
    assert len(inside.worker._cpu.pids) == 1


def test_a_worker_that_stops_kills_what_does_not_end_in_time(app: Pgflow, mark: Path) -> None:
    with Inside(app, cpu_app=NAME, cpu_processes=1, shutdown_timeout=timedelta(seconds=0.2)) as inside:
        app.start(HangForGood, "a", Order(rows=1, mark=str(mark)))
        until(lambda: pids(mark), "the step")
        inside.stop()
        until_dead(*pids(mark))
    (job,) = app.jobs(HangForGood)
    assert (job.state, job.attempt) == ("ready", 0)  # given back: the attempt does not count


def test_an_idle_process_that_was_killed_is_replaced_unseen(app: Pgflow, work: Work) -> None:
    inside = work(cpu_app=NAME, cpu_processes=1)
    app.start(Sums, "a", Order(rows=3))
    until_status(Sums, "a")
    (idle,) = inside.worker._cpu.pids
    os.kill(idle, signal.SIGKILL)
    until(lambda: not inside.worker._cpu.pids, "its end")
    app.start(Sums, "b", Order(rows=3))
    assert not until_status(Sums, "b").history[0].errors


def test_processes_that_are_killed_at_any_moment_lose_no_step(app: Pgflow, work: Work, conn: Connection) -> None:
    inside = work({"default": 20}, cpu_app=NAME, cpu_processes=2)
    worker, killed = inside.worker.settler.worker, set[int]()
    app.start_many(Sturdy, [(str(number), Order(rows=1)) for number in range(40)])
    while len(killed) < 8:
        for pid in until(lambda: set(inside.worker._cpu.pids) - killed, "a process"):
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)
    assert until_all_ended(conn) == {"completed": 40}
    assert inside.worker.settler.worker == worker


def test_processes_die_with_a_worker_that_is_killed(
    app: Pgflow, processes: Processes, mark: Path, conn: Connection
) -> None:
    worker = processes.start(app="tests.worker.cpu_flows")
    app.start(HangForGood, "a", Order(rows=1, mark=str(mark)))
    until(lambda: pids(mark), "the step")
    worker.kill()
    until_dead(*pids(mark))


def test_middleware_sees_the_result_and_the_failure_of_a_process(app: Pgflow) -> None:
    seen: list[Any] = []

    async def watch(call: StepCall, proceed: Proceed) -> Result:
        try:
            result = await proceed()
        except Exception as error:
            seen.append(error)
            raise
        seen.append(result)
        return result

    with Inside(app, cpu_app=NAME, cpu_processes=1, middleware=(watch,)):
        app.start(One, "a", Order(rows=1, mark="raise"))
        error = until_status(One, "a").error
        app.start(Plain, "b", Order(rows=1))
        until_status(Plain, "b")
    assert error is not None
    assert (error["type"], error["reason"]) == ("Refused", "no more orders")
    assert isinstance(seen[0], CpuAttemptFailed)
    assert str(seen[0]) == "Refused: no more orders"
    assert seen[1].event == "done"


def test_the_log_level_and_the_import_path_are_those_of_the_worker(app: Pgflow, processes: Processes) -> None:
    processes.start("--cpu-processes", "1", app="tests.worker.cpu_flows")
    app.start(Sums, "a", Order(rows=3))
    assert until_status(Sums, "a").status == "completed"


# -- tasks


@pytest.fixture
def tasks(dsn: str, conn: Connection) -> Iterator[Pgflow]:
    app = Pgflow(dsn, workflows=WORKFLOWS, tasks=TASKS)
    with Inside(app, cpu_app=NAME, cpu_processes=2):
        yield app
    app.close()


def until_ended(handle: JobHandle[Any]) -> TaskInstance:
    until(lambda: handle.get().finished_at, "the end of the task")
    return handle.get()


def test_tasks_run_in_processes_with_typed_arguments_and_outputs(tasks: Pgflow) -> None:
    handle, other = count.enqueue(date(2030, 1, 1), until=5), count_async.enqueue(6)
    found = until_ended(handle).output
    assert found["total"] == 2035
    assert found["pid"] != os.getpid()
    assert until_ended(other).output == 7


@pytest.mark.parametrize(("how", "kind"), [("hang", "TimeoutError"), ("exit", "ProcessLost")])
def test_a_task_that_hangs_or_dies_fails_its_attempt(how: str, kind: str, tasks: Pgflow) -> None:
    handle = count.enqueue(date(2030, 1, 1), how=how)
    done = until_ended(handle)
    assert (done.status, done.output["total"]) == ("completed", 2040)
    (error,) = done.errors
    assert (error["type"], error["attempt"]) == (kind, 1)


def test_a_task_that_raises_fails_with_its_exception(tasks: Pgflow) -> None:
    failed = until_ended(count.enqueue(date(2030, 1, 1), how="raise"))
    assert failed.error is not None
    assert (failed.status, failed.error["type"], failed.error["reason"]) == ("failed", "Refused", "no Tuesdays")


def test_a_cpu_task_with_a_transaction_is_refused() -> None:
    with pytest.raises(DefinitionError, match="both is cpu and transactional: a connection cannot be shared"):

        @task(cpu=True, transactional=True)
        def both() -> None: ...


# -- what is refused at the start


def test_an_app_that_no_process_can_import_is_refused_at_the_start(app: Pgflow) -> None:
    with pytest.raises(ConfigError, match="is not a variable of a module") as caught, Inside(app):
        pass
    assert "pgflow worker --app flows:app" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tests.worker.nowhere:app", "cannot import tests.worker.nowhere:app: ModuleNotFoundError"),
        ("tests.worker.cpu_flows:nothing", "cannot import tests.worker.cpu_flows:nothing: AttributeError"),
        ("tests.worker.cpu_flows:Plain", "cannot import tests.worker.cpu_flows:Plain: AttributeError"),
    ],
)
def test_a_name_that_is_not_an_app_is_refused_at_the_start(name: str, said: str, app: Pgflow) -> None:
    with pytest.raises(ConfigError) as caught, Inside(app, cpu_app=name):
        pass
    assert said in str(caught.value)


def test_a_program_that_is_run_itself_gets_the_fix(dsn: str, tmp_path: Path, conn: Connection) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(f"""
        from pgflow import Context, Done, Ok, Pgflow, Unique, Workflow, step

        @step(cpu=True)
        def only(ctx: Context[dict]) -> Ok:
            return Ok("done")

        class Main(Workflow[dict], unique=Unique("main")):
            initial = only
            transitions = {{only: {{"done": Done}}}}

        app = Pgflow({dsn!r}, workflows=[Main])
        app.run_worker(drain=True)
        """)
    )
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run(
        [sys.executable, str(program)], env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 1
    assert "ConfigError: processes for cpu=True steps cannot import this app" in done.stderr


def test_a_worker_without_cpu_steps_starts_no_process(dsn: str, conn: Connection) -> None:
    app = Pgflow(dsn, workflows=[Plain])
    with Inside(app) as inside:
        app.start(Plain, "a", Order(rows=1))
        until_status(Plain, "a")
        assert inside.worker._cpu.pids == []
    app.close()


@pytest.mark.parametrize("size", [0, -1, 1001, "2", True])
def test_an_invalid_number_of_processes_is_refused(size: Any, app: Pgflow) -> None:
    with pytest.raises(ConfigError, match="cpu_processes must be a whole number from 1 to 1,000"):
        app.worker(cpu_processes=size)


def test_cpu_with_a_transaction_is_refused_at_definition() -> None:
    @step(cpu=True, transactional=True)
    def both(ctx: Any) -> Any: ...

    with pytest.raises(DefinitionError, match="has cpu and transactional = True: a connection cannot be shared"):

        class Both(Workflow[Any], unique=Unique("both")):
            initial = both
            transitions = {both: {"done": Done}}
