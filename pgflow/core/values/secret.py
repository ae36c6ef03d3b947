"""Find pydantic's secrets in types and values. They are stored only where a codec encrypts them."""

from __future__ import annotations

import types
import typing
from collections.abc import Hashable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import is_dataclass
from functools import cache
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, RootModel, Secret, SecretBytes, SecretStr
from pydantic_core import to_jsonable_python

from pgflow.core.values.roundtrip import dataclass_items, items_by_alias
from pgflow.errors import UnencryptedSecret

__all__ = [
    "CODEC_HINT",
    "MASK",
    "SECRETS",
    "reveal_secrets",
    "secret_error",
    "secrets_in_type",
    "secrets_in_value",
    "type_has_secrets",
]

SECRETS = (SecretStr, SecretBytes, Secret)
MASK = "**********"  # pydantic writes this in place of a secret
CODEC_HINT = (
    "Give the app a codec that encrypts stored values, as in Pgflow(…, codec=AesGcm(…)) of pgflow.contrib.encryption; "
    "or pass a reference to the secret."
)


def secrets_in_type(kind: Any, where: str) -> tuple[str, ...]:
    """Return the paths in a type at which a secret is declared, in models, dataclasses, unions and containers.

    secrets_in_type(Login, "input")    # ("input.password",), where password is a SecretStr
    """
    return tuple(dict.fromkeys(_in_type(kind, where, ())))


@cache
def type_has_secrets(kind: Hashable) -> bool:
    """Whether a class declares a secret."""
    return bool(secrets_in_type(kind, ""))


def secret_error(where: str) -> UnencryptedSecret:
    """Return the error for a secret that would be stored in plain, with the ways to store it."""
    return UnencryptedSecret(f"{where} is a secret and would be stored in plain", hint=CODEC_HINT)


def reveal_secrets(value: Any, plain: Any, where: str, *, reveal: bool) -> Any:
    """Return `plain`, pydantic's JSON of `value`, with the secrets in clear instead of masked.

    Raises `UnencryptedSecret` with the path of the first secret if there is one and not `reveal`, and for a secret
    that a custom serializer of its model wrote in a form that cannot be located in `plain`.
    """
    paths = list(secrets_in_value(value, where))
    if paths and not reveal:
        raise secret_error(paths[0])
    revealed: list[Any] = []
    clear = _reveal(value, plain, revealed) if paths else plain
    if len(revealed) < len(paths):
        message = f"a custom serializer writes a secret in {where} in a form that cannot be read back"
        raise UnencryptedSecret(message, hint="Remove the serializer, so that pydantic serializes the secret.")
    return clear


def _in_type(kind: Any, where: str, above: tuple[Any, ...]) -> Iterator[str]:
    if kind in above:  # a recursive model
        return
    origin = get_origin(kind)
    if isinstance(origin or kind, type) and issubclass(origin or kind, SECRETS):
        yield where
        return
    if origin is Annotated:
        yield from _in_type(get_args(kind)[0], where, above)
    elif origin in (Union, types.UnionType):
        for each in get_args(kind):
            yield from _in_type(each, where, above)
    elif hasattr(kind, "__value__"):  # type Name = …
        yield from _in_type(kind.__value__, where, above)
    elif origin is not None:
        for each in get_args(kind):
            yield from _in_type(each, f"{where}[…]", above)
    for name, each in _fields(origin if is_dataclass(origin) else kind).items():
        yield from _in_type(each, f"{where}.{name}", (*above, kind))


def _fields(kind: Any) -> Mapping[str, Any]:
    """Return the types of a class's fields by name, empty for a class without fields."""
    if not isinstance(kind, type):
        return {}
    if issubclass(kind, BaseModel):
        return {name: field.annotation for name, field in kind.model_fields.items() if not field.exclude}
    if not (is_dataclass(kind) or hasattr(kind, "_fields") or typing.is_typeddict(kind)):
        return {}
    try:
        return typing.get_type_hints(kind)
    except Exception:  # an annotation that cannot be resolved: the values are checked instead
        return {}


def secrets_in_value(value: Any, where: str) -> Iterator[str]:
    """Yield the paths of the secrets in a value.

    list(secrets_in_value({"card": Card(number=SecretStr("4711"))}, "output"))    # ["output.card.number"]
    """
    match value:
        case SecretStr() | SecretBytes() | Secret():
            yield where
        case RootModel():
            yield from secrets_in_value(value.root, where)
        case BaseModel():
            excluded = {name for name, field in type(value).model_fields.items() if field.exclude}
            own = {**value.__dict__, **(value.__pydantic_extra__ or {})}
            for name, item in own.items():
                if name not in excluded:
                    yield from secrets_in_value(item, f"{where}.{name}")
        case Mapping():
            for key, item in value.items():
                if isinstance(key, SECRETS):
                    yield f"a key of {where}"
                yield from secrets_in_value(item, f"{where}.{key}" if isinstance(key, str) else f"{where}[{key!r}]")
        case list() | tuple() | AbstractSet():
            for index, item in enumerate(value):
                yield from secrets_in_value(item, f"{where}[{index}]")
        case _ if is_dataclass(value) and not isinstance(value, type):
            for name, item in dataclass_items(value).items():
                yield from secrets_in_value(item, f"{where}.{name}")


def _reveal(value: Any, plain: Any, revealed: list[Any]) -> Any:
    """Return `plain` with the secrets of `value` in clear, and append each of them to `revealed`."""
    match value:
        case SecretStr() | SecretBytes() | Secret():
            revealed.append(value)
            inner = value.get_secret_value()
            return _reveal(inner, to_jsonable_python(inner), revealed)
        case RootModel():
            return _reveal(value.root, plain, revealed)
    match plain:
        case list() if isinstance(value, list | tuple | AbstractSet) and len(value) == len(plain):
            return [_reveal(one, other, revealed) for one, other in zip(value, plain, strict=True)]
        case dict() if isinstance(value, BaseModel):
            return _reveal_items(dict(items_by_alias(value)), plain, revealed)
        case dict() if is_dataclass(value) and not isinstance(value, type):
            return _reveal_items(dataclass_items(value), plain, revealed)
        case dict() if isinstance(value, Mapping) and len(value) == len(plain):
            pairs = zip(value.values(), plain.values(), strict=True)
            return dict(zip(plain, [_reveal(one, other, revealed) for one, other in pairs], strict=True))
    return plain


def _reveal_items(items: Mapping[str, Any], plain: dict[str, Any], revealed: list[Any]) -> dict[str, Any]:
    return {key: _reveal(items[key], item, revealed) if key in items else item for key, item in plain.items()}
