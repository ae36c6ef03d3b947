"""Encrypt what an app stores: a codec with AES-GCM, of the package `cryptography` (the extra `crypto`)."""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pgflow.core.values.codec import Codec
from pgflow.errors import ConfigError, DecryptionUnavailable, InvalidPayload

__all__ = ["AesGcm"]

KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
SIZES = (16, 24, 32)  # bytes of a key
NONCE_SIZE = 12
GIVEN_HINT = (
    'Make one with os.urandom(32), keep it where you keep secrets, and write AesGcm({"k1": key}, current="k1").'
)


class AesGcm(Codec):
    """Encrypts with AES-GCM, each value under a nonce of its own and bound to its place.

    `keys` are the keys by their ids, of 16, 24 or 32 bytes; new values are sealed with the `current` one, and opened
    with the one that their header names. To rotate, add a new key everywhere, then make it current; take the old one
    away when nothing is left that was sealed with it, which erases whatever is. A key is good for some 2**32 values.
    `strict` refuses what is not sealed. Raises `ConfigError` for keys that cannot be.

        codec = AesGcm({"k1": old, "k2": new}, current="k2")
        app = Pgflow(workflows=[OrderFlow], codec=codec)
    """

    def __init__(self, keys: Mapping[str, bytes], current: str, *, strict: bool = False) -> None:
        for key_id, key in keys.items():
            if not isinstance(key_id, str) or not KEY_ID.fullmatch(key_id):
                said = f"{key_id!r} cannot be the id of a key"
                raise ConfigError(said, hint="Use up to 64 letters, digits, '_' and '-'.")
            if not isinstance(key, bytes) or len(key) not in SIZES:
                raise ConfigError(f"the key {key_id!r} is not of 16, 24 or 32 bytes", hint=GIVEN_HINT)
        if current not in keys:
            raise ConfigError(f"the current key {current!r} is not among the keys", hint=GIVEN_HINT)
        self.current = current
        self.strict = strict
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys.items()}

    def __repr__(self) -> str:
        return f"AesGcm(keys={sorted(self._ciphers)}, current={self.current!r}, strict={self.strict})"

    def seal(self, text: str, place: str) -> str:
        """Return the text encrypted: the key's id, a dot, and the base64 of nonce and ciphertext."""
        nonce = os.urandom(NONCE_SIZE)
        hidden = self._ciphers[self.current].encrypt(nonce, text.encode(), _bound(self.current, place))
        return f"{self.current}.{base64.b64encode(nonce + hidden).decode()}"

    def open(self, sealed: str, place: str) -> str:
        """Return the text. Raises `InvalidPayload`, and `DecryptionUnavailable` for a key that is not here."""
        key_id, _, body = sealed.partition(".")
        if not KEY_ID.fullmatch(key_id):
            raise InvalidPayload("it is not what AesGcm seals")
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise DecryptionUnavailable(
                f"it is sealed with the key {key_id!r}", hint=f"There are here: {', '.join(self._ciphers)}."
            )
        try:
            raw = base64.b64decode(body, validate=True)
            return cipher.decrypt(raw[:NONCE_SIZE], raw[NONCE_SIZE:], _bound(key_id, place)).decode()
        except (InvalidTag, binascii.Error, ValueError):  # ValueError: too short, or no text
            raise InvalidPayload(
                "it was changed, or sealed for another place or with another key of that name"
            ) from None


def _bound(key_id: str, place: str) -> bytes:
    """What is authenticated along with a value: the key's id, which could else be exchanged, and the place."""
    return f"{key_id} {place}".encode()
