"""The front door: every call makes a command, and every backend executes it or refuses it by name."""

from __future__ import annotations

import ast
import asyncio
import inspect
from dataclasses import fields, is_dataclass
from datetime import timedelta
from typing import Any

import pytest

from pgflow import Done, Instance, Ok, Unique, Workflow, step
from pgflow.client import commands
from pgflow.client.client import Client
from pgflow.client.commands import Command
from pgflow.client.postgres import PostgresBackend
from pgflow.core.definition.registry import Registry
from pgflow.core.models.filters import Filters, ListOptions
from pgflow.core.models.job import JobOptions
from pgflow.errors import ConfigError, UnknownOption
from pgflow.local import Local, Storage
from pgflow.local.backend import MemoryBackend
from pgflow.local.task_backend import TaskBackend


@step
def only(ctx: Any) -> Ok:
    return Ok("done")


class Flow(Workflow[Any], unique=Unique("flow")):
    initial = only
    transitions = {only: {"done": Done}}


COMMANDS = {
    value.__name__: value
    for value in vars(commands).values()
    if isinstance(value, type) and issubclass(value, Command) and value is not Command
}
OPTIONS: dict[type[Any], type[Any]] = {
    commands.Start: commands.StartOptions,
    commands.Signal: commands.SignalOptions,
    commands.ScheduleSignal: commands.ScheduleOptions,
    commands.Unschedule: commands.UnscheduleOptions,
    commands.Cancel: commands.CancelOptions,
    commands.Retry: commands.RetryStepOptions,
    commands.Enqueue: commands.EnqueueOptions,
    commands.CancelTask: commands.CancelOptions,
    commands.RetryTask: commands.RetryOptions,
}


class Recorder:
    """A backend that records commands and answers each with None."""

    def __init__(self) -> None:
        self.seen: list[tuple[Command[Any], Any]] = []

    def execute(self, command: Command[Any], session: Any = None) -> Any:
        self.seen.append((command, session))

    async def aexecute(self, command: Command[Any], session: Any = None) -> Any:
        return self.execute(command, session)


def handled(backend: type[Any]) -> set[str]:
    """The commands that a backend's match statement names."""
    tree = ast.parse(inspect.getsource(inspect.getmodule(backend) or backend))
    patterns = [node.cls for node in ast.walk(tree) if isinstance(node, ast.MatchClass)]
    return {name.attr for name in patterns if isinstance(name, ast.Attribute)} & set(COMMANDS)


def test_commands_are_frozen_values() -> None:
    for command in COMMANDS.values():
        assert is_dataclass(command)
        assert command.__dataclass_params__.frozen


def test_both_backends_execute_every_command_but_memory_neither_prunes_nor_sweeps() -> None:
    assert handled(PostgresBackend) == set(COMMANDS)
    assert handled(MemoryBackend) | handled(TaskBackend) == set(COMMANDS) - {"Prune", "SweepPayloads"}
    with Local(workflows=[Flow]) as app, pytest.raises(ConfigError, match="Local has no prune"):
        app.prune(timedelta(days=1))


@pytest.mark.parametrize("command", OPTIONS, ids=lambda command: str(command.__name__))
def test_each_option_of_a_call_is_a_field_of_its_command(command: type[Any]) -> None:
    assert set(OPTIONS[command].__annotations__) <= {field.name for field in fields(command)}


def test_the_sync_and_the_async_call_make_the_same_command() -> None:

    recorder = Recorder()
    app = Client(Registry([Flow]), recorder)
    calls: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
        "start_many": ((Flow, [("v", {"n": 1})]), {"tags": ["gift"]}),
        "resume": ((Flow, "v", "done", 1), {"step": "only"}),
        "schedule_resume": ((Flow, "v", only, timedelta(1)), {"idempotency_key": "k"}),
        "unschedule": ((7,), {}),
        "cancel": ((Flow, "v"), {"reason": "why"}),
        "retry": (("Flow", "v"), {}),
        "get": ((Flow, "v"), {}),
        "list": ((Flow,), {"status": "failed"}),
        "runs": ((Flow, "v"), {"before": 3}),
        "jobs": ((None,), {"state": "parked"}),
    }
    for name, (args, options) in calls.items():
        getattr(app, name)(*args, conn="a session", **options)
        asyncio.run(getattr(app, f"a{name}")(*args, conn="a session", **options))
        (first, session), (second, _) = recorder.seen[-2:]
        assert (first, session) == (second, "a session")


@pytest.mark.parametrize(
    ("call", "known"),
    [
        (lambda app: app.start(Flow, "v", tgas=["x"]), commands.StartOptions),
        (lambda app: app.resume(Flow, "v", "done", stpe="only"), commands.SignalOptions),
        (lambda app: app.schedule_resume(Flow, "v", only, timedelta(1), kye="k"), commands.ScheduleOptions),
        (lambda app: app.cancel(Flow, "v", raeson="why"), commands.CancelOptions),
        (lambda app: app.list(Flow, stauts="failed"), ListOptions),
        (lambda app: app.jobs(Flow, quue="mail"), JobOptions),
    ],
)
def test_a_misspelt_option_is_refused_with_the_options_that_exist(call: Any, known: type[Any]) -> None:
    recorder = Recorder()
    with pytest.raises(UnknownOption, match="there is no") as refused:
        call(Client(Registry([Flow]), recorder))
    assert any(
        repr(name) in (refused.value.hint or "") or name in (refused.value.hint or "") for name in known.__annotations__
    )
    assert recorder.seen == []


def test_memory_executes_the_commands_of_a_storage_like_postgres() -> None:
    backend = MemoryBackend(Registry([Flow]), Storage(), 1, allow_transactional=False)
    try:
        run = backend.execute(commands.Put(Instance.new(Flow, 1, {}, "flow::v")))
        filters = Filters.of_id("flow::v", Flow, None)
        assert backend.execute(commands.Load(filters)).run == run
        assert [each.run for each in backend.execute(commands.Query(filters))] == [run]
        backend.execute(commands.Register())
        assert [backend.execute(commands.Delete(filters)) for _ in range(2)] == [1, 0]
    finally:
        backend.scheduler.close()
