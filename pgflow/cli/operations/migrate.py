"""`pgflow migrate`: install or upgrade the schema, tell how far it is, or print the SQL."""

from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any

import click

from pgflow.cli.options import direct_options, json_option
from pgflow.cli.output import document, table
from pgflow.cli.parameters import Duration, format_duration
from pgflow.database.connect import connect
from pgflow.database.migration_files import FUNCTIONS
from pgflow.migrations.migrate import DEFAULT_TIMEOUT, status, up
from pgflow.migrations.schema import Status
from pgflow.migrations.script import ledger, sql
from pgflow.store.migration import Applied
from pgflow.store.worker import Alive

__all__ = ["command"]

NEEDED = 4  # the exit code of --status when there is something to do; the same as a worker's refusal


@click.command("migrate")
@click.option(
    "--status", "show_status", is_flag=True, help="Tell how far the schema is; exit code 4 unless up to date."
)
@click.option("--dry-run", is_flag=True, help="Tell what would be applied, and write nothing.")
@click.option("--sql", "show_sql", is_flag=True, help="Print everything as one SQL script; needs no database.")
@click.option(
    "--after",
    type=click.IntRange(min=0),
    default=0,
    show_default=False,
    metavar="VERSION",
    help="With --sql: leave out the migrations up to this one.",
)
@click.option(
    "--to",
    type=click.IntRange(min=1),
    metavar="VERSION",
    help="Stop after this migration. The way is forward only, and pgflow runs on the newest.",
)
@click.option(
    "--wait",
    "patience",
    type=Duration(bare=True),
    default=format_duration(DEFAULT_TIMEOUT),
    metavar="DURATION",
    help="How long to wait, for each migration, for locks and, before one that breaks older code, for older workers "
    "to finish what they run and end: 90s, 10m; a bare number is seconds.",
)
@click.option(
    "--ledger",
    "show_ledger",
    is_flag=True,
    help="With --sql: only what writes a lost ledger of migrations anew.",
)
@json_option
@direct_options
def command(
    show_status: bool,
    dry_run: bool,
    show_sql: bool,
    after: int,
    to: int | None,
    patience: timedelta,
    show_ledger: bool,
    dsn: str,
    schema: str,
    as_json: bool,
) -> int | None:
    """Install or upgrade pgflow's schema in the database.

    Safe to run at any time, under load, and by several machines at once: one of them migrates, the others wait and find
    nothing left to do. Workers refuse to run on a schema that is too old. Those of an older pgflow go on, unless a
    migration breaks their code: then they are asked to end, and waited for.

    \b
    Examples:
      pgflow migrate --dsn postgresql://ann@db.example/shop
      pgflow migrate --status
      pgflow migrate --to 3
      pgflow migrate --sql | psql --single-transaction -v ON_ERROR_STOP=1 shop
    """
    if show_status + dry_run + show_sql > 1:
        raise click.UsageError("--status, --dry-run and --sql exclude one another.")
    if (after or show_ledger) and not show_sql:
        raise click.UsageError(f"--{'after' if after else 'ledger'} goes with --sql.")
    if after and show_ledger:
        raise click.UsageError("--after and --ledger exclude one another.")
    if to is not None and show_status:
        raise click.UsageError("--to and --status exclude one another.")
    if show_sql:
        click.echo(ledger(schema, to) if show_ledger else sql(schema, after, to), nl=False)
        return None
    with connect(dsn, "migrate") as conn:
        if show_status:
            now = status(conn, schema)
            click.echo(_status_document(now) if as_json else _status_text(now))
            now.require_migratable()
            return None if now.up_to_date else NEEDED
        done = up(conn, schema, dry_run, to=to, timeout=patience, on_wait=_telling())
        if as_json:
            click.echo(document({"schema": schema, "dry_run": dry_run, "applied": _entries(done)}))
        elif done:
            verb = "would apply" if dry_run else "applied"
            click.echo("\n".join(f"{verb} {_label(each)}" for each in done))
        else:
            click.echo(f'schema "{schema}" is {"up to date" if to is None else f"at {to:04} already"}')
    return None


def _telling() -> Callable[[Sequence[Alive]], None]:
    """Say for whom it waits, each time that these are others."""
    told: list[Sequence[Alive]] = []

    def tell(workers: Sequence[Alive]) -> None:
        if told[-1:] != [workers]:
            told.append(workers)
            click.echo(f"waiting for workers of an older pgflow to end: {', '.join(map(str, workers))}", err=True)

    return tell


def _status_text(now: Status) -> str:
    rows: list[tuple[str, Any]] = [(f"{each.version:04} {each.name}", each.applied_at) for each in now.applied]
    announced = now.announced.version if now.announced else None
    rows += [
        (f"{each.version:04} {each.name}", "announced" if each.version == announced else "pending")
        for each in now.pending
    ]
    rows += [(f"{each.version:04} {each.name}", "announced") for each in now.unknown if each.announced]
    rows.append(("functions", "pending" if now.stale or now.functions is None else now.functions.applied_at))
    verdict = "is up to date" if now.up_to_date else "needs: pgflow migrate"
    return f'{table(["MIGRATION", "APPLIED"], rows)}\n\nschema "{now.schema}" {verdict}'


def _status_document(now: Status) -> str:
    return document(
        {
            "schema": now.schema,
            "version": now.version,
            "latest": now.latest,
            "up_to_date": now.up_to_date,
            "applied": _entries(now.applied),
            "pending": [{"version": each.version, "name": each.name} for each in now.pending],
            "announced": now.announced.version if now.announced else None,
            "functions": {
                "up_to_date": not now.stale,
                "applied_at": now.functions.applied_at if now.functions else None,
            },
        }
    )


def _entries(entries: Iterable[Applied]) -> list[dict[str, Any]]:
    return [{"version": each.version, "name": each.name, "applied_at": each.applied_at} for each in entries]


def _label(entry: Applied) -> str:
    return entry.name if entry.version == FUNCTIONS else f"{entry.version:04} {entry.name}"
