"""The app of the tests of queues, tasks, schedules and workflows: something of each state that their pages show."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from pydantic import BaseModel, Field
from starlette.testclient import TestClient

from pgflow import Context, Done, Ok, Pgflow, Rate, Retry, Unique, WaitForEvent, Workflow, every, schedule, step, task
from pgflow.database.connect import connect
from pgflow.testing import drain
from pgflow.web import ALL, dashboard

__all__ = ["Depot", "Parcel", "ParcelFlow", "depot_app"]

HOUR = timedelta(hours=1)


class Parcel(BaseModel):
    weight: float = Field(gt=0, le=70, description="Kilograms")
    country: str = "DE"
    note: str = ""


@step(events=("light", "heavy"))
def weigh(ctx: Context[Parcel]) -> Ok:
    return Ok("light" if ctx.initial.weight < 30 else "heavy")


@step(events=("loaded",), queue="trucks")
def load(ctx: Context[Parcel]) -> Ok:
    return Ok("loaded")


class ParcelFlow(Workflow[Parcel], unique=Unique("parcel")):
    """From the counter to the truck."""

    initial = weigh
    transitions = {
        weigh: {"light": WaitForEvent("collected").named("shelf"), "heavy": load},
        WaitForEvent("collected").named("shelf"): {"received": load},
        load: {"loaded": Done},
    }


@task(queue="mail", tags=["mail"])
def send_label(parcel: int, copies: int = 1, service: Literal["standard", "express"] = "standard") -> dict[str, int]:
    """Print a label."""
    return {"parcel": parcel, "copies": copies}


@task(queue="mail", retry=Retry(max_attempts=1))
def print_slip(parcel: int, password: str = "") -> None:
    """Fail, once and for good."""
    raise ValueError(f"parcel {parcel} has no <b>address</b>")


@task(queue="hooks", retry=Retry(max_attempts=12, base=HOUR, max_backoff=HOUR))
def call_carrier(url: str) -> None:
    """Fail, and wait for the next attempt."""
    raise ConnectionError("the carrier does not answer")


def depot_app(dsn: str) -> Pgflow:
    """Return the app on a database."""
    return Pgflow(
        dsn,
        workflows=[ParcelFlow],
        tasks=[send_label, print_slip, call_carrier],
        schedules=[
            schedule("0 9 * * mon-fri", ParcelFlow, name="weekday-parcel", args={"weight": 2}, tz="Europe/Berlin"),
            schedule(every(timedelta(minutes=5)), send_label, name="labels", args={"parcel": 1}),
        ],
    )


class Depot:
    """The depot's database with its dashboard, and no worker: due jobs run when a test drains it."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.app = depot_app(dsn)
        self.light = self.app.start(ParcelFlow, "p-1", Parcel(weight=2)).run
        self.app.start(ParcelFlow, "p-2", Parcel(weight=40))
        self.done = send_label.enqueue(7, copies=2)
        self.failed = print_slip.enqueue(8, password="hunter2")  # noqa: S106 -- what the dashboard hides
        self.retrying = call_carrier.enqueue("https://carrier.example/in")
        drain(self.app)
        self.later = send_label.options(delay=HOUR).enqueue(9)
        self.app.limits.set("mail", concurrency=5, rate=Rate(100, per=timedelta(minutes=1), burst=20))

    def drain(self) -> None:
        """Run the due jobs."""
        drain(self.app)

    def audit(self) -> list[str]:
        """Return what was done, oldest first."""
        with connect(self.dsn, "test") as conn:
            return [action for (action,) in conn.execute("select action from pgflow.audit order by id")]

    def sending(self) -> int:
        """Let a label be sent by a worker that never ends, and return its job."""
        number = send_label.enqueue(1).id
        with connect(self.dsn, "test") as conn:
            conn.execute("update pgflow.jobs set state = 'running', worker = 7, attempt = 1 where id = %s", (number,))
        return number

    def sent(self, number: int) -> None:
        """Take that job away."""
        with connect(self.dsn, "test") as conn:
            conn.execute("delete from pgflow.jobs where id = %s", (number,))

    def client(self) -> TestClient:
        """Return a browser of a person with a name for the audit."""
        served = dashboard(self.app, authorize=lambda request: ALL.named("ada"))
        return TestClient(served, base_url="http://127.0.0.1", follow_redirects=False)
