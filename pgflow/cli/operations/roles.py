"""`pgflow roles`: grant roles the privileges of a client, a worker, a dashboard or an operator, or print the SQL."""

import click

from pgflow.cli.options import direct_options, json_option
from pgflow.cli.output import print_document
from pgflow.database.connect import connect
from pgflow.migrations.grants import apply, sql

__all__ = ["command"]


@click.command("roles")
@click.option("--sql", "show_sql", is_flag=True, help="Print the statements; does not connect to a database.")
@click.option(
    "--apply", "applies", is_flag=True, help="Run the statements in one transaction, as the owner of the schema."
)
@click.option("--client", multiple=True, metavar="ROLE", help="Role that may only call the client API. Repeatable.")
@click.option("--worker", multiple=True, metavar="ROLE", help="Role that may run workers. Repeatable.")
@click.option("--dashboard", multiple=True, metavar="ROLE", help="Role that may only read. Repeatable.")
@click.option(
    "--operator", multiple=True, metavar="ROLE", help="Role that may cancel, retry and delete instances. Repeatable."
)
@json_option
@direct_options
def command(
    show_sql: bool,
    applies: bool,
    client: tuple[str, ...],
    worker: tuple[str, ...],
    dashboard: tuple[str, ...],
    operator: tuple[str, ...],
    dsn: str,
    schema: str,
    as_json: bool,
) -> None:
    """Grant roles the privileges that a client, a worker, a dashboard or an operator needs, and revoke all others.

    The roles must exist: roles belong to the whole cluster, so pgflow does not create them. A role named by several
    options gets the privileges of each. Run it again after each upgrade, because objects that the upgrade creates are
    accessible to the owner only.

    \b
    Examples:
      pgflow roles --apply --client app_client --worker app_worker --dashboard app_ro
      pgflow roles --sql --client app_client | psql --single-transaction -v ON_ERROR_STOP=1 shop
    """
    if show_sql == applies:
        raise click.UsageError("Pass either --sql or --apply.")
    roles = {"client": client, "worker": worker, "dashboard": dashboard, "operator": operator}
    if show_sql:
        click.echo(sql(roles, schema), nl=False)
        return
    with connect(dsn, "migrate") as conn:
        apply(conn, roles, schema)
    if as_json:
        print_document({"schema": schema, "roles": {part: [*names] for part, names in roles.items() if names}})
        return
    for part, names in roles.items():
        for name in names:
            article = "an" if part == "operator" else "a"
            click.echo(f'{name} is {article} {part} of schema "{schema}"')
