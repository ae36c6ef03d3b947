"""The command line without a database: commands loaded late, errors in one line, options from their places."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import psycopg
import pytest
from click.testing import CliRunner

from pgflow.cli import COMMANDS, cli
from pgflow.cli.error_reporting import ErrorReportingGroup, report
from pgflow.cli.lazy_group import LazyCommand
from pgflow.cli.options import app_option, configured_app, database_options, debug_option, reading_options
from pgflow.cli.output import document, printable, table
from pgflow.errors import AlreadyRunning, ConfigError, SchemaMissing

MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@click.command()
@debug_option
@click.argument("error")
def fail(error: str) -> None:
    """Fail as asked."""
    known = {
        "known": SchemaMissing("it is\nmissing", hint="Run: pgflow migrate"),
        "hintless": AlreadyRunning("it runs"),
        "unknown": RuntimeError("what a\nmess"),
        "interrupt": KeyboardInterrupt(),
        "lost": psycopg.OperationalError("it closed"),
        "timeout": psycopg.errors.QueryCanceled("canceling statement"),
    }
    raise known[error]


@click.command()
@reading_options
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
    """Say whether colours are wanted."""
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
        ("hintless", 7, "pgflow: it runs"),
        ("unknown", 1, "pgflow: internal error: RuntimeError: what a mess. Run again with --debug for the traceback."),
        ("lost", 3, "pgflow: the connection to PostgreSQL was lost: it closed. Try again when it is back."),
    ],
)  # fmt: skip
def test_an_error_is_one_line_and_an_exit_code(error: str, code: int, line: str) -> None:
    done = CliRunner().invoke(GROUP, ["fail", error])
    assert (done.exit_code, done.stderr, done.stdout) == (code, line + "\n", "")


def test_an_interrupt_ends_with_130() -> None:
    assert CliRunner().invoke(GROUP, ["fail", "interrupt"]).exit_code == 130


def test_debug_shows_the_traceback_and_the_line() -> None:
    done = CliRunner().invoke(GROUP, ["fail", "--debug", "known"])
    assert "Traceback" in done.stderr
    assert done.stderr.endswith("pgflow: it is missing. Run: pgflow migrate\n")


def test_a_statement_that_was_cut_off_is_no_internal_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(psycopg.errors.QueryCanceled("canceling statement due to statement timeout")) == 3
    assert capsys.readouterr().err == "pgflow: PostgreSQL refused: canceling statement due to statement timeout\n"


def test_what_a_command_returns_is_the_exit_code() -> None:
    assert CliRunner().invoke(GROUP, ["count", "--dsn", "", "--schema", "ab"]).exit_code == 2


def test_help_imports_no_command() -> None:
    done = CliRunner().invoke(GROUP, ["--help"])
    assert done.exit_code == 0
    assert "nowhere  The command nowhere." in done.stdout


def test_a_flag_wins_over_the_environment_and_that_over_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    def shown(*arguments: str) -> list[object]:
        said = json.loads(CliRunner().invoke(GROUP, ["show", *arguments]).stdout)
        assert isinstance(said, list)
        return said

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
def test_a_project_file_that_makes_no_sense_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "pyproject.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"pyproject\.toml"):
        configured_app(tmp_path)


def test_no_color_reaches_every_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COMMANDS, "color", LazyCommand(f"{__name__}:color", "Say whether colours are wanted."))
    said = [
        CliRunner().invoke(cli, [*arguments, "color"], env={"NO_COLOR": environment, "TERM": "xterm"}).stdout
        for environment, arguments in ((None, ["--no-color"]), ("1", []), (None, []))
    ]
    assert said == ["False\n", "False\n", "None\n"]


def test_a_table_is_aligned_and_cannot_steer_the_terminal() -> None:
    assert table(["ID", "AT"], [["a\x1b[2J", MOMENT], [None, 1]]).splitlines() == [
        "ID        AT",
        "a\\x1b[2J  2026-01-02 03:04:05Z",
        "-         1",
    ]
    assert printable("übung\n") == "übung\\n"


def test_a_document_has_a_version_and_plain_values() -> None:
    said = json.loads(document({"at": MOMENT, "took": timedelta(minutes=1), "path": Path("a")}))
    assert said == {"schema_version": 1, "at": "2026-01-02T03:04:05Z", "took": 60.0, "path": "a"}
