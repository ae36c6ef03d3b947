"""`pgflow migrate`: install or upgrade the schema, show its status, or print the SQL."""

from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any

import click

from pgflow.cli.options import direct_options, json_option
from pgflow.cli.output import document, print_document, print_notice, table
from pgflow.cli.parameters import Duration, format_duration
from pgflow.database.connect import connect
from pgflow.database.migration_files import FUNCTIONS
from pgflow.migrations.migrate import DEFAULT_TIMEOUT, status, up
from pgflow.migrations.schema import Status
from pgflow.migrations.script import ledger, sql
from pgflow.store.migration import Applied
from pgflow.store.worker import Alive

__all__ = ["command"]

OUTDATED = 4  # exit code of --status unless up to date; workers refuse an outdated schema with the same code


@click.command("migrate")
@click.option(
    "--status", "show_status", is_flag=True, help="List applied and pending migrations; exit with 4 unless up to date."
)
@click.option("--dry-run", is_flag=True, help="Print what would be applied, without applying it.")
@click.option(
    "--sql", "show_sql", is_flag=True, help="Print the migrations as one SQL script; does not connect to a database."
)
@click.option(
    "--after",
    type=click.IntRange(min=0),
    default=0,
    show_default=False,
    metavar="VERSION",
    help="With --sql: omit migrations up to and including this version.",
)
@click.option(
    "--to",
    type=click.IntRange(min=1),
    metavar="VERSION",
    help="Stop after this migration. There are no down migrations, and pgflow requires the latest version.",
)
@click.option(
    "--wait",
    "timeout",
    type=Duration(bare=True),
    default=format_duration(DEFAULT_TIMEOUT),
    metavar="DURATION",
    help="Timeout per migration for acquiring locks and, before a breaking one, for older workers to shut down: 90s, "
    "10m; a number without a unit is seconds.",
)
@click.option(
    "--ledger",
    "show_ledger",
    is_flag=True,
    help="With --sql: print only the statements that restore a lost migrations table.",
)
@json_option
@direct_options
def command(
    show_status: bool,
    dry_run: bool,
    show_sql: bool,
    after: int,
    to: int | None,
    timeout: timedelta,
    show_ledger: bool,
    dsn: str,
    schema: str,
    as_json: bool,
) -> int | None:
    """Install or upgrade pgflow's schema in the database.

    Safe to run at any time, under load, and concurrently from several machines: one migrates, the others wait and then
    have nothing to do. Workers refuse to run on an outdated schema. Older workers keep running, unless a migration
    breaks their code: then migrate asks them to shut down, and waits for them.

    \b
    Examples:
      pgflow migrate --dsn postgresql://ann@db.example/shop
      pgflow migrate --status
      pgflow migrate --to 3
      pgflow migrate --sql | psql --single-transaction -v ON_ERROR_STOP=1 shop
    """
    if show_status + dry_run + show_sql > 1:
        raise click.UsageError("--status, --dry-run and --sql are mutually exclusive.")
    if (after or show_ledger) and not show_sql:
        raise click.UsageError(f"--{'after' if after else 'ledger'} requires --sql.")
    if after and show_ledger:
        raise click.UsageError("--after and --ledger are mutually exclusive.")
    if to is not None and show_status:
        raise click.UsageError("--to and --status are mutually exclusive.")
    if show_sql:
        click.echo(ledger(schema, to) if show_ledger else sql(schema, after, to), nl=False)
        return None
    with connect(dsn, "migrate") as conn:
        if show_status:
            now = status(conn, schema)
            click.echo(_status_document(now) if as_json else _status_text(now))
            now.require_migratable()
            return None if now.up_to_date else OUTDATED
        done = up(conn, schema, dry_run, to=to, timeout=timeout, on_wait=_wait_reporter())
        if as_json:
            print_document({"schema": schema, "dry_run": dry_run, "applied": _entries(done)})
        elif done:
            verb = "would apply" if dry_run else "applied"
            click.echo("\n".join(f"{verb} {_label(each)}" for each in done))
        else:
            click.echo(f'schema "{schema}" is {"up to date" if to is None else f"already at {to:04}"}')
    return None


def _wait_reporter() -> Callable[[Sequence[Alive]], None]:
    """Return a callback that prints the workers that migrate waits for, whenever the list changes."""
    printed: list[Sequence[Alive]] = []

    def report(workers: Sequence[Alive]) -> None:
        if printed[-1:] != [workers]:
            printed.append(workers)
            print_notice(f"waiting for older workers to shut down: {', '.join(map(str, workers))}")

    return report


def _status_text(now: Status) -> str:
    rows: list[tuple[str, Any]] = [(f"{each.version:04} {each.name}", each.applied_at) for each in now.applied]
    announced = now.announced.version if now.announced else None
    rows += [
        (f"{each.version:04} {each.name}", "announced" if each.version == announced else "pending")
        for each in now.pending
    ]
    rows += [(f"{each.version:04} {each.name}", "announced") for each in now.unknown if each.announced]
    rows.append(("functions", "pending" if now.stale or now.functions is None else now.functions.applied_at))
    verdict = "is up to date" if now.up_to_date else "is not up to date. Run: pgflow migrate"
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
