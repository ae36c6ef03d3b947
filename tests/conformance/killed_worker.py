"""The app of worker processes that are killed repeatedly; its steps have enough attempts for all kills."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from pgflow import Context, Done, Ok, Pgflow, Retry, Unique, Wait, Workflow, step

__all__ = ["Errands", "Spread", "app"]

Input = dict[str, Any]
PATIENT = Retry(max_attempts=1000, base=timedelta(milliseconds=10))


@step
async def fetch(ctx: Context[Input]) -> Ok:
    await asyncio.sleep(0.01)
    return Ok("done", {"n": 1})


@step
def sort(ctx: Context[Input]) -> Ok:
    return Ok("done", {"n": ctx.steps["fetch"]["n"] + 1})


@step
async def bring(ctx: Context[Input]) -> Ok:
    await asyncio.sleep(0.01)
    return Ok("done", {"n": ctx.steps["sort"]["n"] + 1})


@step
async def a(ctx: Context[Input]) -> Ok:
    await asyncio.sleep(0.01)
    return Ok("done", {"n": 1})


@step
def b(ctx: Context[Input]) -> Ok:
    return Ok("done", {"n": 2})


@step
async def c(ctx: Context[Input]) -> Ok:
    await asyncio.sleep(0.02)
    return Ok("done", {"n": 3})


nap = Wait(timedelta(milliseconds=50)).named("nap")


@step
def gather(ctx: Context[Input]) -> Ok:
    return Ok("done", {"n": sum(ctx.steps[branch]["n"] for branch in "abc")})


class Errands(Workflow[Input], unique=Unique("errands"), retry=PATIENT):
    """Three steps in a row."""

    initial = fetch
    transitions = {fetch: {"done": sort}, sort: {"done": bring}, bring: {"done": Done}}


class Spread(Workflow[Input], unique=Unique("spread"), retry=PATIENT):
    """Three branches and a timer that join."""

    initial = fetch
    transitions = {
        fetch: {"done": [a, b, c, nap]},
        a: {"done": gather},
        b: {"done": gather},
        c: {"done": gather},
        nap: {"timeout": gather},
        gather: {"done": Done},
    }


app = Pgflow(workflows=(Errands, Spread))
