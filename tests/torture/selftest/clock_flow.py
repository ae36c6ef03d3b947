"""A workflow that reports the time as its worker's process sees it."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel

from pgflow import Context, Done, Ok, Pgflow, Unique, Workflow, step


class Request(BaseModel):
    """The real time of the request."""

    at: datetime


class Reading(BaseModel):
    """How far ahead of the request each clock of the process is, in seconds."""

    pid: int
    is_datetime: bool
    ahead: dict[str, float]


@step
def read_clocks(ctx: Context[Request]) -> Ok:
    """Read the time in every way."""
    at = ctx.initial.at
    clocks = {
        "time": time.time() - at.timestamp(),
        "time_ns": time.time_ns() / 1e9 - at.timestamp(),
        "now": (datetime.now(UTC) - at).total_seconds(),
        "local": (datetime.now().astimezone() - at).total_seconds(),
        "today": (datetime.today().astimezone() - at).total_seconds(),
        "utcnow": (datetime.utcnow().replace(tzinfo=UTC) - at).total_seconds(),  # noqa: DTZ003 -- part of the test
    }
    reading: dict[str, Any] = Reading(pid=os.getpid(), is_datetime=isinstance(at, datetime), ahead=clocks).model_dump()
    return Ok("done", reading)


class ClockFlow(Workflow[Request], unique=Unique("clock")):
    initial = read_clocks
    transitions = {read_clocks: {"done": Done}}


app = Pgflow(workflows=[ClockFlow])
