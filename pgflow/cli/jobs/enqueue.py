"""`pgflow enqueue`: enqueue a task."""

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import click

from pgflow.app import Pgflow
from pgflow.cli.app_loader import load_app
from pgflow.cli.connection import open_connection
from pgflow.cli.options import app_option, idempotency_option, result_options
from pgflow.cli.output import print_document, print_notice
from pgflow.cli.parameters import (
    DURATION,
    JSON_FORMS,
    TEXT,
    Duration,
    parse_json,
    parse_timestamp,
    read_json_argument,
)
from pgflow.client.addressing import call_name
from pgflow.client.commands import EnqueueOptions
from pgflow.client.task_call import enqueue_command
from pgflow.client.task_statements import TaskStatements
from pgflow.core.models.task import Enqueued
from pgflow.core.values.payload import INPUT_LIMIT, encode
from pgflow.errors import InvalidPayload
from pgflow.store import request
from pgflow.store import task as tasks

__all__ = ["command"]

LARGEST_SMALLINT = 2**15 - 1


@click.command("enqueue")
@click.argument("task", type=TEXT)
@click.argument("pairs", type=TEXT, nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--args", "argument", metavar=JSON_FORMS, help="Arguments, a JSON object by parameter name.")
@click.option("--delay", type=DURATION, metavar="DURATION", help="Run after this time: 90s, 10m, 1h30m, 2d.")
@click.option("--at", metavar="TIME", help="Run at this time: 2030-01-31T12:00:00Z.")
@click.option("--queue", type=TEXT, help="Queue of the job; by default the task's.")
@click.option(
    "--priority",
    type=click.IntRange(-LARGEST_SMALLINT - 1, LARGEST_SMALLINT),
    help="Lower runs first; by default the task's priority.",
)
@click.option("--tag", "tags", type=TEXT, multiple=True, help="Tag of the job. Repeatable.")
@click.option(
    "--wait",
    type=Duration(bare=True),
    metavar="DURATION",
    help="Wait this long at most for the end of the job, and print its output.",
)
@idempotency_option
@app_option
@result_options
def command(
    task: str,
    pairs: tuple[str, ...],
    argument: str | None,
    delay: timedelta | None,
    at: str | None,
    queue: str | None,
    priority: int | None,
    tags: tuple[str, ...],
    wait: timedelta | None,
    idempotency_key: str | None,
    app: str | None,
    dsn: str,
    schema: str,
    as_json: bool,
) -> None:
    """Enqueue TASK with arguments by name, and print the id of its job.

    A VALUE that is JSON is read as such (7, true, null, [1, 2], "text"), anything else is text. With an app, the
    arguments are validated by the task's signature, and the task is registered in the database if it is new. Without an
    app, a worker or an app must have registered it before. With --wait the command fails if the task does.

    \b
    Examples:
      pgflow enqueue send_receipt order_id=7 copies=2
      pgflow enqueue send_receipt --args '{"order_id": 7}' --delay 10m
      pgflow enqueue report day=2030-01-31 --queue slow --wait 5m
    """
    if pairs and argument is not None:
        raise click.UsageError("Pass either --args or NAME=VALUE.")
    if delay is not None and at is not None:
        raise click.UsageError("--delay and --at are mutually exclusive.")
    texts = _pairs(pairs)
    options: EnqueueOptions = {
        "at": None if at is None else parse_timestamp(at),
        "delay": delay,
        "queue": queue,
        "priority": priority,
        "tags": tags,
        "idempotency_key": idempotency_key,
    }
    found = load_app(app, dsn, schema) if app else None
    target = Pgflow(dsn, schema=schema) if found is None else found
    try:
        if found is None:
            values = {name: _value(text) for name, text in texts.items()} if argument is None else _object(argument)
            one = _enqueue_by_name(dsn, schema, task, values, options)
        else:
            parameters = found.task(task).definition.arguments
            one = _enqueue(found, task, parameters.parse(texts) if argument is None else _object(argument), options)
        record = {"task": task, "id": None if one.id is None else str(one.id), "created": one.created}
        _report(task, one, has_output=wait is not None, as_json=as_json)
        if wait is not None and one.id is not None:
            handle = target.job(one.id)
            handle.result(wait)
            record["output"] = handle.get().output
            if not as_json:
                click.echo(json.dumps(record["output"], ensure_ascii=False))
    finally:
        target.close()
    if as_json:
        print_document(record)


def _report(task: str, one: Enqueued, *, has_output: bool, as_json: bool) -> None:
    """Print the id, on stdout unless that will have the output, and whether the job existed before."""
    if one.id is None:
        print_notice(f"{task} was not enqueued: a job with its unique key exists")
    elif not one.created:
        print_notice(f"job {one.id} existed: it has the same unique key")
    if one.id is not None and not as_json:
        click.echo(f"job {one.id}" if has_output else one.id, err=has_output)


def _enqueue(app: Pgflow, task: str, given: dict[str, Any], options: EnqueueOptions) -> Enqueued:
    policy = app.payloads
    command = enqueue_command(app.task(task).definition, [given], options, reveal=policy.reveal, limit=policy.limit)
    write = TaskStatements(app.schema, policy).enqueue(command)
    with open_connection(app.dsn, app.schema, pooler=app.pooler) as conn:
        app.register()
        if write.objects:
            policy.put(write.objects)
        (one,) = request.run_once(conn, app.schema, write.key, write.name, write.statement(True), write.decode)
    return one


def _enqueue_by_name(dsn: str, schema: str, task: str, given: dict[str, Any], options: EnqueueOptions) -> Enqueued:
    text = encode(given, what="args", limit=INPUT_LIMIT)
    statement = tasks.enqueue(
        schema,
        task=task,
        args=[text],
        at=options["at"],
        delay=options["delay"],
        queue=options["queue"],
        priority=options["priority"],
        max_attempts=None,
        tags=options["tags"],
        metadata={},
        notify=True,
    )
    call = call_name("enqueue", task, text)
    with open_connection(dsn, schema) as conn:
        (one,) = request.run_once(conn, schema, options["idempotency_key"], call, statement, tasks.decode_enqueued)
    return one


def _pairs(pairs: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not (name and equals):
            raise click.UsageError(f"Arguments must have the form NAME=VALUE, got {pair!r}.")
        if name in found:
            raise click.UsageError(f"The argument {name} is given twice.")
        found[name] = text
    return found


def _value(text: str) -> Any:
    try:
        return parse_json(text, "a value")
    except InvalidPayload:
        return text


def _object(argument: str) -> dict[str, Any]:
    given = read_json_argument(argument, "--args")
    if not isinstance(given, dict):
        raise InvalidPayload("--args must be a JSON object by parameter name", hint='Example: {"order_id": 7}.')
    return given
