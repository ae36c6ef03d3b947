"""The command `pgflow`: run workers, migrate the schema, and manage workflows from a shell.

A face: it parses options, calls the same functions as a Python program, and prints. Map:

    workflows/, instances/, jobs/, schedules/,   the commands, by subject, one module each
    operations/, operator/
    options.py, parameters.py                    shared options; parsing of JSON, durations and timestamps
    app_loader.py, connection.py                 the app and the database connection of a command
    output.py, error_reporting.py                tables and JSON documents; errors and exit codes
    lazy_group.py                                imports a command's module when it is used

Decisions:

*Start-up is cheap.* A command's module is imported when the command is used (`lazy_group.py`); only in this package may
imports stand inside functions. `pgflow --help` imports click alone.

*Commands raise, the group reports.* Each error becomes one line on stderr (what is wrong, what is allowed, the fix) and
an exit code that scripts can rely on; `--debug` adds the traceback (`error_reporting.py`). Exit codes: 0 success, 1
failure, 2 wrong usage or configuration, 3 database unreachable or failing, 4 schema missing, outdated or not
pgflow's, 5 not found, 6 invalid, 7 conflict, 130 interrupted.

*Results go to stdout, notices to stderr.* `--json` prints one document.

*A flag wins over the environment, which wins over pyproject.toml, which wins over the default* (`options.py`).
"""

import os
import sys

import click

from pgflow.cli.error_reporting import ErrorReportingGroup
from pgflow.cli.lazy_group import LazyCommand
from pgflow.cli.options import debug_option

__all__ = ["cli", "main"]

COMMANDS = {
    "worker": LazyCommand("pgflow.cli.operations.worker:command", "Run a worker: claim jobs and run their steps."),
    "migrate": LazyCommand("pgflow.cli.operations.migrate:command", "Install or upgrade pgflow's schema."),
    "roles": LazyCommand(
        "pgflow.cli.operations.roles:command",
        "Grant roles the rights of a client, worker, dashboard or operator.",
    ),
    "start": LazyCommand("pgflow.cli.instances.start:command", "Start an instance of a workflow."),
    "enqueue": LazyCommand("pgflow.cli.jobs.enqueue:command", "Enqueue a task."),
    "job": LazyCommand("pgflow.cli.jobs:group", "List, show, retry, cancel, move or delete jobs of tasks."),
    "resume": LazyCommand("pgflow.cli.instances.resume:command", "Send a signal to an instance."),
    "unschedule": LazyCommand("pgflow.cli.instances.unschedule:command", "Cancel a scheduled signal."),
    "cancel": LazyCommand("pgflow.cli.instances.cancel:command", "Cancel an instance."),
    "retry": LazyCommand("pgflow.cli.instances.retry:command", "Retry a failed instance, or its paused steps."),
    "complete-step": LazyCommand("pgflow.cli.instances.steps:complete", "Complete a step that waits for an operator."),
    "fail-step": LazyCommand("pgflow.cli.instances.steps:fail", "Fail a step that waits for an operator."),
    "list": LazyCommand("pgflow.cli.instances.list_:command", "List instances, newest first."),
    "show": LazyCommand("pgflow.cli.instances.show:command", "Show an instance, its history and what it waits for."),
    "jobs": LazyCommand(
        "pgflow.cli.instances.jobs:command", "List live jobs of workflows: ready, running, scheduled or parked."
    ),
    "queue": LazyCommand(
        "pgflow.cli.operations.queue:command", "List, pause, resume, scale and drain queues while workers run."
    ),
    "limit": LazyCommand("pgflow.cli.operations.limit:command", "List, set and clear limits of queues."),
    "schedule": LazyCommand("pgflow.cli.schedules:command", "List, add, pause and run schedules."),
    "graph": LazyCommand("pgflow.cli.workflows.graph:command", "Draw a workflow as text, Mermaid, Graphviz or SVG."),
    "docs": LazyCommand("pgflow.cli.workflows.docs:command", "Write workflow diagrams into docstrings."),
    "validate": LazyCommand("pgflow.cli.workflows.validate:command", "Validate the workflow definitions of an app."),
    "prune": LazyCommand("pgflow.cli.instances.prune:command", "Delete old finished instances."),
    "payloads": LazyCommand("pgflow.cli.operations.payloads:command", "Maintain the payload store of an app."),
    "bulk": LazyCommand(
        "pgflow.cli.operator.bulk:command", "Retry, cancel, move or delete all instances that a filter matches."
    ),
    "audit": LazyCommand("pgflow.cli.operator.audit:command", "See who did what."),
    "doctor": LazyCommand("pgflow.cli.operations.doctor:command", "Check a database and its workers for problems."),
    "bench": LazyCommand(
        "pgflow.cli.operations.bench:command", "Measure throughput, latency and the database cost of a step."
    ),
    "demo": LazyCommand("pgflow.cli.demo:command", "Run a demo on a throwaway PostgreSQL server."),
}


def _show_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    import platform
    from importlib.metadata import PackageNotFoundError, version

    from psycopg import __version__ as psycopg_version
    from psycopg.pq import version as libpq_version
    from psycopg.pq import version_pretty

    try:
        installed = version("pgflow-engine")
    except PackageNotFoundError:
        installed = "(not installed)"
    libpq = version_pretty(libpq_version())
    click.echo(f"pgflow {installed}, Python {platform.python_version()}, psycopg {psycopg_version}, libpq {libpq}")
    ctx.exit()


def _is_color_disabled() -> bool:
    return bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"


@click.group(
    cls=ErrorReportingGroup,
    lazy=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True},
    epilog="Run pgflow COMMAND --help for help on a command.",
)
@click.option(
    "--no-color", is_flag=True, default=_is_color_disabled, show_default=False, help="Disable colored output."
)
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_show_version, help="Show versions and exit."
)
@debug_option
@click.pass_context
def cli(ctx: click.Context, no_color: bool) -> None:
    """Durable workflows and background jobs on nothing but PostgreSQL.

    \b
    Getting started:
      export PGFLOW_DSN=postgresql://user@host/database
      pgflow migrate
      pgflow worker --app myapp.flows:app
    """
    if no_color:
        ctx.color = False


def main() -> None:
    """Run the command line: the entry point of `pgflow` and `python -m pgflow`."""
    cli(sys.argv[1:], prog_name="pgflow")
