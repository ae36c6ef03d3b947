"""Usage errors, help and connection errors of the commands for instances."""

from pathlib import Path

import pytest

from tests.acceptance.deployment import APP, Deployment


@pytest.mark.parametrize(
    "arguments",
    [
        ("start", "OrderFlow"),
        ("start",),
        ("start", "OrderFlow", "a", "--from", "-"),
        ("start", "OrderFlow", "--from", "-", "--input", "{}"),
        ("start", "OrderFlow", "a", "--delay", "1h", "--at", "2099-01-31T12:00:00Z"),
        ("start", "OrderFlow", "a", "--priority", "40000"),
        ("start", "OrderFlow", "a", "--version", "0"),
        ("list", "--status", "asleep"),
        ("list", "--limit", "0"),
        ("list", "--before", "x"),
        ("list", "--quiet", "--json"),
        ("resume", "OrderFlow", "a"),
    ],
)
def test_wrong_usage_exits_with_2(idle: Deployment, arguments: tuple[str, ...]) -> None:
    done = idle.pgflow(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: pgflow ")
    assert "Traceback" not in done.stderr


def test_an_unknown_workflow_exits_with_5_and_suggests_a_name(idle: Deployment) -> None:
    expected = "pgflow: no workflow named 'OrderFlw' is registered here. Did you mean OrderFlow?"
    assert idle.refused(5, "start", "OrderFlw", "a") == expected
    assert idle.refused(5, "start", "OrderFlw", "a", "--app", APP) == expected
    assert idle.refused(5, "resume", "OrderFlw", "a", "paid") == expected
    assert idle.refused(5, "cancel", "OrderFlw", "a") == expected
    assert idle.refused(5, "retry", "OrderFlw", "a") == expected
    assert idle.refused(5, "show", "OrderFlw", "a") == expected
    assert idle.refused(5, "list", "OrderFlw") == expected
    assert idle.refused(5, "show", "Nothing", "a").endswith("Registered workflows: EverythingFlow, OrderFlow.")


@pytest.mark.parametrize(
    ("source", "exit_code", "problem"),
    [
        (
            "1 / 0",
            2,
            "importing flows failed: ZeroDivisionError: division by zero. Run again with --debug for the traceback.",
        ),
        ("import nowhere", 2, "importing flows failed: ModuleNotFoundError: No module named 'nowhere'."),
        ("def", 2, "importing flows failed: SyntaxError: invalid syntax (flows.py, line 1)."),
        ("import sys; sys.exit(3)", 2, "importing flows failed: SystemExit: 3."),
        (
            "from pgflow import Workflow\nclass Bad(Workflow): pass",
            6,
            "importing flows failed: DefinitionError: Bad",
        ),
        ("app = 1", 2, "'app' in module flows is of type int, not a Pgflow app. Apps in this module: none."),
    ],
)
def test_an_import_error_of_the_app_is_reported_in_one_line(
    idle: Deployment, tmp_path: Path, source: str, exit_code: int, problem: str
) -> None:
    (tmp_path / "flows.py").write_text(source)
    arguments = ("start", "OrderFlow", "a", "--app", "flows:app")
    line = idle.refused(exit_code, *arguments, cwd=tmp_path)
    assert line.startswith(f"pgflow: {problem}")
    done = idle.pgflow(*arguments, "--debug", cwd=tmp_path)
    assert done.returncode == exit_code
    assert "Traceback" in done.stderr


def test_an_unknown_instance_exits_with_5(idle: Deployment) -> None:
    line = idle.refused(5, "show", "OrderFlow", "missing")
    assert line == "pgflow: OrderFlow has no instance 'missing'. List them: pgflow list OrderFlow"


@pytest.mark.parametrize("command", ["start", "resume", "cancel", "retry", "list", "show"])
def test_the_help_of_each_command_has_an_example(idle: Deployment, command: str) -> None:
    help_text = idle.ok(command, "--help")
    assert f"\n    pgflow {command} OrderFlow" in help_text or "\n      pgflow " in help_text


@pytest.mark.parametrize("command", ["start", "resume", "cancel", "retry", "list", "show"])
def test_an_unreachable_database_exits_with_3(idle: Deployment, command: str) -> None:
    arguments = {"list": (), "resume": ("OrderFlow", "a", "b")}.get(command, ("OrderFlow", "a"))
    line = idle.refused(3, command, *arguments, "--dsn", "host=127.0.0.1 port=1 password=hunter2")
    assert line.startswith("pgflow: cannot reach PostgreSQL at 127.0.0.1:1")
    assert "hunter2" not in line
