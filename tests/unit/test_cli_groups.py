"""The shape of the command line: groups and their short forms, quick help, JSON everywhere, completion, settings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from pgflow.cli import COMMANDS, cli
from pgflow.cli.groups import FORMS
from pgflow.cli.lazy_group import LazyCommand, LazyGroup
from pgflow.cli.nearest import nearest
from pgflow.cli.operations.worker_reload import changed, snapshot
from pgflow.cli.options import json_option
from pgflow.cli.output import document
from pgflow.cli.project.init import FILES

GROUPS = ["worker", "instance", "job", "task", "queue", "schedule", "limit", "db"]
LIGHT = {"click", "pgflow"}  # the only packages besides the standard library that help may import
SLOW = {"asyncio", "difflib", "http", "ssl", "tomllib"}
# `completion` prints a script for a shell, the others run until Ctrl-C.
WITHOUT_JSON = {"completion", "dev", "web"}


def leaves(group: click.Group, *path: str) -> Iterator[tuple[str, click.Command]]:
    """Yield each command with its words."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from leaves(command, *path, name)
        else:
            yield " ".join([*path, name]), command


ALL = dict(leaves(cli))


def test_the_groups_come_first() -> None:
    assert list(COMMANDS)[: len(GROUPS)] == GROUPS
    assert all(isinstance(cli.get_command(click.Context(cli), name), click.Group) for name in GROUPS)


def test_a_short_form_is_the_command_of_its_group() -> None:
    context = click.Context(cli)
    for group_name, commands in FORMS.items():
        group = cli.get_command(context, group_name)
        assert isinstance(group, click.Group)
        for name in commands:
            assert cli.get_command(context, name) is group.get_command(context, name) is not None


def test_the_worker_runs_without_the_name_of_its_command() -> None:
    for arguments in (["worker", "--help"], ["worker", "run", "--help"], ["worker"]):
        done = CliRunner().invoke(cli, arguments, env={"PGFLOW_APP": ""})
        assert "pgflow worker list" in done.output or "no app given" in done.output
    assert "List the workers" in CliRunner().invoke(cli, ["worker", "list", "--help"]).output
    assert "Did you mean list" in CliRunner().invoke(cli, ["worker", "lst"]).output


@pytest.mark.parametrize("arguments", ["--help", *(f"{name} --help" for name in ("instance", "job", "task", "db"))])
def test_help_imports_click_and_little_else(arguments: str) -> None:
    code = (
        "import sys; before = set(sys.modules); from pgflow.cli import cli\n"
        "try: cli(sys.argv[1:], prog_name='pgflow')\n"
        "except SystemExit: pass\n"
        "print('|', *{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments.split()], capture_output=True, check=True, text=True, env=os.environ
    )
    imported = set(done.stdout.rpartition("|")[2].split())
    assert imported & {"click"}
    assert {name for name in imported if name not in sys.stdlib_module_names} <= LIGHT
    assert imported & SLOW == set()


def test_every_command_prints_json() -> None:
    without = {
        name
        for name, command in ALL.items()
        if not {"--json", "--jsonl"} <= {option for param in command.params for option in param.opts}
    }
    assert without == WITHOUT_JSON


@click.command()
@json_option
def two(as_json: bool) -> None:
    """Print two things."""
    click.echo(document({"things": [{"a": 1}, {"a": 2}]}) if as_json else "text")


@click.command()
@json_option
def one(as_json: bool) -> None:
    """Print one thing."""
    click.echo(document({"a": 1, "b": [1]}) if as_json else "text")


def test_json_lines_are_the_elements_of_a_list() -> None:
    def lines(command: click.Command, *arguments: str) -> list[str]:
        return CliRunner().invoke(command, [*arguments]).output.splitlines()

    assert lines(two) == ["text"]
    assert lines(two, "--jsonl") == lines(two, "--json", "--jsonl") == ['{"a": 1}', '{"a": 2}']
    assert lines(one, "--jsonl") == ['{"schema_version": 1, "a": 1, "b": [1]}']
    assert json.loads("".join(lines(two, "--json")))["things"] == [{"a": 1}, {"a": 2}]


def test_a_group_suggests_a_similar_command() -> None:
    group = LazyGroup("x", lazy={"list": LazyCommand("nowhere:x", "List.")})
    done = CliRunner().invoke(group, ["lits"])
    assert (done.exit_code, "Did you mean list?" in done.output) == (2, True)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_for_the_shell(shell: str) -> None:
    done = CliRunner().invoke(cli, ["completion", shell])
    assert (done.exit_code, f"_PGFLOW_COMPLETE={shell}_complete" in done.output) == (0, True)


def test_completion_completes_commands_and_options() -> None:
    words = {**os.environ, "_PGFLOW_COMPLETE": "bash_complete", "COMP_WORDS": "pgflow queue ", "COMP_CWORD": "2"}
    done = subprocess.run([sys.executable, "-m", "pgflow"], capture_output=True, check=False, text=True, env=words)
    assert "plain,pause" in done.stdout.splitlines()


def test_config_show_names_the_origin_of_each_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text('[tool.pgflow]\napp = "shop:app"\n')
    env = {"PGFLOW_DSN": "postgresql://ann:secret@db/shop", "PGPORT": "6000", "PGFLOW_SCHEMA": "", "PGFLOW_APP": ""}
    arguments = ["config", "show", "--origin", "--schema", "orders"]
    done = CliRunner().invoke(cli, [*arguments, "--json"], env=env)
    found = {each["name"]: (each["value"], each["origin"]) for each in json.loads(done.output)["settings"]}
    assert found["app"] == ("shop:app", "pyproject.toml, [tool.pgflow]")
    assert found["dsn.host"] == ("db", "variable PGFLOW_DSN")
    assert found["dsn.port"] == ("6000", "variable PGPORT")
    assert found["schema"] == ("orders", "option --schema")
    assert found["pooler"] == ("no", "default")
    shown = CliRunner().invoke(cli, arguments, env=env).output
    assert "(set, not shown)" in shown
    assert "secret" not in shown + done.output


def test_events_that_follow_have_no_document() -> None:
    done = CliRunner().invoke(cli, ["events", "--follow", "--json"])
    assert (done.exit_code, "use --jsonl" in done.output) == (2, True)


@pytest.mark.parametrize("arguments", [[], ["F"], ["F", "a", "--run", "1"], ["--run", "1", "--job", "2"]])
def test_why_needs_one_subject(arguments: list[str]) -> None:
    assert CliRunner().invoke(cli, ["why", *arguments]).exit_code == 2


@pytest.mark.parametrize("arguments", ["--reload --processes 2", "--reload --drain", "--reload-dir ."])
def test_options_of_a_worker_that_exclude_each_other_are_refused(arguments: str) -> None:
    done = CliRunner().invoke(cli, ["worker", "--app", "no:app", *arguments.split()])
    assert (done.exit_code, "--reload" in done.output) == (2, True)


def test_init_writes_a_project_and_never_over_a_file(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["init", str(tmp_path / "My Shop"), "--json"])
    assert json.loads(done.output)["files"] == [*FILES]
    assert 'name = "my-shop"' in (tmp_path / "My Shop" / "pyproject.toml").read_text()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "flows.py").write_text("mine")
    done = CliRunner().invoke(cli, ["init", str(tmp_path / "other")])
    assert (done.exit_code, "already has flows.py" in done.output) == (2, True)
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["flows.py"]
    assert (tmp_path / "other" / "flows.py").read_text() == "mine"


def test_a_reloader_sees_sources_that_are_added_changed_and_removed(tmp_path: Path) -> None:
    for name in ("a.py", "b.py", "c.txt", ".git/d.py", "env/e.py", "env/pyvenv.cfg", "package/f.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    before = snapshot([tmp_path])
    assert [Path(name).name for name in sorted(before)] == ["a.py", "b.py", "f.py"]
    assert changed(before, snapshot([tmp_path])) == []
    os.utime(tmp_path / "a.py", ns=(1, 1))
    (tmp_path / "b.py").unlink()
    (tmp_path / "g.sql").write_text("")
    assert [Path(name).name for name in changed(before, snapshot([tmp_path]))] == ["a.py", "b.py", "g.sql"]


def test_the_nearest_names_are_found() -> None:
    assert nearest("mial", ["default", "mail"]) == ["mail"]
    assert nearest("F", ["f", "other"]) == ["f"]
    assert nearest("x", ["default"]) == []
