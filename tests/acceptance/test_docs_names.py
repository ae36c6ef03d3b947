"""The options, errors, limits, files and links that README.md and the guides name exist, and their code is typed."""

import os
import re
import subprocess
import sys
from dataclasses import fields
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any, get_args

import click
import pytest

from pgflow import Context, Retry, Workflow, errors, step, telemetry
from pgflow.cli import COMMANDS, cli
from pgflow.cli.parameters import Duration
from pgflow.config import DEFAULT_LIMIT, MAX_LIMIT
from pgflow.core.definition.retry import MAX_ATTEMPTS
from pgflow.core.definition.unique import Scope
from pgflow.core.values.names import MAX_TAGS
from pgflow.core.values.payload import DEPTH_LIMIT, INPUT_LIMIT, METADATA_LIMIT
from tests.acceptance.pages import PAGES, README, ROOT, Page, page
from tests.bench import raw
from tests.bench.compare import command as compare
from tests.bench.scale import command as scale
from tests.torture import command as torture

README_LINES = 400
FIRST_WORKFLOW_LINES = 25
PROGRAMS = (compare.command, raw.command, scale.command, torture.command)
OTHER_PROGRAMS = {
    "--init",
    "--no-acl",
    "--pgflow-dsn",
    "--preload",
    "--strict",
}  # docker, pg_dump, pytest, gunicorn, mypy
OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*")
PATH = re.compile(r"`((?:bin|pgflow|sql|tests)/[\w./]*)`")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
ALL_TEXT = "\n".join(each.text for each in PAGES)
EVERY_PAGE = pytest.mark.parametrize("documented", PAGES, ids=str)
OTHER_MARKDOWN = [page(name) for name in ("bin/README.md", "sql/README.md", "tests/README.md")]


def test_the_readme_is_short() -> None:
    assert len(README.text.splitlines()) <= README_LINES


def test_the_first_workflow_is_one_file_of_a_few_lines() -> None:
    assert len(README.files["flow.py"].splitlines()) <= FIRST_WORKFLOW_LINES


def test_the_readme_links_every_guide() -> None:
    linked = {target.partition("#")[0] for target in LINK.findall(README.text)}
    assert {each.name for each in PAGES} - {README.name} <= linked


@pytest.mark.slow
def test_all_the_python_passes_mypy(tmp_path: Path) -> None:
    files = [(name, text) for each in PAGES for name, text in each.files.items()]
    assert len(files) == len(dict(files)), "a file name belongs to one page"
    for name, text in files:
        (tmp_path / name).write_text(text)
    names = sorted(dict(files))
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
    """Return the long options in the help of a command and its subcommands."""
    wide = click.Context(command, terminal_width=1000, max_content_width=1000)
    names = command.list_commands(wide) if isinstance(command, click.Group) else []
    subcommands = [each for name in names if (each := command.get_command(wide, name)) is not None]  # type: ignore[attr-defined]
    return set(OPTION.findall(command.get_help(wide))).union(*map(options, subcommands))


def test_every_option_is_in_the_help_of_a_command() -> None:
    known = {option for command in [cli, *commands().values(), *PROGRAMS] for option in options(command)}
    assert set(OPTION.findall(ALL_TEXT)) - known == OTHER_PROGRAMS


@EVERY_PAGE
def test_every_option_follows_a_command_that_has_it(documented: Page) -> None:
    known = commands()
    wrong = [
        (name, option)
        for name, rest in re.findall(r"pgflow ([a-z]+)\b([^\n`]*)", documented.text)
        if name in known
        for option in OPTION.findall(rest)
        if option not in options(known[name])
    ]
    assert wrong == []


def test_the_table_of_commands_is_complete() -> None:
    rows = page("pgflow/docs/cli.md").table("command")
    assert [name for row in rows for name in re.findall(r"`pgflow ([\w-]+)`", row[0])] == list(COMMANDS)


def test_the_table_of_the_worker_is_complete_and_has_the_defaults() -> None:
    table = page("pgflow/docs/workers.md").table("option")
    rows = {option: row[1] for row in table for option in OPTION.findall(row[0])}
    group = commands()["worker"]
    assert isinstance(group, click.Group)
    command = group.get_command(click.Context(group), "run")
    assert command is not None
    assert options(group) - {"--help", "--listen"} == set(rows)
    defaults: dict[str, Any] = {
        option: param.default for param in command.params for option in [*param.opts, *param.secondary_opts]
    }
    timed = {
        option
        for param in command.params
        if isinstance(param.type, Duration) and isinstance(param.default, str)
        for option in param.opts
    }
    assert {option: rows[option] for option in timed} == {option: defaults[option] for option in timed}
    assert len(timed) == 4
    assert rows["--queue"] == f"`{defaults['--queue'][0]}`" == f"`default={DEFAULT_LIMIT}`"
    assert rows["--log-level"] == f"`{defaults['--log-level']}`"


def children(base: type[errors.PgflowError]) -> set[type[errors.PgflowError]]:
    """Return the direct subclasses in `pgflow.errors`; the dashboard's answers to a browser are not among them."""
    return {each for each in base.__subclasses__() if each.__module__ == errors.__name__}


def below(base: type[errors.PgflowError]) -> set[type[errors.PgflowError]]:
    """Return the classes that derive from an error, except those that derive from PgflowError through another group."""
    if base is errors.PgflowError:
        return children(base)
    return {found for each in children(base) for found in (each, *below(each))}


def test_the_table_of_errors_is_that_of_the_code() -> None:
    rows = page("pgflow/docs/errors.md").table("exit code")
    documented = {row[1].strip("`"): (int(row[0]), set(re.findall(r"`(\w+)`", row[2]))) for row in rows}
    bases: list[type[errors.PgflowError]] = [errors.PgflowError, *children(errors.PgflowError)]
    assert documented == {
        base.__name__: (base.exit_code, {each.__name__ for each in below(base)} - {b.__name__ for b in bases})
        for base in bases
    }
    assert {name for name, (_, below) in documented.items() for name in {name, *below}} == set(errors.__all__)
    assert all(
        getattr(errors, name).exit_code == exit_code for exit_code, below in documented.values() for name in below
    )


@EVERY_PAGE
def test_the_first_column_of_a_table_of_errors_names_errors(documented: Page) -> None:
    if "| error | cause |" in documented.text:
        named = {name for row in documented.table("error") for name in re.findall(r"`(\w+)`", row[0])}
        assert named <= set(errors.__all__)


def test_the_limits_are_those_of_the_code() -> None:
    assert [row[1].split()[0].rstrip(",") for row in page("pgflow/docs/values.md").table("what")] == [
        f"{limit:,}"
        for limit in (INPUT_LIMIT, METADATA_LIMIT, DEPTH_LIMIT, 200, 100, MAX_TAGS, MAX_ATTEMPTS, MAX_LIMIT)
    ]


def test_the_options_of_steps_and_workflows_are_those_of_the_code() -> None:
    workflows = page("pgflow/docs/workflows.md")

    def first_cells(heading: str) -> list[str]:
        return [name for row in workflows.table(heading) for name in re.findall(r"`(\w+)[`(]", row[0])]

    assert first_cells("option of `Retry`") == [field.name for field in fields(Retry)]
    assert set(first_cells("option of a step")) == {*signature(step).parameters, "step_key"} - {"function"}
    assert set(first_cells("option of a workflow")) == {*signature(Workflow.__init_subclass__).parameters} - {"unknown"}
    assert first_cells("scope") == list(get_args(Scope))
    shown = {field.name for field in fields(Context)} - {"control"}
    assert set(first_cells("`ctx.…`")) == {*shown, "output"}


def test_the_table_of_events_is_that_of_the_code() -> None:
    rows = page("pgflow/docs/telemetry.md").table("event")
    documented = [name for row in rows for name in re.findall(r"`([\w.]+)`", row[0])]
    assert sorted(documented) == sorted(".".join(name) for name in telemetry.events())


def test_the_names_that_it_imports_are_public() -> None:
    imported = re.findall(r"^from pgflow import \(?([\w, \n]+?)\)?$", ALL_TEXT, re.MULTILINE)
    names = {name for line in imported for name in re.findall(r"\w+", line)}
    assert len(names) >= 15
    assert names <= set(import_module("pgflow").__all__)


@pytest.mark.parametrize("documented", [*PAGES, *OTHER_MARKDOWN], ids=str)
def test_the_files_and_folders_that_it_names_exist(documented: Page) -> None:
    named = set(PATH.findall(documented.prose))
    assert sorted(path for path in named if not (ROOT / path).exists()) == []


def test_each_change_in_the_contributors_guide_touches_at_most_six_files() -> None:
    _, _, rest = page("pgflow/docs/contributing.md").prose.partition("\n## Where a change goes\n")
    changes = re.split(r"^### ", rest.partition("\n## ")[0], flags=re.MULTILINE)[1:]
    steps = [re.findall(r"^\d\. .*(?:\n   .*)*", change, re.MULTILINE) for change in changes]
    assert len(changes) == 10
    assert all(1 <= len(each) <= 6 for each in steps)
    assert all(len(set(PATH.findall("\n".join(each)))) <= 6 for each in steps)


def test_the_tree_is_the_tree() -> None:
    (tree,) = [block for block in README.blocks if block.label == "tree"]
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


def anchors(documented: Page) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", documented.prose, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("documented", [*PAGES, *OTHER_MARKDOWN], ids=str)
def test_its_links_lead_to_files_and_headings_that_exist(documented: Page) -> None:
    broken = []
    for target in LINK.findall(documented.prose):
        name, _, anchor = target.partition("#")
        path = (ROOT / documented.name).parent / name if name else ROOT / documented.name
        if not path.exists() or (anchor and anchor not in anchors(page(str(path.resolve().relative_to(ROOT))))):
            broken.append(target)
    assert broken == []


def test_no_page_sends_the_reader_to_another_project_of_the_same_name() -> None:
    assert re.findall(r"pip install .*", ALL_TEXT) == []
    assert set(re.findall(r"\w+://", ALL_TEXT)) <= {"postgresql://"}
