"""Types with plain fields are recognized, and nothing else is; their JSON is what the general way writes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import date
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
    TypeAdapter,
    computed_field,
    field_serializer,
    model_validator,
)

from pgflow import task
from pgflow.core.definition.input import Input
from pgflow.core.values.flat import is_flat
from pgflow.errors import PgflowError


class Order(BaseModel):
    number: int
    note: str | None = None
    urgent: bool = False
    pieces: Annotated[int, Field(ge=0, le=9)] = 1


@dataclass
class Plain:
    number: int
    note: str = "a"
    more: int = field(default=3, kw_only=True)


class Serialized(BaseModel):
    number: int

    @field_serializer("number")
    def shown(self, number: int) -> str:
        return f"#{number}"


class Validated(BaseModel):
    number: int

    @model_validator(mode="after")
    def checked(self) -> Validated:
        return self


class Computed(BaseModel):
    number: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def double(self) -> int:
        return 2 * self.number


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    number: int


class Stripped(BaseModel):
    model_config = ConfigDict(str_strip_whitespace=True)
    text: str


class Aliased(BaseModel):
    number: int = Field(alias="no")


class Chosen(BaseModel):
    number: int = Field(validation_alias=AliasChoices("a", "b"))


class Ended(BaseModel):
    number: int

    def model_post_init(self, context: Any) -> None:
        self.__dict__["number"] = self.number + 1


class Dated(BaseModel):
    day: date


class Nested(BaseModel):
    order: Order


class Secret(BaseModel):
    token: SecretStr


class Hidden(BaseModel):
    number: int = Field(default=1, exclude=True)


class Changed(BaseModel):
    number: Annotated[int, AfterValidator(lambda number: number + 1)]


class Written(BaseModel):
    number: Annotated[int, PlainSerializer(str)]


@dataclass(slots=True)
class Slotted:
    number: int


@dataclass
class Later:
    number: int

    def __post_init__(self) -> None:
        self.number += 1


@task
def call(number: int, note: str | None = None, /, *, urgent: bool = False) -> None:
    """A task with plain parameters."""


OTHERS = (Serialized, Validated, Computed, Open, Stripped, Aliased, Chosen, Ended, Dated, Nested, Secret, Hidden)


@pytest.mark.parametrize("kind", [Order, Plain])
def test_a_type_with_plain_fields_is_recognized(kind: Any) -> None:
    assert is_flat(TypeAdapter(kind))
    assert call.definition.arguments.fields.is_flat


@pytest.mark.parametrize(
    "kind", [*OTHERS, Changed, Written, Slotted, Later, int, dict[str, int], Order | None, list[Order]]
)
def test_any_other_type_is_not(kind: Any) -> None:
    assert not is_flat(TypeAdapter(kind))


@given(number=st.integers(), note=st.none() | st.text(), urgent=st.booleans(), pieces=st.integers(0, 9))
def test_both_ways_write_the_same(number: int, note: str | None, urgent: bool, pieces: int) -> None:
    value = {"number": number, "note": note, "urgent": urgent, "pieces": pieces}
    quick = Input.of("Flow", Order)
    assert quick.is_flat
    for each in (value, Order(number=number, note=note, urgent=urgent, pieces=pieces)):
        assert _outcome(quick, each) == _outcome(replace(quick, is_flat=False), each)


class Larger(Order):
    extra: str = "more"


@pytest.mark.parametrize(
    "value",
    [
        Order.model_construct(number="7"),  # type: ignore[arg-type]
        Order.model_construct(number=True),
        Order.model_construct(number=1.0),  # type: ignore[arg-type]
        Order.model_construct(note="without a number"),  # type: ignore[call-arg]
        Larger(number=1),
    ],
)
def test_a_value_that_does_not_fit_its_type_takes_the_general_way(value: Order) -> None:
    quick = Input.of("Flow", Order)
    assert _outcome(quick, value) == _outcome(replace(quick, is_flat=False), value)


def _outcome(kind: Input, value: Any) -> str:
    try:
        return kind.write(value)
    except PgflowError as error:
        return f"{type(error).__name__}: {error}"
