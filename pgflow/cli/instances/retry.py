"""`pgflow retry`: retry a failed instance from the failed step."""

import click

from pgflow.cli.connection import identified, open_connection
from pgflow.cli.options import idempotency_option, result_options
from pgflow.cli.output import document
from pgflow.cli.parameters import TEXT
from pgflow.store import instance, request

__all__ = ["command"]


@click.command("retry")
@click.argument("workflow", type=TEXT)
@click.argument("value", type=TEXT)
@idempotency_option
@result_options
def command(workflow: str, value: str, idempotency_key: str | None, dsn: str, schema: str, as_json: bool) -> None:
    """Retry the newest run of VALUE, which must have failed, from the failed step.

    Completed steps keep their results and do not run again; the failed step gets its full number of attempts. VALUE may
    be a whole business id, such as orderid::abc123.

    \b
    Example:
      pgflow retry OrderFlow abc123
    """
    with open_connection(dsn, schema, workflow) as conn:
        statement = instance.retry(schema, workflow=workflow, value=value, notify=True)
        with identified(conn, schema):
            request.run_once(conn, schema, idempotency_key, f"retry {workflow} {value}", statement, lambda answer: None)
    click.echo(
        document({"workflow": workflow, "value": value, "status": "running"})
        if as_json
        else f"retrying {workflow} {value}"
    )
