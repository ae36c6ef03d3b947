"""A small shop whose steps act on a gateway in memory, for the tests of `pgflow.testing`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from pydantic import BaseModel

from pgflow import (
    Async,
    Context,
    Done,
    Error,
    Ok,
    Retry,
    Snooze,
    TaskContext,
    Unique,
    Wait,
    WaitForEvent,
    Workflow,
    step,
    task,
)

HOUR = timedelta(hours=1)
CHARGES: list[str] = []
PARCELS: list[str] = []
MAILS: list[int] = []


class Order(BaseModel):
    """An order; `card` selects what the gateway does."""

    item_count: int = 1
    card: str = "good"


class Declined(Exception):
    """The gateway refuses a card."""


@step(events=("valid", "invalid"))
def validate(ctx: Context[Order]) -> Ok:
    return Ok("valid" if ctx.initial.item_count else "invalid")


@step(events=("paid", "declined"), queue="payments", retry=Retry(max_attempts=3, base=HOUR, max_backoff=HOUR, jitter=0))
async def charge(ctx: Context[Order]) -> Ok | Error | Snooze | Async:
    CHARGES.append(ctx.value)
    match ctx.initial.card:
        case "refused":
            raise Declined(f"{ctx.value} is refused")
        case "expired":
            return Error("the card has expired", retry=False)
        case "later":
            return Snooze(timedelta(minutes=5)) if CHARGES.count(ctx.value) < 2 else Ok("paid")
    return Ok("paid", {"receipt": f"r-{ctx.value}"})


@step(events=("shipped",))
def ship(ctx: Context[Order]) -> Ok:
    PARCELS.append(ctx.value)
    return Ok("shipped")


class OrderFlow(Workflow[Order], unique=Unique("orderid"), tags=["orders"]):
    """Validate, charge, ship."""

    initial = validate
    transitions = {
        validate: {"valid": charge, "invalid": Done},
        charge: {"paid": ship, "declined": Done},
        ship: {"shipped": Done},
    }


@step
def remind(ctx: Context[dict[str, Any]]) -> Ok:
    PARCELS.append(f"reminder {ctx.value}")
    return Ok("done")


hour = Wait(timedelta(hours=1)).named("hour")
answer = WaitForEvent("answered", timeout=timedelta(days=1)).named("answer")


class Reminder(Workflow[dict[str, Any]], unique=Unique("reminder")):
    """An hour, an answer within a day, a reminder."""

    initial = hour
    transitions = {hour: {"timeout": answer}, answer: {"received": Done, "timeout": remind}, remind: {"done": Done}}


WORKFLOWS = (OrderFlow, Reminder)


@task(queue="mail", retry=Retry(max_attempts=3, base=HOUR, max_backoff=HOUR, jitter=0), tags=["mail"])
async def send_receipt(order_id: int, *, copy: bool = False) -> str:
    MAILS.append(order_id)
    if order_id == 13:
        raise Declined("no receipt for 13")
    return f"receipt {order_id}"


@task
def count_stock(ctx: TaskContext, shelf: str) -> int:
    return len(shelf)


@task(cpu=True)
def add_up(numbers: list[int]) -> int:
    return sum(numbers)


TASKS = (send_receipt, count_stock)
