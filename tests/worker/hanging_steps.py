"""Steps with a short max_runtime that hang in their first attempt."""

import asyncio
import time
from datetime import timedelta
from typing import Any

from pgflow import Context, Done, Ok, Pgflow, Retry, Unique, Workflow, step

MOMENT = timedelta(milliseconds=300)
SOON = Retry(max_attempts=2, base=timedelta(milliseconds=1))
ENTER = "insert into ledger (value, attempt) values (%s, %s)"


@step(transactional=True, max_runtime=MOMENT, retry=SOON)
async def book_async(ctx: Context[Any]) -> Ok:
    """Write, and hang."""
    await ctx.conn.execute(ENTER, [ctx.value, ctx.attempt])
    await asyncio.sleep(3600 if ctx.attempt == 1 else 0)
    return Ok("done")


@step(transactional=True, max_runtime=MOMENT, retry=SOON)
def book(ctx: Context[Any]) -> Ok:
    """Write, and hang on the connection."""
    ctx.conn.execute(ENTER, [ctx.value, ctx.attempt])
    ctx.conn.execute("select pg_sleep(%s)", [3600 if ctx.attempt == 1 else 0])
    return Ok("done")


@step(max_runtime=MOMENT, retry=SOON)
def hang(ctx: Context[Any]) -> Ok:
    """Hang in a thread."""
    time.sleep(3600 if ctx.attempt == 1 else 0)
    return Ok("done")


class BookedAsync(Workflow[Any], unique=Unique("booked")):
    initial = book_async
    transitions = {book_async: {"done": Done}}


class Booked(Workflow[Any], unique=Unique("booked")):
    initial = book
    transitions = {book: {"done": Done}}


class Hung(Workflow[Any], unique=Unique("hung")):
    initial = hang
    transitions = {hang: {"done": Done}}


WORKFLOWS = (BookedAsync, Booked, Hung)
app = Pgflow(workflows=WORKFLOWS)
