"""References to values in a payload store: what a row holds in place of a large input, output or payload."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

from pgflow.core.values.codec import Location
from pgflow.core.values.payload import REFERENCE_MARKER
from pgflow.errors import InvalidPayload

__all__ = ["Reference", "belongs_to", "is_reference", "new_reference", "read_reference", "verified"]

KEY = re.compile(r"[0-9a-f]{32}-[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Reference:
    """The key of an object in a payload store, its size in bytes, and the SHA-256 of its bytes in hexadecimal."""

    key: str
    size: int
    sha256: str

    @property
    def text(self) -> str:
        """Return the JSON text that a row holds.

        Reference("5d…-e2…", 7, "9f…").text    # '{"pgflow:ref": {"key": "5d…-e2…", "size": 7, "sha256": "9f…"}}'
        """
        return json.dumps({REFERENCE_MARKER: {"key": self.key, "size": self.size, "sha256": self.sha256}})


def new_reference(data: bytes, location: Location, nonce: str) -> Reference:
    """Return the reference to `data` at a location; `nonce` is 32 random hexadecimal digits."""
    return Reference(f"{_prefix(location)}-{nonce}", len(data), hashlib.sha256(data).hexdigest())


def is_reference(value: Any) -> bool:
    """Whether a stored JSON value has the form of a reference."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get(REFERENCE_MARKER), dict)


def read_reference(value: Any) -> Reference | None:
    """Return the reference that a stored JSON value is, None for another value.

    Raises `InvalidPayload` for one that pgflow has not written.
    """
    if not is_reference(value):
        return None
    match value[REFERENCE_MARKER]:
        case {"key": str(key), "size": int(size), "sha256": str(sha256)} if KEY.fullmatch(key):
            return Reference(key, size, sha256)
    raise InvalidPayload(f"a stored value has the key {REFERENCE_MARKER!r} and is not a reference of pgflow")


def belongs_to(reference: Reference, location: Location) -> bool:
    """Whether a reference was made for this location. A row that names the object of another place must not read it."""
    return reference.key.startswith(f"{_prefix(location)}-")


def verified(reference: Reference, data: bytes) -> str:
    """Return the JSON text in the bytes of an object. Raises `InvalidPayload` if they are not the bytes stored."""
    if len(data) != reference.size or hashlib.sha256(data).hexdigest() != reference.sha256:
        raise InvalidPayload(
            f"the object {reference.key} of the payload store was changed: it has {len(data):,} bytes, "
            f"and {reference.size:,} bytes with the SHA-256 {reference.sha256} were stored"
        )
    return data.decode()


def _prefix(location: Location) -> str:
    return hashlib.sha256(str(location).encode()).hexdigest()[:32]
