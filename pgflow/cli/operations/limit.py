"""`pgflow limit`: list, set and clear limits of queues and partition keys."""

import re
from contextlib import suppress
from datetime import timedelta
from typing import Any

import click

from pgflow.cli.connection import open_connection
from pgflow.cli.operations.queue import limits_record, limits_text
from pgflow.cli.options import result_options
from pgflow.cli.output import document, print_document, print_notice, table
from pgflow.cli.parameters import TEXT, parse_duration
from pgflow.client.limits import LimitOptions, set_limit
from pgflow.client.queue_statements import queue_statement
from pgflow.core.models.queue import MAX_PLACES, Limit, Rate, check_key, check_limit_name
from pgflow.database.statement import run
from pgflow.errors import ConfigError, InvalidValue
from pgflow.store import limit

__all__ = ["command"]

HEADERS = ("QUEUE", "KEY", "LIMITS", "WEIGHT", "USED")
RATE = re.compile(r"([0-9]{1,7})/(.+)")
UNITS = ("s", "m", "h", "d")


class RateType(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions of click only
    """A rate such as 100/m or 1/30s."""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, timedelta]:
        """Return how many in which period. Raises `ConfigError`."""
        if (found := RATE.fullmatch(str(value))) is not None:
            with suppress(ConfigError, InvalidValue):
                per = parse_duration(f"1{found[2]}" if found[2] in UNITS else found[2])
                Rate(int(found[1]), per)
                return int(found[1]), per
        option = param.opts[0] if param else "rate"
        raise ConfigError(
            f"{option} must be a number per period, such as 100/m or 1/30s, got {value!r}",
            hint=f"From 1 start to {MAX_PLACES:,} starts per second.",
        )


@click.group("limit")
def command() -> None:
    """List, set and clear limits of queues and partition keys.

    Limits hold over all workers together, and a change holds from the next claim on.
    """


@command.command("list")
@result_options
def list_(dsn: str, schema: str, as_json: bool) -> None:
    """List all limits, with the places that are taken now."""
    with open_connection(dsn, schema, role="read") as conn:
        found = run(conn, limit.list(schema))
    if as_json:
        print_document({"limits": [_record(each) for each in found]})
    elif found:
        click.echo(table(HEADERS, map(_row, found)))
    else:
        print_notice("no limits are set")


@command.command("set")
@click.argument("queue", type=TEXT)
@click.option("--concurrency", type=int, metavar="N", help="How many jobs run at once; with --key, of this key.")
@click.option("--rate", type=RateType(), metavar="N/PERIOD", help="How many may start in a period: 100/m, 5/s, 1/30s.")
@click.option("--burst", type=int, metavar="N", help="How many may start at once after a pause.", show_default="1")
@click.option("--key-concurrency", type=int, metavar="N", help="How many jobs of each partition key run at once.")
@click.option("--key-rate", type=RateType(), metavar="N/PERIOD", help="The same as --rate, for each partition key.")
@click.option("--key-burst", type=int, metavar="N", help="The same as --burst, for --key-rate.", show_default="1")
@click.option("--key", type=TEXT, help="Set --concurrency and --weight of this partition key alone.")
@click.option("--weight", type=int, metavar="N", help="How many jobs of --key are taken per turn of the keys.")
@click.option("--new", "is_new", is_flag=True, show_default=False, help="Allow a name no queue has, for app.limit.")
@result_options
def set_(
    queue: str,
    concurrency: int | None,
    rate: tuple[int, timedelta] | None,
    burst: int | None,
    key_concurrency: int | None,
    key_rate: tuple[int, timedelta] | None,
    key_burst: int | None,
    key: str | None,
    weight: int | None,
    is_new: bool,
    dsn: str,
    schema: str,
    as_json: bool,
) -> None:
    """Set limits of QUEUE. Those that are not given stay as they are.

    \b
    Examples:
      pgflow limit set mail --concurrency 5 --rate 100/m --burst 20
      pgflow limit set mail --key-concurrency 1
      pgflow limit set mail --key tenant-7 --concurrency 3 --weight 2
      pgflow limit set stripe --concurrency 10 --new
    """
    options: LimitOptions = {
        "concurrency": concurrency,
        "rate": _rate("--burst", rate, burst),
        "key_concurrency": key_concurrency,
        "key_rate": _rate("--key-burst", key_rate, key_burst),
        "key": key,
        "weight": weight,
        "is_new": is_new,
    }
    statement = queue_statement(schema, set_limit(queue, options))
    with open_connection(dsn, schema) as conn:
        run(conn, statement)
        found = run(conn, limit.list(schema, queue))
    if as_json:
        print_document({"limits": [_record(each) for each in found]})
    else:
        click.echo(table(HEADERS, map(_row, found)))


@command.command("clear")
@click.argument("queue", type=TEXT)
@click.option("--key", type=TEXT, help="Only the exceptions of this partition key.")
@result_options
def clear(queue: str, key: str | None, dsn: str, schema: str, as_json: bool) -> None:
    """Remove the limits of QUEUE that were set at run time, those of its keys included, or of one key.

    Limits that the code declares then hold again.
    """
    with open_connection(dsn, schema) as conn:
        had_limits = run(conn, limit.clear(schema, check_limit_name(queue), check_key(key)))
    what = f"queue {queue}" if key is None else f"key {key} of queue {queue}"
    text = f"{what} {'has no limits now' if had_limits else 'had no limits'}"
    click.echo(document({"queue": queue, "key": key, "had_limits": had_limits}) if as_json else text)


def _rate(option: str, rate: tuple[int, timedelta] | None, burst: int | None) -> Rate | None:
    if rate is None:
        if burst is not None:
            raise click.UsageError(f"{option} belongs to a rate: pass {option.replace('burst', 'rate')}, too.")
        return None
    return Rate(*rate, burst=1 if burst is None else burst)


def _row(each: Limit) -> tuple[object, ...]:
    return each.queue, each.key, limits_text(each.limits, each.declared), each.weight, each.used


def _record(each: Limit) -> dict[str, Any]:
    limits = limits_record(each.limits)
    return {
        "queue": each.queue,
        "key": each.key,
        "limits": limits,
        "declared": each.declared,
        "weight": each.weight,
        "used": each.used,
    }
