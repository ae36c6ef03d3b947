"""`pgflow start`: start an instance of a workflow, or one for each line of a file."""

import json
import shlex
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import click

from pgflow.app import Pgflow
from pgflow.cli.app_loader import load_app
from pgflow.cli.connection import open_connection, require_workflow
from pgflow.cli.instances.json_lines import chunks, open_seekable, progress_bar, read_items
from pgflow.cli.options import app_option, idempotency_option, result_options
from pgflow.cli.output import document, print_notice
from pgflow.cli.parameters import DURATION, JSON_FORMS, TEXT, parse_business_value, parse_timestamp, read_json_argument
from pgflow.client.start_request import check_period
from pgflow.client.statements import closed_input
from pgflow.core.definition.unique import start_value
from pgflow.core.models.instance import Started
from pgflow.core.values.absent import ABSENT
from pgflow.core.values.payload import MAX_PAYLOAD_BYTES, METADATA_LIMIT, encode
from pgflow.database.connect import Connection
from pgflow.errors import AlreadyRunning, InvalidPayload
from pgflow.store import instance, request

__all__ = ["command"]

LARGEST_INTEGER = 2**31 - 1
LARGEST_SMALLINT = 2**15 - 1


@dataclass(frozen=True, slots=True)
class Launch:
    """The options that all instances of a call share; `write` validates an input and returns the JSON text to store."""

    workflow: str
    dsn: str
    schema: str
    write: Callable[[Any], str | None]
    app: Pgflow | None
    version: int | None
    at: datetime | None
    delay: timedelta | None
    tags: Sequence[str]
    metadata: dict[str, Any]
    priority: int | None
    expires_in: timedelta | None
    deadline: timedelta | None
    key: str | None

    def run(
        self, conn: Connection, values: Sequence[str], inputs: Sequence[str | None], part: int = 0
    ) -> list[Started]:
        """Start instances in one statement, which is one transaction; inputs are stored by the app's policy.

        `part` numbers the statements of one call, each of which needs an idempotency key of its own.
        """
        if self.app is not None:
            workflow, policy = self.app.workflow(self.workflow), self.app.payloads
            values = [start_value(workflow.unique.key, value) for value in values]
            closed = [
                (None, None) if text is None else closed_input(policy, workflow.definitions, value, text)
                for value, text in zip(values, inputs, strict=True)
            ]
            inputs = [text for text, _ in closed]
            policy.put(stored for _, stored in closed if stored is not None)
        statement = instance.start(
            self.schema,
            workflow=self.workflow,
            values=values,
            inputs=inputs,
            version=self.version,
            at=self.at,
            delay=self.delay,
            tags=self.tags,
            metadata=self.metadata,
            priority=self.priority,
            expires_in=self.expires_in,
            deadline=self.deadline,
            notify=True,
        )
        key = self.key and (f"{self.key}/{part}" if part else self.key)
        about = f"start {self.workflow} {values[0]}" + (f" and {len(values) - 1} more" if part else "")
        return request.run_once(conn, self.schema, key, about, statement, instance.decode_started)

    def open_connection(self) -> AbstractContextManager[Connection]:
        """Open the connection."""
        pooler = self.app.pooler if self.app is not None else None
        return open_connection(self.dsn, self.schema, self.workflow, pooler=pooler)

    def register(self) -> None:
        """Register the app's workflows in the database. Raises `GraphChanged`."""
        if self.app is not None:
            try:
                self.app.register()
            finally:
                self.app.close()


@click.command("start")
@click.argument("workflow", type=TEXT)
@click.argument("value", type=TEXT, required=False)
@click.option(
    "-i",
    "--input",
    "argument",
    metavar=JSON_FORMS,
    help="Input of the instance; - reads stdin. Defaults to {}, or to null if the workflow's input type allows None.",
)
@click.option(
    "--from",
    "source",
    metavar="FILE|-",
    help='Start one instance for each line of JSON Lines: {"value": "…", "input": {…}}.',
)
@click.option(
    "--version", type=click.IntRange(1, LARGEST_INTEGER), help="Version of the workflow; by default the current one."
)
@click.option("--delay", type=DURATION, metavar="DURATION", help="Start after this time: 90s, 10m, 1h30m, 2d.")
@click.option("--at", metavar="TIME", help="Start at this time: 2030-01-31T12:00:00Z.")
@click.option("--tag", "tags", type=TEXT, multiple=True, help="Tag of the instance. Repeatable.")
@click.option("--metadata", metavar=JSON_FORMS, help="Initial metadata, a JSON object.")
@click.option(
    "--priority",
    type=click.IntRange(-LARGEST_SMALLINT - 1, LARGEST_SMALLINT),
    help="Lower runs first; by default the workflow's priority.",
)
@click.option(
    "--expires-in",
    type=DURATION,
    metavar="DURATION",
    help="Cancel the instance unless a worker has started it within this time of its start.",
)
@click.option(
    "--deadline",
    type=DURATION,
    metavar="DURATION",
    help="Fail the instance unless it ends within this time of its start; by default the workflow's.",
)
@idempotency_option
@app_option
@result_options
def command(
    workflow: str,
    value: str | None,
    argument: str | None,
    source: str | None,
    version: int | None,
    delay: timedelta | None,
    at: str | None,
    tags: tuple[str, ...],
    metadata: str | None,
    priority: int | None,
    expires_in: timedelta | None,
    deadline: timedelta | None,
    idempotency_key: str | None,
    app: str | None,
    dsn: str,
    schema: str,
    as_json: bool,
) -> None:
    """Start an instance of WORKFLOW with the business value VALUE.

    With an app, the input is validated against the workflow's input model, and the workflow is registered in the
    database if it is new. Without an app, a worker or an app must have registered it before.

    With --from, every line is validated before any instance is started. Values that are already running are skipped and
    counted.

    \b
    Examples:
      pgflow start OrderFlow abc123 --input '{"item_count": 3, "user_id": 42}'
      pgflow start OrderFlow abc123 --input @order.json --delay 10m
      pgflow start OrderFlow --from orders.jsonl --tag import
    """
    if (value is None) == (source is None):
        raise click.UsageError("Pass either VALUE or --from.")
    if source is not None and argument is not None:
        raise click.UsageError("--input requires VALUE: with --from, each line contains its input.")
    if delay is not None and at is not None:
        raise click.UsageError("--delay and --at are mutually exclusive.")
    found = load_app(app, dsn, schema) if app else None
    write, version = _checks(found, workflow, version)
    launch = Launch(
        workflow=workflow,
        dsn=found.dsn if found else dsn,
        schema=found.schema if found else schema,
        write=write,
        app=found,
        version=version,
        at=parse_timestamp(at) if at is not None else None,
        delay=delay,
        tags=tags,
        metadata=_metadata(metadata),
        priority=priority,
        expires_in=check_period("expires_in", expires_in),
        deadline=check_period("deadline", deadline),
        key=idempotency_key,
    )
    if source is not None:
        started, running = _start_many(launch, source)
        counts = {"workflow": workflow, "started": started, "already_running": running}
        click.echo(document(counts) if as_json else f"started {started:,}, already running {running:,}")
    elif value is not None:
        one = _start_one(launch, parse_business_value(value), _input(argument))
        record = {"workflow": workflow, "id": one.id, "run": str(one.run)}
        click.echo(document(record) if as_json else f"{one.id} run {one.run}")


def _checks(app: Pgflow | None, name: str, version: int | None) -> tuple[Callable[[Any], str | None], int | None]:
    """Return the function that validates and encodes an input, and the version to start."""
    if app is None:
        return _encode_input, version
    require_workflow(name, sorted(each.name for each in app.workflows))
    version, workflow = app.workflow(name).resolve_version(version)
    return partial(workflow.write_input, reveal=app.payloads.reveal, limit=app.payloads.limit), version


def _encode_input(value: Any) -> str | None:
    """Return an input as JSON text; None if it is absent, which takes the workflow's default."""
    return None if value is ABSENT else encode(value, what="input", limit=MAX_PAYLOAD_BYTES)


def _input(argument: str | None) -> Any:
    return ABSENT if argument is None else read_json_argument(argument, "input")


def _metadata(argument: str | None) -> dict[str, Any]:
    if argument is None:
        return {}
    metadata = read_json_argument(argument, "metadata")
    if not isinstance(metadata, dict):
        raise InvalidPayload("metadata must be a JSON object", hint='Example: {"source": "import"}.')
    checked: dict[str, Any] = json.loads(encode(metadata, what="metadata", limit=METADATA_LIMIT))
    return checked


def _start_one(launch: Launch, value: str, input_value: Any) -> Started:
    text = launch.write(input_value)
    with launch.open_connection() as conn:
        launch.register()
        (one,) = launch.run(conn, [value], [text])
    if not one.created:
        raise AlreadyRunning(
            f"{launch.workflow} {one.id!r} is already running, in run {one.run}",
            hint=f"Show it with: {shlex.join(['pgflow', 'show', launch.workflow, value])}",
            run=one.run,
        )
    return one


def _start_many(launch: Launch, source: str) -> tuple[int, int]:
    """Return how many instances were started, and how many were already running."""
    name = "standard input" if source == "-" else source
    started = running = 0
    with open_seekable(source) as lines:
        total = sum(1 for _ in read_items(lines, name, launch.write))
        with launch.open_connection() as conn:
            launch.register()
            try:
                with progress_bar(total) as bar:
                    for part, chunk in enumerate(chunks(read_items(lines, name, launch.write)), start=1):
                        values, inputs = zip(*chunk, strict=True)
                        created = sum(one.created for one in launch.run(conn, values, inputs, part))
                        started, running = started + created, running + len(chunk) - created
                        if bar is not None:
                            bar.update(len(chunk))
            except BaseException:
                if started:
                    print_notice(f"started {started:,} of {total:,} before the error; those are not undone")
                raise
    return started, running
