"""`pgflow validate` reports every problem of every definition in a module, with a fix."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.acceptance import command
from tests.acceptance.command import environment

HEAD = """
from datetime import timedelta
from typing import Any
from pgflow import Context, Done, Ok, Pgflow, Retry, Step, Unique, Wait, WaitForEvent, Workflow, route, step

@step(events=("yes", "no"))
def ask(ctx: Context[Any]) -> Ok:
    return Ok("yes")

@step
def do(ctx: Context[Any]) -> Ok:
    return Ok("done")
"""
VALID = """
class Valid(Workflow[Any], unique=Unique("valid")):
    initial = do
    transitions = {do: {"done": Done}}
"""
BROKEN = """
class Many(Workflow[Any], unique=Unique("Many"), tags="x", queue="a b", verison=2):
    initial = ask
    transitions = {ask: {"yes": do, "maybe": Done}, do: {"done": None}}

class Loop(Workflow[Any], unique=Unique("loop")):
    initial = do
    transitions = {do: {"done": ask}, ask: {"yes": do, "no": Wait(timedelta(0))}}

class Bare(Workflow[Any]):
    pass

@step(name="not a key", events=("a",))
def odd(ctx: Context[Any]) -> Ok:
    return Ok("a")

class Annotated(Step):
    events: tuple[str, ...] = ("done",)
    def execute(self, ctx: Context[Any]) -> Ok:
        return Ok("done")

class Odd(Workflow[Any], unique=Unique("odd"), retry=Retry(max_attempts=0)):
    initial = odd
    transitions = {odd: {"a": Annotated}, Annotated: {"done": do}, do: {"done": route(7, Done)}}

class Around(Workflow[Any], unique=Unique("around"), current=2):
    class V1(Workflow[Any], version=1):
        initial = ask
        transitions = {ask: {"yes": Done}}

    class V2(Workflow[Any], version=2):
        initial = do
        transitions = {do: {"done": Done}}

    versions = {1: V1, 2: V2}

unused = do.named("un used")
"""
APP = "\napp = Pgflow(workflows=[Valid, Many, Loop, Bare, Odd, Around])\n"
# The beginning of each line, and a part of the fix.
PROBLEMS = [
    ("Many: there is no option 'verison'", "did you mean 'version'?"),
    ("Many: tags must be a list of strings, got 'x'", 'write tags=["orders"]'),
    ("Many: the unique key 'Many' is refused", "use up to 63 lower-case letters"),
    ("Many: queue is 'a b'", "use up to 63 letters, digits"),
    ("Many: do.done leads to None", "give a target, Done to end the workflow"),
    ("Many: ask does not declare the event 'maybe'", "remove its transition, or add it"),
    ("Many: ask declares the event 'no', which leads nowhere", "add {'no': target}"),
    ("Loop: cycle in the graph: do → ask → do", 'a second step with .named("…")'),
    ("Loop: the path ends at Wait ('wait'), which is not Done", "add transitions for its events"),
    ("Loop: Wait: Wait cannot wait for datetime.timedelta(0)", "give a timedelta greater than zero"),
    ("Bare has no business key", 'unique=Unique("orderid")'),
    ("Bare has no initial step", "add `initial = FirstStep`"),
    ("Bare has no transitions", "ending in Done"),
    ("Odd: Retry(max_attempts=0)", "give a whole number from 1"),
    ("Odd: do.done: route(7, …): the first argument must be a plain function", "not async"),
    ("Odd: odd: @step: 'not a key' cannot be the key of a step", '@step(name="charge")'),
    ("Odd: Annotated: step Annotated: 'events' is an attribute", "without annotation"),
    ("Around.V1: ask declares the event 'no', which leads nowhere", "add {'no': target}"),
    ("step do cannot be named 'un used'", "use up to 100 letters"),
]


def validate(folder: Path, source: str, *arguments: str) -> CompletedProcess[str]:
    (folder / "flows.py").write_text(source, encoding="utf-8")
    return command.run("validate", "--app", "flows:app", *arguments, env=environment(), cwd=folder)


def test_each_problem_of_each_definition_is_a_line(tmp_path: Path) -> None:
    done = validate(tmp_path, HEAD + VALID + BROKEN + APP)
    assert (done.returncode, done.stdout) == (6, "")
    lines = done.stderr.splitlines()
    for (begins, fix), line in zip(PROBLEMS, lines, strict=True):
        assert line.startswith(f"pgflow: {begins}")
        assert fix in line


def test_the_document_lists_problems_and_valid_workflows(tmp_path: Path) -> None:
    done = validate(tmp_path, HEAD + VALID + BROKEN + APP, "--json")
    assert done.returncode == 6
    printed = json.loads(done.stdout)
    assert printed["valid"] is False
    assert [each["name"] for each in printed["workflows"]] == ["Valid"]
    assert len(printed["problems"]) == len(PROBLEMS)
    assert all(
        each["message"].startswith(begins) for each, (begins, _) in zip(printed["problems"], PROBLEMS, strict=True)
    )


def test_an_import_error_comes_last(tmp_path: Path) -> None:
    done = validate(tmp_path, f"{HEAD}{BROKEN}\nprint(Many.graph)\n")
    assert done.returncode == 6
    *lines, last = done.stderr.splitlines()
    assert len(lines) == len(PROBLEMS)
    assert last.startswith("pgflow: importing flows failed: AttributeError: ")


@pytest.mark.parametrize(
    ("source", "exit_code", "problem"),
    [
        (f"{HEAD}{VALID}\nraise RuntimeError('no disk')\n", 2, "importing flows failed: RuntimeError: no disk"),
        ("import nothing_of_that_name\n", 2, "importing flows failed: ModuleNotFoundError"),
        (f"{HEAD}{VALID}\nother = 1\n", 2, "'app' in module flows does not exist"),
        (f"{HEAD}{VALID}\napp = Pgflow(workflows=[Valid, 7])\n", 6, "7 is not a workflow class"),
    ],
)
def test_an_error_outside_of_definitions_is_reported_as_by_other_commands(
    tmp_path: Path, source: str, exit_code: int, problem: str
) -> None:
    done = validate(tmp_path, source)
    assert (done.returncode, done.stdout) == (exit_code, "")
    (line,) = done.stderr.splitlines()
    assert problem in line


def test_valid_workflows_are_listed(tmp_path: Path) -> None:
    done = validate(tmp_path, f"{HEAD}{VALID}\napp = Pgflow(workflows=[Valid])\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1].split() == ["Valid", "1", "1", "1", "default"]


def test_the_orchestration_queue_is_among_the_queues(tmp_path: Path) -> None:
    source = VALID.replace('unique=Unique("valid")', 'unique=Unique("valid"), orchestration_queue="orchestration"')
    done = validate(tmp_path, f"{HEAD}{source}\napp = Pgflow(workflows=[Valid])\n", "--json")
    assert json.loads(done.stdout)["workflows"][0]["queues"] == ["default", "orchestration"]


def test_other_imports_fail_at_the_first_problem(tmp_path: Path) -> None:
    (tmp_path / "flows.py").write_text(HEAD + BROKEN, encoding="utf-8")
    code = (
        "from pgflow.errors import DefinitionError\n"
        "try:\n import flows\nexcept DefinitionError as error:\n print(error, '|', len(error.problems))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, cwd=tmp_path, env=environment(), text=True
    )
    assert done.stdout.startswith("the unique key 'Many' is refused")
    assert done.stdout.endswith("| 1\n")
