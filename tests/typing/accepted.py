"""Code of users: mypy --strict accepts every line of it."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

from pydantic import BaseModel

from pgflow import (
    Async,
    Codec,
    Context,
    Debug,
    Done,
    Error,
    Instance,
    Job,
    JobHandle,
    Ok,
    Pgflow,
    PgflowError,
    Retry,
    Scheduled,
    Snooze,
    Started,
    Step,
    TaskContext,
    TaskInstance,
    Unique,
    UniqueTask,
    Wait,
    WaitForEvent,
    Workflow,
    current_job,
    route,
    step,
    task,
)
from pgflow.contrib.encryption import AesGcm


class Order(BaseModel):
    item_count: int
    user_id: int


class Receipt(BaseModel):
    number: str


class CardExpired(Exception):
    """The card is not valid."""


class ValidateOrder(Step):
    """Refuse an empty order."""

    events = ("valid", "invalid")
    queue = "quick"

    def execute(self, ctx: Context[Order]) -> Ok:
        assert_type(ctx.initial, Order)
        return Ok("valid", {"count": ctx.initial.item_count}) if ctx.initial.item_count else Ok("invalid")


@step(
    events=("paid", "declined"),
    retry=Retry(max_attempts=8, backoff="exponential", max_backoff=timedelta(minutes=1), never_on=(CardExpired,)),
    output=Receipt,
)
async def charge(ctx: Context[Order]) -> Ok | Async | Error:
    if ctx.attempt > 3:
        return Error("declined for good", retry=False)
    return Ok("paid", Receipt(number="r-1"), metadata={"amount": 42})


class Ship(Step):
    """Give the parcel to a carrier."""

    events = ("shipped",)
    retry = Retry(max_attempts=3, backoff="linear")
    transactional = True
    carrier: str = "post"

    async def execute(self, ctx: Context[Order]) -> Ok | Snooze:
        receipt = ctx.output(charge)
        assert_type(receipt, Receipt)
        if not receipt.number:
            return Snooze(timedelta(minutes=5))
        ctx.conn.execute("select 1")
        return Ok("shipped", {"by": self.carrier, "count": ctx.output(ValidateOrder)["count"]})


@step
def email(ctx: Context[Order]) -> Ok:
    return Ok("done", {"to": ctx.initial.user_id})


@step(name="reject")
def reject_order(ctx: Context[Order]) -> Ok:
    return Ok("done", {"why": ctx.steps["validate_order"]})


@step()
def triage(ctx: Context[Order]) -> Ok:
    return Ok("done")


class FastTrack(Step):
    events = ("done",)

    def execute(self, ctx: Context[Order]) -> Ok:
        return Ok("done")


class Standard(FastTrack):
    days: int


def by_priority(ctx: Context[Order]) -> type[Step] | Step:
    return FastTrack if ctx.initial.item_count < 10 else Standard(days=3)


def by_several(ctx: Context[Order]) -> Sequence[Step | type[Step]]:
    return [FastTrack, Standard(days=3)]


cool_off = Wait(timedelta(hours=1)).named("cool_off")
assert_type(cool_off, Wait)
paid = WaitForEvent("payment_confirmed", timeout=timedelta(days=3))


class OrderFlow(
    Workflow[Order],
    unique=Unique("orderid", scope="version"),
    version=1,
    tags=["orders"],
    metadata={"team": "orders"},
    retry=Retry(max_attempts=2),
    queue="orders",
    priority=-1,
    name="Orders",
):
    initial = ValidateOrder
    transitions = {
        ValidateOrder: {"valid": charge, "invalid": reject_order},
        charge: {"paid": [Ship(carrier="bike"), email], "declined": cool_off},
        cool_off: {"timeout": paid},
        paid: {"received": reject_order, "timeout": reject_order},
        Ship(carrier="bike"): {"shipped": triage},
        email: {"done": triage},
        triage: {"done": route(by_priority, FastTrack, Standard(days=3))},
        FastTrack: {"done": Done},
        Standard(days=3): {"done": Debug},
        Debug: {"completed": Done},
        reject_order: {"done": Done},
    }


@step
def note(ctx: Context[dict[str, Any]]) -> Ok:
    return Ok("done", {"to": ctx.initial.get("user_id")})


class Untyped(Workflow[dict[str, Any]], unique=Unique("any")):
    initial = note
    transitions = {note: {"done": Done()}}


class CreateUser(Workflow[Order | dict[str, Any]], unique=Unique("userid", scope="version"), current=2):
    class V1(Workflow[dict[str, Any]], version=1):
        initial = note
        transitions = {note: {"done": Done}}

    class V2(Workflow[Order], version=2):
        initial = email
        transitions = {email: {"done": Done}}

    versions = {1: V1, 2: V2}

    @classmethod
    def version_for(cls, versions: Mapping[int, type[Workflow[Any]]], options: Mapping[str, Any]) -> int | None:
        return 1 if options.get("tenant") == "acme" else None


def start_versions() -> None:
    app = Pgflow("postgresql://localhost/shop", workflows=[CreateUser])
    CreateUser.start("u-1", Order(item_count=1, user_id=2), version=2)
    CreateUser.start("u-2", {"name": "Ada"}, options={"tenant": "acme"})
    assert_type(CreateUser.runs("u-1"), list[Instance])
    assert_type(CreateUser.V1.get("u-2"), Instance)
    assert_type(app.start("CreateUser", "u-3"), Started)
    assert_type(app.get(CreateUser, "u-3"), Instance)


def start() -> None:
    app = Pgflow("postgresql://localhost/shop", workflows=[OrderFlow, Untyped])
    assert_type(app, Pgflow)
    assert_type(OrderFlow.start("abc123", Order(item_count=3, user_id=42)), Started)
    OrderFlow.start("abc123", {"item_count": 3, "user_id": 42}, delay=timedelta(hours=1), priority=3, tags=["x"])
    Untyped.start("abc123")
    assert_type(OrderFlow.start_many([("a", Order(item_count=1, user_id=2)), ("b", {"item_count": 1})]), list[Started])
    OrderFlow.resume("abc123", "payment_confirmed", {"amount": 3}, step=paid)
    found = OrderFlow.get("abc123")
    assert_type(found, Instance)
    assert_type(OrderFlow.list(status=["failed", "cancelled"], limit=10), list[Instance])
    assert_type(
        OrderFlow.list(tags=["gift"], steps={charge: {"receipt": "r-1"}, "ship": {}}, order="oldest"), list[Instance]
    )
    assert_type(OrderFlow.get("abc123").output(charge), Receipt)
    later = OrderFlow.schedule_resume("abc123", paid, timedelta(days=2), payload={"amount": 3})
    assert_type(later, Scheduled)
    assert_type(later.cancel(), bool)
    assert_type(app.jobs(OrderFlow, state="parked", tags=["gift"]), list[Job])
    assert_type(app.storage.query(workflow=OrderFlow, status_in=["failed"]), list[Instance])
    app.storage.put(found)
    assert_type(OrderFlow.read_input("{}"), Order)
    try:
        OrderFlow.cancel("abc123", reason="withdrawn")
        OrderFlow.retry("abc123")
    except PgflowError as error:
        assert_type(error.hint, str | None)


class Reversed(Codec):
    def encrypt(self, text: str, associated_data: str) -> str:
        return text[::-1]

    def decrypt(self, encrypted: str, associated_data: str) -> str:
        return encrypted[::-1]


def use_a_codec() -> None:
    assert_type(Pgflow(workflows=[OrderFlow], codec=AesGcm({"k1": b""}, current="k1")).codec, Codec | None)
    Pgflow(workflows=[OrderFlow], codec=Reversed())


async def start_async() -> None:
    assert_type(await OrderFlow.astart("abc123", Order(item_count=3, user_id=42)), Started)
    assert_type(await OrderFlow.alist(status="running"), list[Instance])


async def unit_test() -> None:
    ctx = Context(Order(item_count=3, user_id=42), steps={"charge": {"number": "r-1"}})
    assert_type(email(ctx), Ok)
    assert_type(await charge(ctx), Ok | Async | Error)
    assert_type(ValidateOrder().execute(ctx), Ok)
    assert_type(charge.named("charge_again").key, str)


@step(output=Receipt | None)
def refund(ctx: Context[int | None]) -> Ok:
    return Ok("done", None if ctx.initial is None else Receipt(number=str(ctx.initial)))


class RefundFlow(Workflow[int | None], unique=Unique("refund")):
    initial = refund
    transitions = {refund: {"done": Done}}


def start_optional() -> None:
    RefundFlow.start("a1")
    RefundFlow.start("a2", None)
    RefundFlow.start("a3", 3)
    RefundFlow.start_many([("a4",), ("a5", None), ("a6", 6)])
    RefundFlow.resume("a1", "told")
    RefundFlow.resume("a1", "told", None)


# -- tasks


@task
def add(one: int, *, two: int = 0) -> int:
    return one + two


@task(queue="mail", retry=Retry(max_attempts=10), unique=UniqueTask(["order_id"], period=timedelta(hours=1)))
async def send_receipt(order_id: int, *, copy: bool = False) -> Receipt:
    return Receipt(number=f"r-{order_id}")


@task(priority=-1, tags=["reports"], max_runtime=timedelta(minutes=5), transactional=True)
def with_context(ctx: TaskContext, day: str) -> None:
    assert_type(ctx.attempt, int)
    assert_type(current_job().id, int)


@task(output=Receipt)
async def declared(order_id: int) -> dict[str, str]:
    return {"number": "r-1"}


@task(output=None)
def discarded(path: str) -> object:
    return object()


async def calls_of_tasks(conn: Any) -> None:
    assert_type(add(1, two=2), int)
    assert_type(await send_receipt(7), Receipt)
    assert_type(with_context("2030-01-31"), None)
    assert_type(add.enqueue(1, two=2), JobHandle[int])
    assert_type(add.enqueue(1).result(timeout=10), int)
    assert_type(await send_receipt.aenqueue(7, copy=True), JobHandle[Receipt])
    assert_type(await send_receipt.enqueue(7).aresult(timeout=timedelta(seconds=10)), Receipt)
    assert_type(with_context.enqueue("2030-01-31"), JobHandle[None])
    assert_type(declared.enqueue(7).result(), Receipt)
    assert_type(discarded.enqueue("x"), JobHandle[None])
    later = send_receipt.options(
        delay=timedelta(minutes=5), priority=1, conn=conn, tags=["a"], metadata={"b": 1}, queue="slow", max_attempts=2
    )
    assert_type(later.enqueue(7, copy=True), JobHandle[Receipt])
    assert_type(add.options(at=datetime.now(UTC), idempotency_key="k").enqueue(1), JobHandle[int])
    assert_type(add.enqueue_many([add.call(1, two=2), (1,), {"one": 1}]), list[JobHandle[int]])
    assert_type(await later.aenqueue_many(send_receipt.call(each) for each in range(3)), list[JobHandle[Receipt]])
    handle = add.job(17)
    assert_type(handle, JobHandle[int])
    assert_type(handle.id, int)
    assert_type(await handle.aget(), TaskInstance)
    assert_type(add.list(status=["failed"], tags=["a"], args={"one": 1}, limit=10), list[TaskInstance])
    add.cancel(17, reason="why")
    await add.aretry(17)
    add.run_now(17, conn=conn)


def tasks_of_an_app() -> None:
    app = Pgflow("", workflows=[OrderFlow], tasks=[add, send_receipt, with_context])
    app.enqueue("send_receipt", {"order_id": 7}, delay=timedelta(minutes=5))
    app.enqueue(add, add.call(1))
    assert_type(app.list_tasks(add), list[TaskInstance])
    assert_type(app.job(17), JobHandle[Any])
    assert_type(OrderFlow.start("v", Order(item_count=1, user_id=2), on_conflict="existing"), Started)
