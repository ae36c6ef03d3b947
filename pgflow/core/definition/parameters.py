"""The parameters of a task's function: a call becomes a JSON object by name, and is read back in the declared types."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, make_dataclass
from functools import wraps
from types import MappingProxyType
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from pgflow.core.definition.input import Input
from pgflow.core.values.absent import ABSENT
from pgflow.core.values.payload import INPUT_LIMIT, decode
from pgflow.errors import DefinitionError, InvalidInput, InvalidPayload, PgflowError

__all__ = ["Parameters", "by_name", "with_argument"]

VARIABLE = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}


@dataclass(frozen=True, slots=True)
class Parameters:
    """Writes and reads the arguments of one task.

    Its `signature` has the resolved types, without the context's parameter. `defaults` are stored with each call, so a
    job runs with those of its enqueue, and reading a call that plain SQL stored leaves them to the function.
    """

    task: str
    signature: inspect.Signature
    fields: Input
    defaults: Mapping[str, Any]

    @classmethod
    def of(cls, task: str, signature: inspect.Signature) -> Parameters:
        """Return the parameters of a task. Raises `DefinitionError` for one that cannot be stored as JSON."""
        declared: list[tuple[str, Any, Any]] = []
        defaults = {}
        for name, each in signature.parameters.items():
            if each.kind in VARIABLE:
                star = VARIABLE[each.kind]
                raise DefinitionError(
                    f"{task}: {star}{name} cannot be stored by parameter name: "
                    "declare each argument, or take one list or dict"
                )
            kind = Any if each.annotation is inspect.Parameter.empty else each.annotation
            checked = Input.of(task, kind, f"args.{name}")
            has_default = each.default is not inspect.Parameter.empty
            if has_default:
                _check_default(checked, each)
                defaults[name] = each.default
            declared.append((name, kind, field(default=ABSENT) if has_default else field()))
        # A dataclass, because a pydantic model has attributes that parameters may be named like, such as `copy`.
        namespace = {"__pydantic_config__": ConfigDict(extra="forbid")}
        kind = make_dataclass(_shown(signature), declared, kw_only=True, namespace=namespace)
        return cls(task, signature, Input.of(task, kind, "args"), MappingProxyType(defaults))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the parameters, in order."""
        return tuple(self.signature.parameters)

    @property
    def secrets(self) -> tuple[str, ...]:
        """The paths at which they declare secrets, such as "args.card.number"."""
        return self.fields.secrets

    @property
    def secret_names(self) -> frozenset[str]:
        """The names of those that are secrets or have some."""
        return frozenset(re.split(r"[.[]", path)[1] for path in self.secrets)

    def write(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, reveal: bool = False, limit: int = INPUT_LIMIT
    ) -> str:
        """Return the arguments of a call, validated, as JSON text of at most `limit` bytes.

        With `reveal` they may hold secrets. Raises `InvalidInput`, `InvalidPayload`, `UnencryptedSecret`.
        """
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise InvalidInput(f"{self.task}: {error}", hint=f"It takes {_shown(self.signature)}.") from None
        return self.write_named(bound.arguments, reveal=reveal, limit=limit)

    def write_named(self, given: Mapping[str, Any], *, reveal: bool = False, limit: int = INPUT_LIMIT) -> str:
        """`write` for arguments by parameter name, also those that a call can only pass by position."""
        return self.fields.write({**self.defaults, **given}, reveal=reveal, limit=limit)

    def parse(self, texts: Mapping[str, str]) -> dict[str, Any]:
        """Return arguments that a person wrote, for `write_named`: each as JSON if its type takes that, else as text.

        parameters.parse({"order_id": "7", "to": "123"})    # {"order_id": 7, "to": "123"} with to: str
        """
        return {name: self._parsed(name, text) for name, text in texts.items()}

    def _parsed(self, name: str, text: str) -> Any:
        parameter = self.signature.parameters.get(name)
        if parameter is None:  # refused by `write_named`
            return text
        try:
            value = decode(text, is_written=True)
            if parameter.annotation is not inspect.Parameter.empty:
                TypeAdapter(parameter.annotation).validate_python(value)
        except (InvalidPayload, ValidationError):
            return text
        return value

    def read(self, text: str) -> dict[str, Any]:
        """Return stored arguments in their declared types. Raises `InvalidInput`."""
        return {name: value for name, value in vars(self.fields.read(text)).items() if value is not ABSENT}


def by_name(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that takes all arguments by name, also those that `function` takes only by position."""
    kinds = {name: each.kind for name, each in inspect.signature(function).parameters.items()}
    positional = [name for name, kind in kinds.items() if kind is inspect.Parameter.POSITIONAL_ONLY]
    if not positional:
        return function

    @wraps(function)
    def call(**given: Any) -> Any:
        first = [given.pop(name) for name in positional if name in given]
        return function(*first, **given)

    return call


def with_argument(
    function: Callable[..., Any], name: str, value: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return a call of `function` with one more argument, at the place of the parameter `name`."""
    parameters = inspect.signature(function).parameters
    position = list(parameters).index(name)
    kind = parameters[name].kind
    if kind is inspect.Parameter.POSITIONAL_ONLY or (
        kind is inspect.Parameter.POSITIONAL_OR_KEYWORD and len(args) > position
    ):
        return (*args[:position], value, *args[position:]), dict(kwargs)
    return args, {**kwargs, name: value}


def _check_default(kind: Input, parameter: inspect.Parameter) -> None:
    try:
        kind.write(parameter.default, reveal=True)
    except PgflowError as error:
        raise DefinitionError(
            f"{kind.workflow}: the default of {parameter.name} cannot be stored: {error}: "
            "give one of the declared type, such as None with a type that includes it"
        ) from None


def _shown(signature: inspect.Signature) -> str:
    """Return a signature without types, which may be long: "(order_id, *, copy=False)"."""
    bare = [each.replace(annotation=inspect.Parameter.empty) for each in signature.parameters.values()]
    return str(inspect.Signature(bare))
