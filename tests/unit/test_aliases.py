"""A model works as an input, an output and a payload, or its definition is refused because of an alias."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

import pytest
from pydantic import (
    AliasChoices,
    AliasGenerator,
    AliasPath,
    BaseModel,
    ConfigDict,
    Field,
    Json,
    RootModel,
    computed_field,
    field_serializer,
    model_validator,
)
from pydantic.alias_generators import to_camel
from typing_extensions import TypedDict

from pgflow import Async, Context, Done, Ok, Step, Unique, Workflow
from pgflow.client.signal_request import consumers, payload_text
from pgflow.core.engine import attempt
from pgflow.core.engine.attempt import EncodedResult
from pgflow.core.values.payload import decode
from pgflow.errors import DefinitionError

T = TypeVar("T")


class Computed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    count: int

    @computed_field  # type: ignore[prop-decorator]  # as pydantic documents it
    @property
    def twice(self) -> int:
        return 2 * self.count

    @cached_property
    def thrice(self) -> int:
        return 3 * self.count


class Holder(BaseModel):
    parts: dict[str, list[Computed]]


class Written_(BaseModel):
    data: Json[dict[str, int]]
    more: list[Json[Any]] = []


class Alias(BaseModel):
    number: int = Field(alias="no")


class ReadAs(BaseModel):
    number: int = Field(validation_alias="no")


class WrittenAs(BaseModel):
    number: int = Field(serialization_alias="no")


class ReadByName(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    number: int = Field(validation_alias="no")


class WrittenAsAndByName(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    number: int = Field(serialization_alias="no")


class Path(BaseModel):
    number: int = Field(validation_alias=AliasPath("numbers", 0))


class Choices(BaseModel):
    number: int = Field(validation_alias=AliasChoices("no", AliasPath("numbers", 0)))


class ChoicesWithName(BaseModel):
    number: int = Field(validation_alias=AliasChoices("no", "number"))


class Generated(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)
    item_count: int


class GeneratedOneWay(BaseModel):
    model_config = ConfigDict(alias_generator=AliasGenerator(serialization_alias=to_camel))
    item_count: int


class OnlyByName(BaseModel):
    model_config = ConfigDict(validate_by_name=True, validate_by_alias=False)
    number: int = Field(alias="no")


class Nested(BaseModel):
    inner: dict[str, list[ReadAs | None]] = {}


class Recursive(BaseModel):
    children: list[Recursive] = []
    number: int = Field(0, validation_alias="no")


class Tree(BaseModel):
    children: list[Tree] = []
    number: int = Field(0, alias="no")


class Root(RootModel[list[Alias]]):
    pass


class WrongRoot(RootModel[list[ReadAs]]):
    pass


class Of(BaseModel, Generic[T]):
    item: T
    number: int = Field(0, alias="no")


@dataclass
class Box:
    number: Annotated[int, Field(alias="no")]


@dataclass
class WrongBox:
    number: Annotated[int, Field(validation_alias="no")]


class Row(TypedDict):
    number: Annotated[int, Field(alias="no")]


class WrongRow(TypedDict):
    number: Annotated[int, Field(validation_alias="no")]


class One(BaseModel):
    kind: Literal["one"] = "one"
    size: int = Field(1, alias="Size")


class Two(BaseModel):
    kind: Literal["two"] = "two"
    size: int = Field(2, validation_alias="Size")


class Three(BaseModel):
    kind: Literal["three"] = "three"


class Either(BaseModel):
    one: Annotated[One | Three, Field(discriminator="kind")]


class WrongEither(BaseModel):
    one: Annotated[One | Two, Field(discriminator="kind")]


class Excluded(BaseModel):
    number: int = Field(0, validation_alias="no", exclude=True)


class Renaming(BaseModel):
    number: int = Field(validation_alias="no")

    @model_validator(mode="before")
    @classmethod
    def rename(cls, given: Any) -> Any:
        return {"no": given["number"]} if isinstance(given, dict) and "number" in given else given


class Serialized(BaseModel):
    number: int

    @field_serializer("number")
    def as_text(self, number: int) -> str:
        return str(number)


def flow(kind: Any) -> type[Workflow[Any]]:
    class Flow(Workflow[kind], unique=Unique("flow")):
        initial = Plain
        transitions = {Plain: {"done": Done}}

    return Flow


def step_with(kind: Any) -> type[Step]:
    class Waiting(Step):
        events = ("done",)
        output: ClassVar[Any] = kind

        def execute(self, ctx: Context[Any]) -> Async:
            return Async()

    return Waiting


def output_flow(kind: Any) -> type[Workflow[Any]]:
    waiting = step_with(kind)

    class Flow(Workflow[Any], unique=Unique("flow")):
        initial = waiting
        transitions = {waiting: {"done": Done}}

    return Flow


class Plain(Step):
    events = ("done",)

    def execute(self, ctx: Context[Any]) -> Ok:
        return Ok("done")


def as_input(kind: Any, value: Any) -> tuple[str, Any]:
    made = flow(kind)
    text = made.write_input(value)
    return text, made.read_input(text)


def as_output(kind: Any, value: Any) -> tuple[str, Any]:
    made = output_flow(kind)
    written = attempt.read(made.graph, "waiting", Ok("done", value), lambda: Context(None))
    assert isinstance(written, EncodedResult)
    assert written.text is not None
    return written.text, made.graph.nodes["waiting"].step.read_output(decode(written.text))


def as_payload(kind: Any, value: Any) -> tuple[str, Any]:
    made = output_flow(kind)
    text = payload_text(value, consumers([made.graph], "done", None)[2])
    assert text is not None
    return text, made.graph.nodes["waiting"].step.read_output(decode(text))


@pytest.mark.parametrize("place", [as_input, as_output, as_payload])
@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        (Computed, Computed(count=1), '{"count":1}'),
        (list[Computed], [Computed(count=1)], '[{"count":1}]'),
        (Computed | None, Computed(count=1), '{"count":1}'),
        (Holder, Holder(parts={"a": [Computed(count=1)]}), '{"parts":{"a":[{"count":1}]}}'),
        (
            Written_,
            Written_.model_validate({"data": '{"a": 1}', "more": ["[2]"]}),
            r'{"data":"{\"a\":1}","more":["[2]"]}',
        ),
        (Alias, Alias(no=1), '{"no":1}'),
        (ReadByName, ReadByName(number=1), '{"number":1}'),
        (ChoicesWithName, ChoicesWithName.model_validate({"no": 1}), '{"number":1}'),
        (Generated, Generated(itemCount=1), '{"itemCount":1}'),
        (Tree, Tree(no=1, children=[Tree(no=2)]), '{"children":[{"children":[],"no":2}],"no":1}'),
        (Root, Root([Alias(no=1)]), '[{"no":1}]'),
        (Of[int], Of[int](item=1, no=2), '{"item":1,"no":2}'),
        (Row, {"no": 1}, '{"no":1}'),
        (Either, Either(one=One(Size=3)), '{"one":{"Size":3,"kind":"one"}}'),
        (Excluded, Excluded(), "{}"),
        (Renaming, Renaming(no=1), '{"number":1}'),
        (Serialized, Serialized(number=1), '{"number":"1"}'),
    ],
)
def test_a_readable_model_works_as_input_output_and_payload(
    place: Callable[[Any, Any], tuple[str, Any]], kind: Any, value: Any, text: str
) -> None:
    written, back = place(kind, value)
    assert written == text
    assert back == (value if kind is not Row else {"number": 1})


def test_a_cached_property_that_was_read_is_not_stored() -> None:
    value = Computed(count=2)
    assert value.thrice == 6
    for place in (as_input, as_output, as_payload):
        assert place(Computed, value)[0] == '{"count":2}'


def test_an_output_without_a_declared_type_keeps_its_computed_fields() -> None:
    assert as_output(None, Computed(count=1))[0] == '{"count":1,"twice":2}'


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (ReadAs, "ReadAs.number is written as 'number' and read from 'no'"),
        (WrittenAs, "WrittenAs.number is written as 'no' and read from 'number'"),
        (WrittenAsAndByName, "WrittenAsAndByName.number is written as 'no' and read from 'number'"),
        (Path, r"Path.number is written as 'number' and read from \['numbers', 0\]"),
        (Choices, "Choices.number is written as 'number' and read from 'no'"),
        (GeneratedOneWay, "GeneratedOneWay.item_count is written as 'itemCount' and read from 'item_count'"),
        (OnlyByName, "OnlyByName.number is written as 'no' and read from 'number'"),
        (Nested, "ReadAs.number is written as 'number' and read from 'no'"),
        (Recursive, "Recursive.number is written as 'number' and read from 'no'"),
        (WrongRoot, "ReadAs.number is written as 'number' and read from 'no'"),
        (Of[ReadAs], "ReadAs.number is written as 'number' and read from 'no'"),
        (WrongBox, "WrongBox.number is written as 'number' and read from 'no'"),
        (WrongRow, "WrongRow.number is written as 'number' and read from 'no'"),
        (WrongEither, "Two.size is written as 'size' and read from 'Size'"),
        (ReadAs | None, "ReadAs.number is written as 'number' and read from 'no'"),
        (dict[str, tuple[ReadAs, ...]], "ReadAs.number is written as 'number' and read from 'no'"),
    ],
)
def test_a_field_written_and_read_under_different_names_is_refused_at_definition(kind: Any, expected: str) -> None:
    with pytest.raises(DefinitionError, match=f"Flow: the input cannot be read back: {expected}: give it one alias"):
        flow(kind)
    with pytest.raises(DefinitionError, match=f"its output cannot be read back: {expected}: give it one alias"):
        output_flow(kind)
