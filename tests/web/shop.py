"""The app of the dashboard's tests: one order reaches every state that a page shows."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from pydantic import BaseModel, Field

from pgflow import Async, Context, Done, Ok, Pgflow, Retry, Unique, Wait, WaitForEvent, Workflow, step, task

__all__ = ["Arrival", "Order", "OrderFlow", "TinyFlow", "ring", "shop"]

HOUR = timedelta(hours=1)


class Order(BaseModel):
    item_count: int
    country: str = "DE"
    password: str = "hunter2"  # noqa: S105 -- what the dashboard hides


class Arrival(BaseModel):
    """What the courier's signal carries."""

    courier: str = Field(min_length=2)
    parcels: int = Field(ge=1, le=40)
    damaged: bool = False
    service: Literal["standard", "express"] = "standard"


@step(events=("valid", "invalid"))
def validate(ctx: Context[Order]) -> Ok:
    return Ok("valid" if ctx.initial.item_count else "invalid", {"lines": ctx.initial.item_count, "token": "t0ken"})


@step(events=("updated",), retry=Retry(max_attempts=9, base=HOUR, max_backoff=HOUR))
def update_crm(ctx: Context[Order]) -> Ok:
    raise ConnectionError("the CRM does not answer")


@step(events=("informed",), retry=Retry(max_attempts=1, on_exhausted="pause"))
def inform_partner(ctx: Context[Order]) -> Ok:
    raise TimeoutError("no answer in 3 s")


@step(events=("arrived", "lost"), output=Arrival)
def await_courier(ctx: Context[Order]) -> Async:
    return Async()


@step(events=("closed",))
def close_order(ctx: Context[Order]) -> Ok:
    return Ok("closed")


class OrderFlow(Workflow[Order], unique=Unique("order"), version=4, tags=["orders"]):
    """Waits for a signal, a timer, an operator and the next attempt at once."""

    initial = validate
    transitions = {
        validate: {
            "valid": [update_crm, inform_partner, await_courier, Wait(HOUR).named("cool_off")],
            "invalid": Done,
        },
        update_crm: {"updated": close_order},
        inform_partner: {"informed": close_order},
        await_courier: {"arrived": close_order, "lost": close_order},
        Wait(HOUR).named("cool_off"): {"timeout": close_order},
        close_order: {"closed": Done},
    }


@step(events=("ok",), retry=Retry(max_attempts=1))
def look_up(ctx: Context[Order]) -> Ok:
    if ctx.initial.country == "XX":
        raise ValueError("unknown country 'XX'")
    return Ok("ok")


class TinyFlow(Workflow[Order], unique=Unique("tiny")):
    """Completes, fails or waits, as its input has it."""

    initial = look_up
    transitions = {
        look_up: {"ok": WaitForEvent("go").named("gate")},
        WaitForEvent("go").named("gate"): {"received": Done},
    }


@task(tags=["bell"])
def ring(order: str) -> str:
    """Ring the bell."""
    return order


def shop(dsn: str) -> Pgflow:
    """Return the app on a database."""
    return Pgflow(dsn, workflows=[OrderFlow, TinyFlow], tasks=[ring])
