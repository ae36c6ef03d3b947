"""A workflow's input: validated at the start, stored as JSON text, read back in the declared type."""

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
from pgflow.core.values.secret import MASK, reveal_secrets, secrets_in_type
from pgflow.errors import DefinitionError, InvalidInput, UnencryptedSecret

__all__ = ["Input", "declared_type"]


@dataclass(frozen=True, slots=True)
class Input:
    """Writes and reads the input of one workflow; `kind` is its declared type, Any if it declares none.

    `secrets` are the paths at which the type declares a secret.
    """

    workflow: str
    kind: Any
    adapter: TypeAdapter[Any]
    secrets: tuple[str, ...] = ()

    @classmethod
    def of(cls, workflow: str, kind: Any) -> Input:
        """Return the `Input` of a workflow. Raises `DefinitionError` for a type that pydantic cannot validate."""
        try:
            adapter = TypeAdapter(kind)
            secrets = secrets_in_type(kind, "input")
        except Exception as error:  # pydantic raises several classes for this, an undefined name is a NameError
            raise DefinitionError(
                f"{workflow}: {kind!r} cannot be the input: write Workflow[Order] with a pydantic model ({error})"
            ) from error
        if (field := unreadable_field(adapter)) is not None:
            raise DefinitionError(f"{workflow}: the input cannot be read back: {field}")
        return cls(workflow, kind, adapter, secrets)

    def write(self, value: Any, *, reveal: bool = False) -> str:
        """Return an input, validated, as JSON text. With `reveal` it may contain secrets.

        `ABSENT` becomes None if the declared type includes None, else `{}`. Raises `InvalidInput` if it does not fit
        the type, `InvalidPayload` if it cannot be stored, and `UnencryptedSecret`.
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
                dumped = reveal_secrets(valid, dumped, "input", reveal=reveal)
        except UnencryptedSecret:
            raise
        except (PydanticSerializationError, ValueError) as error:
            if isinstance(valid, BaseModel):
                for name, item in valid.__dict__.items():  # to name the field in the error
                    encode(item, what=f"input.{name}", limit=INPUT_LIMIT, reveal=reveal)
            raise InvalidInput(f"{self.workflow}: the input cannot be stored as JSON: {_reason(error)}") from None
        text = encode(sort_sets(valid, dumped), what="input", limit=INPUT_LIMIT)
        if MASK in text and not self.secrets:
            reveal_secrets(valid, dumped, "input", reveal=reveal)  # undeclared, so it could not be read back
        refuse_lost(valid, "input", text)
        if (lost := difference(valid, self.read(text), "input")) is not None:
            raise InvalidInput(f"{self.workflow}: {lost}", hint="Declare its type.")
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
    """Return pydantic's message, without the values that it quotes."""
    message = str(error)
    if "input_value=" not in message:
        return message
    names = ", ".join(re.findall(r"field_name='(\w+)'", message))
    return f"not of the declared type: {names or 'a value in it'}"


def declared_type(workflow: type[Any], origin: type[Any]) -> Any:
    """Return the type in `class OrderFlow(Workflow[Order])`, searched along the parents; Any if there is none."""
    for each in workflow.__mro__:
        for parent in each.__dict__.get("__orig_bases__", ()):
            if get_origin(parent) is origin:
                (kind,) = get_args(parent)
                return Any if isinstance(kind, TypeVar) else kind
    return Any
