"""Seal what users keep in the database: a codec's contract, and the place that each sealed value is bound to."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from pgflow.core.values.names import bare_id
from pgflow.core.values.payload import ENCRYPTED_MARKER, decode
from pgflow.core.values.sanitize import type_name
from pgflow.errors import ConfigError, DecryptionUnavailable, InvalidPayload

__all__ = [
    "Codec",
    "Kind",
    "Location",
    "checked_codec",
    "decrypt_text",
    "encryption_key_id",
    "is_encrypted",
    "opened",
    "sealed",
    "through",
]

Kind: TypeAlias = Literal["input", "output", "payload"]


class Codec(ABC):
    """How an app seals the inputs, outputs and signals that it stores: `Pgflow(…, codec=…)`. Subclass it, or take one.

    `pgflow.contrib.encryption` has one that encrypts. A codec is called in the event loop of workers and from many
    threads, for each value: let it hold its keys, and not ask for them. With `strict` it opens nothing but what is
    sealed; without, what was stored before there was a codec, or by plain SQL, is read as it is.

        class Backwards(Codec):                            # its shape only: it protects nothing, and binds to no place
            def seal(self, text: str, place: str) -> str:
                return text[::-1]

            def open(self, sealed: str, place: str) -> str:
                return sealed[::-1]
    """

    strict: bool = False

    @abstractmethod
    def seal(self, text: str, place: str) -> str:
        """Return `text`, which is JSON, as text that tells nothing of it; "id of the key" and a dot may go before.

        `place` says where the value belongs: its workflow, its instance, its step or signal. Bind the two together,
        as associated data, so that what is copied to another place cannot be opened there.
        """

    @abstractmethod
    def open(self, sealed: str, place: str) -> str:
        """Return the text of what `seal` returned for this place.

        Raises `InvalidPayload` when it was changed, or sealed for another place: the instance fails. Whatever else it
        raises, for example `DecryptionUnavailable` for a missing key, leaves the work to another worker.
        """


def checked_codec(given: Any) -> Codec | None:
    """Return the codec that an app was given, if any. Raises `ConfigError` for what is none."""
    if given is not None and not isinstance(given, Codec):
        raise ConfigError(f"codec={type(given).__name__} is no Codec", hint="Subclass pgflow.Codec, or take one.")
    return given


@dataclass(frozen=True, slots=True)
class Location:
    """Where a value belongs: the instance, and what it is in it, the input or what a step or a signal named so has."""

    workflow: str
    id: str
    kind: Kind
    name: str = ""

    def __str__(self) -> str:
        """Return it as text that no other place has. Runs of one business value share it, whatever their suffix."""
        return json.dumps([self.workflow, bare_id(self.id), self.kind, self.name])

    @property
    def title(self) -> str:
        """What messages call it."""
        return f"{self.kind} of {self.name}" if self.name else self.kind


def sealed(codec: Codec, text: str, place: Location) -> str:
    """Return JSON text sealed, as the JSON text of an object that says so."""
    return json.dumps({ENCRYPTED_MARKER: _sealed_text(codec, text, place)})


def is_encrypted(value: Any) -> bool:
    """Whether a JSON value is one that a codec has sealed."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get(ENCRYPTED_MARKER), str)


def encryption_key_id(value: Any) -> str | None:
    """Return the id of the key that a value is sealed with, "" if it names none; None for one that is not sealed."""
    if not is_encrypted(value):
        return None
    key, dot, _ = str(value[ENCRYPTED_MARKER]).partition(".")
    return key if dot and len(key) <= 64 else ""


def opened(codec: Codec | None, value: Any, place: Location) -> Any:
    """Return a stored JSON value as it was before it was sealed; one that is not sealed, as it is.

    Raises `DecryptionUnavailable` when it cannot be decrypted here or now, `InvalidPayload` when it never can, or
    when a strict codec finds it not sealed.
    """
    if is_encrypted(value):
        return decode(_open(codec, value[ENCRYPTED_MARKER], place))
    _refuse_plain(codec, place)
    return value


def decrypt_text(codec: Codec | None, text: str, place: Location) -> str:
    """`opened`, for a value as JSON text."""
    if ENCRYPTED_MARKER in text:  # a cheap sign, which may be a false alarm
        value = decode(text)
        if is_encrypted(value):
            return _open(codec, value[ENCRYPTED_MARKER], place)
    _refuse_plain(codec, place)
    return text


def through(codec: Codec | None, text: str, place: Location) -> str:
    """Return JSON text sealed and opened again: for a stack that stores nothing, but is to fail where another would."""
    return text if codec is None else codec.open(_sealed_text(codec, text, place), str(place))


def _sealed_text(codec: Codec, text: str, place: Location) -> str:
    found: object = codec.seal(text, str(place))
    if not isinstance(found, str):
        raise InvalidPayload(f"{type_name(codec)}.seal() returned {type_name(found)} for the {place.title}, not a str")
    return found


def _refuse_plain(codec: Codec | None, place: Location) -> None:
    if codec is not None and codec.strict:
        raise InvalidPayload(f"the {place.title} is not sealed, and the codec is strict")


def _open(codec: Codec | None, found: str, place: Location) -> str:
    if codec is None:
        hint = "Give the app the codec that sealed it: Pgflow(…, codec=…)."
        raise DecryptionUnavailable(f"the {place.title} is sealed, and there is no codec here", hint=hint)
    try:
        return codec.open(found, str(place))
    except InvalidPayload as error:
        raise InvalidPayload(f"the sealed {place.title} cannot be opened: {error}") from None
    except DecryptionUnavailable as error:
        raise DecryptionUnavailable(
            f"the sealed {place.title} cannot be opened here: {error}", hint=error.hint
        ) from None
    except KeyboardInterrupt:  # Ctrl+C in a program that reads an instance; a worker handles SIGINT itself
        raise
    except BaseException as error:  # it may work in a moment; nothing is awaited here, so it is not a cancellation
        raise DecryptionUnavailable(f"the sealed {place.title} cannot be opened now: {type_name(error)}") from error
