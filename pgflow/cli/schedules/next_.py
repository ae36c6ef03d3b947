"""`pgflow schedule next`: print the next instants of a schedule."""

from datetime import UTC, datetime
from itertools import islice

import click

from pgflow.cli.connection import open_connection
from pgflow.cli.options import result_options
from pgflow.cli.output import print_document
from pgflow.cli.parameters import TEXT
from pgflow.cli.schedules.stored import read_schedule
from pgflow.core.definition.timing import Cron, Timing, instants, zone_of

__all__ = ["command"]

END = datetime.max.replace(tzinfo=UTC)


@click.command("next")
@click.argument("name", type=TEXT)
@click.option("-n", "--count", type=click.IntRange(1, 1000), default=5, help="Number of instants.")
@result_options
def command(name: str, count: int, dsn: str, schema: str, as_json: bool) -> None:
    """Print the next instants of schedule NAME, as if it were not paused: in UTC, and in its own time zone.

    \b
    Example:
      pgflow schedule next weekly -n 10
    """
    with open_connection(dsn, schema, role="read") as conn:
        stored = read_schedule(conn, schema, name)
    timing = stored.spec.timing
    found = list(islice(instants(timing, max(stored.now, stored.handled), END), count))
    if as_json:
        print_document({"name": name, "next": found})
    else:
        for instant in found:
            click.echo(_line(instant, timing))


def _line(instant: datetime, timing: Timing) -> str:
    utc = instant.isoformat(sep=" ").replace("+00:00", "Z")
    if not isinstance(timing, Cron) or timing.tz == "UTC":
        return utc
    local = instant.astimezone(zone_of(timing.tz))
    return f"{utc}  {local.isoformat(sep=' ')} {timing.tz}"
