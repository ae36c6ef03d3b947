"""Dates, times and numbers are read back as the same values, as inputs, outputs and untyped values."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, IntEnum
from ipaddress import IPv4Address, IPv6Network
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from pydantic import AllowInfNan, BaseModel, ByteSize, SecretStr

from pgflow import Context, Done, Ok, Step, Unique, Workflow
from pgflow.core.definition.input import Input
from pgflow.core.engine import attempt
from pgflow.core.engine.attempt import EncodedResult
from pgflow.core.values.payload import decode, encode
from pgflow.errors import InvalidPayload, PgflowError, UnencryptedSecret

BERLIN = ZoneInfo("Europe/Berlin")
REPEATED = datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN)  # +02:00 with fold 0, +01:00 with fold 1
MISSING = datetime(2026, 3, 29, 2, 30, tzinfo=BERLIN)  # +01:00 with fold 0, +02:00 with fold 1
NUMBER = Annotated[Decimal, AllowInfNan(True)]


class Dateutil(tzinfo):
    """A zone of another library, with a fixed offset that needs no date."""

    def utcoffset(self, moment: datetime | None) -> timedelta:
        return timedelta(hours=2)

    def dst(self, moment: datetime | None) -> timedelta:
        return timedelta(0)

    def tzname(self, moment: datetime | None) -> str:
        return "two"


class Unknowing(Dateutil):
    """A zone without an offset."""

    def utcoffset(self, moment: datetime | None) -> None:  # type: ignore[override]  # tzinfo allows it
        return None


class Color(Enum):
    RED = "red"


class Size(IntEnum):
    BIG = 3


class Point(NamedTuple):
    x: int
    at: datetime


class Meeting(BaseModel):
    at: datetime
    by_hour: dict[datetime, int] = {}
    others: frozenset[datetime] = frozenset()


def as_input(kind: Any, value: Any) -> Any:
    read = Input.of("Flow", kind)
    return read.read(read.write(value))


def as_output(kind: Any, value: Any) -> Any:
    class Given(Step):
        events = ("done",)
        output: ClassVar[Any] = kind

        def execute(self, ctx: Context[Any]) -> Ok:
            return Ok("done", value)

    class Flow(Workflow[Any], unique=Unique("flow")):
        initial = Given
        transitions = {Given: {"done": Done}}

    written = attempt.read(Flow.graph, "given", Ok("done", value), lambda: Context(None))
    assert isinstance(written, EncodedResult)
    assert written.text is not None
    return Given.read_output(decode(written.text))


ROUNDTRIPS = pytest.mark.parametrize("roundtrip", [as_input, as_output])
Roundtrip = Callable[[Any, Any], Any]


@ROUNDTRIPS
@pytest.mark.parametrize("kind", ["datetime", "model", "set", "key", "tuple", "union"])
@pytest.mark.parametrize("given", [REPEATED, REPEATED.replace(fold=1), MISSING, MISSING.replace(fold=1)], ids=str)
def test_a_datetime_in_a_repeated_or_missing_hour_is_stored_as_its_moment(
    roundtrip: Roundtrip, kind: str, given: datetime
) -> None:
    typed: dict[str, tuple[Any, Any, Callable[[Any], datetime]]] = {
        "datetime": (datetime, given, lambda back: back),
        "model": (Meeting, Meeting(at=given, by_hour={given: 1}, others=frozenset({given})), lambda back: back.at),
        "set": (set[datetime], {given}, lambda back: next(iter(back))),
        "key": (dict[datetime, list[int]], {given: [1]}, lambda back: next(iter(back))),
        "tuple": (Point, Point(1, given), lambda back: back.at),
        "union": (datetime | None, given, lambda back: back),
    }
    declared, value, moment = typed[kind]
    back = moment(roundtrip(declared, value))
    assert back.astimezone(UTC) == given.astimezone(UTC)
    assert back.utcoffset() == given.utcoffset()


@ROUNDTRIPS
@pytest.mark.parametrize(
    ("given", "text"),
    [
        (datetime(2026, 3, 29, 2, 30), "2026-03-29T02:30:00"),  # noqa: DTZ001 -- without a zone
        (datetime(2026, 3, 29, 2, 30, fold=1), "2026-03-29T02:30:00"),  # noqa: DTZ001 -- without a zone
        (datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=23, minutes=59))), "2026-01-01T00:00:00+23:59"),
        (datetime(2026, 1, 1, tzinfo=Dateutil()), "2026-01-01T00:00:00+02:00"),
        (datetime.max.replace(tzinfo=timezone(timedelta(hours=-12))), "9999-12-31T23:59:59.999999-12:00"),
        (datetime.min.replace(tzinfo=timezone(timedelta(hours=12))), "0001-01-01T00:00:00+12:00"),
    ],
    ids=str,
)
def test_datetimes_without_a_zone_and_with_any_offset_are_kept(
    roundtrip: Roundtrip, given: datetime, text: str
) -> None:
    back = roundtrip(datetime, given)
    assert back.replace(tzinfo=None, fold=0) == given.replace(tzinfo=None, fold=0)
    assert back.utcoffset() == given.utcoffset()
    assert encode(given, what="it", limit=100) == f'"{text}"'


@ROUNDTRIPS
@pytest.mark.parametrize("zone", [None, UTC, ZoneInfo("UTC"), timezone(timedelta(hours=-2, minutes=-30)), Dateutil()])
def test_a_time_keeps_an_offset_that_needs_no_date(roundtrip: Roundtrip, zone: tzinfo | None) -> None:
    given = time(2, 30, tzinfo=zone)
    back = roundtrip(time, given)
    assert (back.replace(tzinfo=None), back.utcoffset()) == (time(2, 30), given.utcoffset())


IN_A_ZONE = time(2, 30, tzinfo=BERLIN)


@pytest.mark.parametrize(
    ("kind", "value", "where"),
    [
        (time, IN_A_ZONE, ""),
        (list[time], [IN_A_ZONE], r"\[0\]"),
        (set[time], {IN_A_ZONE}, r"\{…\}"),
        (dict[str, time], {"at": IN_A_ZONE}, r"\.at"),
        (time, time(2, 30, tzinfo=Unknowing()), ""),
        (datetime, datetime(2026, 1, 1, tzinfo=Unknowing()), ""),
    ],
)
def test_a_time_whose_zone_has_no_offset_is_refused_with_its_path(kind: Any, value: Any, where: str) -> None:
    expected = rf"{where} is a (date)?time whose zone, .*, has no UTC offset.*: pass a datetime"
    for roundtrip in (as_input, as_output):
        with pytest.raises(InvalidPayload, match=rf"^(input|given\.output){expected}"):
            roundtrip(kind, value)
    with pytest.raises(InvalidPayload, match=rf"^it{expected}"):
        encode(value, what="it", limit=1000)


def test_a_time_in_a_zone_is_refused_as_a_key_and_deep_in_a_model() -> None:
    class Shift(BaseModel):
        begins: time
        more: Any = None

    for value in ({IN_A_ZONE: 1}, Shift(begins=IN_A_ZONE), Shift(begins=time(1), more=[{"x": IN_A_ZONE}])):
        for roundtrip, kind in ((as_input, Any), (as_input, type(value)), (as_output, type(value))):
            with pytest.raises(InvalidPayload, match="has no UTC offset without a date"):
                roundtrip(kind, value)


@pytest.mark.parametrize(
    "given", [datetime(1850, 1, 1, tzinfo=BERLIN), time(1, tzinfo=timezone(timedelta(seconds=30)))]
)
def test_an_offset_with_seconds_cannot_be_written_and_is_refused(given: Any) -> None:
    for roundtrip in (as_input, as_output):
        with pytest.raises(InvalidPayload, match="an offset is stored in whole minutes: convert it to UTC"):
            roundtrip(type(given), given)


@ROUNDTRIPS
@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (date, date.max),
        (date | datetime, datetime(2026, 1, 1, tzinfo=UTC)),
        (datetime | date, date(2026, 1, 1)),
        (timedelta, timedelta.max),
        (timedelta, timedelta.min),
        (timedelta, timedelta(microseconds=-1)),
        (Decimal, Decimal("1.50")),
        (Decimal, Decimal("-0")),
        (NUMBER, Decimal("Infinity")),
        (float, 1e22),
        (int, 10**400),
        (set[int], {3, 1}),
        (frozenset[int], frozenset((3, 1))),
        (tuple[int, str], (1, "a")),
        (bytes, b"caf\xc3\xa9"),
        (Color, Color.RED),
        (Size, Size.BIG),
        (UUID, UUID(int=1)),
        (Path, Path("/a/b")),
        (IPv4Address, IPv4Address("1.2.3.4")),
        (IPv6Network, IPv6Network("::/8")),
        (ByteSize, ByteSize(3)),
        (complex, 1 + 2j),
    ],
    ids=repr,
)
def test_a_value_of_a_declared_type_is_read_back_equal(roundtrip: Roundtrip, kind: Any, value: Any) -> None:
    back = roundtrip(kind, value)
    assert (back, type(back)) == (value, type(value))


@ROUNDTRIPS
@pytest.mark.parametrize("number", ["NaN", "sNaN", "-NaN", "NaN123"])
def test_a_decimal_nan_is_read_back_where_its_type_allows_it(roundtrip: Roundtrip, number: str) -> None:
    back = roundtrip(NUMBER, Decimal(number))
    assert back.as_tuple() == Decimal(number).as_tuple()
    assert roundtrip(list[NUMBER], [Decimal(number)])[0].as_tuple() == Decimal(number).as_tuple()
    with pytest.raises(PgflowError, match="Input should be a finite number"):
        roundtrip(Decimal, Decimal(number))


@ROUNDTRIPS
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_float_that_is_not_finite_is_refused(roundtrip: Roundtrip, value: float) -> None:
    for kind, given in ((float, value), (list[float], [value]), (float | None, value)):
        with pytest.raises(InvalidPayload, match="which JSON cannot hold"):
            roundtrip(kind, given)


@ROUNDTRIPS
def test_a_negative_zero_loses_its_sign_as_it_does_in_postgresql(roundtrip: Roundtrip) -> None:
    assert math.copysign(1, roundtrip(float, -0.0)) == 1


@ROUNDTRIPS
def test_bytes_that_are_not_text_and_secrets_are_refused(roundtrip: Roundtrip) -> None:
    with pytest.raises(PgflowError, match=r"UTF-8|utf-8"):
        roundtrip(bytes, b"\xff")
    with pytest.raises(UnencryptedSecret):
        roundtrip(SecretStr, SecretStr("hidden"))
