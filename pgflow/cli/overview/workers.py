"""`pgflow worker list`: the workers that are registered."""

from typing import Any

import click

from pgflow.cli.connection import open_connection
from pgflow.cli.options import result_options
from pgflow.cli.output import print_document, print_notice, table
from pgflow.core.models.overview import WorkerInfo
from pgflow.database.statement import run
from pgflow.store import worker

__all__ = ["command", "worker_record"]

HEADERS = ("WORKER", "NODE", "PID", "STATE", "RUNNING", "QUEUES", "STARTED", "VERSION")


@click.command("list")
@click.option("--all", "is_all", is_flag=True, show_default=False, help="Also those whose lease has expired.")
@result_options
def command(is_all: bool, dsn: str, schema: str, as_json: bool) -> None:
    """List the workers whose lease is valid, newest first, and how many jobs each holds.

    \b
    Examples:
      pgflow worker list
      pgflow worker list --all --json
    """
    with open_connection(dsn, schema, role="read") as conn:
        found = run(conn, worker.list(schema, only_alive=not is_all))
    if as_json:
        print_document({"workers": [worker_record(each) for each in found]})
    elif found:
        click.echo(table(HEADERS, map(_row, found)))
    else:
        print_notice("no workers run. Start one: pgflow worker --app module:name")


def worker_record(each: WorkerInfo) -> dict[str, Any]:
    """Return a worker as an object of a JSON document."""
    return {
        "id": str(each.id),
        "node": each.node,
        "pid": each.pid,
        "is_alive": each.is_alive,
        "running": each.running,
        "queues": each.queues,
        "started_at": each.started_at,
        "lease_expires_at": each.lease_expires_at,
        "version": each.version,
    }


def _row(each: WorkerInfo) -> tuple[object, ...]:
    state = "alive" if each.is_alive else "lost"
    return each.id, each.node, each.pid, state, each.running, " ".join(each.queues), each.started_at, each.version
