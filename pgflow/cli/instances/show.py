"""`pgflow show`: one instance, what it has done and what it waits for."""

import shlex

import click

from pgflow.cli.connection import open_connection
from pgflow.cli.instances.rendering import compact, entry_record, failure, pending, record, signal_record, took, wait
from pgflow.cli.options import reading_options
from pgflow.cli.output import document, moment, printable, table
from pgflow.cli.parameters import TEXT
from pgflow.core.models.instance import Instance
from pgflow.database.statement import run
from pgflow.store import instance

__all__ = ["command"]

HEADERS = ("STEP", "EVENT", "ATTEMPT", "TOOK", "AT", "WORKER", "OUTPUT")
WIDEST = 60  # characters of an output
WIDEST_INPUT = 200


@click.command("show")
@click.argument("workflow", type=TEXT)
@click.argument("value", type=TEXT)
@reading_options
def command(workflow: str, value: str, dsn: str, schema: str, as_json: bool) -> None:
    """Show the newest run of VALUE: its input, its history, what it waits for, and why it failed.

    VALUE may be a whole business id, such as orderid::abc123. --json shows everything in full length, tracebacks
    included.

    \b
    Examples:
      pgflow show OrderFlow abc123
      pgflow show OrderFlow abc123 --json
    """
    with open_connection(dsn, schema, workflow, role="read") as conn:
        found = run(conn, instance.get(schema, workflow=workflow, value=value))
    if as_json:
        whole = {
            **record(found),
            "steps": found.steps,
            "history": [entry_record(each) for each in found.history],
            "signals": [signal_record(each) for each in found.signals],
        }
        click.echo(document({"instance": whole}))
    else:
        click.echo("\n\n".join(_paragraphs(found, value)))


def _paragraphs(found: Instance, value: str) -> list[str]:
    paragraphs = ["\n".join(printable(line) for line in _header(found))]
    if found.history:
        rows = [
            (
                each.step,
                each.event,
                each.attempt,
                took(each.duration),
                each.at,
                each.worker,
                compact(each.output, WIDEST),
            )
            for each in found.history
        ]
        paragraphs.append(table(HEADERS, rows))
    if found.is_active:
        paragraphs.append("\n".join(wait(each) for each in found.waiting_for) or "nothing is left to do")
        if found.signals:
            paragraphs.append("\n".join(pending(each) for each in found.signals))
    elif found.status == "failed":
        again = shlex.join(["pgflow", "retry", found.workflow, value])
        paragraphs.append(
            f"{printable(failure(found.error) or 'it failed')}\ntake it up again with: {printable(again)}"
        )
    elif found.status == "cancelled":
        paragraphs.append(f"cancelled: {printable(failure(found.error) or 'no reason was given')}")
    return paragraphs


def _header(found: Instance) -> list[str]:
    lines = [
        f"{found.workflow} version {found.version}, {found.id}, run {found.run}: {found.status}",
        f"started   {moment(found.created_at)}",
    ]
    if found.finished_at is not None:
        lines.append(f"finished  {moment(found.finished_at)}, after {took(found.finished_at - found.created_at)}")
    if found.tags:
        lines.append(f"tags      {', '.join(found.tags)}")
    if found.metadata:
        lines.append(f"metadata  {compact(dict(found.metadata), WIDEST_INPUT)}")
    if found.unreadable is not None:
        lines.append(f"unreadable: {found.unreadable}")
    lines.append(f"input     {compact(found.input, WIDEST_INPUT)}")
    return lines
