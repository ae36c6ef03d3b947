"""The command line parses durations and timestamps, and renders the state of an instance as text."""

from datetime import UTC, datetime, timedelta

import pytest

from pgflow.cli.instances.rendering import compact_json, describe_failure, describe_wait, format_elapsed, truncate
from pgflow.cli.parameters import parse_duration, parse_timestamp, payload
from pgflow.config import parse_queue
from pgflow.core.models.instance import WaitingFor
from pgflow.errors import BadQueue, ConfigError, InvalidPayload

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
def test_a_duration_is_a_sequence_of_numbers_with_units(text: str, duration: timedelta) -> None:
    assert parse_duration(text) == duration


@pytest.mark.parametrize("text", ["", "10", "m", "10 m", "-1s", "1h-30m", "1e3s", "٣s", "3651d", "999999999w"])
def test_an_invalid_duration_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"is not a valid duration|must be at most 3650 days"):
        parse_duration(text)


def test_a_concurrency_out_of_range_is_refused_with_the_range() -> None:
    with pytest.raises(BadQueue, match=r"^queue mail: concurrency must be between 1 and 10000, got '0'"):
        parse_queue("mail=0")


def test_a_timestamp_requires_a_time_zone() -> None:
    assert parse_timestamp("2030-01-31T12:00:00Z") == parse_timestamp("2030-01-31T14:00+02:00") == MOMENT
    for text in ("2030-01-31T12:00:00", "2030-01-31", "noon", "2030-02-30T12:00:00Z"):
        with pytest.raises(ConfigError, match=r"is not a valid timestamp|has no time zone"):
            parse_timestamp(text)


def test_an_absent_payload_differs_from_null() -> None:
    assert payload(None, "payload") is None
    assert payload("null", "payload") == "null"
    with pytest.raises(InvalidPayload, match="beyond the range of a float"):
        payload("1e999", "payload")


@pytest.mark.parametrize(
    ("seconds", "text"),
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
def test_an_elapsed_time_is_shown_in_its_two_largest_units(seconds: float, text: str) -> None:
    assert format_elapsed(timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(
    ("each", "text"),
    [
        (WaitingFor("charge", "signal", ("paid",)), "charge: waiting for signal paid"),
        (
            WaitingFor("charge", "signal", ("paid", "declined"), MOMENT),
            "charge: waiting for signal paid or declined, timeout at 2030-01-31 12:00:00Z",
        ),
        (WaitingFor("cool_off", "timer", ("timeout",), MOMENT), "cool_off: timer until 2030-01-31 12:00:00Z"),
        (
            WaitingFor("ship", "retry", (), MOMENT, 1, "ConnectionError: refused\x1b[2J", 5),
            "ship: retry at 2030-01-31 12:00:00Z (attempt 2 of 5): ConnectionError: refused\\x1b[2J",
        ),
        (WaitingFor("ship", "queue", (), MOMENT), "ship: scheduled for 2030-01-31 12:00:00Z"),
        (WaitingFor("ship", "queue"), "ship: waiting for a worker"),
        (WaitingFor("ship", "queue", (), None, 1, "lost", 5), "ship: waiting for a worker (attempt 2 of 5): lost"),
        (WaitingFor("", "queue"), "instance: waiting for a worker"),
        (WaitingFor("email", "running", attempt=1), "email: running"),
        (WaitingFor("email", "running", (), None, 2, "lost", 5), "email: running (attempt 2 of 5): lost"),
    ],
)
def test_the_state_of_an_active_step_is_described(each: WaitingFor, text: str) -> None:
    assert describe_wait(each) == text


def test_a_failure_is_described_in_one_line() -> None:
    assert describe_failure(None) is None
    assert describe_failure({"reason": "ordered twice"}) == "ordered twice"
    error = {"step": "ship", "reason": "refused", "type": "ConnectionError", "attempt": 5, "attempts": []}
    assert describe_failure(error) == "ship failed on attempt 5: ConnectionError: refused"
    assert describe_failure({**error, "type": "Error"}) == "ship failed on attempt 5: refused"


def test_long_text_is_truncated_to_one_line() -> None:
    assert truncate("a\n  b", 10) == "a b"
    assert truncate("x" * 11, 10) == "x" * 9 + "…"
    assert compact_json({"ü": [1, "\n"]}, 30) == '{"ü": [1, "\\n"]}'
