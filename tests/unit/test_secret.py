"""A secret is found wherever a type declares it or a value contains it, and never stored masked or in plain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Generic, NamedTuple, TypedDict, TypeVar

import pytest
from pydantic import BaseModel, ConfigDict, Field, RootModel, Secret, SecretBytes, SecretStr, field_serializer

from pgflow import Context, Done, Ok, Pgflow, Step, Unique, Workflow, step
from pgflow.core.definition.input import Input
from pgflow.core.definition.rules.problems import collecting
from pgflow.core.values.payload import INPUT_LIMIT, decode, encode
from pgflow.core.values.secret import secrets_in_type
from pgflow.errors import DefinitionError, InvalidInput, PgflowError, UnencryptedSecret
from pgflow.local import Local

T = TypeVar("T")
CANARY = "canary-4711"


class SecretDate(Secret[date]):
    def _display(self) -> str:
        return "****/**/**"


class Card(BaseModel):
    number: SecretStr


@dataclass
class Account:
    pin: SecretBytes
    owner: str = "ada"


class Keys(TypedDict):
    api: SecretStr


class Pair(NamedTuple):
    name: str
    key: SecretStr


class Box(BaseModel, Generic[T]):
    inside: T


class Node(BaseModel):
    children: list[Node] = []
    key: SecretStr | None = None


class Cards(RootModel[list[Card]]):
    pass


class Hidden(BaseModel):
    shown: int = 1
    kept: SecretStr = Field(default=SecretStr("x"), exclude=True)


@pytest.mark.parametrize(
    ("kind", "places"),
    [
        (SecretStr, ("x",)),
        (Secret[int], ("x",)),
        (SecretDate, ("x",)),
        (SecretStr | None, ("x",)),
        (Annotated[SecretStr, Field(min_length=3)], ("x",)),
        (Card, ("x.number",)),
        (Account, ("x.pin",)),
        (Keys, ("x.api",)),
        (Pair, ("x.key",)),
        (Box[SecretStr], ("x.inside",)),
        (Box[Card], ("x.inside.number",)),
        (Cards, ("x.root[…].number",)),
        (Node, ("x.key",)),
        (list[dict[str, Card | None]], ("x[…][…].number",)),
        (Hidden, ()),
        (dict[str, Any], ()),
        (Any, ()),
        (None, ()),
        (int | str, ()),
    ],
)
def test_a_type_that_declares_a_secret_is_detected(kind: Any, places: tuple[str, ...]) -> None:
    assert secrets_in_type(kind, "x") == places


VALUES = [
    (SecretStr(CANARY), CANARY),
    ({"a": [SecretStr(CANARY)]}, {"a": [CANARY]}),
    ((SecretBytes(CANARY.encode()),), [CANARY]),
    (Card(number=SecretStr(CANARY)), {"number": CANARY}),
    ({"card": Card(number=SecretStr(CANARY))}, {"card": {"number": CANARY}}),
    (Account(SecretBytes(CANARY.encode())), {"pin": CANARY, "owner": "ada"}),
    (Box[Any](inside=SecretStr(CANARY)), {"inside": CANARY}),
    (Box[Any](inside={"deep": [Card(number=SecretStr(CANARY))]}), {"inside": {"deep": [{"number": CANARY}]}}),
    (Box[SecretDate](inside=SecretDate(date(2030, 1, 2))), {"inside": "2030-01-02"}),
    (Secret[Card](Card(number=SecretStr(CANARY))), {"number": CANARY}),
    (Cards(root=[Card(number=SecretStr(CANARY))]), [{"number": CANARY}]),
    (Box[set[SecretStr]](inside={SecretStr("b"), SecretStr("a")}), {"inside": ["a", "b"]}),
]


@pytest.mark.parametrize(("value", "clear"), VALUES, ids=range(len(VALUES)))
def test_a_value_with_a_secret_is_refused_unless_it_will_be_encrypted(value: Any, clear: Any) -> None:
    with pytest.raises(UnencryptedSecret, match=r"^output\S* is a secret and would be stored in plain") as caught:
        encode(value, what="output", limit=INPUT_LIMIT)
    assert "codec" in (caught.value.hint or "")
    assert decode(encode(value, what="output", limit=INPUT_LIMIT, reveal=True)) == clear


def test_asterisks_alone_are_not_a_secret() -> None:
    assert encode({"a": "**********"}, what="x", limit=99) == '{"a":"**********"}'
    assert Input.of("W", Box[str]).write({"inside": "**********"}) == '{"inside":"**********"}'


class Login(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    user: str
    password: SecretStr = Field(alias="passWord")
    cards: list[Card | int] = []
    keys: dict[str, SecretBytes] = {}
    born: SecretDate | None = None
    level: Secret[int] = Secret[int](3)


def test_a_typed_input_is_read_back_with_its_secrets() -> None:
    given = Login(
        user="ada",
        password=SecretStr(CANARY),
        cards=[Card(number=SecretStr("1")), 2],
        keys={"a": SecretBytes(b"k")},
        born=SecretDate(date(1815, 12, 10)),
    )
    own = Input.of("W", Login)
    text = own.write(given, reveal=True)
    assert own.read(text) == given
    assert "***" not in text
    with pytest.raises(UnencryptedSecret, match=r"^input\.password is a secret"):
        own.write(given)
    with pytest.raises(UnencryptedSecret, match=r"^input\.password is a secret"):
        own.write({"user": "ada", "passWord": CANARY})


def test_a_secret_that_its_field_does_not_declare_is_refused_with_and_without_a_codec() -> None:
    own = Input.of("W", Box[Any])
    with pytest.raises(UnencryptedSecret, match=r"input\.inside"):
        own.write(Box[Any](inside=SecretStr(CANARY)))
    with pytest.raises(InvalidInput, match=r"input\.inside is a SecretStr, and would come back as a str"):
        own.write(Box[Any](inside=SecretStr(CANARY)), reveal=True)


class Own(BaseModel):
    key: SecretStr

    @field_serializer("key", when_used="json")
    def written(self, key: SecretStr) -> str:
        return key.get_secret_value()


class Odd(BaseModel):
    key: SecretStr

    @field_serializer("key", when_used="json")
    def written(self, key: SecretStr) -> dict[str, str]:
        return {"is": "odd"}


def test_a_custom_serializer_reveals_no_secret_without_a_codec() -> None:
    own = Own(key=SecretStr(CANARY))
    writes: list[Callable[[], Any]] = [
        lambda: encode(own, what="x", limit=99),
        lambda: Input.of("W", Own).write(own),
    ]
    for write in writes:
        with pytest.raises(UnencryptedSecret, match=r"\.key is a secret"):
            write()
    assert decode(encode(own, what="x", limit=99, reveal=True)) == {"key": CANARY}
    assert Input.of("W", Odd).write(Odd(key=SecretStr("a")), reveal=True) == '{"key":"a"}'


def test_neither_metadata_nor_telemetry_nor_a_filter_accepts_a_secret() -> None:
    with Local(workflows=[Plain]):
        held = {"k": SecretStr(CANARY)}
        starts: list[Callable[[], Any]] = [
            lambda: Plain.start("a", metadata=held),
            lambda: Plain.start("a", telemetry=held),
        ]
        for start in starts:
            with pytest.raises(UnencryptedSecret) as caught:
                start()
            assert CANARY not in f"{caught.value} {caught.value.hint}"
        with pytest.raises(UnencryptedSecret):
            Plain.list(metadata={"k": SecretStr(CANARY)})


@step
def only(ctx: Context[Any]) -> Ok:
    return Ok("done")


class Plain(Workflow[Any], unique=Unique("plain")):
    initial = only
    transitions = {only: {"done": Done}}


class In(Workflow[Login], unique=Unique("in")):
    initial = only
    transitions = {only: {"done": Done}}


@step(output=list[Card])
def cards(ctx: Context[Any]) -> Ok:
    return Ok("done", [])


class Out(Workflow[Any], unique=Unique("out"), current=1):
    class V1(Workflow[Any], version=1):
        initial = cards
        transitions = {cards: {"done": Done}}

    versions = {1: V1}


@pytest.mark.parametrize(
    ("workflow", "place"), [(In, r"In: input\.password"), (Out, r"Out: cards\.output\[…\]\.number")]
)
def test_an_app_without_a_codec_refuses_a_workflow_that_declares_secrets(workflow: Any, place: str) -> None:
    for make in (lambda: Pgflow(workflows=[workflow]), lambda: Local(workflows=[workflow])):
        with pytest.raises(DefinitionError, match=f"{place} is a secret and would be stored in plain") as caught:
            make()
        assert "codec=" in (caught.value.hint or "")
    with collecting() as collected:  # as `pgflow validate` does
        Pgflow(workflows=[workflow, Plain])
    assert [message.partition(" is ")[0] for message in collected.problems] == [place.replace("\\", "")]


def test_a_configuration_accepts_no_secret() -> None:
    class Call(Step):
        events = ("done",)
        token: SecretStr = SecretStr(CANARY)

        def execute(self, ctx: Context[Any]) -> Ok:
            return Ok("done")

    with pytest.raises(
        DefinitionError, match=r"step call\.token is a secret, and a configuration is stored in plain"
    ) as e:

        class Flow(Workflow[Any], unique=Unique("flow")):
            initial = Call
            transitions = {Call: {"done": Done}}

    assert CANARY not in str(e.value)


def test_a_value_that_is_not_a_codec_is_refused() -> None:
    for make in (lambda: Pgflow(codec="rot13"), lambda: Local(codec=object())):  # type: ignore[arg-type]  # that is it
        with pytest.raises(PgflowError, match="is not a Codec"):
            make()
