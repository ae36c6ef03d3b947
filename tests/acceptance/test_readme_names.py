"""What README.md names is there, as it says: options, errors, limits, files, headings; and its code is well typed."""

import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest

from pgflow import errors
from pgflow.cli import COMMANDS, cli
from pgflow.cli.parameters import Duration
from pgflow.config import DEFAULT_LIMIT, MOST_LIMIT
from pgflow.core.definition.retry import MAX_ATTEMPTS
from pgflow.core.values.names import MAX_TAGS
from pgflow.core.values.payload import DEPTH_LIMIT, INPUT_LIMIT, OUTPUT_LIMIT
from tests.acceptance.readme import README, ROOT, blocks, prose, tables
from tests.bench import raw
from tests.bench.compare import command as compare
from tests.bench.scale import command as scale

LONGEST_FIRST_WORKFLOW = 25  # lines
BENCHES = (compare.command, raw.command, scale.command)
OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*")
PATHS = re.compile(r"`((?:bin|pgflow|sql|tests)/[\w./]*)`")


def test_the_first_workflow_is_one_file_of_a_few_lines() -> None:
    (first,) = [block for block in blocks() if block.label == "flow.py"]
    assert len(first.text.splitlines()) <= LONGEST_FIRST_WORKFLOW


@pytest.mark.slow
def test_all_its_python_is_well_typed(tmp_path: Path) -> None:
    for block in blocks():
        if block.language == "python":
            with (tmp_path / block.label).open("a") as file:
                file.write(block.text)
    names = sorted(path.name for path in tmp_path.glob("*.py"))
    environment = {**os.environ, "MYPYPATH": str(ROOT)}
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", *names],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert len(names) >= 6


def commands() -> dict[str, click.Command]:
    """Return the commands by name."""
    context = click.Context(cli)
    return {name: command for name in COMMANDS if (command := cli.get_command(context, name)) is not None}


def options(command: click.Command) -> set[str]:
    """Return the long options that the help of a command names."""
    wide = click.Context(command, terminal_width=1000, max_content_width=1000)
    return set(OPTION.findall(command.get_help(wide)))


OTHERS = {"--init", "--no-acl", "--preload"}  # of docker, pg_dump and gunicorn


def test_every_option_it_names_is_in_the_help_of_a_command() -> None:
    known = {option for command in [cli, *commands().values(), *BENCHES] for option in options(command)}
    named = set(OPTION.findall(README))
    assert named - known == OTHERS


def test_every_option_stands_behind_a_command_that_has_it() -> None:
    known = commands()
    lines = re.findall(r"pgflow ([a-z]+)\b([^\n`]*)", README)
    wrong = [
        (name, option)
        for name, rest in lines
        if name in known
        for option in OPTION.findall(rest)
        if option not in options(known[name])
    ]
    assert wrong == []


def test_its_table_of_the_worker_is_complete_and_has_the_defaults() -> None:
    rows = {option: row[1] for row in tables()["option"] for option in OPTION.findall(row[0])}
    command = commands()["worker"]
    assert options(command) - {"--help", "--listen"} == set(rows)
    defaults: dict[str, Any] = {
        option: param.default for param in command.params for option in [*param.opts, *param.secondary_opts]
    }
    timed = {option for param in command.params if isinstance(param.type, Duration) for option in param.opts}
    assert {option: rows[option] for option in timed} == {option: defaults[option] for option in timed}
    assert len(timed) == 4
    assert rows["--queue"] == f"`{defaults['--queue'][0]}`" == f"`default={DEFAULT_LIMIT}`"
    assert rows["--log-level"] == f"`{defaults['--log-level']}`"


def below(base: type[errors.PgflowError]) -> set[type[errors.PgflowError]]:
    """The classes that derive from an error, except those that derive from PgflowError through another group."""
    if base is errors.PgflowError:
        return set(base.__subclasses__())
    return {found for each in base.__subclasses__() for found in (each, *below(each))}


def test_its_table_of_errors_is_that_of_the_code() -> None:
    told = {row[1].strip("`"): (int(row[0]), set(re.findall(r"`(\w+)`", row[2]))) for row in tables()["exit code"]}
    bases: list[type[errors.PgflowError]] = [errors.PgflowError, *errors.PgflowError.__subclasses__()]
    assert told == {
        base.__name__: (base.exit_code, {each.__name__ for each in below(base)} - {b.__name__ for b in bases})
        for base in bases
    }
    assert {name for name, (_, below) in told.items() for name in {name, *below}} == set(errors.__all__)
    assert all(getattr(errors, name).exit_code == exit_code for exit_code, below in told.values() for name in below)


def test_its_limits_are_those_of_the_code() -> None:
    assert [row[1].split()[0].rstrip(",") for row in tables()["what"]] == [
        f"{limit:,}" for limit in (INPUT_LIMIT, OUTPUT_LIMIT, DEPTH_LIMIT, 200, 100, MAX_TAGS, MAX_ATTEMPTS, MOST_LIMIT)
    ]


def test_the_names_that_it_imports_are_public() -> None:
    imported = re.findall(r"^from pgflow import \(?([\w, \n]+?)\)?$", README, re.MULTILINE)
    names = {name for line in imported for name in re.findall(r"\w+", line)}
    assert len(names) >= 15
    assert names <= set(import_module("pgflow").__all__)


def test_the_files_and_folders_it_names_are_there() -> None:
    named = [path for path in PATHS.findall(prose()) if "<" not in path]
    assert len(named) > 15
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_its_tree_is_the_tree() -> None:
    (tree,) = [block for block in blocks() if block.label == "tree"]
    drawn: list[str] = []
    for line in tree.text.splitlines():
        name = line.split()[0]
        drawn.append(f"{drawn_folder(drawn)}{name}" if line.startswith(" ") else name)
    assert [path for path in drawn if (ROOT / path).is_dir() != path.endswith("/")] == []
    inside = {path for path in (ROOT / "pgflow").iterdir() if path.suffix in ("", ".py") and path.name[0] not in "_."}
    assert {f"pgflow/{path.name}{'/' if path.is_dir() else ''}" for path in inside} <= set(drawn)


def drawn_folder(drawn: list[str]) -> str:
    """Return the folder of the top level that was drawn last."""
    return next(path for path in reversed(drawn) if path.count("/") == 1 and path.endswith("/"))


def test_its_links_lead_to_its_headings() -> None:
    headings = re.findall(r"^#+ (.+)$", prose(), re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    linked = set(re.findall(r"\]\(#([^)]+)\)", README))
    assert linked
    assert linked <= anchors


def test_it_never_sends_anybody_to_another_project_of_the_same_name() -> None:
    assert re.findall(r"pip install .*", README) == []
    assert set(re.findall(r"\w+://", README)) <= {"postgresql://"}
