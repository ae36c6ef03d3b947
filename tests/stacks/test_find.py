"""A filter finds the same instances in memory and on PostgreSQL."""

from __future__ import annotations

from datetime import timedelta
from itertools import count
from typing import Any

import pytest

from pgflow import Async, Context, Done, Error, Ok, Retry, Unique, Workflow, step
from pgflow.errors import InvalidFilter, InvalidValue
from tests.worker.waiting import until

VALUES = count(1)


@step(events=("paid", "lost"), retry=Retry(max_attempts=2, base=timedelta(hours=1)))
def charge(ctx: Context[dict[str, Any]]) -> Ok | Async | Error:
    match ctx.initial.get("kind"):
        case "refused":
            return Error("Card Refused", retry=False)
        case "flaky":
            return Error("the bank timed out")
        case "open":
            return Async()
    return Ok("paid")


class Billing(Workflow[dict[str, Any]], unique=Unique("bill"), tags=["billing"]):
    initial = charge
    transitions = {charge: {"paid": Done, "lost": Done}}


class Other(Workflow[dict[str, Any]], unique=Unique("other")):
    initial = charge
    transitions = {charge: {"paid": Done, "lost": Done}}


WORKFLOWS = [Billing, Other]
DATA: dict[str, Any] = {
    "tenant": 7,
    "items": [{"sku": "a"}, {"sku": "b", "n": [1, 2]}],
    "words": ["x", ["y"]],
    "7": None,
}


def fill(app: Any) -> str:
    """Start an instance of each kind; returns a tag that they share."""
    tag = f"t{next(VALUES)}"
    for kind in ("paid", "refused", "flaky", "open"):
        app.start(Billing, f"{tag}-{kind}", {"kind": kind, **DATA}, tags=[tag, kind], metadata={"source": kind})
    app.start(Other, f"{tag}-other", {"kind": "open", "tenant": "7"}, tags=[tag])
    app.start(Billing, f"{tag}-later", {}, tags=[tag, "gift"], delay=timedelta(hours=1))

    def settled() -> bool:
        found = {each.id.partition("-")[2]: each for each in app.find(f"tag:{tag}")}
        return (
            (found["paid"].status, found["refused"].status, found["open"].status) == ("completed", "failed", "waiting")
            and found["other"].status == "waiting"
            and any(each.kind == "retry" for each in found["flaky"].waiting_for)
        )

    until(settled, "the instances of each kind")
    return tag


FILTERS = {
    "": "paid refused flaky open other later",
    "state:failed": "refused",
    "state:pending,completed": "paid later",
    "-state:completed": "refused flaky open other later",
    "workflow:Other": "other",
    "workflow:Billing,Other": "paid refused flaky open other later",
    "-workflow:Other version:1": "paid refused flaky open later",
    "-version:1": "",
    "tag:gift": "later",
    "tag:gift,open": "open later",
    "tag:billing -tag:gift,open": "paid refused flaky",
    "queue:default": "refused flaky open other later",
    "queue:elsewhere": "",
    "-queue:default": "paid",
    "step:charge": "refused flaky open other later",
    "-step:charge": "paid",
    "error:refused": "refused",
    'error:"TIMED OUT"': "flaky",
    "error:refused,timed": "refused flaky",
    "-error:refused,timed": "paid open other later",
    "attempt:1": "refused flaky open other",
    "attempt:>=1 -state:waiting,running": "refused",
    "attempt:>1": "",
    "-attempt:1": "paid later",
    "priority:0": "flaky open other later",
    "-priority:0": "paid refused",
    "-worker:1": "paid refused flaky open other later",
    "age:<1h": "paid refused flaky open other later",
    "age:>1h": "",
    "input.tenant:7": "paid refused flaky open other",
    'input.tenant:"7"': "other",
    "-input.tenant:7": "later",
    "input.items.sku:a,c": "paid refused flaky open",
    "input.items.n:2": "paid refused flaky open",
    "input.words:y": "paid refused flaky open",
    "input.words:z": "",
    "input.7:null": "paid refused flaky open",
    "input.kind:open input.tenant:7": "open other",
    "-input.kind:open -input.missing:1": "paid refused flaky later",
    "metadata.source:open": "open",
    'input.tenant:7 input."a\\"b".c:"x) || true"': "",
}


def test_each_filter_finds_the_same_in_memory_and_on_postgresql(app: Any) -> None:
    tag = fill(app)
    found = {}
    for text in FILTERS:
        matching = app.find(f"tag:{tag} {text}", order="oldest")
        found[text] = " ".join(each.id.partition("-")[2] for each in matching)
    order = {name: place for place, name in enumerate(["paid", "refused", "flaky", "open", "other", "later"])}
    assert {text: sorted(names.split(), key=lambda name: order[name]) for text, names in found.items()} == {
        text: names.split() for text, names in FILTERS.items()
    }


def test_ids_and_runs_are_found_and_pages_follow_each_other(app: Any) -> None:
    tag = fill(app)
    one, two = (app.get(Billing, f"{tag}-{name}") for name in ("paid", "open"))
    assert [each.run for each in app.find(f"id:{tag}-paid,{two.id}")] == [two.run, one.run]
    assert [each.run for each in app.find(f"run:{one.run},{two.run}", order="oldest")] == [one.run, two.run]
    assert [each.run for each in app.find(f"tag:{tag} -id:{tag}-paid -run:{two.run}", limit=100)] == sorted(
        (each.run for each in app.find(f"tag:{tag}") if each.run not in (one.run, two.run)), reverse=True
    )
    first = app.find(f"tag:{tag}", limit=2)
    rest = app.find(f"tag:{tag}", limit=10, before=first[-1].run)
    assert [each.run for each in [*first, *rest]] == sorted((each.run for each in app.find(f"tag:{tag}")), reverse=True)
    assert app.find(f"tag:{tag}")[0].history == ()


def test_a_filter_that_cannot_be_read_is_refused(app: Any) -> None:
    with pytest.raises(InvalidFilter, match="column 1: there is no key 'statee'"):
        app.find("statee:failed")
    with pytest.raises(InvalidFilter, match="task does not apply"):
        app.find("task:send")
    with pytest.raises(InvalidValue, match="limit=0"):
        app.find("state:failed", limit=0)
