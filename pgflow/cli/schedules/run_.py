"""`pgflow schedule run`: start a run of a schedule now."""

import click

from pgflow.cli.app_loader import load_app
from pgflow.cli.options import app_option, idempotency_option, result_options
from pgflow.cli.output import document
from pgflow.cli.parameters import TEXT
from pgflow.cli.schedules.starting import run_record, start_runs

__all__ = ["command"]


@click.command("run")
@click.argument("name", type=TEXT)
@idempotency_option
@app_option
@result_options
def command(name: str, idempotency_key: str | None, app: str | None, dsn: str, schema: str, as_json: bool) -> None:
    """Start a run of schedule NAME now, whatever its state and overlap.

    An app is needed only if it encrypts inputs, or chooses among versions of the workflow.

    \b
    Example:
      pgflow schedule run weekly
    """
    if app:
        found = load_app(app, dsn, schema)
        try:
            started = found.schedules.run(name, idempotency_key=idempotency_key)
        finally:
            found.close()
    else:
        (started,) = start_runs(dsn, schema, name, span=None, dry_run=False, key=idempotency_key)
    click.echo(document({"name": name, **run_record(started)}) if as_json else f"started {name}: run {started.run}")
