"""`pgflow retry`: retry a failed instance from the failed step, or a step that waits for an operator."""

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
@click.option("--step", type=TEXT, metavar="KEY", help="Retry only this step, which waits for an operator.")
@idempotency_option
@result_options
def command(
    workflow: str, value: str, step: str | None, idempotency_key: str | None, dsn: str, schema: str, as_json: bool
) -> None:
    """Retry the newest run of VALUE: if it has failed from the failed step, else the steps that wait for an operator.

    Completed steps keep their results and do not run again; the failed step gets its full number of attempts. VALUE may
    be a whole business id, such as orderid::abc123.

    \b
    Example:
      pgflow retry OrderFlow abc123
    """
    with open_connection(dsn, schema, workflow) as conn:
        if step is None:
            statement, about = instance.retry(schema, workflow=workflow, value=value, notify=True), ""
        else:
            statement = instance.retry_step(schema, workflow=workflow, value=value, step=step, notify=True)
            about = f" {step}"
        name = f"retry {workflow} {value}{about}"
        with identified(conn, schema):
            request.run_once(conn, schema, idempotency_key, name, statement, lambda answer: None)
    click.echo(
        document({"workflow": workflow, "value": value, "status": "running"})
        if as_json
        else f"retrying {workflow} {value}"
    )
