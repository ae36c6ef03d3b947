"""`pgflow cancel`: cancel an instance."""

import click

from pgflow.cli.connection import identified, open_connection
from pgflow.cli.options import idempotency_option, result_options
from pgflow.cli.output import document
from pgflow.cli.parameters import TEXT
from pgflow.store import instance, request

__all__ = ["command"]


@click.command("cancel")
@click.argument("workflow", type=TEXT)
@click.argument("value", type=TEXT)
@click.option("--reason", type=TEXT, metavar="TEXT", help="Reason, shown by `pgflow show`.")
@idempotency_option
@result_options
def command(
    workflow: str,
    value: str,
    reason: str | None,
    idempotency_key: str | None,
    dsn: str,
    schema: str,
    as_json: bool,
) -> None:
    """Cancel the newest run of VALUE.

    No further step starts, timers and kept signals are deleted, and running async steps are interrupted. Completed
    steps are not undone. VALUE may be a whole business id, such as orderid::abc123.

    \b
    Example:
      pgflow cancel OrderFlow abc123 --reason "ordered twice"
    """
    with open_connection(dsn, schema, workflow) as conn:
        statement = instance.cancel(schema, workflow=workflow, value=value, reason=reason, notify=True)
        call = f"cancel {workflow} {value}"
        with identified(conn, schema):
            request.run_once(conn, schema, idempotency_key, call, statement, lambda answer: None)
    click.echo(
        document({"workflow": workflow, "value": value, "status": "cancelled"})
        if as_json
        else f"cancelled {workflow} {value}"
    )
