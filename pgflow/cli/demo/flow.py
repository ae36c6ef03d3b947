"""The demo's workflow, a task and a schedule.

The workflow has a branch, a fan-out with a join, a flaky step, a durable timer, a signal, and a step that enqueues the
task in its own transaction.
"""

import asyncio
from datetime import timedelta

from pydantic import BaseModel

from pgflow import (
    Context,
    Done,
    Ok,
    Pgflow,
    Retry,
    TaskContext,
    Unique,
    Wait,
    WaitForEvent,
    Workflow,
    every,
    schedule,
    step,
    task,
)


class Order(BaseModel):
    """An order."""

    user_id: int
    item_count: int
    amount: int


@step(events=("valid", "invalid"))
def validate_order(ctx: Context[Order]) -> Ok:
    """Reject an empty order."""
    return Ok("valid" if ctx.initial.item_count else "invalid")


@step(events=("paid",), retry=Retry(max_attempts=5, base=timedelta(milliseconds=200)))
async def charge(ctx: Context[Order]) -> Ok:
    """Charge the customer, through a service that fails now and then."""
    await asyncio.sleep(0.02)
    if ctx.attempt == 1 and ctx.initial.user_id % 5 == 0:
        raise ConnectionError("the payment service did not answer")
    return Ok("paid", {"receipt": f"r-{ctx.value}"}, metadata={"amount": ctx.initial.amount})


@step(events=("picked",))
async def pick(ctx: Context[Order]) -> Ok:
    """Fetch the items."""
    await asyncio.sleep(0.15)
    return Ok("picked", {"boxes": 1 + ctx.initial.item_count // 4})


@step(events=("sent",))
async def send_invoice(ctx: Context[Order]) -> Ok:
    """Mail the invoice while the items are picked."""
    await asyncio.sleep(0.05)
    return Ok("sent")


@step(events=("packed",))
def pack(ctx: Context[Order]) -> Ok:
    """Pack the items, once both branches are complete."""
    return Ok("packed", {"boxes": ctx.output(pick)["boxes"], "receipt": ctx.output(charge)["receipt"]})


@task(retry=Retry(max_attempts=5, base=timedelta(milliseconds=200)))
async def send_receipt(ctx: TaskContext, order: str, *, copies: int = 1) -> str:
    """Mail a receipt, through a service that fails now and then."""
    await asyncio.sleep(0.02)
    if ctx.attempt == 1 and ctx.id % 7 == 0:
        raise ConnectionError("the mail service did not answer")
    return f"{copies} x receipt of {order}"


@task
def count_stock(ctx: TaskContext) -> str:
    """Count the stock: started by a schedule, once per second."""
    return f"counted for {ctx.metadata['scheduled_for']}"


@step(events=("shipped",), transactional=True)
def ship(ctx: Context[Order]) -> Ok:
    """Hand the parcel to the courier that the signal names.

    The receipt is enqueued in the transaction that records the shipment: there is one of each, or none.
    """
    send_receipt.options(conn=ctx.conn).enqueue(ctx.value)
    return Ok("shipped", {"courier": ctx.steps["courier"].get("name", "no courier: by post")})


@step(events=("rejected",))
def reject(ctx: Context[Order]) -> Ok:
    """Notify the customer that there is nothing to send."""
    return Ok("rejected")


cool_off = Wait(timedelta(seconds=1)).named("cool_off")
courier = WaitForEvent(event="courier_arrived", timeout=timedelta(seconds=30)).named("courier")


class OrderFlow(Workflow[Order], unique=Unique("orderid"), tags=["demo"]):
    """From an order to its shipment."""

    initial = validate_order
    transitions = {
        validate_order: {"valid": charge, "invalid": reject},
        charge: {"paid": [pick, send_invoice]},
        pick: {"picked": pack},
        send_invoice: {"sent": pack},
        pack: {"packed": cool_off},
        cool_off: {"timeout": courier},
        courier: {"received": ship, "timeout": ship},
        ship: {"shipped": Done},
        reject: {"rejected": Done},
    }


stock = schedule(every(timedelta(seconds=1)), count_stock, name="stock")
app = Pgflow(workflows=[OrderFlow], tasks=[send_receipt, count_stock], schedules=[stock])
