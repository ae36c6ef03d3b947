"""The steps of the workload. They record what they do.

A step records that it begins, with the outputs that it was given, and that it ends. Its output is a nonce, so a checker
sees which execution of a step was recorded, and what each execution was given.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import secrets
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

from psycopg.rows import dict_row
from pydantic import BaseModel

from pgflow import (
    Async,
    Context,
    Error,
    Ok,
    Retry,
    Snooze,
    step,
)
from tests.torture.trial.journal import Journal

__all__ = [
    "ENTER",
    "FOLDER",
    "Script",
    "abook",
    "alitter",
    "approval",
    "block_loop",
    "book",
    "decide",
    "doze",
    "fetch",
    "give_way",
    "grind",
    "halt",
    "hold_gil",
    "kill_worker",
    "litter",
    "pass_by",
    "refuse",
    "stumble",
]

FOLDER = "PGFLOW_TORTURE_FOLDER"  # where steps record, and look up whether they are fixed
QUICKLY = Retry(max_attempts=8, base=timedelta(milliseconds=50), max_backoff=timedelta(milliseconds=500))


class Script(BaseModel):
    """How an instance behaves.

    Each step takes `pause` seconds, and a step that blocks its worker `hold` seconds. The first `errors` attempts of a
    failing step fail. `way` decides branches and routes.
    """

    pause: float = 0.0
    hold: float = 0.0
    errors: int = 0
    way: str = "yes"


@cache
def folder() -> Path:
    return Path(os.environ[FOLDER])


@cache
def journal() -> Journal:
    return Journal(folder() / "bodies.jsonl")


@contextmanager
def recorded(ctx: Context[Script]) -> Iterator[dict[str, Any]]:
    """Record an execution of a step; yields its output."""
    nonce = secrets.token_hex(8)
    given = {key: output.get("nonce") for key, output in ctx.steps.items() if isinstance(output, dict)}
    about = {"run": ctx.run, "step": ctx.step, "attempt": ctx.attempt, "nonce": nonce, "pid": os.getpid()}
    journal().write(e="begin", t=time.monotonic_ns(), given=given, checkpoint=ctx.checkpointed, **about)
    try:
        yield {"nonce": nonce}
    except BaseException as error:
        journal().write(e="broken", t=time.monotonic_ns(), why=type(error).__name__, **about)
        raise
    journal().write(e="end", t=time.monotonic_ns(), **about)


def is_first_time(ctx: Context[Script]) -> bool:
    """Whether this step of this run calls it for the first time."""
    mark = folder() / "visited" / f"{ctx.run}.{ctx.step}"
    if mark.exists():
        return False
    mark.touch()
    return True


@step(retry=QUICKLY)
async def fetch(ctx: Context[Script]) -> Ok:
    """Async, on the loop."""
    with recorded(ctx) as output:
        await asyncio.sleep(ctx.initial.pause)
    return Ok("done", output, metadata={ctx.step: 1})


@step(retry=QUICKLY)
def grind(ctx: Context[Script]) -> Ok:
    """Sync, in a thread."""
    with recorded(ctx) as output:
        time.sleep(ctx.initial.pause)
    return Ok("done", output)


@step(retry=QUICKLY)
async def stumble(ctx: Context[Script]) -> Ok:
    """Fails on its first `errors` attempts; each attempt stores its nonce as the checkpoint."""
    with recorded(ctx) as output:
        ctx.progress(0.5, output["nonce"])
        await asyncio.sleep(ctx.initial.pause)
        await ctx.acheckpoint(output["nonce"])
        if ctx.attempt <= ctx.initial.errors:
            raise ConnectionError("the service does not answer")
    return Ok("done", output)


@step(retry=QUICKLY)
def doze(ctx: Context[Script]) -> Ok | Snooze:
    """Snoozes once."""
    with recorded(ctx) as output:
        if is_first_time(ctx):
            return Snooze(timedelta(milliseconds=200))
    return Ok("done", output)


@step(retry=QUICKLY)
def refuse(ctx: Context[Script]) -> Ok | Error:
    """Fails permanently until it is fixed."""
    with recorded(ctx) as output:
        if not (folder() / "fixed" / ctx.value).exists():
            return Error("not fixed yet", retry=False)
    return Ok("done", output)


def exhausted(policy: str) -> Retry:
    return Retry(max_attempts=2, base=timedelta(milliseconds=50), on_exhausted=policy)


@step(events=("done", "failed"), retry=exhausted("transition"))
async def give_way(ctx: Context[Script]) -> Ok:
    """Fails in each attempt if the way is "no", and goes on at its event "failed"."""
    with recorded(ctx) as output:
        if ctx.initial.way == "no":
            raise ConnectionError("the service does not answer")
    return Ok("done", output)


@step(retry=exhausted("skip"))
def pass_by(ctx: Context[Script]) -> Ok | Error:
    """Fails in each attempt if the way is "no", and is skipped."""
    with recorded(ctx) as output:
        if ctx.initial.way == "no":
            return Error("the service does not answer")
    return Ok("done", output)


@step(retry=exhausted("pause"))
def halt(ctx: Context[Script]) -> Ok:
    """Fails until it is fixed if the way is "no", and waits for an operator."""
    with recorded(ctx) as output:
        if ctx.initial.way == "no" and not (folder() / "fixed" / ctx.value).exists():
            raise ConnectionError("the service does not answer")
    return Ok("done", output)


@step(events=("yes", "no"), retry=QUICKLY)
async def decide(ctx: Context[Script]) -> Ok:
    """Emits the event that the script names."""
    with recorded(ctx) as output:
        await asyncio.sleep(ctx.initial.pause)
    return Ok("yes" if ctx.initial.way == "yes" else "no", output)


@step(retry=QUICKLY, transactional=True)
def book(ctx: Context[Script]) -> Ok:
    """Writes a row in the transaction that records its result."""
    with recorded(ctx) as output:
        record_session(ctx, ctx.conn.execute(LEFT).fetchall())
        enter(ctx, output["nonce"])
        time.sleep(ctx.initial.pause)
    return Ok("done", output)


@step(retry=QUICKLY, transactional=True)
async def abook(ctx: Context[Script]) -> Ok:
    """The same, async."""
    with recorded(ctx) as output:
        record_session(ctx, await (await ctx.conn.execute(LEFT)).fetchall())
        await ctx.conn.execute(ENTER, [ctx.run, ctx.step, output["nonce"]])
        await asyncio.sleep(ctx.initial.pause)
    return Ok("done", output)


@step(retry=QUICKLY, transactional=True)
def litter(ctx: Context[Script]) -> Ok:
    """Leaves every kind of state in its session, then fails on its first `errors` attempts."""
    with recorded(ctx) as output:
        record_session(ctx, ctx.conn.execute(LEFT).fetchall())
        ctx.conn.execute(LITTER)
        ctx.conn.row_factory = dict_row
        if ctx.attempt <= ctx.initial.errors:
            raise ConnectionError("the service does not answer")
    return Ok("done", output)


@step(retry=QUICKLY, transactional=True)
async def alitter(ctx: Context[Script]) -> Ok:
    """The same, async."""
    with recorded(ctx) as output:
        record_session(ctx, await (await ctx.conn.execute(LEFT)).fetchall())
        await ctx.conn.execute(LITTER)
        ctx.conn.row_factory = dict_row
        if ctx.attempt <= ctx.initial.errors:
            raise ConnectionError("the service does not answer")
    return Ok("done", output)


# State that an earlier step may have left in a session. `row_security` is set for each step, to a session's default.
LEFT = """
    select 'setting', name, setting from pg_catalog.pg_settings
        where source = 'session' and name not like 'transaction_%' and (name, setting) <> ('row_security', 'on')
    union all select 'custom', 'torture.own', v from pg_catalog.current_setting('torture.own', true) v where v <> ''
    union all select 'role', current_user, session_user where current_user <> session_user
    union all select 'prepared', name, statement from pg_catalog.pg_prepared_statements where from_sql
    union all select 'listening', channel, null from pg_catalog.pg_listening_channels() channel
    union all select 'locked', objid::text, mode from pg_catalog.pg_locks
        where locktype = 'advisory' and pid = pg_catalog.pg_backend_pid()
    union all select 'cursor', name, statement from pg_catalog.pg_cursors where name = 'torture'
    union all select 'temporary', relname, null from pg_catalog.pg_class
        where relnamespace = pg_catalog.pg_my_temp_schema() and relkind = 'r'
"""
LITTER = """
    set search_path = nowhere; set torture.own = 'this'; set default_transaction_read_only = on;
    set statement_timeout = '5s'; set application_name = 'torture'; set enable_indexscan = off;
    prepare torture as select 1; listen torture; select pg_advisory_lock_shared(7);
    create temporary table torture (x integer);
    declare torture cursor with hold for select generate_series(1, 10)
"""


def record_session(ctx: Context[Script], left: list[tuple[str, str, str]]) -> None:
    """Record state that an earlier step left in the session."""
    if left:
        journal().write(
            e="session", t=time.monotonic_ns(), run=ctx.run, step=ctx.step, left=[list(each) for each in left]
        )


ENTER = "insert into pgflow.effects (run, step, nonce) values (%s, %s, %s)"


def enter(ctx: Context[Script], nonce: str) -> None:
    ctx.conn.execute(ENTER, [ctx.run, ctx.step, nonce])


@step(events=("approved", "rejected"), retry=QUICKLY)
def approval(ctx: Context[Script]) -> Async:
    """Waits for a signal."""
    with recorded(ctx):
        return Async()


@step(retry=QUICKLY)
def hold_gil(ctx: Context[Script]) -> Ok:
    """Native code that holds the GIL."""
    with recorded(ctx) as output:
        ctypes.PyDLL(None).usleep(int(1e6 * ctx.initial.hold))
    return Ok("done", output)


@step(retry=QUICKLY)
async def block_loop(ctx: Context[Script]) -> Ok:
    """Blocks the event loop."""
    with recorded(ctx) as output:
        time.sleep(ctx.initial.hold)  # noqa: ASYNC251 -- a mistake that a worker must survive
    return Ok("done", output)


@step(retry=Retry(max_attempts=1))
def kill_worker(ctx: Context[Script]) -> Ok:
    """Kills its worker."""
    with recorded(ctx):
        match ctx.initial.way:
            case "exit":
                os._exit(1)
            case "segfault":
                ctypes.string_at(0)
            case _:
                os.kill(os.getpid(), signal.SIGKILL)
    return Ok("done")
