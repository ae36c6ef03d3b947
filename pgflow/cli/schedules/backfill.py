"""`pgflow schedule backfill`: start the runs of a range of instants."""

import click

from pgflow.cli.app_loader import load_app
from pgflow.cli.options import app_option, idempotency_option, result_options
from pgflow.cli.output import print_document, print_notice, table
from pgflow.cli.parameters import TEXT, parse_timestamp
from pgflow.cli.schedules.starting import run_record, start_runs

__all__ = ["command"]


@click.command("backfill")
@click.argument("name", type=TEXT)
@click.option("--from", "start", required=True, metavar="TIME", help="First instant: 2030-01-01T00:00:00Z.")
@click.option("--to", "end", required=True, metavar="TIME", help="End of the range, which is excluded.")
@click.option("--dry-run", is_flag=True, show_default=False, help="Print the instants, and start nothing.")
@idempotency_option
@app_option
@result_options
def command(
    name: str,
    start: str,
    end: str,
    dry_run: bool,
    idempotency_key: str | None,
    app: str | None,
    dsn: str,
    schema: str,
    as_json: bool,
) -> None:
    """Start a run of schedule NAME for each instant of a range, at once and in one transaction; at most 1,000.

    Instants that have fired before fire again. One whose run is active is not started twice, and printed without a run.

    \b
    Example:
      pgflow schedule backfill nightly --from 2030-01-01T00:00:00Z --to 2030-02-01T00:00:00Z --dry-run
    """
    span = (parse_timestamp(start), parse_timestamp(end))
    if app:
        found = load_app(app, dsn, schema)
        try:
            runs = found.schedules.backfill(name, *span, dry_run=dry_run, idempotency_key=idempotency_key)
        finally:
            found.close()
    else:
        runs = list(start_runs(dsn, schema, name, span=span, dry_run=dry_run, key=idempotency_key))
    if as_json:
        print_document({"name": name, "runs": [run_record(each) for each in runs]})
    elif runs:
        click.echo(
            table(("SCHEDULED FOR", "RUN"), [(each.instant, each.run if each.created else None) for each in runs])
        )
    else:
        print_notice("no instants in that range")
