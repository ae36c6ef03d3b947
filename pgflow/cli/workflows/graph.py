"""`pgflow graph`: draw a workflow, from an app's code or from its definition in the database."""

from collections.abc import Callable
from pathlib import Path

import click

from pgflow.cli.app_loader import load_app
from pgflow.cli.connection import open_connection, require_workflow
from pgflow.cli.options import app_option, result_options
from pgflow.cli.output import print_document, print_notice, printable
from pgflow.cli.parameters import TEXT
from pgflow.core import picture
from pgflow.core.picture import Outline
from pgflow.database.statement import run
from pgflow.errors import ConfigError, UnknownWorkflow
from pgflow.store import definition

__all__ = ["command"]

LARGEST_INTEGER = 2**31 - 1
PICTURES: dict[str, Callable[[Outline], str]] = {
    "ascii": picture.ascii,
    "mermaid": picture.mermaid,
    "dot": picture.dot,
    "svg": picture.svg,
}


@click.command("graph")
@click.argument("workflow", type=TEXT)
@click.option("-f", "--format", "kind", type=click.Choice(list(PICTURES)), default="ascii", help="Output format.")
@click.option("-o", "--output", metavar="FILE", help="File to write; by default standard output.")
@click.option(
    "--version", type=click.IntRange(1, LARGEST_INTEGER), help="Version of the workflow; by default the current one."
)
@app_option
@result_options
def command(
    workflow: str,
    kind: str,
    output: str | None,
    version: int | None,
    app: str | None,
    dsn: str,
    schema: str,
    as_json: bool,
) -> None:
    """Draw WORKFLOW: its steps, from the initial one to Done, and the events that lead from one to the next.

    With an app, draws the workflow in its code, without a database. Without an app, draws the definition registered in
    the database. --json prints the drawing as text in a document.

    \b
    Examples:
      pgflow graph OrderFlow --app myapp.flows:app
      pgflow graph OrderFlow --format svg --output order-flow.svg
      pgflow graph OrderFlow --format dot | dot -Tpng > order-flow.png
    """
    outline = _from_app(app, workflow, version) if app else _from_database(workflow, version, dsn, schema)
    drawn = PICTURES[kind](outline)
    if output is None or output == "-":
        if as_json:
            print_document({"workflow": workflow, "format": kind, "graph": drawn})
        else:
            click.echo("\n".join(printable(line) for line in drawn.split("\n")))
        return
    try:
        Path(output).write_text(drawn + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--output: cannot write {output}: {error.strerror}") from error
    if as_json:
        print_document({"workflow": workflow, "format": kind, "file": output})
    else:
        print_notice(f"wrote {output}")


def _from_app(app: str, name: str, version: int | None) -> Outline:
    found = load_app(app, "", "pgflow")
    require_workflow(name, sorted(each.name for each in found.workflows))
    _, workflow = found.workflow(name).resolve_version(version)
    return Outline.of(workflow.graph)


def _from_database(name: str, version: int | None, dsn: str, schema: str) -> Outline:
    with open_connection(dsn, schema, name, role="read") as conn:
        stored = run(conn, definition.read(schema, workflow=name, version=version))
        if stored is None:
            require_workflow(name, run(conn, definition.names(schema)))
            raise UnknownWorkflow(
                f"{name} has no registered version {version}", hint=f"Draw the current version: pgflow graph {name}"
            )
    return Outline.of(stored.graph)
