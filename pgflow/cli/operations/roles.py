"""`pgflow roles`: give the database's roles the rights of a client, a worker or a dashboard, or print the SQL."""

import click

from pgflow.cli.options import direct_options
from pgflow.database.connect import connect
from pgflow.migrations.grants import apply, sql

__all__ = ["command"]


@click.command("roles")
@click.option("--sql", "show_sql", is_flag=True, help="Print the statements; needs no database.")
@click.option("--apply", "applies", is_flag=True, help="Run them, in one transaction, as the schema's owner.")
@click.option("--client", multiple=True, metavar="ROLE", help="Calls the functions of the client API, no more.")
@click.option("--worker", multiple=True, metavar="ROLE", help="Runs workers.")
@click.option("--dashboard", multiple=True, metavar="ROLE", help="Reads everything, changes nothing.")
@direct_options
def command(
    show_sql: bool,
    applies: bool,
    client: tuple[str, ...],
    worker: tuple[str, ...],
    dashboard: tuple[str, ...],
    dsn: str,
    schema: str,
) -> None:
    """Give roles of the database what a client, a worker or a dashboard needs, and nothing else.

    The roles have to be there: they belong to the whole cluster, so pgflow makes none. Each role named loses what else
    it has in the schema. Each option may be repeated, and may name the same role as another one, which then has
    the rights of both. Run it again after each upgrade: what that has added is only the owner's until then.

    \b
    Examples:
      pgflow roles --apply --client app_client --worker app_worker --dashboard app_ro
      pgflow roles --sql --client app_client | psql --single-transaction -v ON_ERROR_STOP=1 shop
    """
    if show_sql == applies:
        raise click.UsageError("One of --sql and --apply is needed.")
    parts = {"client": client, "worker": worker, "dashboard": dashboard}
    if show_sql:
        click.echo(sql(parts, schema), nl=False)
        return
    with connect(dsn, "migrate") as conn:
        apply(conn, parts, schema)
    for part, names in parts.items():
        for name in names:
            click.echo(f'{name} is a {part} of schema "{schema}"')
