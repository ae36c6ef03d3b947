"""A workflow that tells the time as its worker's process sees it."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel

from pgflow import Context, Done, Ok, Pgflow, Unique, Workflow, step


class Asked(BaseModel):
    """When somebody asked, by the real time."""

    at: datetime


class Told(BaseModel):
    """How far ahead of that the process is, in seconds, by each of its clocks."""

    pid: int
    is_one: bool
    ahead: dict[str, float]


@step
def tell(ctx: Context[Asked]) -> Ok:
    """Tell the time in every way."""
    at = ctx.initial.at
    clocks = {
        "time": time.time() - at.timestamp(),
        "time_ns": time.time_ns() / 1e9 - at.timestamp(),
        "now": (datetime.now(UTC) - at).total_seconds(),
        "local": (datetime.now().astimezone() - at).total_seconds(),
        "today": (datetime.today().astimezone() - at).total_seconds(),
        "utcnow": (datetime.utcnow().replace(tzinfo=UTC) - at).total_seconds(),  # noqa: DTZ003 -- that is asked
    }
    told: dict[str, Any] = Told(pid=os.getpid(), is_one=isinstance(at, datetime), ahead=clocks).model_dump()
    return Ok("done", told)


class Telling(Workflow[Asked], unique=Unique("telling")):
    initial = tell
    transitions = {tell: {"done": Done}}


app = Pgflow(workflows=[Telling])
