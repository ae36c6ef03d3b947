"""`pgflow audit`: see who did what."""

import json
from typing import Any

import click

from pgflow.cli.connection import open_connection
from pgflow.cli.instances.rendering import truncate
from pgflow.cli.options import result_options
from pgflow.cli.output import print_document, print_notice, table
from pgflow.cli.parameters import TEXT
from pgflow.database.statement import run
from pgflow.store import audit
from pgflow.store.audit import AuditEntry

__all__ = ["command"]

HEADERS = ("ID", "AT", "WHO", "ACTION", "DETAILS")
DETAILS_WIDTH = 100  # characters
INTERNAL = ("document", "until", "after")  # where a bulk operation stands


class AuditGroup(click.Group):
    """Without a subcommand, it is `list`: `pgflow audit --json`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Insert the subcommand where the arguments begin with one of its options, or there are none."""
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group("audit", cls=AuditGroup)
def command() -> None:
    """See who cancelled, retried, changed or deleted what; without a subcommand, list it."""


@command.command("list")
@click.option("--action", type=TEXT, metavar="PREFIX", help="Only actions that begin with this.")
@click.option("--who", type=TEXT, metavar="TEXT", help="Only those of users whose name contains this.")
@click.option("-n", "--limit", type=click.IntRange(1, 10_000), default=50, help="Maximum number of actions.")
@click.option(
    "--before",
    type=click.IntRange(0, 2**63 - 1),
    metavar="ID",
    help="Only actions before this one. For the next page, pass the last id of this page.",
)
@result_options
def list_command(
    action: str | None, who: str | None, limit: int, before: int | None, dsn: str, schema: str, as_json: bool
) -> None:
    """List what operators did, newest first.

    Requires the part --operator or --dashboard of `pgflow roles`, or the role that owns the schema.

    \b
    Examples:
      pgflow audit list --action bulk
      pgflow audit list --who ada --json
    """
    with open_connection(dsn, schema, role="read") as conn:
        found = run(conn, audit.list(schema, action=action, who=who, before=before, limit=limit))
    if as_json:
        print_document({"audit": [_record(each) for each in found]})
    elif found:
        click.echo(table(HEADERS, [(each.id, each.at, each.who, each.action, _details(each)) for each in found]))
        if len(found) == limit:
            print_notice(f"next page: --before {found[-1].id}")
    else:
        print_notice("no actions")


def _record(each: AuditEntry) -> dict[str, Any]:
    return {"id": str(each.id), "at": each.at, "who": each.who, "action": each.action, "details": each.details}


def _details(each: AuditEntry) -> str:
    kept = {name: value for name, value in each.details.items() if name not in INTERNAL and value not in (None, {})}
    words = (f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in kept.items())
    return truncate(" ".join(words), DETAILS_WIDTH)
