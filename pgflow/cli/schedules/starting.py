"""Start runs of a schedule for a command: through the app if there is one, else with what the database has."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pgflow.cli.connection import open_connection
from pgflow.cli.schedules.stored import read_schedule
from pgflow.client.schedule_request import backfill_instants
from pgflow.core.definition.schedule_runs import plain_starts
from pgflow.core.models.schedule import ScheduledRun
from pgflow.store import request, schedule

__all__ = ["run_record", "start_runs"]


def start_runs(
    dsn: str, schema: str, name: str, *, span: tuple[datetime, datetime] | None, dry_run: bool, key: str | None
) -> Sequence[ScheduledRun]:
    """Start the run of now, or those of a span of time, in the current version of the workflow.

    Raises `DecryptionUnavailable` for an encrypted input: it takes the app to encrypt it for the runs.
    """
    with open_connection(dsn, schema) as conn:
        stored = read_schedule(conn, schema, name)
        moments = [stored.now] if span is None else backfill_instants(stored.spec, *span)
        if dry_run or not moments:
            return [ScheduledRun(each, None, created=False) for each in moments]
        statement = schedule.start(schema, stored.spec, plain_starts(stored.spec, moments), notify=True)
        call = f"run schedule {name}"
        if span is not None:
            call = f"backfill schedule {name} {span[0].isoformat()} {span[1].isoformat()}"
        return request.run_once(conn, schema, key, call, statement, schedule.decode_runs)


def run_record(each: ScheduledRun) -> dict[str, Any]:
    """Return a run as an object of a JSON document."""
    run = None if each.run is None else str(each.run)
    return {"scheduled_for": each.instant, "run": run, "created": each.created}
