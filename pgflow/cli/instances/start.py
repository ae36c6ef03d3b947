"""`pgflow start`: start an instance of a workflow, or as many as a file has lines."""

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
from pgflow.calls import sealed_input
from pgflow.cli.app_loader import load_app
from pgflow.cli.connection import open_connection, require_workflow
from pgflow.cli.instances.bulk import chunks, items, lines_of, progress
from pgflow.cli.options import app_option, idempotency_option, reading_options
from pgflow.cli.output import document, print_notice
from pgflow.cli.parameters import DURATION, JSON_FORMS, TEXT, parse_business_value, parse_timestamp, read_json_argument
from pgflow.core.definition.unique import start_value
from pgflow.core.models.instance import Started
from pgflow.core.values.absent import ABSENT
from pgflow.core.values.payload import INPUT_LIMIT, encode
from pgflow.database.connect import Connection
from pgflow.errors import AlreadyRunning, InvalidPayload
from pgflow.store import instance, request

__all__ = ["command"]

LARGEST_INTEGER = 2**31 - 1
LARGEST_SMALLINT = 2**15 - 1


@dataclass(frozen=True, slots=True)
class Launch:
    """Where and how the command starts instances: `write` checks an input and makes the text to store out of it."""

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
    key: str | None

    def run(
        self, conn: Connection, values: Sequence[str], inputs: Sequence[str | None], part: int = 0
    ) -> list[Started]:
        """Start instances in one statement, which is one transaction; an app with a codec seals their inputs.

        `part` tells them from others that are started with the same idempotency key.
        """
        if self.app is not None:
            kind, codec = self.app.workflow(self.workflow), self.app.codec
            values = [start_value(kind.unique.key, value) for value in values]
            pairs = zip(values, inputs, strict=True)
            inputs = [text and sealed_input(codec, kind, value, text) for value, text in pairs]
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
            notify=True,
        )
        key = self.key and (f"{self.key}/{part}" if part else self.key)
        about = f"start {self.workflow} {values[0]}" + (f" and {len(values) - 1} more" if part else "")
        return request.run_once(conn, self.schema, key, about, statement, instance.decode_started)

    def open_connection(self) -> AbstractContextManager[Connection]:
        """Open the command's connection."""
        pooler = self.app.pooler if self.app is not None else None
        return open_connection(self.dsn, self.schema, self.workflow, pooler=pooler)

    def register(self) -> None:
        """Store the app's definitions, so that the database knows the workflow. Raises `GraphChanged`."""
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
    "given",
    metavar=JSON_FORMS,
    help="The instance's input; - is standard input. Without it, it is {}, or null where the workflow's type has None.",
)
@click.option(
    "--from", "source", metavar="FILE|-", help='Start one instance for each line: {"value": "…", "input": {…}}.'
)
@click.option(
    "--version", type=click.IntRange(1, LARGEST_INTEGER), help="The workflow's version; the current one by default."
)
@click.option("--delay", type=DURATION, metavar="DURATION", help="Start it so much later: 90s, 10m, 1h30m, 2d.")
@click.option("--at", metavar="TIME", help="Start it then: 2030-01-31T12:00:00Z.")
@click.option("--tag", "tags", type=TEXT, multiple=True, help="Mark it with a tag. May be given several times.")
@click.option("--metadata", metavar=JSON_FORMS, help="Metadata to begin with, a JSON object.")
@click.option(
    "--priority",
    type=click.IntRange(-LARGEST_SMALLINT - 1, LARGEST_SMALLINT),
    help="Lower goes first; the workflow's own by default.",
)
@idempotency_option
@app_option
@reading_options
def command(
    workflow: str,
    value: str | None,
    given: str | None,
    source: str | None,
    version: int | None,
    delay: timedelta | None,
    at: str | None,
    tags: tuple[str, ...],
    metadata: str | None,
    priority: int | None,
    idempotency_key: str | None,
    app: str | None,
    dsn: str,
    schema: str,
    as_json: bool,
) -> None:
    """Start an instance of WORKFLOW under the business value VALUE.

    With an app the input is checked by the workflow's model, and its definition is stored if it is new. Without one the
    workflow has to be known to the database: a worker or an app has been there before.

    With --from, all lines are checked before any instance is started. A value that is running already is left alone and
    counted.

    \b
    Examples:
      pgflow start OrderFlow abc123 --input '{"item_count": 3, "user_id": 42}'
      pgflow start OrderFlow abc123 --input @order.json --delay 10m
      pgflow start OrderFlow --from orders.jsonl --tag import
    """
    if (value is None) == (source is None):
        raise click.UsageError("Give either a VALUE or --from.")
    if source is not None and given is not None:
        raise click.UsageError("--input goes with a VALUE; with --from, each line has its own.")
    if delay is not None and at is not None:
        raise click.UsageError("--delay and --at exclude one another.")
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
        key=idempotency_key,
    )
    if source is not None:
        started, running = _start_many(launch, source)
        counts = {"workflow": workflow, "started": started, "already_running": running}
        click.echo(document(counts) if as_json else f"started {started:,}, already running {running:,}")
    elif value is not None:
        one = _start_one(
            launch, parse_business_value(value), ABSENT if given is None else read_json_argument(given, "input")
        )
        told = {"workflow": workflow, "id": one.id, "run": str(one.run)}
        click.echo(document(told) if as_json else f"{one.id} run {one.run}")


def _checks(app: Pgflow | None, name: str, version: int | None) -> tuple[Callable[[Any], str | None], int | None]:
    """Return what checks an input, and the version to start."""
    if app is None:
        return _plain_input, version
    require_workflow(name, sorted(each.name for each in app.workflows))
    version, workflow = app.workflow(name).resolve_version(version)
    return partial(workflow.write_input, reveal=app.codec is not None), version


def _plain_input(given: Any) -> str | None:
    """Return an input as JSON text; None, which leaves it to the workflow's definition, when it was left out."""
    return None if given is ABSENT else encode(given, what="input", limit=INPUT_LIMIT)


def _metadata(given: str | None) -> dict[str, Any]:
    if given is None:
        return {}
    metadata = read_json_argument(given, "metadata")
    if not isinstance(metadata, dict):
        raise InvalidPayload("metadata is no JSON object", hint='It looks like {"source": "import"}.')
    checked: dict[str, Any] = json.loads(encode(metadata, what="metadata", limit=INPUT_LIMIT))
    return checked


def _start_one(launch: Launch, value: str, given: Any) -> Started:
    text = launch.write(given)
    with launch.open_connection() as conn:
        launch.register()
        (one,) = launch.run(conn, [value], [text])
    if not one.created:
        raise AlreadyRunning(
            f"{launch.workflow} {one.id!r} is already running, in run {one.run}",
            hint=f"Look at it with: {shlex.join(['pgflow', 'show', launch.workflow, value])}",
        )
    return one


def _start_many(launch: Launch, source: str) -> tuple[int, int]:
    """Return how many were started, and how many were running already."""
    name = "standard input" if source == "-" else source
    started = running = 0
    with lines_of(source) as lines:
        total = sum(1 for _ in items(lines, name, launch.write))
        with launch.open_connection() as conn:
            launch.register()
            try:
                with progress(total) as bar:
                    for part, chunk in enumerate(chunks(items(lines, name, launch.write)), start=1):
                        values, inputs = zip(*chunk, strict=True)
                        created = sum(one.created for one in launch.run(conn, values, inputs, part))
                        started, running = started + created, running + len(chunk) - created
                        if bar is not None:
                            bar.update(len(chunk))
            except BaseException:
                if started:
                    print_notice(f"started {started:,} of {total:,} before this; those stay")
                raise
    return started, running
