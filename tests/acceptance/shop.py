"""The app of the command-line tests: orders that wait for a payment, fail to ship, or are in every state at once."""

import asyncio
from datetime import timedelta
from pathlib import Path

from pydantic import BaseModel

from pgflow import Async, Context, Done, Error, Ok, Pgflow, Retry, Snooze, Step, Unique, Wait, Workflow, step


class Order(BaseModel):
    """`hold` and `broken` are paths: while the file exists, validation snoozes, or shipping fails."""

    item_count: int
    hold: str | None = None
    broken: str | None = None


class ValidateOrder(Step):
    """Refuse an empty order."""

    events = ("valid", "invalid")

    def execute(self, ctx: Context[Order]) -> Ok | Snooze:
        if ctx.initial.hold and Path(ctx.initial.hold).exists():
            return Snooze(timedelta(milliseconds=50))
        return Ok("valid", {"count": ctx.initial.item_count}) if ctx.initial.item_count else Ok("invalid")


@step(events=("payment_confirmed", "declined"))
def charge(ctx: Context[Order]) -> Async:
    """Wait for the payment."""
    return Async()


@step(events=("shipped",), retry=Retry(max_attempts=2, base=timedelta(milliseconds=10)))
def ship(ctx: Context[Order]) -> Ok | Error:
    """Ship the order, unless `broken` exists."""
    if ctx.initial.broken and Path(ctx.initial.broken).exists():
        raise ConnectionError("the carrier does not answer")
    return Ok("shipped", {"paid": ctx.steps["charge"]})


class OrderFlow(Workflow[Order], unique=Unique("orderid"), tags=["orders"]):
    """From order to shipment."""

    initial = ValidateOrder
    transitions = {
        ValidateOrder: {"valid": charge, "invalid": Done},
        charge: {"payment_confirmed": ship, "declined": Done},
        ship: {"shipped": Done},
    }


@step(events=("begun",))
def begin(ctx: Context[Order]) -> Ok:
    """Start all branches."""
    return Ok("begun")


@step(events=("approved",))
def approve(ctx: Context[Order]) -> Async:
    """Wait for a signal."""
    return Async()


@step(events=("called",), retry=Retry(max_attempts=5, base=timedelta(hours=1), max_backoff=timedelta(hours=1)))
def call_back(ctx: Context[Order]) -> Ok:
    """Fail; the next attempt is in an hour."""
    raise ConnectionError("no answer")


@step(events=("sent",))
async def email(ctx: Context[Order]) -> Ok:
    """Run until it is interrupted."""
    await asyncio.Event().wait()
    return Ok("sent")


@step
def finish(ctx: Context[Order]) -> Ok:
    """Join all branches."""
    return Ok("done")


class EverythingFlow(Workflow[Order], unique=Unique("orderid")):
    """Has a step in every state: waiting for a signal, for a timer, for the next attempt, and running."""

    initial = begin
    transitions = {
        begin: {"begun": [approve, call_back, Wait(timedelta(hours=1)).named("cool_off"), email]},
        approve: {"approved": finish},
        call_back: {"called": finish},
        Wait(timedelta(hours=1)).named("cool_off"): {"timeout": finish},
        email: {"sent": finish},
        finish: {"done": Done},
    }


app = Pgflow(workflows=[OrderFlow, EverythingFlow])
