"""Mistakes of users: mypy --strict refuses each marked line, so an unused mark means that a mistake would pass."""

from datetime import timedelta

from pydantic import BaseModel

from pgflow import (
    Context,
    Done,
    Error,
    Ok,
    Pgflow,
    Retry,
    Snooze,
    Step,
    Unique,
    UniqueTask,
    Wait,
    WaitForEvent,
    Workflow,
    route,
    step,
    task,
)
from pgflow.contrib.encryption import AesGcm
from tests.typing.accepted import Order, OrderFlow, Ship, add, charge, email, send_receipt, triage, with_context


class Other(BaseModel):
    name: str


def results() -> None:
    Ok(3)  # type: ignore[arg-type]
    Ok()  # type: ignore[call-arg]
    Ok("paid", metadata=["amount"])  # type: ignore[arg-type]
    Error("no", retry="never")  # type: ignore[arg-type]
    Snooze(5)  # type: ignore[arg-type]
    Ok("paid").event = "declined"  # type: ignore[misc]


def values() -> None:
    Retry(backoff="quadratic")  # type: ignore[arg-type]
    Retry(max_backoff=60)  # type: ignore[arg-type]
    Retry(never_on=(3,))  # type: ignore[arg-type]
    Retry(attempts=3)  # type: ignore[call-arg]
    Unique("orderid", scope="planet")  # type: ignore[arg-type]
    Unique("orderid", foo=1)  # type: ignore[call-arg]


def configuration() -> None:
    Wait("5m")  # type: ignore[arg-type]
    Wait(weeks=1)  # type: ignore[call-arg]
    WaitForEvent(event=3)  # type: ignore[arg-type]
    WaitForEvent(timeout=60)  # type: ignore[arg-type]
    Ship(speed=3)  # type: ignore[call-arg]
    Ship().carrier = "bike"  # type: ignore[misc]
    charge.named(3)  # type: ignore[arg-type]


def context(ctx: Context[Order]) -> None:
    print(ctx.initial.name)  # type: ignore[attr-defined]
    print(ctx.output(charge).amount)  # type: ignore[attr-defined]
    ctx.output("charge")  # type: ignore[call-overload]
    ctx.steps["charge"] = {}  # type: ignore[index]
    ctx.attempt = 3  # type: ignore[misc]


@step  # type: ignore[type-var]
def returns_a_number(ctx: Context[Order]) -> int:
    return 3


@step(event="paid")  # type: ignore[call-overload, untyped-decorator]
def misspells_an_option(ctx: Context[Order]) -> Ok:
    return Ok("paid")


class ReturnsNothing(Step):
    events = ("done",)

    def execute(self, ctx: Context[Order]) -> None:  # type: ignore[override]
        pass


class TakesNothing(Step):
    events = ("done",)

    def execute(self) -> Ok:  # type: ignore[override]
        return Ok("done")


class NamesEventsByNumbers(Step):
    events = (1, 2)  # type: ignore[assignment]


class HasATextForAPolicy(Step):
    retry = "often"  # type: ignore[assignment]


def calls_the_function_with_another_context(ctx: Context[Other]) -> None:
    email(ctx)  # type: ignore[arg-type]


def definitions() -> None:
    class LeadsToAName(Workflow[Order], unique=Unique("orderid")):
        initial = email
        transitions = {email: {"done": "triage"}}  # type: ignore[dict-item]

    class LeadsToAFunction(Workflow[Order], unique=Unique("orderid")):
        initial = email
        transitions = {email: {"done": definitions}}  # type: ignore[dict-item]

    class BeginsWithAName(Workflow[Order], unique=Unique("orderid")):
        initial = "email"  # type: ignore[assignment]

    class MisspellsAnOption(Workflow[Order], unique=Unique("orderid"), verison=2):  # type: ignore[arg-type]
        initial = email
        transitions = {email: {"done": Done}}

    class HasATextForAKey(Workflow[Order], unique="orderid"):  # type: ignore[arg-type]
        initial = email
        transitions = {email: {"done": Done}}

    route(email, triage, "email")  # type: ignore[arg-type]


def calls() -> None:
    OrderFlow.start("abc123", Other(name="x"))  # type: ignore[arg-type]
    OrderFlow.start(123)  # type: ignore[arg-type]
    OrderFlow.start("abc123", dealy=timedelta(hours=1))  # type: ignore[call-arg]
    OrderFlow.start("abc123", delay=60)  # type: ignore[arg-type]
    OrderFlow.start_many([("a", Other(name="x"))])  # type: ignore[list-item]
    OrderFlow.get("abc123").run = 3  # type: ignore[misc]
    OrderFlow.list(statuses="failed")  # type: ignore[call-arg]
    OrderFlow.list(order="random")  # type: ignore[arg-type]
    OrderFlow.schedule_resume("abc123", "charge", 60)  # type: ignore[arg-type]
    OrderFlow.bound().worker()  # type: ignore[attr-defined]
    OrderFlow.resume("abc123", "paid", stpe=charge)  # type: ignore[call-arg]
    OrderFlow.cancel("abc123", reason=3)  # type: ignore[arg-type]
    print(OrderFlow.get("abc123").output(charge).amount)  # type: ignore[attr-defined]


def codecs() -> None:
    Pgflow(codec="rot13")  # type: ignore[arg-type]
    AesGcm({"k1": "not bytes"}, current="k1")  # type: ignore[dict-item]
    AesGcm({"k1": b""})  # type: ignore[call-arg]


async def async_calls() -> None:
    await OrderFlow.start("abc123")  # type: ignore[misc]
    print(OrderFlow.astart("abc123").run)  # type: ignore[attr-defined]


async def calls_of_tasks() -> None:
    add.enqueue("one")  # type: ignore[arg-type]
    add.enqueue()  # type: ignore[call-arg]
    add.enqueue(1, 2)  # type: ignore[call-arg]
    add.enqueue(1, three=3)  # type: ignore[call-arg]
    add("one")  # type: ignore[arg-type]
    add.call(1, two="x")  # type: ignore[arg-type]
    await send_receipt.aenqueue(7, copy="yes")  # type: ignore[arg-type]
    with_context.enqueue(7)  # type: ignore[arg-type]
    add.options(dely=3)  # type: ignore[call-arg]
    add.options(delay=3)  # type: ignore[arg-type]
    add.options(queue="slow").enqueue("one")  # type: ignore[arg-type]
    add.enqueue_many([send_receipt.call(7)])  # type: ignore[list-item]
    number: str = add.enqueue(1).result()  # type: ignore[assignment]
    add.list(statsu="failed")  # type: ignore[call-arg]
    print(number)
    OrderFlow.start("v", on_conflict="skip")  # type: ignore[arg-type]


def definitions_of_tasks() -> None:
    task(queue=3)(len)  # type: ignore[call-overload]
    task(quue="slow")  # type: ignore[call-overload]
    UniqueTask(on_conflict="ignore")  # type: ignore[arg-type]
    UniqueTask(["a"], replace=["argz"])  # type: ignore[list-item]
