"""A value that would be read back differently is reported by path and type, never by value."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from pydantic import BaseModel, field_validator

from pgflow.core.definition.input import Input
from pgflow.core.values.roundtrip import difference
from pgflow.errors import InvalidInput

CANARY = "canary-4711"


class Loud(BaseModel):
    name: str

    @field_validator("name")
    @classmethod
    def louder(cls, name: str) -> str:
        return name + "!"


@pytest.mark.parametrize(
    ("given", "back", "expected"),
    [
        ({"a": [CANARY]}, {"a": ["x"]}, "it.a[0] would come back as another str"),
        ({"a": CANARY}, {"a": [CANARY]}, "it.a is a str, and would come back as a list"),
        ([date(2030, 1, 1)], ["2030-01-01"], "it[0] is a date, and would come back as a str"),
        ({"a": CANARY}, {}, "it.a would not come back"),
        ({}, {"a": CANARY}, "it would come back with 'a', too"),
        ({"a": 1.0}, {"a": 1.0}, None),
    ],
)
def test_a_difference_has_the_path_and_not_the_value(given: Any, back: Any, expected: str | None) -> None:
    assert difference(given, back, "it") == expected


def test_an_input_that_changes_when_it_is_read_is_refused_without_its_value() -> None:
    with pytest.raises(InvalidInput, match=r"W: input\.name would come back as another str") as caught:
        Input.of("W", Loud).write({"name": CANARY})
    assert CANARY not in f"{caught.value} {caught.value.hint}"


def test_a_value_of_another_type_is_reported_without_the_value() -> None:
    with pytest.raises(InvalidInput, match="not of the declared type: name") as caught:
        Input.of("W", Loud).write(
            Loud.model_construct(name=[CANARY])  # type: ignore[arg-type]  # that is it
        )
    assert CANARY not in str(caught.value)
