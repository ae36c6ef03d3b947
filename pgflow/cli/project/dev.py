"""`pgflow dev`: a database, a worker that reloads, and the dashboard, in one command."""

import importlib.util
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from pgflow.cli.lazy_group import LazyGroup
from pgflow.cli.options import app_option, direct_options
from pgflow.cli.output import print_notice
from pgflow.database.connect import connect
from pgflow.database.dsn import place
from pgflow.embedded import EmbeddedPostgres
from pgflow.errors import BadApp
from pgflow.migrations.migrate import up

__all__ = ["command"]

DASHBOARD_MODULES = ("starlette", "uvicorn", "jinja2")
END_SECONDS = 35.0  # more than the worker's --shutdown-timeout
POLL_SECONDS = 0.2
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@click.command("dev")
@app_option
@click.option("--port", type=click.IntRange(1, 65_535), default=8000, help="Port of the dashboard.")
@click.option("--no-web", is_flag=True, show_default=False, help="Start no dashboard.")
@direct_options
def command(app: str | None, port: int, no_web: bool, dsn: str, schema: str) -> int:
    """Run all that an app needs to be developed: a database, a worker that reloads, the dashboard.

    Without --dsn or PGFLOW_DSN it starts a throwaway PostgreSQL, whose data is deleted at the end. The schema is
    installed or upgraded. The worker starts again when a source file changes, also after an error in the app. Ctrl-C
    ends everything.

    \b
    Examples:
      pgflow dev
      pgflow dev --app myapp.flows:app --no-web
    """
    if not app:
        raise BadApp("no app given", hint="Pass --app module:name, or create a project: pgflow init")
    root = click.get_current_context().find_root().command
    has_web = isinstance(root, LazyGroup) and "web" in root.lazy
    missing = [name for name in DASHBOARD_MODULES if importlib.util.find_spec(name) is None]
    with _database(dsn) as (found, is_throwaway):
        with connect(found, "migrate") as conn:
            up(conn, schema)
        print_notice(f"database   {place(found)}, schema {schema}" + (" (throwaway)" if is_throwaway else ""))
        if is_throwaway:
            print_notice(f"           in another terminal: export PGFLOW_DSN='{found}'")
        commands = {"worker": ["worker", "--reload", "--app", app]}
        if has_web and not no_web and not missing:
            commands["dashboard"] = ["web", "--port", str(port)]
            print_notice(f"dashboard  http://127.0.0.1:{port}/")
        elif not no_web:
            print_notice("dashboard  not installed: pip install 'pgflow-engine[web]'")
        print_notice("worker     reloads when a file changes; Ctrl-C ends everything")
        environment = {**os.environ, "PGFLOW_DSN": found, "PGFLOW_SCHEMA": schema, "PYTHONUNBUFFERED": "1"}
        return _run_all(commands, environment)


@contextmanager
def _database(dsn: str) -> Iterator[tuple[str, bool]]:
    """Yield the connection string, and whether it is that of a server of our own."""
    if dsn:
        yield dsn, False
        return
    print_notice("Starting a throwaway PostgreSQL ...")
    with EmbeddedPostgres() as server:
        yield server.dsn, True


def _run_all(commands: dict[str, list[str]], environment: dict[str, str]) -> int:
    """Run the commands until a signal arrives or one of them ends; then end the others. Return the exit code."""
    stopping = threading.Event()
    before = {number: signal.signal(number, lambda *_: stopping.set()) for number in ENDING}
    # A session of their own: Ctrl-C in the terminal reaches this process alone, which ends them in order.
    running = {
        name: subprocess.Popen(
            [sys.executable, "-m", "pgflow", *arguments], env=environment, cwd=Path.cwd(), start_new_session=True
        )
        for name, arguments in commands.items()
    }
    code = 0
    try:
        while not stopping.wait(POLL_SECONDS):
            for name, process in running.items():
                if process.poll() is not None:
                    code = process.returncode or 1
                    print_notice(f"pgflow: the {name} has ended with code {process.returncode}")
                    stopping.set()
    finally:
        for process in running.values():
            if process.poll() is None:
                process.terminate()
        for process in running.values():
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for number, handler in before.items():
            signal.signal(number, handler)
    return code
