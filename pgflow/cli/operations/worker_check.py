"""`pgflow worker --check`: what a worker does before it works, for a deployment's smoke test."""

from collections.abc import Mapping
from datetime import timedelta

import click

from pgflow.cli.app_loader import load_app
from pgflow.cli.output import print_document
from pgflow.database.connect import connect
from pgflow.database.dsn import place
from pgflow.database.statement import Statement, run
from pgflow.migrations import migrate
from pgflow.store import job, queue, worker

__all__ = ["check_worker"]


def check_worker(app: str | None, dsn: str, schema: str, limits: Mapping[str, int], *, as_json: bool) -> None:
    """Import the app, check the schema and the role's rights, and print what was found; nothing is written.

    Raises what the worker would raise: its first statements are run, and rolled back.
    """
    found = load_app(app, dsn, schema)
    with connect(found.dsn, pooler=found.pooler) as conn:
        migrate.check(conn, found.schema)
        with conn.transaction(force_rollback=True):
            run(conn, queue.read(found.schema, limits, "check"))
            run(conn, _registration(found.schema, limits))
            run(conn, job.claim(found.schema, 0, dict.fromkeys(limits, 0)))
        server = conn.info.server_version // 10_000
    workflows, tasks = sorted({each.graph.name for each in found.workflows}), sorted(each.name for each in found.tasks)
    record = {
        "app": app,
        "database": place(found.dsn),
        "postgresql": server,
        "schema": found.schema,
        "workflows": workflows,
        "tasks": tasks,
        "queues": dict(limits),
    }
    if as_json:
        print_document(record)
        return
    click.echo(f"app {app}: {len(workflows)} workflows, {len(tasks)} tasks")
    click.echo(f'database {record["database"]}: PostgreSQL {server}, schema "{found.schema}" is up to date')
    click.echo(f"queues {', '.join(f'{name}={limit}' for name, limit in limits.items())}")


def _registration(schema: str, limits: Mapping[str, int]) -> Statement[int]:
    return worker.register(
        schema, node="check", pid=0, queues=[*limits], version="check", nonce="check", lease=timedelta(seconds=30)
    )
