"""A dashboard in this process, and clients that send what a browser sends."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

from starlette.testclient import TestClient

from pgflow import Pgflow
from pgflow.core.models.instance import Instance
from pgflow.database.connect import connect
from pgflow.testing import drain
from pgflow.web import dashboard
from tests.web.shop import Order, OrderFlow, TinyFlow, ring, shop

__all__ = ["OURS", "PARTIAL", "Page", "Site", "example_path", "parsed"]

OURS = {"sec-fetch-site": "same-origin"}
PARTIAL = {**OURS, "hx-request": "true"}
EXAMPLES = {"{operation:int}": "1", "{queue}": "default", "{id:int}": "1", "{name:path}": "nightly", "{guide}": "tasks"}


class Site:
    """The shop's database with its dashboard; `order` is the run of an order that waits for everything at once."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.app: Pgflow = shop(dsn)
        ring.enqueue("A-1")  # the first job: its id is 1
        self.order = self.start_order("A-1")
        for number in range(3):
            self.app.start(TinyFlow, f"bad-{number}", Order(item_count=1, country="XX"))
            self.app.start(TinyFlow, f"good-{number}", Order(item_count=1), tags=["gift"])
        drain(self.app)

    def start_order(self, value: str) -> int:
        """Start an order and run its due jobs."""
        run = self.app.start(OrderFlow, value, Order(item_count=3)).run
        drain(self.app)
        return run

    def drain(self) -> None:
        """Run due jobs."""
        drain(self.app)

    def get(self, value: str = "A-1") -> Instance:
        """Read an order."""
        return self.app.get(OrderFlow, value)

    def client(self, address: str = "127.0.0.1", base: str = "http://127.0.0.1", **options: Any) -> TestClient:
        """Return a client of a dashboard with these options, by default one on this machine."""
        served = dashboard(self.app, **options)
        return TestClient(served, base_url=base, client=(address, 50_000), follow_redirects=False)

    def audit(self) -> list[tuple[str, str]]:
        """Return who did what, oldest first."""
        with connect(self.dsn, "test") as conn:
            return conn.execute("select who, action from pgflow.audit order by id").fetchall()


class Page(HTMLParser):
    """The elements of a page: (tag, attributes), and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep an element."""
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        """Keep text."""
        self.text += data

    def urls(self) -> Iterator[str]:
        """Yield every URL that the page leads to or loads."""
        for _, attributes in self.elements:
            for name in ("href", "src", "action", "hx-get", "hx-post", "data-live", "data-bulk-act"):
                value = attributes.get(name)
                if value and not value.startswith("#"):
                    yield value


def parsed(text: str) -> Page:
    """Return the elements of a page."""
    return Page(text)


def example_path(path: str, run: int) -> str:
    """Return the path of a route with example values for its parameters."""
    filled = path.replace("{run:int}", str(run)).replace("{step:path}", "inform_partner")
    for parameter, value in EXAMPLES.items():
        filled = filled.replace(parameter, value)
    return filled
