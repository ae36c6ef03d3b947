"""`pgflow schedule add`: add a schedule at run time."""

from datetime import timedelta
from typing import Any, get_args

import click

from pgflow.cli.app_loader import load_app
from pgflow.cli.connection import open_connection
from pgflow.cli.options import app_option, idempotency_option, result_options
from pgflow.cli.output import document
from pgflow.cli.parameters import DURATION, JSON_FORMS, TEXT, read_json_argument
from pgflow.core.definition.schedule import Schedule, schedule
from pgflow.core.definition.timing import every as interval
from pgflow.core.models.schedule import CatchUp, Overlap
from pgflow.core.values.absent import ABSENT
from pgflow.core.values.payload import INPUT_LIMIT, encode
from pgflow.store import request
from pgflow.store import schedule as store

__all__ = ["command"]


@click.command("add")
@click.argument("name", type=TEXT)
@click.argument("target", type=TEXT)
@click.option("--cron", type=TEXT, metavar="EXPRESSION", help='Cron expression: "0 9 * * mon", "@hourly".')
@click.option("--every", type=DURATION, metavar="DURATION", help="Interval in place of an expression: 30s, 5m, 1h30m.")
@click.option("--tz", type=TEXT, metavar="ZONE", help="Time zone of the expression.  [default: UTC]")
@click.option(
    "-i",
    "--input",
    "argument",
    metavar=JSON_FORMS,
    help="Input, or arguments of a task; - reads stdin.",
)
@click.option("--value", type=TEXT, metavar="TEMPLATE", help='Business value, with "{instant}" in it.')
@click.option("--overlap", type=click.Choice(get_args(Overlap)), default="skip", help="While an earlier run is active.")
@click.option(
    "--catch-up", type=click.Choice(get_args(CatchUp)), default="last", help="Which missed instants to start."
)
@click.option("--jitter", type=DURATION, metavar="DURATION", help="Start at a random time up to that much later.")
@click.option("--replace", is_flag=True, show_default=False, help="Replace a schedule that was added before.")
@idempotency_option
@app_option
@result_options
def command(
    name: str,
    target: str,
    cron: str | None,
    every: timedelta | None,
    tz: str | None,
    argument: str | None,
    value: str | None,
    overlap: Overlap,
    catch_up: CatchUp,
    jitter: timedelta | None,
    replace: bool,
    idempotency_key: str | None,
    app: str | None,
    dsn: str,
    schema: str,
    as_json: bool,
) -> None:
    """Add schedule NAME, which starts the workflow or task TARGET.

    With an app, the input is validated: against the workflow's input model, or as the arguments of the task by name.
    Without an app, a worker or an app must have registered the target before. A worker that knows the target computes
    the first instant.

    \b
    Examples:
      pgflow schedule add weekly SendReport --cron "0 9 * * mon" --tz Europe/Berlin
      pgflow schedule add poll PollMailbox --every 5m --input '{"box": "inbox"}' --overlap queue
    """
    if (cron is None) == (every is None):
        raise click.UsageError("Pass either --cron or --every.")
    args = ABSENT if argument is None else read_json_argument(argument, "--input")
    when: Any = cron if every is None else interval(every)
    options: dict[str, Any] = {"overlap": overlap, "catch_up": catch_up, "jitter": jitter, "value": value, "tz": tz}
    new = schedule(when, target, name=name, args=args, **options)
    if app:
        found = load_app(app, dsn, schema)
        try:
            found.schedules.add(new, replace=replace, idempotency_key=idempotency_key)
        finally:
            found.close()
    else:
        _add(new, replace, idempotency_key, dsn, schema)
    click.echo(document({"name": name, "target": target}) if as_json else f"added {name}: {new.timing}")


def _add(new: Schedule, replace: bool, key: str | None, dsn: str, schema: str) -> None:
    text = None if new.args is ABSENT else encode(new.args, what="--input", limit=INPUT_LIMIT)
    with open_connection(dsn, schema, new.target_name) as conn:
        statement = store.add(schema, new.spec("workflow", text), replace=replace)
        request.run_once(conn, schema, key, f"add schedule {new.name}", statement, lambda answer: None)
