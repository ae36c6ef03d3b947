"""`pgflow graph`, `docs` and `validate` as people and builds run them: from an app's code, and from a database."""

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest

from pgflow.database.connect import connect
from pgflow.migrations.migrate import up
from tests.conftest import Server

CHECKOUT = Path(__file__).parents[2]
RUN = "from pgflow.cli import main; main()"

STEPS = '''\
"""Steps and workflows, as people write them."""

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
    """A folder with an app, and the command run in it."""

    def __init__(self, folder: Path, source: str = STEPS + FLOW + SHORT + APP) -> None:
        self.folder = folder
        self.flows = folder / "flows.py"
        self.flows.write_text(source, encoding="utf-8")

    def pgflow(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run the command to its end; flows:app is the app unless `more` says otherwise."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PG", "DATABASE_URL"))}
        kept |= {"PYTHONPATH": str(CHECKOUT), "PYTHONDONTWRITEBYTECODE": "1", "PGFLOW_APP": "flows:app"}
        return subprocess.run(
            [sys.executable, "-c", RUN, *arguments],
            capture_output=True,
            check=False,
            cwd=self.folder,
            encoding="utf-8",
            env={**kept, **more},
            timeout=60,
        )

    def ok(self, *arguments: str, **more: str) -> str:
        """Run the command, which must succeed and say nothing on stderr, and return what it prints."""
        done = self.pgflow(*arguments, **more)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    def refused(self, exit_code: int, *arguments: str, **more: str) -> str:
        """Run the command, which must fail as it should, and return the one line that it says about it."""
        done = self.pgflow(*arguments, **more)
        assert (done.returncode, done.stdout) == (exit_code, ""), done
        (line,) = done.stderr.splitlines()
        assert line.startswith("pgflow: ")
        assert "internal error" not in line
        return line

    def register(self, dsn: str) -> None:
        """Let the database know the workflows."""
        code = "import sys, flows, pgflow; pgflow.Pgflow(sys.argv[1], flows.app.workflows).register()"
        environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "PYTHONDONTWRITEBYTECODE": "1"}
        subprocess.run([sys.executable, "-c", code, dsn], check=True, cwd=self.folder, env=environment)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A folder with an app."""
    return Project(tmp_path)


@pytest.fixture
def database(server: Server, new_database: Callable[..., str]) -> str:
    """The dsn of a database of the test's own with pgflow in it, which knows no workflows."""
    dsn = new_database(server)
    with connect(dsn, "migrate") as conn:
        up(conn)
    return dsn


def test_a_workflow_is_drawn_from_an_app_without_a_database(project: Project) -> None:
    assert project.ok("graph", "OrderFlow") == DRAWN
    assert project.ok("graph", "OrderFlow", "--format", "mermaid").startswith("flowchart TD\n")
    assert project.ok("graph", "OrderFlow", "--format", "dot").startswith('digraph "OrderFlow" {\n')
    root = ET.fromstring(project.ok("graph", "OrderFlow", "--format", "svg"))  # noqa: S314 -- our own
    assert root.tag == "{http://www.w3.org/2000/svg}svg"


def test_a_picture_goes_into_a_file(project: Project) -> None:
    done = project.pgflow("graph", "OrderFlow", "--format", "svg", "--output", "order.svg")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "wrote order.svg\n")
    assert (project.folder / "order.svg").read_text(encoding="utf-8") == project.ok("graph", "OrderFlow", "-f", "svg")
    line = project.refused(2, "graph", "OrderFlow", "--output", "nowhere/order.svg")
    assert line == "pgflow: --output: cannot write nowhere/order.svg: No such file or directory"


def test_the_database_alone_gives_the_same_pictures(project: Project, database: str) -> None:
    project.register(database)
    for kind in ("ascii", "mermaid", "dot", "svg"):
        stored = project.ok("graph", "OrderFlow", "--format", kind, PGFLOW_APP="", PGFLOW_DSN=database)
        assert stored == project.ok("graph", "OrderFlow", "--format", kind)
    assert project.ok("graph", "OrderFlow", "--version", "1", PGFLOW_APP="", PGFLOW_DSN=database) == DRAWN


def test_a_workflow_that_is_not_there_is_exit_code_5(project: Project, database: str) -> None:
    line = project.refused(5, "graph", "OrderFlaw")
    assert line == "pgflow: no workflow named 'OrderFlaw' is registered here. Did you mean OrderFlow?"
    project.register(database)
    assert project.refused(5, "graph", "OrderFlaw", PGFLOW_APP="", PGFLOW_DSN=database) == line
    line = project.refused(5, "graph", "OrderFlow", "--version", "7", PGFLOW_APP="", PGFLOW_DSN=database)
    assert line == "pgflow: OrderFlow has no registered version 7. Draw the current version: pgflow graph OrderFlow"
    assert "version 1" in project.refused(6, "graph", "OrderFlow", "--version", "7")


def test_pictures_go_into_docstrings_once_and_for_all(project: Project) -> None:
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
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1"}
    run = [sys.executable, "-c", code]
    said = subprocess.run(
        run, check=True, capture_output=True, cwd=project.folder, encoding="utf-8", env=environment
    ).stdout
    block = "".join(f"    {line}\n" if line else "\n" for line in DRAWN.splitlines())
    assert said.startswith(
        "From order to shipment.\n\n<!-- pgflow:graph:start:OrderFlow -->\n\n"
        f"{block}\n<!-- pgflow:graph:end:OrderFlow -->\n<!-- pgflow:graph:start:ShortFlow -->\n"
    )


def test_a_changed_workflow_gets_a_new_picture(project: Project) -> None:
    project.ok("docs")
    text = project.flows.read_text(encoding="utf-8")
    project.flows.write_text(text.replace('"invalid": Done', '"invalid": ship'), encoding="utf-8")
    assert project.ok("docs") == "flows.py: OrderFlow\nUpdated 1 workflow(s).\n"
    text = project.flows.read_text(encoding="utf-8")
    assert "validate ──invalid──> ship" in text
    assert "validate ──invalid──> done" not in text


def test_line_ends_byte_order_mark_and_mode_stay(project: Project) -> None:
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
def test_a_file_that_cannot_be_changed_safely_is_left_alone(tmp_path: Path, source: str, reason: str) -> None:
    project = Project(tmp_path)
    project.flows.write_bytes(source.encode())
    done = project.pgflow("docs")
    assert (done.returncode, done.stdout) == (6, "Updated 0 workflow(s).\n")
    assert done.stderr == f"pgflow: {project.flows} not updated: {reason}\n"
    assert project.flows.read_bytes() == source.encode()


def test_only_files_below_the_folder_are_touched(project: Project) -> None:
    before = project.flows.read_bytes()
    (project.folder / "other").mkdir()
    done = project.pgflow("docs", "--path", "other")
    assert (done.returncode, done.stdout) == (0, "Updated 0 workflow(s).\n")
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == ["skipped OrderFlow", "skipped ShortFlow"]
    assert project.flows.read_bytes() == before


def test_a_class_made_in_a_function_is_skipped(tmp_path: Path) -> None:
    made = "".join(f"    {line}\n" if line else "\n" for line in SHORT.splitlines())
    project = Project(
        tmp_path,
        f"{STEPS}{FLOW}def make() -> Any:\n{made}    return ShortFlow\n\napp = Pgflow(workflows=[OrderFlow, make()])\n",
    )
    done = project.pgflow("docs")
    assert (done.returncode, done.stdout) == (0, "flows.py: OrderFlow\nUpdated 1 workflow(s).\n")
    assert done.stderr == "skipped make.<locals>.ShortFlow: defined in a function\n"


def test_sound_workflows_are_listed(project: Project) -> None:
    done = project.pgflow("validate")
    assert (done.returncode, done.stderr) == (0, "OrderFlow: payment waits without a timeout\n")
    assert done.stdout.splitlines() == [
        "WORKFLOW   VERSION  STEPS  EDGES  QUEUES",
        "OrderFlow  1        3      4      carrier, default",
        "ShortFlow  1        1      1      carrier",
    ]
    said = json.loads(project.ok("validate", "--json"))
    assert (said["schema_version"], said["valid"], said["problems"]) == (1, True, [])
    assert said["workflows"][0] == {
        "name": "OrderFlow",
        "version": 1,
        "steps": 3,
        "edges": 4,
        "queues": ["carrier", "default"],
        "remarks": ["payment waits without a timeout"],
        "problems": [],
    }


def test_a_wrong_definition_is_exit_code_6(tmp_path: Path) -> None:
    project = Project(tmp_path, STEPS + FLOW.replace(', "invalid": Done', "") + SHORT + APP)
    line = project.refused(6, "validate")
    assert "OrderFlow: Validate declares the event 'invalid', which leads nowhere" in line
    done = project.pgflow("validate", "--json")
    assert done.returncode == 6
    said = json.loads(done.stdout)
    assert said["valid"] is False
    assert "which leads nowhere" in said["problems"][0]["message"]


def test_a_graph_that_changed_under_its_version_is_exit_code_7(project: Project, database: str) -> None:
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
    said = json.loads(project.pgflow("validate", "--json", PGFLOW_DSN=database).stdout)
    assert said["valid"] is False
    assert len(said["problems"]) == 2


@pytest.mark.parametrize("command", ["graph", "docs", "validate"])
def test_each_has_help_with_an_example(project: Project, command: str) -> None:
    assert f"\n    pgflow {command} " in project.ok(command, "--help")


@pytest.mark.parametrize("command", ["docs", "validate"])
def test_without_an_app_it_is_exit_code_2(project: Project, command: str) -> None:
    assert "no app given" in project.refused(2, command, PGFLOW_APP="")
