"""A declared type as JSON: the input of a workflow, the arguments and the output of a task.

A value is validated when it is given, stored as JSON text, and read back in its declared type.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from pgflow.core.definition.step import first_problem
from pgflow.core.values.absent import ABSENT, default_for
from pgflow.core.values.aliases import unreadable_field
from pgflow.core.values.flat import PLAIN, are_plain, is_flat
from pgflow.core.values.payload import INPUT_LIMIT, decode, encode, refuse_lost
from pgflow.core.values.roundtrip import difference, is_untyped, sort_sets
from pgflow.core.values.secret import MASK, reveal_secrets, secrets_in_type
from pgflow.errors import DefinitionError, InvalidInput, UnencryptedSecret

__all__ = ["Input", "declared_type"]


@dataclass(frozen=True, slots=True)
class Input:
    """Writes and reads the input of one workflow; `kind` is its declared type, Any if it declares none.

    `secrets` are the paths at which the type declares a secret. For a task `what` is "args" or "output". `is_flat` is
    whether values are plain fields, see `flat`.
    """

    workflow: str
    kind: Any
    adapter: TypeAdapter[Any]
    secrets: tuple[str, ...] = ()
    what: str = "input"
    is_flat: bool = False

    @classmethod
    def of(cls, workflow: str, kind: Any, what: str = "input") -> Input:
        """Return the `Input` of a workflow. Raises `DefinitionError` for a type that pydantic cannot validate."""
        try:
            adapter = TypeAdapter(kind)
            secrets = secrets_in_type(kind, what)
        except Exception as error:  # pydantic raises several classes for this, an undefined name is a NameError
            fix = "write Workflow[Order] with a pydantic model" if what == "input" else "use a type that pydantic knows"
            reason = str(error).partition("\n")[0]
            raise DefinitionError(f"{workflow}: {kind!r} cannot be the {what}: {fix} ({reason})") from error
        if (field := unreadable_field(adapter)) is not None:
            raise DefinitionError(f"{workflow}: the {what} cannot be read back: {field}")
        return cls(workflow, kind, adapter, secrets, what, not secrets and is_flat(adapter))

    def write(self, value: Any, *, reveal: bool = False, limit: int = INPUT_LIMIT) -> str:
        """Return an input, validated, as JSON text of at most `limit` bytes. With `reveal` it may contain secrets.

        `ABSENT` becomes None if the declared type includes None, else `{}`. Raises `InvalidInput` if it does not fit
        the type, `InvalidPayload` if it cannot be stored, and `UnencryptedSecret`.
        """
        given = default_for(self.kind) if value is ABSENT else value
        if self.kind is Any or (type(given) is self.kind and self.kind in PLAIN):  # valid, and reads back as itself
            return encode(given, what=self.what, limit=limit, reveal=reveal)
        try:
            valid = self.adapter.validate_python(given)
        except ValidationError as error:
            what = f"the {self.what}" if value is not ABSENT else f"the {self.what} was left out, and {given}"
            raise self._refusal(what, error) from None
        if self.is_flat and (text := self._flat_text(valid, limit)) is not None:
            return text
        if is_untyped(self.kind):
            return encode(valid, what=self.what, limit=limit, reveal=reveal)
        try:
            # By alias, because that is how it will be read.
            dumped = self.adapter.dump_python(valid, mode="json", by_alias=True, round_trip=True, warnings="error")
            if self.secrets:
                dumped = reveal_secrets(valid, dumped, self.what, reveal=reveal)
        except UnencryptedSecret:
            raise
        except (PydanticSerializationError, ValueError) as error:
            if isinstance(valid, BaseModel):
                for name, item in valid.__dict__.items():  # to name the field in the error
                    encode(item, what=f"{self.what}.{name}", limit=limit, reveal=reveal)
            raise InvalidInput(f"{self.workflow}: the {self.what} cannot be stored as JSON: {_reason(error)}") from None
        text = encode(sort_sets(valid, dumped), what=self.what, limit=limit)
        if MASK in text and not self.secrets:
            reveal_secrets(valid, dumped, self.what, reveal=reveal)  # undeclared, so it could not be read back
        refuse_lost(valid, self.what, text)
        if (lost := difference(valid, self.read(text), self.what)) is not None:
            raise InvalidInput(f"{self.workflow}: {lost}", hint="Declare its type.")
        return text

    def _flat_text(self, valid: Any, limit: int) -> str | None:
        """Return the JSON of a value whose plain fields read back as themselves, None for any other."""
        given = vars(valid)
        if not are_plain(given):
            return None
        text = encode(given, what=self.what, limit=limit)
        try:
            back = vars(self.adapter.validate_json(text))
        except ValidationError:
            return None
        return text if back == given and list(map(type, back.values())) == list(map(type, given.values())) else None

    def read(self, text: str) -> Any:
        """Return a stored input in the declared type. Raises `InvalidInput`, `InvalidPayload`."""
        if self.kind is Any:
            return decode(text)
        try:
            return self.adapter.validate_json(text)
        except ValidationError as error:
            raise self._refusal(f"the stored {self.what}", error) from None

    def _refusal(self, what: str, error: ValidationError) -> InvalidInput:
        kind = getattr(self.kind, "__name__", self.kind)
        verb = "do" if self.what == "args" else "does"
        return InvalidInput(f"{self.workflow}: {what} {verb} not fit {kind}: {first_problem(error)}")


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
