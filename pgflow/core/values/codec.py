"""Encrypt inputs, outputs and payloads before they are stored: the codec's contract, and the location of a value."""

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
    "decrypt",
    "decrypt_text",
    "encrypt",
    "encryption_key_id",
    "is_encrypted",
    "roundtrip",
]

Kind: TypeAlias = Literal["input", "output", "payload", "checkpoint"]


class Codec(ABC):
    """Encrypts the inputs, step outputs and signal payloads that an app stores: `Pgflow(…, codec=…)`.

    Subclass it, or use `AesGcm` of `pgflow.contrib.encryption`. Both methods are called once for each value, from the
    event loop of workers and from many threads: keep the keys in memory, do not fetch them in a call, and make the
    methods thread-safe.

    A codec with `strict = True` refuses stored values that are not encrypted. Without it, values that were stored
    before the app had a codec, or by plain SQL, are read as they are.

        class Reversed(Codec):                 # shows the shape only: it neither encrypts nor authenticates
            def encrypt(self, text: str, associated_data: str) -> str:
                return text[::-1]

            def decrypt(self, encrypted: str, associated_data: str) -> str:
                return encrypted[::-1]
    """

    strict: bool = False

    @abstractmethod
    def encrypt(self, text: str, associated_data: str) -> str:
        """Return `text`, a JSON text, encrypted. The result may begin with the key's id and a dot.

        `associated_data` identifies where the value belongs: its workflow, its instance, its step or signal.
        Authenticate it together with the value (AEAD), so that a value copied to another place cannot be decrypted.
        """

    @abstractmethod
    def decrypt(self, encrypted: str, associated_data: str) -> str:
        """Return the text that `encrypt` was given with the same associated data.

        Raise `InvalidPayload` when the value was changed or encrypted for another place: the instance fails. Raise
        anything else, such as `DecryptionUnavailable` for a key that this process does not have yet, to leave the job
        to another worker or to a later attempt.
        """


def checked_codec(given: Any) -> Codec | None:
    """Return the codec that an app was given, or None. Raises `ConfigError` for anything that is not a `Codec`."""
    if given is not None and not isinstance(given, Codec):
        raise ConfigError(f"codec={type(given).__name__} is not a Codec", hint="Subclass pgflow.Codec, or use AesGcm.")
    return given


@dataclass(frozen=True, slots=True)
class Location:
    """Where a value belongs: an instance's input, or the output, checkpoint or payload of the step or signal `name`."""

    workflow: str
    id: str
    kind: Kind
    name: str = ""

    def __str__(self) -> str:
        """Return the associated data: unique to this location, but the same for all runs of one business value."""
        return json.dumps([self.workflow, bare_id(self.id), self.kind, self.name])

    @property
    def title(self) -> str:
        """The value's name in messages."""
        return f"{self.kind} of {self.name}" if self.name else self.kind


def encrypt(codec: Codec, text: str, location: Location) -> str:
    """Return JSON text encrypted, as the JSON text of an object that is marked as encrypted."""
    return json.dumps({ENCRYPTED_MARKER: _encrypt_text(codec, text, location)})


def is_encrypted(value: Any) -> bool:
    """Whether a JSON value is one that a codec has encrypted."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get(ENCRYPTED_MARKER), str)


def encryption_key_id(value: Any) -> str | None:
    """Return the id of the key that a value is encrypted with, "" if it has none; None for a value in plain."""
    if not is_encrypted(value):
        return None
    key, dot, _ = str(value[ENCRYPTED_MARKER]).partition(".")
    return key if dot and len(key) <= 64 else ""


def decrypt(codec: Codec | None, value: Any, location: Location) -> Any:
    """Return a stored JSON value decrypted; a value in plain is returned unchanged.

    Raises `DecryptionUnavailable` when it cannot be decrypted here or now, and `InvalidPayload` when it never can, or
    when it is in plain and the codec is strict.
    """
    if is_encrypted(value):
        return decode(_decrypt(codec, value[ENCRYPTED_MARKER], location))
    _refuse_plain(codec, location)
    return value


def decrypt_text(codec: Codec | None, text: str, location: Location) -> str:
    """Return the JSON text of a stored value decrypted; raises as `decrypt` does."""
    if ENCRYPTED_MARKER in text:  # cheaper than decoding; a match inside a string is ruled out below
        value = decode(text)
        if is_encrypted(value):
            return _decrypt(codec, value[ENCRYPTED_MARKER], location)
    _refuse_plain(codec, location)
    return text


def roundtrip(codec: Codec | None, text: str, location: Location) -> str:
    """Return JSON text encrypted and decrypted again: the in-memory stack stores plain text, but has to fail alike."""
    return text if codec is None else codec.decrypt(_encrypt_text(codec, text, location), str(location))


def _encrypt_text(codec: Codec, text: str, location: Location) -> str:
    encrypted: object = codec.encrypt(text, str(location))
    if not isinstance(encrypted, str):
        raise InvalidPayload(
            f"{type_name(codec)}.encrypt() returned {type_name(encrypted)} for the {location.title}, not a str"
        )
    return encrypted


def _refuse_plain(codec: Codec | None, location: Location) -> None:
    if codec is not None and codec.strict:
        raise InvalidPayload(f"the {location.title} is not encrypted, and the codec is strict")


def _decrypt(codec: Codec | None, encrypted: str, location: Location) -> str:
    if codec is None:
        hint = "Give the app the codec that encrypted it: Pgflow(…, codec=…)."
        raise DecryptionUnavailable(f"the {location.title} is encrypted, and this app has no codec", hint=hint)
    what = f"the encrypted {location.title} cannot be decrypted"
    try:
        return codec.decrypt(encrypted, str(location))
    except InvalidPayload as error:
        raise InvalidPayload(f"{what}: {error}") from None
    except DecryptionUnavailable as error:
        raise DecryptionUnavailable(f"{what} here: {error}", hint=error.hint) from None
    except KeyboardInterrupt:  # Ctrl+C in a program that reads an instance; a worker handles SIGINT itself
        raise
    except BaseException as error:  # maybe transient; nothing is awaited here, so it is not a cancellation
        raise DecryptionUnavailable(f"{what} now: {type_name(error)}") from error
