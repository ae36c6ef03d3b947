"""Workflows with secret values, run by real workers: with a codec if LEAKY_KEY is set."""

from __future__ import annotations

import os
from typing import Any

from pydantic import BaseModel, Field, SecretStr

from pgflow import Async, Context, Done, Ok, Pgflow, Retry, Step, Unique, Workflow, route, step
from pgflow.contrib.encryption import AesGcm

__all__ = ["CANARY", "KEY", "WORKFLOWS", "WRONG", "Leaky", "Typed", "app", "ask"]

CANARY = "canary-4711"
KEY = bytes(range(32))
WRONG = ("no data", "not of its type", "pydantic", "too large", "undeclared", "no such output", "too deep", "no result")
ONCE = Retry(max_attempts=1)


class Person(BaseModel):
    age: int = Field(gt=0)
    pin: SecretStr = SecretStr("1")


class Number(BaseModel):
    number: int


@step(output=Number, retry=ONCE)
def number(ctx: Context[Any]) -> Ok:
    return Ok("done", {"number": CANARY} if ctx.initial["how"] == "not of its type" else {"number": 1})


@step(retry=ONCE, events=("done", "large"))
def work(ctx: Context[Any]) -> Any:
    assert ctx.initial["card"] == CANARY
    match ctx.initial["how"]:
        case "no data":
            return Ok("done", {CANARY: 1, "what": {CANARY, object()}})
        case "pydantic":
            Person.model_validate({"age": CANARY, "pin": CANARY})
        case "too large":
            return Ok("done", CANARY * 200_000)
        case "undeclared":
            return Ok("no_such_event", CANARY)
        case "no such output":
            return Ok("done", ctx.output(ask))
        case "too deep":
            return Ok("done", [[[CANARY]]] if ctx.attempt > 9 else _deep(CANARY))
        case "no result":
            return {"card": CANARY}
    return Ok("done", {"card": CANARY, "more": [CANARY]})


def _deep(value: Any) -> Any:
    for _ in range(70):
        value = [value]
    return value


@step(events=("answered",))
def ask(ctx: Context[Any]) -> Async:
    return Async()


def choose(ctx: Context[Any]) -> Step:
    return ask


class Leaky(Workflow[Any], unique=Unique("leaky")):
    initial = number
    transitions = {
        number: {"done": work},
        work: {"done": route(choose, ask), "large": Done},
        ask: {"answered": Done},
    }


@step
def read(ctx: Context[Number]) -> Ok:
    return Ok("done", ctx.initial)


class Typed(Workflow[Number], unique=Unique("typed")):
    initial = read
    transitions = {read: {"done": Done}}


WORKFLOWS = (Leaky, Typed)
CODEC = AesGcm({"k1": KEY}, current="k1") if os.environ.get("LEAKY_KEY") else None
app = Pgflow(workflows=WORKFLOWS, codec=CODEC)
