"""`pgflow show`: show an instance, its history and what it waits for."""

import shlex

import click

from pgflow.cli.connection import open_connection
from pgflow.cli.instances.rendering import (
    compact_json,
    describe_failure,
    describe_signal,
    entry_record,
    format_elapsed,
    instance_record,
    signal_record,
)
from pgflow.cli.options import result_options
from pgflow.cli.output import format_time, print_document, printable, table
from pgflow.cli.overview.why import describe_reason, reason_record
from pgflow.cli.parameters import TEXT
from pgflow.core.models.instance import Instance
from pgflow.core.models.overview import Reason
from pgflow.database.statement import run
from pgflow.store import instance, overview

__all__ = ["command"]

HEADERS = ("STEP", "EVENT", "ATTEMPT", "DURATION", "AT", "WORKER", "OUTPUT")
OUTPUT_WIDTH = 60  # characters
INPUT_WIDTH = 200


@click.command("show")
@click.argument("workflow", type=TEXT)
@click.argument("value", type=TEXT)
@result_options
def command(workflow: str, value: str, dsn: str, schema: str, as_json: bool) -> None:
    """Show the newest run of VALUE: its input, its history, what it waits for, and why it failed.

    VALUE may be a whole business id, such as orderid::abc123. --json prints all values in full, with tracebacks.

    \b
    Examples:
      pgflow show OrderFlow abc123
      pgflow show OrderFlow abc123 --json
    """
    with open_connection(dsn, schema, workflow, role="read") as conn:
        found = run(conn, instance.get(schema, workflow=workflow, value=value))
        reasons = run(conn, overview.why(schema, found.run)) if found.is_active else []
    if as_json:
        record = {
            **instance_record(found),
            "steps": found.steps,
            "history": [entry_record(each) for each in found.history],
            "signals": [signal_record(each) for each in found.signals],
            "reasons": [reason_record(each) for each in reasons],
        }
        print_document({"instance": record})
    else:
        click.echo("\n\n".join(_paragraphs(found, value, reasons)))


def _paragraphs(found: Instance, value: str, reasons: list[Reason]) -> list[str]:
    paragraphs = ["\n".join(printable(line) for line in _header(found))]
    if found.history:
        rows = [
            (
                each.step,
                each.event,
                each.attempt,
                format_elapsed(each.duration),
                each.at,
                each.worker,
                compact_json(each.output, OUTPUT_WIDTH),
            )
            for each in found.history
        ]
        paragraphs.append(table(HEADERS, rows))
    if found.is_active:
        paragraphs.append("\n".join(map(describe_reason, reasons)))
        if any(each.kind == "operator" for each in found.waiting_for):
            addressed = shlex.join([found.workflow, value])
            paragraphs.append(
                f"an operator may: pgflow retry {addressed}\n"
                f"                 pgflow complete-step {addressed} STEP --event EVENT --output JSON\n"
                f"                 pgflow fail-step {addressed} STEP --reason TEXT"
            )
        if found.signals:
            paragraphs.append("\n".join(describe_signal(each) for each in found.signals))
    elif found.status == "failed":
        retry = shlex.join(["pgflow", "retry", found.workflow, value])
        paragraphs.append(f"{printable(describe_failure(found.error) or 'failed')}\nretry with: {printable(retry)}")
    elif found.status == "cancelled":
        paragraphs.append(f"cancelled: {printable(describe_failure(found.error) or 'no reason given')}")
    return paragraphs


def _header(found: Instance) -> list[str]:
    lines = [
        f"{found.workflow} version {found.version}, {found.id}, run {found.run}: {found.status}",
        f"started   {format_time(found.created_at)}",
    ]
    if found.finished_at is not None:
        elapsed = format_elapsed(found.finished_at - found.created_at)
        lines.append(f"finished  {format_time(found.finished_at)}, after {elapsed}")
    elif found.deadline is not None:
        lines.append(f"deadline  {format_time(found.deadline)}")
    if found.tags:
        lines.append(f"tags      {', '.join(found.tags)}")
    if found.metadata:
        lines.append(f"metadata  {compact_json(dict(found.metadata), INPUT_WIDTH)}")
    if found.unreadable is not None:
        lines.append(f"unreadable: {found.unreadable}")
    lines.append(f"input     {compact_json(found.input, INPUT_WIDTH)}")
    return lines
