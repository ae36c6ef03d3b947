"""A codec that encrypts with AES-GCM, of the package `cryptography` (the extra `crypto`)."""

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
KEY_SIZES = (16, 24, 32)  # bytes
NONCE_SIZE = 12
KEYS_HINT = 'Make one with os.urandom(32), keep it where you keep secrets, and write AesGcm({"k1": key}, current="k1").'


class AesGcm(Codec):
    """Encrypts each value with AES-GCM under a nonce of its own, and binds it to its place as associated data.

    `keys` maps ids (up to 64 letters, digits, "_" and "-") to keys of 16, 24 or 32 bytes. New values are encrypted with
    the `current` key; stored values are decrypted with the key that their header names.

    To rotate, first add the new key to every process, then make it current. Remove the old key when no stored value
    uses it: values that still do become unreadable. One key is safe for about 2**32 values.

    With `strict`, stored values that are not encrypted are refused. Raises `ConfigError` for an invalid id or key, and
    for a `current` that is not among the keys.

        codec = AesGcm({"k1": old, "k2": new}, current="k2")
        app = Pgflow(workflows=[OrderFlow], codec=codec)
    """

    def __init__(self, keys: Mapping[str, bytes], current: str, *, strict: bool = False) -> None:
        for key_id, key in keys.items():
            if not isinstance(key_id, str) or not KEY_ID.fullmatch(key_id):
                hint = "Use up to 64 letters, digits, '_' and '-'."
                raise ConfigError(f"{key_id!r} cannot be the id of a key", hint=hint)
            if not isinstance(key, bytes) or len(key) not in KEY_SIZES:
                raise ConfigError(f"the key {key_id!r} must be 16, 24 or 32 bytes", hint=KEYS_HINT)
        if current not in keys:
            raise ConfigError(f"the current key {current!r} is not among the keys", hint=KEYS_HINT)
        self.current = current
        self.strict = strict
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys.items()}

    def __repr__(self) -> str:
        return f"AesGcm(keys={sorted(self._ciphers)}, current={self.current!r}, strict={self.strict})"

    def encrypt(self, text: str, associated_data: str) -> str:
        """Return the text encrypted: the key's id, a dot, and the base64 of nonce and ciphertext."""
        nonce = os.urandom(NONCE_SIZE)
        bound = _with_key_id(self.current, associated_data)
        ciphertext = self._ciphers[self.current].encrypt(nonce, text.encode(), bound)
        return f"{self.current}.{base64.b64encode(nonce + ciphertext).decode()}"

    def decrypt(self, encrypted: str, associated_data: str) -> str:
        """Return the text. Raises `InvalidPayload`, and `DecryptionUnavailable` for a key that is not among `keys`."""
        key_id, _, body = encrypted.partition(".")
        if not KEY_ID.fullmatch(key_id):
            raise InvalidPayload("AesGcm did not encrypt it: it does not begin with the id of a key")
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            hint = f"This codec has the keys: {', '.join(self._ciphers)}."
            raise DecryptionUnavailable(f"it is encrypted with the key {key_id!r}", hint=hint)
        try:
            raw = base64.b64decode(body, validate=True)
            bound = _with_key_id(key_id, associated_data)
            return cipher.decrypt(raw[:NONCE_SIZE], raw[NONCE_SIZE:], bound).decode()
        except (InvalidTag, binascii.Error, ValueError):  # ValueError: too short, or not UTF-8
            raise InvalidPayload(
                "it was changed, or encrypted for another place or with another key of the same id"
            ) from None


def _with_key_id(key_id: str, associated_data: str) -> bytes:
    """Authenticate the key's id too: it is part of the stored text and could otherwise be replaced."""
    return f"{key_id} {associated_data}".encode()
