"""`pgflow complete-step`, `pgflow fail-step`: what an operator does with a step that waits for one."""

import click

from pgflow.cli.connection import open_connection
from pgflow.cli.options import idempotency_option, result_options
from pgflow.cli.output import document
from pgflow.cli.parameters import JSON_FORMS, TEXT, payload
from pgflow.store import instance, request

__all__ = ["complete", "fail"]


@click.command("complete-step")
@click.argument("workflow", type=TEXT)
@click.argument("value", type=TEXT)
@click.argument("step", type=TEXT)
@click.option("--event", type=TEXT, help="Event that the step completes with; needed only for a step with several.")
@click.option("-o", "--output", "argument", metavar=JSON_FORMS, help="Output of the step; - reads stdin.")
@idempotency_option
@result_options
def complete(
    workflow: str,
    value: str,
    step: str,
    event: str | None,
    argument: str | None,
    idempotency_key: str | None,
    dsn: str,
    schema: str,
    as_json: bool,
) -> None:
    """Complete STEP of the newest run of VALUE, which waits for an operator.

    A step waits for an operator when its attempts are used up and its policy is "pause". A worker checks the output
    against the type that the step declares. VALUE may be a whole business id, such as orderid::abc123.

    \b
    Example:
      pgflow complete-step OrderFlow abc123 charge --event paid --output '{"receipt": "r-1"}'
    """
    output = payload(argument, "output")
    with open_connection(dsn, schema, workflow) as conn:
        statement = instance.complete_step(
            schema, workflow=workflow, value=value, step=step, event=event, output=output, notify=True
        )
        about = f"complete_step {workflow} {value} {step} {event or ''}"
        request.run_once(conn, schema, idempotency_key, about, statement, lambda answer: None)
    record = {"workflow": workflow, "value": value, "step": step, "status": "completed"}
    click.echo(document(record) if as_json else f"completed {step} of {workflow} {value}")


@click.command("fail-step")
@click.argument("workflow", type=TEXT)
@click.argument("value", type=TEXT)
@click.argument("step", type=TEXT)
@click.option("--reason", type=TEXT, metavar="TEXT", help="Reason; by default that of the last attempt.")
@idempotency_option
@result_options
def fail(
    workflow: str,
    value: str,
    step: str,
    reason: str | None,
    idempotency_key: str | None,
    dsn: str,
    schema: str,
    as_json: bool,
) -> None:
    """Fail STEP of the newest run of VALUE, which waits for an operator, and with it the instance.

    The instance can still be retried. VALUE may be a whole business id, such as orderid::abc123.

    \b
    Example:
      pgflow fail-step OrderFlow abc123 charge --reason "the card was stolen"
    """
    with open_connection(dsn, schema, workflow) as conn:
        statement = instance.fail_step(schema, workflow=workflow, value=value, step=step, reason=reason, notify=True)
        about = f"fail_step {workflow} {value} {step}"
        request.run_once(conn, schema, idempotency_key, about, statement, lambda answer: None)
    record = {"workflow": workflow, "value": value, "step": step, "status": "failed"}
    click.echo(document(record) if as_json else f"failed {step} of {workflow} {value}")
