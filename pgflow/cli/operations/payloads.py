"""`pgflow payloads`: maintain the payload store of an app."""

from datetime import timedelta

import click

from pgflow.cli.app_loader import load_app
from pgflow.cli.options import app_option, result_options
from pgflow.cli.output import document
from pgflow.cli.parameters import DURATION

__all__ = ["command"]


@click.group("payloads")
def command() -> None:
    """Maintain the payload store of an app, which keeps large values outside the database."""


@command.command("sweep")
@app_option
@click.option(
    "--older-than",
    "age",
    type=DURATION,
    default="1d",
    metavar="DURATION",
    help="Minimum age of an object; more than the longest transaction, at least 1h.",
)
@result_options
def sweep(app: str | None, age: timedelta, dsn: str, schema: str, as_json: bool) -> None:
    """Delete the objects that no row refers to.

    Transactions that were rolled back and failed calls leave them. The objects of deleted instances do not need it:
    workers delete those. Run it from cron or a systemd timer.

    \b
    Example:
      pgflow payloads sweep --app shop:app --older-than 2d
    """
    loaded = load_app(app, dsn, schema)
    try:
        deleted = loaded.sweep_payloads(age)
    finally:
        loaded.close()
    click.echo(document({"deleted": deleted}) if as_json else f"deleted {deleted:,}")
