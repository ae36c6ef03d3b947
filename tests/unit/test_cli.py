"""The command line without a database: lazy commands, one-line errors, and the precedence of options."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import psycopg
import pytest
from click.testing import CliRunner

from pgflow.cli import COMMANDS, cli
from pgflow.cli.error_reporting import ErrorReportingGroup, report
from pgflow.cli.lazy_group import LazyCommand
from pgflow.cli.options import app_option, configured_app, database_options, debug_option, result_options
from pgflow.cli.output import document, printable, table
from pgflow.errors import AlreadyRunning, ConfigError, SchemaMissing

MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@click.command()
@debug_option
@click.argument("error")
def fail(error: str) -> None:
    """Raise an error."""
    errors = {
        "known": SchemaMissing("it is\nmissing", hint="Run: pgflow migrate"),
        "without a hint": AlreadyRunning("it runs"),
        "unexpected": RuntimeError("two\nlines"),
        "interrupt": KeyboardInterrupt(),
        "lost": psycopg.OperationalError("it closed"),
        "timeout": psycopg.errors.QueryCanceled("canceling statement"),
    }
    raise errors[error]


@click.command()
@result_options
@app_option
def show(dsn: str, schema: str, as_json: bool, app: str | None) -> None:
    """Show the options."""
    click.echo(json.dumps([dsn, schema, as_json, app]))


@click.command()
@database_options
def count(dsn: str, schema: str) -> int:
    """Return an exit code."""
    return len(dsn + schema)


@click.command()
@click.pass_context
def color(ctx: click.Context) -> None:
    """Print whether colors are enabled."""
    click.echo(str(ctx.color))


GROUP = ErrorReportingGroup(
    "pgflow",
    lazy={
        name: LazyCommand(f"{__name__}:{name}", f"The command {name}.") for name in ("fail", "show", "count", "nowhere")
    },
)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("PGFLOW_DSN", "DATABASE_URL", "PGFLOW_SCHEMA", "PGFLOW_APP", "PGFLOW_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        ("known", 4, "pgflow: it is missing. Run: pgflow migrate"),
        ("without a hint", 7, "pgflow: it runs"),
        ("unexpected", 1, "pgflow: internal error: RuntimeError: two lines. Run again with --debug for the traceback."),
        ("lost", 3, "pgflow: lost the connection to PostgreSQL: it closed. Try again when it is available."),
    ],
)  # fmt: skip
def test_an_error_is_one_line_and_an_exit_code(error: str, code: int, line: str) -> None:
    done = CliRunner().invoke(GROUP, ["fail", error])
    assert (done.exit_code, done.stderr, done.stdout) == (code, line + "\n", "")


def test_an_interrupt_exits_with_130() -> None:
    assert CliRunner().invoke(GROUP, ["fail", "interrupt"]).exit_code == 130


def test_debug_shows_the_traceback_and_the_line() -> None:
    done = CliRunner().invoke(GROUP, ["fail", "--debug", "known"])
    assert "Traceback" in done.stderr
    assert done.stderr.endswith("pgflow: it is missing. Run: pgflow migrate\n")


def test_a_statement_timeout_is_not_an_internal_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(psycopg.errors.QueryCanceled("canceling statement due to statement timeout")) == 3
    assert capsys.readouterr().err == "pgflow: PostgreSQL error: canceling statement due to statement timeout\n"


def test_the_return_value_of_a_command_is_the_exit_code() -> None:
    assert CliRunner().invoke(GROUP, ["count", "--dsn", "", "--schema", "ab"]).exit_code == 2


def test_help_imports_no_command() -> None:
    done = CliRunner().invoke(GROUP, ["--help"])
    assert done.exit_code == 0
    assert "nowhere  The command nowhere." in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_help_texts_are_sentences(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    options = [param for param in command.params if isinstance(param, click.Option)]
    texts = [COMMANDS[name].short_help, (command.help or "").partition("\n")[0], *(each.help or "" for each in options)]
    assert [text for text in texts if not (text[:1].isupper() and text.endswith("."))] == []
    assert len(COMMANDS[name].short_help) < 70


def test_a_flag_wins_over_the_environment_and_that_over_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    def shown(*arguments: str) -> list[object]:
        options = json.loads(CliRunner().invoke(GROUP, ["show", *arguments]).stdout)
        assert isinstance(options, list)
        return options

    assert shown() == ["", "pgflow", False, None]
    monkeypatch.setenv("DATABASE_URL", "second")
    assert shown() == ["second", "pgflow", False, None]
    monkeypatch.setenv("PGFLOW_DSN", "first")
    monkeypatch.setenv("PGFLOW_SCHEMA", "orders")
    assert shown() == ["first", "orders", False, None]
    assert shown("--dsn", "flag", "--schema", "s", "--json", "-A", "m:a") == ["flag", "s", True, "m:a"]


def test_the_app_comes_from_the_flag_the_environment_or_the_project(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.pgflow]\napp = "project:app"\n')
    assert configured_app() == "project:app"
    assert CliRunner().invoke(GROUP, ["show"]).stdout.endswith('"project:app"]\n')
    monkeypatch.setenv("PGFLOW_APP", "environment:app")
    assert CliRunner().invoke(GROUP, ["show"]).stdout.endswith('"environment:app"]\n')


@pytest.mark.parametrize("text", ["[tool", "[tool.pgflow]\napp = 1\n", "\xff"])
def test_an_invalid_project_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "pyproject.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"pyproject\.toml"):
        configured_app(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "exit_code", "begins"), [(["--help"], 0, "Usage: pgflow "), (["--nothing"], 2, "")]
)
def test_python_m_pgflow_is_the_command(arguments: list[str], exit_code: int, begins: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pgflow", *arguments],
        capture_output=True,
        check=False,
        cwd=Path(__file__).parents[2],
        text=True,
    )
    assert done.returncode == exit_code
    assert done.stdout.startswith(begins)


def test_no_color_reaches_every_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COMMANDS, "color", LazyCommand(f"{__name__}:color", "Print whether colors are enabled."))
    outputs = [
        CliRunner().invoke(cli, [*arguments, "color"], env={"NO_COLOR": environment, "TERM": "xterm"}).stdout
        for environment, arguments in ((None, ["--no-color"]), ("1", []), (None, []))
    ]
    assert outputs == ["False\n", "False\n", "None\n"]


def test_a_table_is_aligned_and_escapes_control_characters() -> None:
    assert table(["ID", "AT"], [["a\x1b[2J", MOMENT], [None, 1]]).splitlines() == [
        "ID        AT",
        "a\\x1b[2J  2026-01-02 03:04:05Z",
        "-         1",
    ]
    assert printable("übung\n") == "übung\\n"


def test_a_document_has_a_version_and_json_values() -> None:
    parsed = json.loads(document({"at": MOMENT, "took": timedelta(minutes=1), "path": Path("a")}))
    assert parsed == {"schema_version": 1, "at": "2026-01-02T03:04:05Z", "took": 60.0, "path": "a"}
