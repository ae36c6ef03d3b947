"""The command `pgflow`: run workers, migrate the schema, and manage workflows from a shell.

A face: it parses options, calls the same functions as a Python program, and prints. Map:

    workflows/, instances/, jobs/, schedules/,   the commands, by subject, one module each
    operations/, operator/, overview/, project/
    groups.py                                    the groups instance, task, worker and db, and their short forms
    options.py, parameters.py                    shared options; parsing of JSON, durations and timestamps
    app_loader.py, connection.py, nearest.py     the app and the database connection of a command; similar names
    output.py, error_reporting.py                tables and JSON documents; errors and exit codes
    lazy_group.py                                imports a command's module when it is used

Decisions:

*Start-up is cheap.* A command's module is imported when the command is used (`lazy_group.py`); only in this package may
imports stand inside functions. `pgflow --help` imports click alone.

*Commands raise, the group reports.* Each error becomes one line on stderr (what is wrong, what is allowed, the fix) and
an exit code that scripts can rely on; `--debug` adds the traceback (`error_reporting.py`). Exit codes: 0 success, 1
failure, 2 wrong usage or configuration, 3 database unreachable or failing, 4 schema missing, outdated or not
pgflow's, 5 not found, 6 invalid, 7 conflict, 130 interrupted.

*A command has one place, and may have a short form.* `pgflow list` is the command object of `pgflow instance list`, so
the two cannot differ.

*Results go to stdout, notices to stderr.* `--json` prints one document, `--jsonl` a line for each element of its list:
both are made in one place (`output.document`), so every command has both.

*A flag wins over the environment, which wins over pyproject.toml, which wins over the default* (`options.py`).
"""

import os
import sys

import click

from pgflow.cli.error_reporting import ErrorReportingGroup
from pgflow.cli.groups import FORMS
from pgflow.cli.lazy_group import LazyCommand
from pgflow.cli.options import debug_option

__all__ = ["cli", "main"]

GROUPS = "Groups of commands"
WATCH = "Watch and explain"
DEVELOP = "Develop"

COMMANDS = {
    "worker": LazyCommand(
        "pgflow.cli.groups:worker", "Run a worker: claim jobs and run their steps; list workers.", GROUPS
    ),
    "instance": LazyCommand(
        "pgflow.cli.groups:instance", "Start, list, show, signal, cancel and retry instances.", GROUPS
    ),
    "job": LazyCommand("pgflow.cli.jobs:group", "List, show, retry, cancel, move or delete jobs of tasks.", GROUPS),
    "task": LazyCommand("pgflow.cli.groups:task", "Enqueue and list tasks.", GROUPS),
    "queue": LazyCommand(
        "pgflow.cli.operations.queue:command", "List, pause, resume, scale and drain queues while workers run.", GROUPS
    ),
    "schedule": LazyCommand("pgflow.cli.schedules:command", "List, add, pause and run schedules.", GROUPS),
    "limit": LazyCommand("pgflow.cli.operations.limit:command", "List, set and clear limits of queues.", GROUPS),
    "db": LazyCommand("pgflow.cli.groups:db", "Migrate, check and measure the database; grant roles.", GROUPS),
    "top": LazyCommand("pgflow.cli.overview.top:command", "Watch queues, workers and rates in the terminal.", WATCH),
    "events": LazyCommand("pgflow.cli.overview.events:command", "Print what happens: starts, steps, ends.", WATCH),
    "audit": LazyCommand("pgflow.cli.operator.audit:command", "See who did what.", WATCH),
    "web": LazyCommand("pgflow.cli.operations.web:command", "Serve the dashboard.", WATCH),
    "init": LazyCommand("pgflow.cli.project.init:command", "Create a small project that runs.", DEVELOP),
    "dev": LazyCommand(
        "pgflow.cli.project.dev:command", "Run a database, a worker and the dashboard to develop.", DEVELOP
    ),
    "demo": LazyCommand("pgflow.cli.demo:command", "Run a demo on a throwaway PostgreSQL server.", DEVELOP),
    "validate": LazyCommand(
        "pgflow.cli.workflows.validate:command", "Validate the workflow definitions of an app.", DEVELOP
    ),
    "graph": LazyCommand(
        "pgflow.cli.workflows.graph:command", "Draw a workflow as text, Mermaid, Graphviz or SVG.", DEVELOP
    ),
    "docs": LazyCommand("pgflow.cli.workflows.docs:command", "Write workflow diagrams into docstrings.", DEVELOP),
    "config": LazyCommand("pgflow.cli.project.config:command", "Show the settings and where they come from.", DEVELOP),
    "completion": LazyCommand(
        "pgflow.cli.project.completion:command", "Print the completion script of a shell.", DEVELOP
    ),
    **{
        name: command._replace(section=f"Short forms of pgflow {group} ...")
        for group, commands in FORMS.items()
        for name, command in commands.items()
    },
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
