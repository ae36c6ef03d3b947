"""The demo's workflow: a branch, a fan-out that joins, a flaky step, a durable timer and a signal."""

import asyncio
from datetime import timedelta

from pydantic import BaseModel

from pgflow import Context, Done, Ok, Pgflow, Retry, Unique, Wait, WaitForEvent, Workflow, step


class Order(BaseModel):
    """What a customer ordered."""

    user_id: int
    item_count: int
    amount: int


@step(events=("valid", "invalid"))
def validate_order(ctx: Context[Order]) -> Ok:
    """Refuse an empty order."""
    return Ok("valid" if ctx.initial.item_count else "invalid")


@step(events=("paid",), retry=Retry(max_attempts=5, base=timedelta(milliseconds=200)))
async def charge(ctx: Context[Order]) -> Ok:
    """Take the money, from a service that is down now and then."""
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
    """Mail the invoice, while the items are picked."""
    await asyncio.sleep(0.05)
    return Ok("sent")


@step(events=("packed",))
def pack(ctx: Context[Order]) -> Ok:
    """Pack what was picked: once, when both branches have arrived."""
    return Ok("packed", {"boxes": ctx.output(pick)["boxes"], "receipt": ctx.output(charge)["receipt"]})


@step(events=("shipped",))
def ship(ctx: Context[Order]) -> Ok:
    """Hand it to the courier whom the signal named."""
    return Ok("shipped", {"courier": ctx.steps["courier"].get("name", "nobody came: by post")})


@step(events=("rejected",))
def reject(ctx: Context[Order]) -> Ok:
    """Tell the customer that there is nothing to send."""
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


app = Pgflow(workflows=[OrderFlow])
