"""A workflow's input: validated on its way in, stored as JSON text, read back as the declared type."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from pgflow.core.definition.step import first_problem
from pgflow.core.values.absent import ABSENT, default_for
from pgflow.core.values.aliases import unreadable_field
from pgflow.core.values.payload import INPUT_LIMIT, decode, encode, refuse_lost
from pgflow.core.values.roundtrip import difference, is_untyped, sort_sets
from pgflow.core.values.secret import MASK, declared, shown
from pgflow.errors import DefinitionError, InvalidInput, UnencryptedSecret

__all__ = ["Input", "declared_type"]


@dataclass(frozen=True, slots=True)
class Input:
    """How the input of one workflow is written and read; `kind` is its declared type, Any when it declares none.

    `secrets` are the places in it where that declares a secret.
    """

    workflow: str
    kind: Any
    adapter: TypeAdapter[Any]
    secrets: tuple[str, ...] = ()

    @classmethod
    def of(cls, workflow: str, kind: Any) -> Input:
        """Return the input of a workflow. Raises `DefinitionError` for a type that pydantic cannot validate."""
        try:
            adapter = TypeAdapter(kind)
            secrets = declared(kind, "input")
        except Exception as error:  # pydantic has several for this, and an undefined name is a NameError
            raise DefinitionError(
                f"{workflow}: {kind!r} cannot be the input: write Workflow[Order] with a pydantic model ({error})"
            ) from error
        if (field := unreadable_field(adapter)) is not None:
            raise DefinitionError(f"{workflow}: the input cannot be read back: {field}")
        return cls(workflow, kind, adapter, secrets)

    def write(self, value: Any, *, reveal: bool = False) -> str:
        """Return a given input, validated, as JSON text. With `reveal` it may hold secrets.

        `ABSENT` is None where the declared type names None, else an empty object. Raises `InvalidInput` when it does
        not fit, `InvalidPayload` when it cannot be stored, `UnencryptedSecret`.
        """
        given = default_for(self.kind) if value is ABSENT else value
        if self.kind is Any:
            return encode(given, what="input", limit=INPUT_LIMIT, reveal=reveal)
        try:
            valid = self.adapter.validate_python(given)
        except ValidationError as error:
            what = "the input" if value is not ABSENT else f"the input was left out, and {given}"
            raise self._refusal(what, error) from None
        if is_untyped(self.kind):
            return encode(valid, what="input", limit=INPUT_LIMIT, reveal=reveal)
        try:
            # By alias, because that is how it will be read.
            dumped = self.adapter.dump_python(valid, mode="json", by_alias=True, round_trip=True, warnings="error")
            if self.secrets:
                dumped = shown(valid, dumped, "input", reveal=reveal)
        except UnencryptedSecret:
            raise
        except (PydanticSerializationError, ValueError) as error:
            if isinstance(valid, BaseModel):
                for name, item in valid.__dict__.items():  # to say where
                    encode(item, what=f"input.{name}", limit=INPUT_LIMIT, reveal=reveal)
            raise InvalidInput(f"{self.workflow}: the input cannot be stored as JSON: {_reason(error)}") from None
        text = encode(sort_sets(valid, dumped), what="input", limit=INPUT_LIMIT)
        if MASK in text and not self.secrets:
            shown(valid, dumped, "input", reveal=reveal)  # one that no type declares, and that no type would read
        refuse_lost(valid, "input", text)
        if (lost := difference(valid, self.read(text), "input")) is not None:
            raise InvalidInput(f"{self.workflow}: {lost}", hint="Declare the type that it is to have.")
        return text

    def read(self, text: str) -> Any:
        """Return a stored input in the declared type. Raises `InvalidInput`, `InvalidPayload`."""
        if self.kind is Any:
            return decode(text)
        try:
            return self.adapter.validate_json(text)
        except ValidationError as error:
            raise self._refusal("the stored input", error) from None

    def _refusal(self, what: str, error: ValidationError) -> InvalidInput:
        kind = getattr(self.kind, "__name__", self.kind)
        return InvalidInput(f"{self.workflow}: {what} does not fit {kind}: {first_problem(error)}")


def _reason(error: Exception) -> str:
    """What pydantic says, but for the values that it quotes."""
    said = str(error)
    if "input_value=" not in said:
        return said
    names = ", ".join(re.findall(r"field_name='(\w+)'", said))
    return f"not of the type that is declared: {names or 'a value in it'}"


def declared_type(workflow: type[Any], origin: type[Any]) -> Any:
    """Return the type in `class OrderFlow(Workflow[Order])`, looked up along the parents; Any when none is given."""
    for each in workflow.__mro__:
        for parent in each.__dict__.get("__orig_bases__", ()):
            if get_origin(parent) is origin:
                (kind,) = get_args(parent)
                return Any if isinstance(kind, TypeVar) else kind
    return Any
