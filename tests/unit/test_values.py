"""The small values: results, retry policies, business keys, names of events and steps."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from datetime import timedelta
from enum import Enum, StrEnum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgflow import Async, Error, Ok, Retry, Snooze, Unique
from pgflow.core.definition.unique import build_id, build_id_with_suffix, extract_value, validate_value
from pgflow.core.values.names import is_key, snake_case
from pgflow.errors import DefinitionError, InvalidPayload, InvalidValue


class Outcome(StrEnum):
    PAID = "paid"


class Other(Enum):
    PAID = "paid"
    NUMBER = 3


def test_an_event_may_be_a_string_or_a_member_of_an_enum() -> None:
    given: list[Any] = ["paid", Outcome.PAID, Other.PAID]
    assert [type(Ok(event).event) for event in given] == [str, str, str]
    assert {Ok(event) for event in given} == {Ok("paid")}


@pytest.mark.parametrize("event", [3, None, Other.NUMBER, ["paid"]])
def test_an_event_that_is_not_a_string_is_refused(event: Any) -> None:
    with pytest.raises(InvalidValue, match="Ok: event must be the name of an event, got"):
        Ok(event)


def test_metadata_is_a_mapping() -> None:
    wrong: Any = ["amount"]
    with pytest.raises(InvalidPayload, match="Ok: metadata must be a mapping, got list"):
        Ok("paid", metadata=wrong)


@pytest.mark.parametrize("delay", [5, None, timedelta(seconds=-1), timedelta.max, timedelta(days=365 * 9000)])
def test_a_snooze_has_a_delay_that_is_not_negative(delay: Any) -> None:
    with pytest.raises(InvalidValue, match="Snooze: delay must be a timedelta from zero to 100 years"):
        Snooze(delay)


@pytest.mark.parametrize("result", [Ok("paid"), Async(), Error("no"), Snooze(timedelta(1))])
def test_results_cannot_be_changed(result: Any) -> None:
    with pytest.raises((FrozenInstanceError, TypeError, AttributeError)):
        result.event = "declined"


@pytest.mark.parametrize(
    ("policy", "pauses"),
    [
        (Retry(), [1, 2, 4, 8, 16, 32, 60, 60]),
        (Retry(backoff="linear", base=timedelta(seconds=20)), [20, 40, 60, 60]),
        (Retry(backoff="constant", base=timedelta(seconds=3)), [3, 3, 3]),
        (Retry(base=timedelta(minutes=5)), [60, 60]),
    ],
)
def test_pauses_follow_the_policy_up_to_its_limit(policy: Retry, pauses: list[float]) -> None:
    assert [policy.delay(number).total_seconds() for number in range(1, len(pauses) + 1)] == pauses


def test_jitter_only_shortens_a_pause() -> None:
    assert Retry(jitter=0.5, backoff="constant").delay(1, random=0.5) == timedelta(seconds=0.75)
    assert Retry().delay(10_000, random=0.999) < timedelta(seconds=60)


def test_never_on_exceptions_fail_a_step_without_a_retry() -> None:
    policy = Retry(never_on=(LookupError,))
    assert policy.ends(KeyError("x"))
    assert not policy.ends(ValueError("x"))
    assert not Retry().ends(ValueError("x"))


@pytest.mark.parametrize(
    "options",
    [
        {"max_attempts": 0},
        {"max_attempts": True},
        {"max_attempts": 2.5},
        {"max_attempts": 40_000},
        {"backoff": "quadratic"},
        {"base": 1},
        {"base": timedelta(seconds=-1)},
        {"max_backoff": timedelta(days=4000)},
        {"jitter": 1.1},
        {"jitter": True},
        {"never_on": ValueError},
        {"never_on": ("ValueError",)},
    ],
    ids=str,
)
def test_an_invalid_policy_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError, match=rf"Retry\({next(iter(options))}=.*: give "):
        Retry(**options)


@pytest.mark.parametrize("key", ["orderid", "order_id", "a1", "x"])
def test_a_key_is_lower_case_letters_digits_and_underscores(key: str) -> None:
    assert Unique(key).scope == "workflow"


@pytest.mark.parametrize("key", ["", "Blueprint", "a-b", "1a", "_a", "abc\n", "é", "a" * 64])
def test_another_key_is_refused(key: str) -> None:
    with pytest.raises(DefinitionError, match=r"the unique key .* is refused: use up to 63 lower-case letters"):
        Unique(key)


def test_a_key_that_is_not_a_string_and_an_unknown_scope_are_refused() -> None:
    number: Any = 123
    planet: Any = "planet"
    with pytest.raises(DefinitionError, match="the unique key must be a string, got 123"):
        Unique(number)
    with pytest.raises(DefinitionError, match=r"scope 'planet' is unknown: use one of 'workflow', 'version', 'global'"):
        Unique("orderid", scope=planet)


GOOD = ["abc123", "ORD-2024_001", "ann@example.org", str(UUID(int=7)), "a:b", ":", "é", "x" * 200, "日本"]
BAD = ["", " ", "a b", "a\n", "\tx", "a\0", "a\x7f", "a\x85", "a\xa0b", "a\u2028b", "a::b", "::", "x" * 201, "\ud800"]


@pytest.mark.parametrize("value", GOOD)
def test_real_world_keys_can_be_business_values(value: str) -> None:
    assert validate_value(value) == value
    assert extract_value(build_id("orderid", value)) == value
    assert extract_value(build_id_with_suffix("orderid", value, "0a1b2c3d")) == value


@pytest.mark.parametrize("value", BAD)
def test_a_value_that_breaks_the_rule_is_refused_with_the_rule(value: str) -> None:
    with pytest.raises(
        InvalidValue, match=r'it must be a string of 1 to 200 characters, without white space, .* or "::"'
    ):
        validate_value(value)


@pytest.mark.parametrize("value", [None, 123, b"abc", ["abc"]])
def test_a_value_that_is_not_a_string_is_refused(value: Any) -> None:
    with pytest.raises(InvalidValue, match="it must be a string of 1 to 200 characters"):
        validate_value(value)


@given(st.text(max_size=210))
def test_the_value_is_extracted_from_every_id(value: str) -> None:
    try:
        validate_value(value)
    except InvalidValue:
        return
    assert extract_value(build_id("k", value)) == value
    assert extract_value(build_id_with_suffix("k", value, "01234567")) == value


@pytest.mark.parametrize(
    "id", ["", "abc", "::", "key::", "::value", "Key::a", "k::a::b", "k::a::0123456", "k::a::b::01234567"]
)
def test_an_invalid_business_id_is_refused(id: str) -> None:  # noqa: A002 -- the name for it in the whole API
    with pytest.raises(InvalidValue, match="is not a business id"):
        extract_value(id)


@pytest.mark.parametrize("suffix", ["", "0123456", "0123456G", "01234567\n", "0123456A"])
def test_a_suffix_is_eight_hexadecimal_digits(suffix: str) -> None:
    with pytest.raises(InvalidValue, match="eight lower-case hexadecimal digits"):
        build_id_with_suffix("k", "a", suffix)


@pytest.mark.parametrize(
    ("name", "key"),
    [("ValidateOrder", "validate_order"), ("HTTPCall", "http_call"), ("CallHTTP", "call_http"), ("Step2", "step2"),
     ("charge", "charge"), ("send_email", "send_email"), ("X", "x")],
)  # fmt: skip
def test_a_key_is_made_from_a_name(name: str, key: str) -> None:
    assert snake_case(name) == key
    assert is_key(key)
