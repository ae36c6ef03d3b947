"""Find pydantic's secrets in types and in values: they may be stored only where a codec seals what is stored."""

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

from pgflow.core.values.roundtrip import aliased, members
from pgflow.errors import UnencryptedSecret

__all__ = ["MASK", "MEND", "SECRETS", "declared", "found", "is_declared", "refusal", "shown"]

SECRETS = (SecretStr, SecretBytes, Secret)
MASK = "**********"  # what pydantic writes in the place of one
MEND = (
    "Give the app a codec, as in Pgflow(…, codec=AesGcm(…)) of pgflow.contrib.encryption, which seals what is stored; "
    "or pass a reference to the secret."
)


def declared(kind: Any, where: str) -> tuple[str, ...]:
    """Return the places in a type where a secret is declared, in models, dataclasses, unions and containers.

    declared(Login, "input")    # ("input.password",), where password is a SecretStr
    """
    return tuple(dict.fromkeys(_declared(kind, where, ())))


@cache
def is_declared(kind: Hashable) -> bool:
    """Whether a secret is declared in a class."""
    return bool(declared(kind, ""))


def refusal(where: str) -> UnencryptedSecret:
    """Return the error that says why a secret is not stored, and how it could be."""
    return UnencryptedSecret(f"{where} is a secret, and would be stored in plain", hint=MEND)


def shown(value: Any, plain: Any, where: str, *, reveal: bool) -> Any:
    """Return `plain`, what pydantic has made of `value`, with its secrets in clear if `reveal`.

    Raises `UnencryptedSecret`, with the place of the first: unless `reveal`, or where a model has a way of its own
    to write it, so that it cannot be found again.
    """
    places = list(found(value, where))
    if places and not reveal:
        raise refusal(places[0])
    seen: list[Any] = []
    clear = _shown(value, plain, seen) if places else plain
    if len(seen) < len(places):
        said = f"a secret in {where} is written in a way of its model's own, and could not be read again"
        raise UnencryptedSecret(said, hint="Leave it to pydantic: take its serializer away.")
    return clear


def _declared(kind: Any, where: str, above: tuple[Any, ...]) -> Iterator[str]:
    if kind in above:  # a model of itself
        return
    origin = get_origin(kind)
    if isinstance(origin or kind, type) and issubclass(origin or kind, SECRETS):
        yield where
        return
    if origin is Annotated:
        yield from _declared(get_args(kind)[0], where, above)
    elif origin in (Union, types.UnionType):
        for each in get_args(kind):
            yield from _declared(each, where, above)
    elif hasattr(kind, "__value__"):  # type Name = …
        yield from _declared(kind.__value__, where, above)
    elif origin is not None:
        for each in get_args(kind):
            yield from _declared(each, f"{where}[…]", above)
    for name, each in _fields(origin if is_dataclass(origin) else kind).items():
        yield from _declared(each, f"{where}.{name}", (*above, kind))


def _fields(kind: Any) -> Mapping[str, Any]:
    """The types of what a class is made of, by name; nothing for one that is made of nothing."""
    if not isinstance(kind, type):
        return {}
    if issubclass(kind, BaseModel):
        return {name: field.annotation for name, field in kind.model_fields.items() if not field.exclude}
    if not (is_dataclass(kind) or hasattr(kind, "_fields") or typing.is_typeddict(kind)):
        return {}
    try:
        return typing.get_type_hints(kind)
    except Exception:  # a name that is defined nowhere: what it holds is looked at when it comes
        return {}


def found(value: Any, where: str) -> Iterator[str]:
    """Yield the places of the secrets in a value.

    list(found({"card": Card(number=SecretStr("4711"))}, "output"))    # ["output.card.number"]
    """
    match value:
        case SecretStr() | SecretBytes() | Secret():
            yield where
        case RootModel():
            yield from found(value.root, where)
        case BaseModel():
            excluded = {name for name, field in type(value).model_fields.items() if field.exclude}
            own = {**value.__dict__, **(value.__pydantic_extra__ or {})}
            for name, item in own.items():
                if name not in excluded:
                    yield from found(item, f"{where}.{name}")
        case Mapping():
            for key, item in value.items():
                if isinstance(key, SECRETS):
                    yield f"a key of {where}"
                yield from found(item, f"{where}.{key}" if isinstance(key, str) else f"{where}[{key!r}]")
        case list() | tuple() | AbstractSet():
            for index, item in enumerate(value):
                yield from found(item, f"{where}[{index}]")
        case _ if is_dataclass(value) and not isinstance(value, type):
            for name, item in members(value).items():
                yield from found(item, f"{where}.{name}")


def _shown(value: Any, plain: Any, seen: list[Any]) -> Any:
    match value:
        case SecretStr() | SecretBytes() | Secret():
            seen.append(value)
            inner = value.get_secret_value()
            return _shown(inner, to_jsonable_python(inner), seen)
        case RootModel():
            return _shown(value.root, plain, seen)
    match plain:
        case list() if isinstance(value, list | tuple | AbstractSet) and len(value) == len(plain):
            return [_shown(one, other, seen) for one, other in zip(value, plain, strict=True)]
        case dict() if isinstance(value, BaseModel):
            return _items(dict(aliased(value)), plain, seen)
        case dict() if is_dataclass(value) and not isinstance(value, type):
            return _items(members(value), plain, seen)
        case dict() if isinstance(value, Mapping) and len(value) == len(plain):
            return dict(zip(plain, map(_shown, value.values(), plain.values(), [seen] * len(plain)), strict=True))
    return plain


def _items(known: Mapping[str, Any], plain: dict[str, Any], seen: list[Any]) -> dict[str, Any]:
    return {key: _shown(known[key], item, seen) if key in known else item for key, item in plain.items()}
