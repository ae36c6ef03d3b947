"""An app of the command-line tests that has tasks only."""

from datetime import date, timedelta

from pydantic import BaseModel

from pgflow import Error, Pgflow, Retry, UniqueTask, task


class Receipt(BaseModel):
    """What `send` returns."""

    number: str
    to: str


@task(tags=["mail"], metadata={"team": "shop"})
def send(order_id: int, *, to: str = "ann", due: date | None = None) -> Receipt:
    """Send a receipt."""
    return Receipt(number=f"r-{order_id}", to=to)


@task(retry=Retry(max_attempts=2, base=timedelta(milliseconds=10)))
def fail(reason: str) -> Error:
    """Fail in each attempt."""
    return Error(reason)


@task(unique=UniqueTask(["key"]))
def once(key: str) -> None:
    """Run once for each key at a time."""


app = Pgflow(tasks=[send, fail, once])
