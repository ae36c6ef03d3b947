"""Typed inputs, outputs, payloads and configurations come back typed, in memory and on PostgreSQL."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field as member
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from itertools import count
from typing import Any, Literal
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict, Field

from pgflow import Async, Context, Done, Ok, Step, Unique, Workflow, step
from pgflow.errors import DefinitionError, InvalidInput, InvalidPayload
from tests.worker.waiting import until


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


@dataclass(frozen=True)
class Point:
    x: int
    on: date
    tags: set[str] = member(default_factory=set)


class Inner(BaseModel):
    at: datetime
    shades: frozenset[Colour] = frozenset()


class Everything(BaseModel):
    model_config = ConfigDict(frozen=True)

    nothing: None = None
    truth: bool = True
    number: int = 10**30
    fraction: float = 1e23
    text: str = 'ü 😀 "\\ \u2028'
    items: list[Any] = [1, "a", None, [], {}, 2.5, False]
    mapping: dict[str, Any] = {"a": {"b": [1]}, "": 0}
    moment: datetime = datetime(2030, 1, 2, 3, 4, 5, 678, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    naive: datetime = datetime(2030, 1, 2, 3, 4, 5)  # noqa: DTZ001 -- it may be naive, too
    day: date = date(2030, 1, 2)
    clock: time = time(3, 4, 5, 6, tzinfo=UTC)
    lasts: timedelta = timedelta(days=-3, seconds=4, microseconds=5)
    uuid: UUID = UUID(int=7)
    price: Decimal = Decimal("19.9900")
    colour: Colour = Colour.BLUE
    level: Level = Level.HIGH
    kind: Literal["a", "b"] = "b"
    letters: set[str] = {"c", "a", "b"}
    numbers: frozenset[int] = frozenset({3, 20, 100})
    pair: tuple[int, date] = (1, date(2030, 1, 2))
    many: tuple[Decimal, ...] = (Decimal("1.0"), Decimal(2))
    raw: bytes = "bytes that are ü".encode()
    point: Point = Point(1, date(2030, 1, 2), {"b", "a"})
    inner: Inner = Inner(at=datetime(2030, 1, 1, tzinfo=UTC), shades=frozenset({Colour.RED, Colour.BLUE}))
    by_day: dict[date, Inner] = {date(2030, 1, 1): Inner(at=datetime(2030, 1, 1, tzinfo=UTC))}
    either: int | Inner = Inner(at=datetime(2031, 1, 1, tzinfo=UTC))
    aliased: str = Field("x", alias="otherName")


SEEN: dict[str, dict[str, Any]] = {}


@step(output=Everything)
def copy(ctx: Context[Everything]) -> Ok:
    SEEN.setdefault(ctx.value, {})["initial"] = ctx.initial
    return Ok("done", ctx.initial)


@step(output=Point)
def point(ctx: Context[Everything]) -> Ok:
    SEEN[ctx.value]["copied"] = ctx.output(copy)
    return Ok("done", ctx.output(copy).point)


class Asked(Step):
    events = ("told",)
    output = Everything

    def execute(self, ctx: Context[Everything]) -> Async:
        return Async()


class Configured(Step):
    events = ("done",)
    whole: Everything = Everything()
    day: date = date(2030, 1, 2)
    lasts: timedelta = timedelta(seconds=1.5)
    colours: set[Colour] = {Colour.RED, Colour.BLUE}
    by_level: dict[int, Decimal] = {}

    def execute(self, ctx: Context[Everything]) -> Ok:
        SEEN[ctx.value]["configured"] = self
        SEEN[ctx.value]["told"] = ctx.output(Asked)
        return Ok("done")


CONFIGURED = Configured(day=date(2031, 1, 1), by_level={3: Decimal("1.50")})


class Typed(Workflow[Everything], unique=Unique("typed")):
    initial = copy
    transitions = {
        copy: {"done": point},
        point: {"done": Asked},
        Asked: {"told": CONFIGURED},
        CONFIGURED: {"done": Done},
    }


class Loose(BaseModel):
    what: Any = None
    either: str | date = "a"


@step(output=Loose)
def loosely(ctx: Context[dict[str, Any]]) -> Ok:
    return Ok("done", Loose(what=[{"at": date(2030, 1, 1)}]))


class Untyped(Workflow[dict[str, Any]], unique=Unique("untyped")):
    initial = loosely
    transitions = {loosely: {"done": Done}}


@step
def end(ctx: Context[Loose]) -> Ok:
    return Ok("done")


class LooseInput(Workflow[Loose], unique=Unique("loose")):
    initial = end
    transitions = {end: {"done": Done}}


WORKFLOWS = (Typed, Untyped, LooseInput)
VALUES = (f"v{number}" for number in count())


@pytest.fixture
def value(app: Any) -> str:
    """A new business value on each stack in turn."""
    return next(VALUES)


def test_a_value_of_every_type_comes_back_equal(value: str) -> None:
    given = Everything(otherName="y")
    Typed.start(value, given)
    until(lambda: Typed.get(value).status == "waiting", "it waits")
    told = Everything(price=Decimal("0.10"), either=3)
    Typed.resume(value, "told", told)
    found = until(lambda: each if (each := Typed.get(value)).finished_at else None, "it ends")
    assert found is not None
    assert (found.status, found.error) == ("completed", None)
    seen = SEEN[value]
    assert seen["initial"] == seen["copied"] == found.output(copy) == given
    assert found.output(point) == Point(1, date(2030, 1, 2), {"a", "b"})
    assert seen["told"] == found.output(Asked) == told
    assert seen["configured"] == CONFIGURED
    assert type(found.output(copy).pair) is tuple
    assert type(found.output(copy).fraction) is float
    assert str(found.output(copy).price) == "19.9900"


def test_sets_are_stored_as_sorted_lists(value: str) -> None:
    Typed.start(value, Everything(otherName="y"))
    stored = Typed.get(value).input
    assert (stored["letters"], stored["numbers"], stored["point"]["tags"]) == (
        ["a", "b", "c"],
        [3, 20, 100],
        ["a", "b"],
    )
    assert stored["inner"]["shades"] == ["blue", "red"]
    Typed.cancel(value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (Loose(what=date(2030, 1, 1)), "input.what is a date, and would come back as a str"),
        (Loose(what={"a": [1, (2,)]}), r"input.what.a\[1\] is a tuple, and would come back as a list"),
        (Loose(what={3}), "input.what is a set, and would come back as a list"),
        (Loose(what={1: "a"}), "input.what"),
        (
            Loose(what=Inner(at=datetime(2030, 1, 1, tzinfo=UTC))),
            "input.what is a Inner, and would come",
        ),
        (Loose(what=[object()]), r"input.what\[0\] cannot be stored"),
        (Loose(either=date(2030, 1, 1)), "input.either is a date, and would come back as a str"),
    ],
)
def test_an_input_that_would_come_back_changed_is_refused_with_the_place(value: str, given: Loose, said: str) -> None:
    with pytest.raises((InvalidInput, InvalidPayload), match=said):
        LooseInput.start(value, given)
    assert LooseInput.list(id=f"loose::{value}") == []


def test_an_output_that_would_come_back_changed_fails_the_step_with_the_place(value: str) -> None:
    Untyped.start(value)
    found = until(lambda: each if (each := Untyped.get(value)).finished_at else None, "it ends")
    assert found is not None
    assert found.error is not None
    assert found.error["reason"] == "loosely.output.what[0].at is a date, and would come back as a str"
    assert found.steps == {}


def test_a_payload_that_is_not_of_the_declared_type_is_refused(value: str) -> None:
    Typed.start(value, Everything(otherName="y"))
    until(lambda: Typed.get(value).status == "waiting", "it waits")
    with pytest.raises(InvalidPayload, match="declares the output Everything"):
        Typed.resume(value, "told", {"number": "many"})
    assert Typed.get(value).status == "waiting"
    Typed.cancel(value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"a": [b"\xff"]}, r"input.a\[0\] is bytes that are not UTF-8: encode them, for example with base64"),
        ({"a": {"b": object()}}, "input.a.b cannot be stored"),
        ({"a": lambda: 1}, "input.a cannot be stored"),
    ],
)
def test_a_value_that_is_not_data_is_refused_with_its_place(value: str, given: Any, said: str) -> None:
    with pytest.raises(InvalidPayload, match=said):
        Untyped.start(value, given)
    assert Untyped.list(id=f"untyped::{value}") == []


def test_bytes_that_are_text_come_back_as_text_where_no_type_is_declared(value: str) -> None:
    Untyped.start(value, {"a": "ü".encode()})
    assert Untyped.get(value).input == {"a": "ü"}


def test_a_configuration_that_would_come_back_changed_is_refused() -> None:
    class Odd(Step):
        events = ("done",)
        what: Any = None

        def execute(self, ctx: Context[Any]) -> Ok:
            return Ok("done")

    with pytest.raises(DefinitionError, match=r"step odd\.what is a date, and would come back as a str"):

        class Flow(Workflow[Any], unique=Unique("odd")):
            initial = Odd(what=date(2030, 1, 1))
            transitions = {Odd(what=date(2030, 1, 1)): {"done": Done}}
