"""`pgflow graph`, `docs` and `validate`: from the code of an app, and from a database."""

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from pgflow.database.connect import connect
from pgflow.migrations.migrate import up
from tests.acceptance import command
from tests.acceptance.command import environment
from tests.conftest import Server

STEPS = '''\
"""Steps and workflows."""

from typing import Any

from pgflow import Context, Done, Ok, Pgflow, Step, Unique, WaitForEvent, Workflow, step


class Validate(Step):
    events = ("valid", "invalid")

    def execute(self, ctx: Context[Any]) -> Ok:
        return Ok("valid")


@step(queue="carrier")
def ship(ctx: Context[Any]) -> Ok:
    return Ok("done")

'''
FLOW = '''\

class OrderFlow(Workflow[dict[str, Any]], unique=Unique("orderid")):
    """From order to shipment."""

    initial = Validate
    transitions = {
        Validate: {"valid": WaitForEvent("paid").named("payment"), "invalid": Done},
        WaitForEvent("paid").named("payment"): {"received": ship},
        ship: {"done": Done},
    }

'''
SHORT = """\

class ShortFlow(Workflow[dict[str, Any]], unique=Unique("orderid")):
    initial = ship
    transitions = {ship: {"done": Done}}

"""
APP = "\napp = Pgflow(workflows=[OrderFlow, ShortFlow])\n"

DRAWN = """\
[*validate]
    validate ──valid────> payment
    validate ──invalid──> done

[payment]
    payment ──received──> ship

[ship]
    ship ──done──> done

(done)
"""


class Project:
    """A directory with an app, and the command run in it."""

    def __init__(self, folder: Path, source: str = STEPS + FLOW + SHORT + APP) -> None:
        self.folder = folder
        self.flows = folder / "flows.py"
        self.flows.write_text(source, encoding="utf-8")

    def pgflow(self, *arguments: str, **variables: str) -> CompletedProcess[str]:
        """Run `pgflow` to its end; the app is flows:app unless `variables` has another PGFLOW_APP."""
        defaults = {"PYTHONDONTWRITEBYTECODE": "1", "PGFLOW_APP": "flows:app"}
        return command.run(*arguments, env=environment(**(defaults | variables)), cwd=self.folder)

    def ok(self, *arguments: str, **variables: str) -> str:
        """Run a command that must succeed without printing to stderr, and return its stdout."""
        done = self.pgflow(*arguments, **variables)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    def refused(self, exit_code: int, *arguments: str, **variables: str) -> str:
        """Run a command that must fail with this exit code, and return its error line."""
        return command.error_line(self.pgflow(*arguments, **variables), exit_code)

    def register(self, dsn: str) -> None:
        """Register the workflows in the database."""
        code = "import sys, flows, pgflow; pgflow.Pgflow(sys.argv[1], flows.app.workflows).register()"
        variables = environment(PYTHONDONTWRITEBYTECODE="1")
        subprocess.run([sys.executable, "-c", code, dsn], check=True, cwd=self.folder, env=variables)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A directory with an app."""
    return Project(tmp_path)


@pytest.fixture
def database(server: Server, new_database: Callable[..., str]) -> str:
    """The dsn of a database with pgflow's schema and no registered workflows."""
    dsn = new_database(server)
    with connect(dsn, "migrate") as conn:
        up(conn)
    return dsn


def test_graph_draws_a_workflow_of_an_app_without_a_database(project: Project) -> None:
    assert project.ok("graph", "OrderFlow") == DRAWN
    assert project.ok("graph", "OrderFlow", "--format", "mermaid").startswith("flowchart TD\n")
    assert project.ok("graph", "OrderFlow", "--format", "dot").startswith('digraph "OrderFlow" {\n')
    root = ET.fromstring(project.ok("graph", "OrderFlow", "--format", "svg"))  # noqa: S314 -- our own output
    assert root.tag == "{http://www.w3.org/2000/svg}svg"


def test_graph_writes_to_a_file(project: Project) -> None:
    done = project.pgflow("graph", "OrderFlow", "--format", "svg", "--output", "order.svg")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "wrote order.svg\n")
    assert (project.folder / "order.svg").read_text(encoding="utf-8") == project.ok("graph", "OrderFlow", "-f", "svg")
    line = project.refused(2, "graph", "OrderFlow", "--output", "nowhere/order.svg")
    assert line == "pgflow: --output: cannot write nowhere/order.svg: No such file or directory"


def test_graph_draws_the_same_from_the_database(project: Project, database: str) -> None:
    project.register(database)
    for kind in ("ascii", "mermaid", "dot", "svg"):
        stored = project.ok("graph", "OrderFlow", "--format", kind, PGFLOW_APP="", PGFLOW_DSN=database)
        assert stored == project.ok("graph", "OrderFlow", "--format", kind)
    assert project.ok("graph", "OrderFlow", "--version", "1", PGFLOW_APP="", PGFLOW_DSN=database) == DRAWN


def test_an_unknown_workflow_exits_with_5(project: Project, database: str) -> None:
    line = project.refused(5, "graph", "OrderFlaw")
    assert line == "pgflow: no workflow named 'OrderFlaw' is registered here. Did you mean OrderFlow?"
    project.register(database)
    assert project.refused(5, "graph", "OrderFlaw", PGFLOW_APP="", PGFLOW_DSN=database) == line
    line = project.refused(5, "graph", "OrderFlow", "--version", "7", PGFLOW_APP="", PGFLOW_DSN=database)
    assert line == "pgflow: OrderFlow has no registered version 7. Draw the current version: pgflow graph OrderFlow"
    assert "version 1" in project.refused(6, "graph", "OrderFlow", "--version", "7")


def test_docs_writes_diagrams_into_docstrings_once(project: Project) -> None:
    before = project.flows.read_bytes()
    check = project.pgflow("docs", "--check")
    assert (check.returncode, check.stdout) == (1, "flows.py: OrderFlow, ShortFlow\nWould update 2 workflow(s).\n")
    assert project.flows.read_bytes() == before

    assert project.ok("docs") == "flows.py: OrderFlow, ShortFlow\nUpdated 2 workflow(s).\n"
    after = project.flows.read_bytes()
    assert project.ok("docs") == "Updated 0 workflow(s).\n"
    assert project.ok("docs", "--check") == "Would update 0 workflow(s).\n"
    assert project.flows.read_bytes() == after
    assert [path.name for path in project.folder.iterdir()] == ["flows.py"]

    code = "import inspect, flows; print(inspect.getdoc(flows.OrderFlow)); print(inspect.getdoc(flows.ShortFlow))"
    variables = environment(PYTHONDONTWRITEBYTECODE="1", PYTHONUTF8="1")
    line = [sys.executable, "-c", code]
    printed = subprocess.run(
        line, check=True, capture_output=True, cwd=project.folder, encoding="utf-8", env=variables
    ).stdout
    block = "".join(f"    {line}\n" if line else "\n" for line in DRAWN.splitlines())
    assert printed.startswith(
        "From order to shipment.\n\n<!-- pgflow:graph:start:OrderFlow -->\n\n"
        f"{block}\n<!-- pgflow:graph:end:OrderFlow -->\n<!-- pgflow:graph:start:ShortFlow -->\n"
    )


def test_docs_updates_the_diagram_of_a_changed_workflow(project: Project) -> None:
    project.ok("docs")
    text = project.flows.read_text(encoding="utf-8")
    project.flows.write_text(text.replace('"invalid": Done', '"invalid": ship'), encoding="utf-8")
    assert project.ok("docs") == "flows.py: OrderFlow\nUpdated 1 workflow(s).\n"
    text = project.flows.read_text(encoding="utf-8")
    assert "validate ──invalid──> ship" in text
    assert "validate ──invalid──> done" not in text


def test_docs_keeps_line_endings_byte_order_mark_and_mode(project: Project) -> None:
    source = project.flows.read_bytes()
    project.flows.write_bytes(b"\xef\xbb\xbf" + source.replace(b"\n", b"\r\n"))
    project.flows.chmod(0o640)
    assert project.ok("docs").endswith("Updated 2 workflow(s).\n")
    after = project.flows.read_bytes()
    assert after.startswith(b"\xef\xbb\xbf")
    assert after.count(b"\n") == after.count(b"\r\n") > source.count(b"\n")
    assert project.flows.stat().st_mode & 0o777 == 0o640
    assert project.ok("docs") == "Updated 0 workflow(s).\n"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (
            f"# coding: latin-1\n{STEPS}{FLOW}{SHORT}{APP}",
            "encoding iso-8859-1 cannot represent '─': save the file as UTF-8",
        ),
        (f"{STEPS}{FLOW}{SHORT}{APP}x = 1\r\n", "mixed line endings"),
        (f"{STEPS}{FLOW}{SHORT}{APP}x = 1\r", "mixed line endings"),
        (
            f"{STEPS}{SHORT}{FLOW}if 0:\n    class OrderFlow: x = 1\n{APP}",
            "class OrderFlow is defined more than once in this file",
        ),
    ],
)
def test_docs_does_not_write_a_file_that_it_cannot_change_safely(tmp_path: Path, source: str, reason: str) -> None:
    project = Project(tmp_path)
    project.flows.write_bytes(source.encode())
    done = project.pgflow("docs")
    assert (done.returncode, done.stdout) == (6, "Updated 0 workflow(s).\n")
    assert done.stderr == f"pgflow: {project.flows} not updated: {reason}\n"
    assert project.flows.read_bytes() == source.encode()


def test_docs_changes_only_files_below_the_directory(project: Project) -> None:
    before = project.flows.read_bytes()
    (project.folder / "other").mkdir()
    done = project.pgflow("docs", "--path", "other")
    assert (done.returncode, done.stdout) == (0, "Updated 0 workflow(s).\n")
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == ["skipped OrderFlow", "skipped ShortFlow"]
    assert project.flows.read_bytes() == before


def test_docs_skips_a_class_defined_in_a_function(tmp_path: Path) -> None:
    made = "".join(f"    {line}\n" if line else "\n" for line in SHORT.splitlines())
    project = Project(
        tmp_path,
        f"{STEPS}{FLOW}def make() -> Any:\n{made}    return ShortFlow\n\napp = Pgflow(workflows=[OrderFlow, make()])\n",
    )
    done = project.pgflow("docs")
    assert (done.returncode, done.stdout) == (0, "flows.py: OrderFlow\nUpdated 1 workflow(s).\n")
    assert done.stderr == "skipped make.<locals>.ShortFlow: defined in a function\n"


def test_validate_lists_valid_workflows(project: Project) -> None:
    done = project.pgflow("validate")
    assert (done.returncode, done.stderr) == (0, "OrderFlow: payment waits without a timeout\n")
    assert done.stdout.splitlines() == [
        "WORKFLOW   VERSION  STEPS  EDGES  QUEUES",
        "OrderFlow  1        3      4      carrier, default",
        "ShortFlow  1        1      1      carrier",
    ]
    printed = json.loads(project.ok("validate", "--json"))
    assert (printed["schema_version"], printed["valid"], printed["problems"]) == (1, True, [])
    assert printed["workflows"][0] == {
        "name": "OrderFlow",
        "version": 1,
        "steps": 3,
        "edges": 4,
        "queues": ["carrier", "default"],
        "remarks": ["payment waits without a timeout"],
        "problems": [],
    }


def test_validate_exits_with_6_for_an_invalid_definition(tmp_path: Path) -> None:
    project = Project(tmp_path, STEPS + FLOW.replace(', "invalid": Done', "") + SHORT + APP)
    line = project.refused(6, "validate")
    assert "OrderFlow: Validate declares the event 'invalid', which leads nowhere" in line
    done = project.pgflow("validate", "--json")
    assert done.returncode == 6
    printed = json.loads(done.stdout)
    assert printed["valid"] is False
    assert "which leads nowhere" in printed["problems"][0]["message"]


def test_validate_exits_with_7_for_a_graph_that_changed_without_a_new_version(project: Project, database: str) -> None:
    done = project.pgflow("validate", PGFLOW_DSN=database)
    assert done.returncode == 0
    assert "ShortFlow: not registered in the database yet\n" in done.stderr
    project.register(database)
    assert project.pgflow("validate", PGFLOW_DSN=database).stderr == "OrderFlow: payment waits without a timeout\n"
    started = project.ok("start", "OrderFlow", "abc", PGFLOW_DSN=database)
    run = started.split()[-1]

    text = project.flows.read_text(encoding="utf-8")
    text = text.replace("initial = Validate\n", 'initial = Validate().named("check")\n')
    text = text.replace("        Validate:", '        Validate().named("check"):')
    project.flows.write_text(text, encoding="utf-8")
    done = project.pgflow("validate", PGFLOW_DSN=database)
    assert done.returncode == 7
    assert done.stderr.splitlines()[1:] == [
        "pgflow: OrderFlow version 1 differs from its graph in the database: give the changed workflow version=2",
        f"pgflow: orderid::abc run {run} is at validate, which version 1 no longer has",
    ]
    printed = json.loads(project.pgflow("validate", "--json", PGFLOW_DSN=database).stdout)
    assert printed["valid"] is False
    assert len(printed["problems"]) == 2


@pytest.mark.parametrize("name", ["graph", "docs", "validate"])
def test_the_help_of_each_command_has_an_example(project: Project, name: str) -> None:
    assert f"\n    pgflow {name} " in project.ok(name, "--help")


@pytest.mark.parametrize("name", ["docs", "validate"])
def test_a_missing_app_exits_with_2(project: Project, name: str) -> None:
    assert "no app given" in project.refused(2, name, PGFLOW_APP="")
