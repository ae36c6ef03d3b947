"""The command `pgflow`: run workers, install the schema, and look after workflows from a shell.

Floor 5, a face: it reads options, calls what a program could call as well, and prints. Its decisions:

*Starting costs nothing.* The commands' modules are imported when they are used (`lazy.py`); this is the one place where
imports stand inside functions. `pgflow --help` needs click alone.

*Commands raise, the group reports.* Every error becomes one line on stderr (what, why, what to do next) and an exit
code that scripts can rely on; `--debug` adds the traceback (`failure.py`). Exit codes: 0 done, 1 failed, 2 wrong usage
or configuration, 3 the database cannot be reached, 4 its schema is missing, outdated or somebody else's, 5 not found, 6
invalid, 7 in conflict, 130 interrupted.

*What a program wants to read goes to stdout, what a person wants to know to stderr.* `--json` prints one document.

*A flag wins over the environment, that over pyproject.toml, that over the default.* (`options.py`)
"""

import os
import sys

import click

from pgflow.cli.error_reporting import ErrorReportingGroup
from pgflow.cli.lazy_group import LazyCommand
from pgflow.cli.options import debug_option

__all__ = ["cli", "main"]

COMMANDS = {
    "worker": LazyCommand("pgflow.cli.operations.worker:command", "Run the steps of workflows until told to stop."),
    "migrate": LazyCommand(
        "pgflow.cli.operations.migrate:command", "Install or upgrade pgflow's schema in the database."
    ),
    "roles": LazyCommand(
        "pgflow.cli.operations.roles:command", "Give the database's roles what a client, worker or dashboard needs."
    ),
    "start": LazyCommand("pgflow.cli.instances.start:command", "Start an instance of a workflow."),
    "resume": LazyCommand("pgflow.cli.instances.resume:command", "Send a signal to an instance that waits for one."),
    "unschedule": LazyCommand("pgflow.cli.instances.unschedule:command", "Call off a signal that is to be sent later."),
    "cancel": LazyCommand("pgflow.cli.instances.cancel:command", "Stop an instance for good."),
    "retry": LazyCommand("pgflow.cli.instances.retry:command", "Take a failed instance up again where it stopped."),
    "list": LazyCommand("pgflow.cli.instances.list_:command", "List instances, newest first."),
    "show": LazyCommand("pgflow.cli.instances.show:command", "Show one instance: its history and what it waits for."),
    "jobs": LazyCommand("pgflow.cli.instances.jobs:command", "List live jobs: what runs, waits or is to run."),
    "graph": LazyCommand(
        "pgflow.cli.workflows.graph:command", "Draw a workflow: as text, for Mermaid or Graphviz, or as an SVG."
    ),
    "docs": LazyCommand("pgflow.cli.workflows.docs:command", "Write each workflow's picture into its docstring."),
    "validate": LazyCommand("pgflow.cli.workflows.validate:command", "Check an app's workflows, as a build does."),
    "prune": LazyCommand("pgflow.cli.instances.prune:command", "Delete instances that ended long ago."),
    "doctor": LazyCommand(
        "pgflow.cli.operations.doctor:command", "Look at a database and its workers, and say what to mend."
    ),
    "bench": LazyCommand(
        "pgflow.cli.bench:command", "Measure how fast it is here, and what a step costs the database."
    ),
    "demo": LazyCommand("pgflow.cli.demo:command", "See it work, with a throwaway PostgreSQL."),
}


def _show_version(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    import platform
    from importlib.metadata import PackageNotFoundError, version

    from psycopg import __version__ as psycopg_version
    from psycopg.pq import version as libpq_version
    from psycopg.pq import version_pretty

    try:
        ours = version("pgflow-engine")
    except PackageNotFoundError:
        ours = "(not installed)"
    libpq = version_pretty(libpq_version())
    click.echo(f"pgflow {ours}, Python {platform.python_version()}, psycopg {psycopg_version}, libpq {libpq}")
    ctx.exit()


def _wants_no_color() -> bool:
    return bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"


@click.group(
    cls=ErrorReportingGroup,
    lazy=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True},
    epilog="Help on one of them: pgflow COMMAND --help",
)
@click.option("--no-color", is_flag=True, default=_wants_no_color, show_default=False, help="Print without colours.")
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_show_version, help="Show versions and exit."
)
@debug_option
@click.pass_context
def cli(ctx: click.Context, no_color: bool) -> None:
    """Durable workflows and background jobs on nothing but PostgreSQL.

    \b
    First steps:
      export PGFLOW_DSN=postgresql://user@host/database
      pgflow migrate
      pgflow worker --app myapp.flows:app
    """
    if no_color:
        ctx.color = False


def main() -> None:
    """Run the command line: the entry point of the command `pgflow`."""
    cli(sys.argv[1:], prog_name="pgflow")
