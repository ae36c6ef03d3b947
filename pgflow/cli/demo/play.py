"""The demo's script: start the orders, kill a worker halfway, wait for completion, and account for every order."""

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from pgflow.bench.worker_processes import WorkerProcesses
from pgflow.cli.demo.flow import OrderFlow, count_stock, send_receipt
from pgflow.cli.output import print_notice
from pgflow.core.models.instance import Entry, Instance
from pgflow.core.models.task import TaskInstance
from pgflow.errors import PgflowError

__all__ = ["Report", "play"]

TIMEOUT_SECONDS = 50.0
POLL_SECONDS = 0.02
SHOWN = "order-005"
STEPS_SHIPPED = 8
STEPS_REJECTED = 2
ACTIVE = ("pending", "running", "waiting")


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of the orders, their receipts and the runs of the schedule."""

    instances: Sequence[Instance]
    receipts: Sequence[TaskInstance]
    counts: Sequence[TaskInstance]
    nonempty: frozenset[str]
    seconds: float

    @property
    def shown(self) -> Instance:
        """The order whose history is printed."""
        return next(each for each in self.instances if each.id.endswith(SHOWN))

    @property
    def is_accounted_for(self) -> bool:
        """Whether each order completed on its expected path, each step recorded once, and has one receipt.

        And whether the schedule fired, each instant once.
        """
        figures = self.figures()
        are_orders_complete = not figures["missing"] and figures["steps"] == figures["steps_expected"]
        has_receipts = Counter(each.args["order"] for each in self.receipts) == Counter(self.nonempty)
        instants = [each.metadata["scheduled_for"] for each in self.counts]
        fired_once = 0 < len(instants) == len(set(instants))
        return are_orders_complete and not figures["unfinished"] and has_receipts and fired_once

    def figures(self) -> dict[str, Any]:
        """Return the figures."""
        entries = [entry for each in self.instances for entry in each.history]
        steps = Counter(entry.step for entry in entries)
        rejected = len(self.instances) - len(self.nonempty)
        return {
            "orders": len(self.instances),
            "shipped": steps["ship"],
            "rejected": steps["reject"],
            "missing": len(self.instances) - steps["ship"] - steps["reject"],
            "unfinished": sum(each.status != "completed" or bool(each.waiting_for) for each in self.instances)
            + sum(each.status != "completed" for each in self.receipts),
            "steps": len(entries),
            "steps_expected": STEPS_SHIPPED * len(self.nonempty) + STEPS_REJECTED * rejected,
            "retried": sum(entry.step == "charge" and _was(entry, "did not answer") for entry in entries),
            "receipts": len(self.receipts),
            "resent": sum(bool(each.errors) for each in self.receipts),
            "fired": len(self.counts),
            "rescued": sum(_was(entry, "worker was lost") for entry in entries),
            "run_seconds": round(self.seconds, 2),
        }

    def history(self) -> list[dict[str, Any]]:
        """Return the shown order's history as plain data."""
        names = ("step", "event", "attempt", "worker", "at", "output")
        return [{name: getattr(entry, name) for name in names} for entry in self.shown.history]


def play(processes: WorkerProcesses) -> Report:
    """Play the script. Raises `PgflowError` when it does not complete in time."""
    orders = [json.loads(line) for line in files("pgflow.cli.demo").joinpath("orders.jsonl").read_text().splitlines()]
    nonempty = [order["value"] for order in orders if order["input"]["item_count"]]
    early, late = nonempty[::2], nonempty[1::2]
    processes.wait_until_ready()
    began = time.monotonic()
    OrderFlow.start_many((order["value"], order["input"]) for order in orders)
    print_notice(f"  {len(orders)} orders are started in one statement ({1000 * (time.monotonic() - began):.0f} ms).")
    for value in early:
        OrderFlow.resume(value, "courier_arrived", {"name": "Ada"})
    print_notice(f"  {len(early)} couriers arrive before any order waits for one: their signals are kept.")

    _wait(processes, lambda: _count("running") <= 0.6 * len(orders), "many orders at their timer")
    pid = processes.kill_one()
    print_notice(f"  About half of the orders have reached their timer. Worker process {pid} is killed with SIGKILL.")
    for value in late:
        OrderFlow.resume(value, "courier_arrived", {"name": "Grace"})
    _wait(processes, lambda: not _count(*ACTIVE), "the completion of all orders")
    _wait(processes, lambda: not send_receipt.list(status=ACTIVE, limit=1), "the receipts of all orders")
    seconds = time.monotonic() - began

    instances = [OrderFlow.get(order["value"]) for order in orders]
    receipts, counts = send_receipt.list(limit=1000), count_stock.list(limit=1000)
    return Report(instances, receipts, counts, frozenset(nonempty), seconds)


def _count(*statuses: str) -> int:
    return len(OrderFlow.list(status=statuses, limit=1000))


def _wait(processes: WorkerProcesses, is_done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not is_done():
        processes.check()
        if time.monotonic() > deadline:
            message = f"the demo timed out after {TIMEOUT_SECONDS:.0f} s waiting for {what}"
            raise PgflowError(message, hint="The workers' logs are printed above.")
        time.sleep(POLL_SECONDS)


def _was(entry: Entry, reason: str) -> bool:
    return any(reason in error.get("reason", "") for error in entry.errors)
