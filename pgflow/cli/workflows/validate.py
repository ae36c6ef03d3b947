"""`pgflow validate`: validate an app's workflow definitions, and compare them with the database if a DSN is given."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import click

from pgflow.app import Pgflow
from pgflow.cli.app_loader import load_app
from pgflow.cli.connection import open_connection
from pgflow.cli.error_reporting import error_line
from pgflow.cli.options import app_option, result_options
from pgflow.cli.output import print_document, print_notice, printable, table
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
INSTANCE_LIMIT = 200  # active instances to examine when a graph has changed


@dataclass(slots=True)
class WorkflowReport:
    """The validation of one workflow; problems must be fixed, remarks need not."""

    graph: Graph
    remarks: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def steps(self) -> list[str]:
        """The keys of its steps, without Done."""
        return [key for key in self.graph.nodes if key != DONE]

    @property
    def edges(self) -> int:
        """The number of transitions, counting each target."""
        return sum(len(edge.targets) for edge in self.graph.edges())

    @property
    def queues(self) -> list[str]:
        """The queues that workers must serve."""
        return sorted(self.graph.queues())

    def record(self) -> dict[str, Any]:
        """Return it as an object of a JSON document."""
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
@result_options
def command(app: str | None, dsn: str, schema: str, as_json: bool) -> int:
    """Validate the workflow definitions of an app, and exit with 6 if one is invalid.

    Prints one line for each problem of each definition in the imported modules.

    With a DSN, also compares the definitions with those in the database, and exits with 7 if a graph has changed but
    its version has not. Writes nothing to the database.

    \b
    Examples:
      pgflow validate --app myapp.flows:app
      pgflow validate --app myapp.flows:app --dsn postgresql://localhost/shop --json
    """
    found, errors = _import(app, dsn, schema)
    if found is None or errors:
        return _report_errors(found, errors, as_json=as_json)
    reports = [WorkflowReport(workflow.graph, list(_endless_waits(workflow.graph))) for workflow in found.versions]
    if dsn and reports:
        _compare(found, reports)
    problems = [problem for each in reports for problem in each.problems]
    if as_json:
        records = [each.record() for each in reports]
        problem_records = [{"message": problem, "hint": None} for problem in problems]
        print_document({"valid": not problems, "workflows": records, "problems": problem_records})
    else:
        _print(reports)
    return GraphChanged.exit_code if problems else 0


def _import(app: str | None, dsn: str, schema: str) -> tuple[Pgflow | None, list[PgflowError]]:
    """Import the app; return it (None if the import failed) and all errors in definitions."""
    with collecting() as collected, warnings.catch_warnings():
        # pydantic warns of what is reported as a problem with a better message
        warnings.filterwarnings("ignore", 'Field name ".*" in ".*" shadows an attribute in parent')
        try:
            found, import_error = load_app(app, dsn, schema), None
        except PgflowError as error:
            found, import_error = None, error
    errors: list[PgflowError] = [DefinitionError(problem) for problem in collected.problems]
    if import_error is not None:
        if not errors and not isinstance(import_error, DefinitionError):
            raise import_error  # unrelated to definitions
        errors.append(import_error)
    return found, errors


def _report_errors(found: Pgflow | None, errors: list[PgflowError], *, as_json: bool) -> int:
    """Print the errors in definitions, and return the exit code."""
    if as_json:
        valid = [] if found is None else [WorkflowReport(workflow.graph).record() for workflow in found.versions]
        problems = [{"message": str(error), "hint": error.hint} for error in errors]
        print_document({"valid": False, "workflows": valid, "problems": problems})
    else:
        for error in errors:
            print_notice(printable(error_line(error)))
    return DefinitionError.exit_code


def _endless_waits(graph: Graph) -> Iterator[str]:
    for key, node in graph.nodes.items():
        if isinstance(node.step, WaitForEvent) and node.step.timeout is None:
            yield f"{key} waits without a timeout"


def _compare(found: Pgflow, reports: list[WorkflowReport]) -> None:
    with open_connection(found.dsn, found.schema, role="read", pooler=found.pooler) as conn:
        for each in reports:
            graph = each.graph
            stored = run(conn, definition.read(found.schema, workflow=graph.name, version=graph.version))
            if stored is None:
                each.remarks.append("not registered in the database yet")
            elif stored.hash != graph.digest():
                each.problems.append(
                    f"{graph.name} version {graph.version} differs from its graph in the database: "
                    f"give the changed workflow version={max(found.workflow(graph.name).versions) + 1}"
                )
                each.problems += _stranded(conn, found.schema, graph)


def _stranded(conn: Connection, schema: str, graph: Graph) -> Iterator[str]:
    """Yield a problem for each active instance at a step that the graph no longer has."""
    page = {"status": sorted(ACTIVE), "version": graph.version, "limit": INSTANCE_LIMIT}
    for one in run(conn, instance.list(schema, Filters.of(page, graph.name))):
        gone = sorted({each.step for each in one.waiting_for if each.step} - graph.nodes.keys())
        if gone:
            yield f"{one.id} run {one.run} is at {', '.join(gone)}, which version {graph.version} no longer has"


def _print(reports: list[WorkflowReport]) -> None:
    rows = [
        (each.graph.name, each.graph.version, len(each.steps), each.edges, ", ".join(each.queues)) for each in reports
    ]
    if not rows:
        print_notice("the app has no workflows")
        return
    click.echo(table(HEADERS, rows))
    for each in reports:
        for remark in each.remarks:
            print_notice(f"{printable(each.graph.name)}: {printable(remark)}")
        for problem in each.problems:
            print_notice(f"pgflow: {printable(problem)}")
