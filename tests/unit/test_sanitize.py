"""The stored error of a step is short, safe for a terminal and a log line, and does not reveal its input."""

from __future__ import annotations

import tracemalloc

import pytest
from pydantic import BaseModel, Field, SecretStr, ValidationError

from pgflow import Retry
from pgflow.core.engine.attempt import attempt_error
from pgflow.core.values.sanitize import (
    MAX_TEXT_LENGTH,
    error_message,
    format_traceback,
    sanitize_line,
    sanitize_text,
    validation_message,
)

CANARY = "canary-4711"


class Cat(BaseModel):
    kind: str


class Login(BaseModel):
    user: int
    password: SecretStr = Field(min_length=100)


def invalid() -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        Login.model_validate({"user": CANARY, "password": CANARY})
    return caught.value


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("plain\n\ttext ü", "plain\n\ttext ü"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("a\r\nb\x7f\x9b", "a\\x0d\nb\\x7f\\x9b"),
        ("a\0b\ud800", "a\ufffdb?"),
        ("x" * (MAX_TEXT_LENGTH + 1), "x" * MAX_TEXT_LENGTH),
    ],
)
def test_stored_text_is_safe_for_a_terminal(given: str, stored: str) -> None:
    assert sanitize_text(given) == stored


def test_the_end_of_a_traceback_is_kept() -> None:
    assert sanitize_text("a" * 10_000 + "end", tail=True).endswith("aend")
    assert len(sanitize_text("\x1b" * 10_000, tail=True)) == MAX_TEXT_LENGTH


@pytest.mark.parametrize(
    "forged", ["no\n2030-01-01 INFO all is well", "no\r\x1b[2K2030", "no\u2028x", "no\u202ex", "no\x85x", "no\0x"]
)
def test_a_line_stays_one_line(forged: str) -> None:
    line = sanitize_line(forged)
    assert line.splitlines() == [line]
    assert line.isprintable()
    assert line.startswith("no")


def test_a_message_of_fifty_megabytes_does_no_harm() -> None:
    error = RuntimeError("x" * 50_000_000)
    tracemalloc.start()
    failed = attempt_error(error, Retry())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(failed.reason) == MAX_TEXT_LENGTH
    assert len(failed.details["trace"]) == MAX_TEXT_LENGTH
    assert peak < 500_000_000


def test_pydantics_errors_are_reported_without_the_input() -> None:
    error = invalid()
    assert CANARY in str(error)  # pydantic's own text contains the input
    assert error_message(error) == validation_message(error)
    assert "user: Input should be a valid integer" in error_message(error)
    assert "password: " in error_message(error)
    for chained in (_from(error), _after(error), ExceptionGroup("several", [ValueError("x"), _from(error)])):
        reported = format_traceback(chained)
        assert CANARY not in reported
        assert "unable to parse string as an integer" in reported
        assert "Traceback" in reported


def _from(error: Exception) -> Exception:
    try:
        raise RuntimeError("it did not fit") from error
    except RuntimeError as chained:
        return chained


def _after(error: Exception) -> Exception:
    try:
        try:
            raise error
        except ValidationError:
            raise KeyError("while it was dealt with")  # noqa: B904 -- the context is what is tested
    except KeyError as chained:
        return chained


def test_an_unknown_union_tag_is_not_reported() -> None:
    from typing import Annotated, Literal

    class A(BaseModel):
        kind: Literal["a"]

    class B(BaseModel):
        kind: Literal["b"]

    class Holder(BaseModel):
        pet: Annotated[A | B, Field(discriminator="kind")]

    with pytest.raises(ValidationError) as caught:
        Holder.model_validate({"pet": {"kind": CANARY}})
    assert CANARY in str(caught.value)
    assert CANARY not in error_message(caught.value) + format_traceback(caught.value)
    assert "'a', 'b'" in error_message(caught.value)


def test_the_name_of_an_exception_is_sanitized() -> None:
    odd = type("Odd\x1b[2J" + "x" * 1000, (Exception,), {})
    failed = attempt_error(odd("why"), Retry())
    assert failed.type.startswith("Odd\\x1b[2Jx")
    assert len(failed.type) == 200
