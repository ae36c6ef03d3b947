"""What the command reads from people and how it speaks to them: durations, moments, and what an instance waits for."""

from datetime import UTC, datetime, timedelta

import pytest

from pgflow.cli.instances.rendering import compact, failure, shorten, took, wait
from pgflow.cli.parameters import parse_duration, parse_timestamp, payload
from pgflow.core.models.instance import WaitingFor
from pgflow.errors import ConfigError, InvalidPayload

MOMENT = datetime(2030, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("90s", timedelta(seconds=90)),
        ("10m", timedelta(minutes=10)),
        ("1h30m", timedelta(hours=1, minutes=30)),
        ("1.5d", timedelta(hours=36)),
        ("2w", timedelta(days=14)),
        ("250ms", timedelta(milliseconds=250)),
        ("0s", timedelta()),
    ],
)
def test_a_duration_is_numbers_with_units(text: str, duration: timedelta) -> None:
    assert parse_duration(text) == duration


@pytest.mark.parametrize("text", ["", "10", "m", "10 m", "-1s", "1h-30m", "1e3s", "٣s", "3651d", "999999999w"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_duration(text)


def test_a_moment_has_a_time_zone() -> None:
    assert parse_timestamp("2030-01-31T12:00:00Z") == parse_timestamp("2030-01-31T14:00+02:00") == MOMENT
    for text in ("2030-01-31T12:00:00", "2030-01-31", "noon", "2030-02-30T12:00:00Z"):
        with pytest.raises(ConfigError):
            parse_timestamp(text)


def test_no_payload_is_not_the_same_as_null() -> None:
    assert payload(None, "payload") is None
    assert payload("null", "payload") == "null"
    with pytest.raises(InvalidPayload, match="larger than any float"):
        payload("1e999", "payload")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0ms"),
        (0.0124, "12ms"),
        (3.21, "3.2s"),
        (59.96, "1m 0s"),
        (125, "2m 5s"),
        (3700, "1h 1m"),
        (90_000, "1d 1h"),
        (-1, "0ms"),
    ],
)
def test_a_duration_is_told_in_its_two_largest_units(seconds: float, said: str) -> None:
    assert took(timedelta(seconds=seconds)) == said


@pytest.mark.parametrize(
    ("each", "said"),
    [
        (WaitingFor("charge", "signal", ("paid",)), "charge waits for a signal: paid"),
        (
            WaitingFor("charge", "signal", ("paid", "declined"), MOMENT),
            "charge waits for a signal: paid or declined, at the latest until 2030-01-31 12:00:00Z",
        ),
        (WaitingFor("cool_off", "timer", ("timeout",), MOMENT), "cool_off: timer until 2030-01-31 12:00:00Z"),
        (
            WaitingFor("ship", "retry", (), MOMENT, 1, "ConnectionError: refused\x1b[2J", 5),
            "ship is tried again at 2030-01-31 12:00:00Z (attempt 2 of 5): ConnectionError: refused\\x1b[2J",
        ),
        (WaitingFor("ship", "queue", (), MOMENT), "ship starts at 2030-01-31 12:00:00Z"),
        (WaitingFor("ship", "queue"), "ship waits for a worker"),
        (WaitingFor("ship", "queue", (), None, 1, "lost", 5), "ship waits for a worker (attempt 2 of 5): lost"),
        (WaitingFor("", "queue"), "the instance waits for a worker"),
        (WaitingFor("email", "running", attempt=1), "email runs"),
        (WaitingFor("email", "running", (), None, 2, "lost", 5), "email runs (attempt 2 of 5): lost"),
    ],
)
def test_what_a_step_waits_for_is_told_in_words(each: WaitingFor, said: str) -> None:
    assert wait(each) == said


def test_why_an_instance_ended_is_told_in_one_line() -> None:
    assert failure(None) is None
    assert failure({"reason": "ordered twice"}) == "ordered twice"
    error = {"step": "ship", "reason": "refused", "type": "ConnectionError", "attempt": 5, "attempts": []}
    assert failure(error) == "ship failed in attempt 5: ConnectionError: refused"
    assert failure({**error, "type": "Error"}) == "ship failed in attempt 5: refused"


def test_long_text_becomes_one_short_line() -> None:
    assert shorten("a\n  b", 10) == "a b"
    assert shorten("x" * 11, 10) == "x" * 9 + "…"
    assert compact({"ü": [1, "\n"]}, 30) == '{"ü": [1, "\\n"]}'
