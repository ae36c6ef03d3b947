"""`pgflow validate`: check an app's workflows, as a build does, and against the database if there is one."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import click

from pgflow.app import Pgflow
from pgflow.cli.app_loader import load_app
from pgflow.cli.connection import open_connection
from pgflow.cli.error_reporting import error_line
from pgflow.cli.options import app_option, reading_options
from pgflow.cli.output import document, print_notice, printable, table
from pgflow.core.definition.graph import DONE, Graph
from pgflow.core.definition.rules.problems import collecting
from pgflow.core.engine.state import ACTIVE
from pgflow.core.models.filters import Filters
from pgflow.database.connect import Connection
from pgflow.database.statement import run
from pgflow.errors import DefinitionError, GraphChanged, PgflowError
from pgflow.steps import WaitForEvent
from pgflow.store import definition, instance

__all__ = ["command"]

HEADERS = ("WORKFLOW", "VERSION", "STEPS", "EDGES", "QUEUES")
MOST_LOOKED_AT = 200  # instances under way of a workflow whose graph has changed


@dataclass(slots=True)
class Finding:
    """What is found about one workflow: remarks are worth a look, problems must be mended."""

    graph: Graph
    remarks: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def steps(self) -> list[str]:
        """The keys of its steps, Done apart."""
        return [key for key in self.graph.nodes if key != DONE]

    @property
    def edges(self) -> int:
        """How many lead from a step by an event to a target."""
        return sum(len(edge.targets) for edge in self.graph.edges())

    @property
    def queues(self) -> list[str]:
        """The queues that a worker has to serve."""
        return sorted(self.graph.queues())

    def record(self) -> dict[str, Any]:
        """Return it for --json."""
        return {
            "name": self.graph.name,
            "version": self.graph.version,
            "steps": len(self.steps),
            "edges": self.edges,
            "queues": self.queues,
            "remarks": self.remarks,
            "problems": self.problems,
        }


@click.command("validate")
@app_option
@reading_options
def command(app: str | None, dsn: str, schema: str, as_json: bool) -> int:
    """Check the workflows of an app: importing it checks their definitions. The exit code is 6 if one is wrong.

    Everything that is wrong with any definition in what is imported is told, one line each.

    With a DSN they are also compared with what the database knows: an edge must not change under a version
    (exit code 7). Nothing is written there.

    \b
    Examples:
      pgflow validate --app myapp.flows:app
      pgflow validate --app myapp.flows:app --dsn postgresql://localhost/shop --json
    """
    found, wrong = _import(app, dsn, schema)
    if found is None or wrong:
        return _refuse(found, wrong, as_json=as_json)
    findings = [Finding(workflow.graph, list(_endless_waits(workflow.graph))) for workflow in found.versions]
    if dsn and findings:
        _compare(found, findings)
    problems = [problem for each in findings for problem in each.problems]
    if as_json:
        records = [each.record() for each in findings]
        told = [{"message": problem, "hint": None} for problem in problems]
        click.echo(document({"valid": not problems, "workflows": records, "problems": told}))
    else:
        _tell(findings)
    return GraphChanged.exit_code if problems else 0


def _import(app: str | None, dsn: str, schema: str) -> tuple[Pgflow | None, list[PgflowError]]:
    """Import the app; return it, if it could be imported to the end, and everything that is wrong on the way."""
    with collecting() as collected, warnings.catch_warnings():
        # pydantic's word for what is told as a problem anyway, and better
        warnings.filterwarnings("ignore", 'Field name ".*" in ".*" shadows an attribute in parent')
        try:
            found, broken_off = load_app(app, dsn, schema), None
        except PgflowError as error:
            found, broken_off = None, error
    wrong: list[PgflowError] = [DefinitionError(problem) for problem in collected.problems]
    if broken_off is not None:
        if not wrong and not isinstance(broken_off, DefinitionError):
            raise broken_off  # no definition is at fault
        wrong.append(broken_off)
    return found, wrong


def _refuse(found: Pgflow | None, wrong: list[PgflowError], *, as_json: bool) -> int:
    """Tell what is wrong with definitions."""
    if as_json:
        sound = [] if found is None else [Finding(workflow.graph).record() for workflow in found.versions]
        told = [{"message": str(error), "hint": error.hint} for error in wrong]
        click.echo(document({"valid": False, "workflows": sound, "problems": told}))
    else:
        for error in wrong:
            print_notice(printable(error_line(error)))
    return DefinitionError.exit_code


def _endless_waits(graph: Graph) -> Iterator[str]:
    for key, node in graph.nodes.items():
        if isinstance(node.step, WaitForEvent) and node.step.timeout is None:
            yield f"{key} waits without a timeout"


def _compare(found: Pgflow, findings: list[Finding]) -> None:
    with open_connection(found.dsn, found.schema, role="read", pooler=found.pooler) as conn:
        for each in findings:
            graph = each.graph
            stored = run(conn, definition.read(found.schema, workflow=graph.name, version=graph.version))
            if stored is None:
                each.remarks.append("the database does not know it yet")
            elif stored.hash != graph.digest():
                each.problems.append(
                    f"{graph.name} version {graph.version} has another graph in the database: "
                    f"give the changed workflow version={max(found.workflow(graph.name).versions) + 1}"
                )
                each.problems += _lost(conn, found.schema, graph)


def _lost(conn: Connection, schema: str, graph: Graph) -> Iterator[str]:
    """Name the instances under way that stand at a step which is no more."""
    page = {"status": sorted(ACTIVE), "version": graph.version, "limit": MOST_LOOKED_AT}
    for one in run(conn, instance.list(schema, Filters.of(page, graph.name))):
        gone = sorted({each.step for each in one.waiting_for if each.step} - graph.nodes.keys())
        if gone:
            yield f"{one.id} run {one.run} stands at {', '.join(gone)}, which version {graph.version} no longer has"


def _tell(findings: list[Finding]) -> None:
    rows = [
        (each.graph.name, each.graph.version, len(each.steps), each.edges, ", ".join(each.queues)) for each in findings
    ]
    if not rows:
        print_notice("this app has no workflows")
        return
    click.echo(table(HEADERS, rows))
    for each in findings:
        for remark in each.remarks:
            print_notice(f"{printable(each.graph.name)}: {printable(remark)}")
        for problem in each.problems:
            print_notice(f"pgflow: {printable(problem)}")
