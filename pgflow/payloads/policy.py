"""What an app accepts as inputs, payloads and outputs, what it encrypts, and what it keeps in a payload store."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from secrets import token_hex
from typing import Any

from pgflow.core.values.codec import Codec, Location, checked_codec, decrypt_text, encrypt
from pgflow.core.values.payload import INPUT_LIMIT, MAX_PAYLOAD_BYTES
from pgflow.core.values.reference import Reference, belongs_to, new_reference, verified
from pgflow.core.values.sanitize import error_message
from pgflow.errors import ConfigError, InvalidPayload, PayloadUnavailable
from pgflow.payloads.store import PayloadStore, checked_store

__all__ = ["DEFAULT", "PayloadPolicy", "StoredObject"]

STORE_LIMIT = 67_108_864  # the default limit of an app with a payload store
MAX_STORE_LIMIT = 1_073_741_824  # a value is held in memory as a whole


@dataclass(frozen=True, slots=True)
class StoredObject:
    """Bytes that a payload store must hold before a row refers to them."""

    key: str
    data: bytes


@dataclass(frozen=True, slots=True)
class PayloadPolicy:
    """How an app's values are stored: `codec` encrypts them, and those above `store_above` bytes go to `store`.

    `limit` is the largest value in bytes of JSON text. `PayloadPolicy.of` checks the options of an app.
    """

    codec: Codec | None = None
    limit: int = INPUT_LIMIT
    store: PayloadStore | None = None
    store_above: int = INPUT_LIMIT

    @classmethod
    def of(cls, codec: Any, limit: Any, store: Any, store_above: Any) -> PayloadPolicy:
        """Return the policy of an app's options, None for the defaults. Raises `ConfigError`."""
        codec, store = checked_codec(codec), checked_store(store)
        if store is None and store_above is not None:
            raise ConfigError(
                f"store_above={store_above!r} is given without a payload_store",
                hint="Pass both: payload_store=FolderStore('…'), store_above=256 * 1024.",
            )
        highest = MAX_PAYLOAD_BYTES if store is None else MAX_STORE_LIMIT
        chosen = (INPUT_LIMIT if store is None else STORE_LIMIT) if limit is None else limit
        if not _is_size(chosen, 1, highest):
            further = " With a payload_store it may be up to 1 GiB." if store is None else ""
            raise ConfigError(
                f"max_payload_bytes must be a whole number from 1 to {highest:,}, got {chosen!r}",
                hint=f"The default is {INPUT_LIMIT:,} bytes.{further}",
            )
        above = min(INPUT_LIMIT, chosen) if store_above is None else store_above
        if not _is_size(above, 0, MAX_PAYLOAD_BYTES):
            raise ConfigError(
                f"store_above must be a whole number from 0 to {MAX_PAYLOAD_BYTES:,}, got {above!r}",
                hint="It is the largest value in bytes that is kept in the database.",
            )
        return cls(codec, chosen, store, above)

    @property
    def reveal(self) -> bool:
        """Whether values may hold secrets, because they are encrypted."""
        return self.codec is not None

    def close(self, text: str, location: Location) -> tuple[str, StoredObject | None]:
        """Return what the row holds for a value, and the object that has to be in the store before.

        text, stored = policy.close('{"rows": […]}', Location("Import", "file::a", "input"))
        if stored is not None:
            policy.put([stored])
        """
        encrypted = text if self.codec is None else encrypt(self.codec, text, location)
        if not self._is_outside(text):
            return encrypted, None
        data = encrypted.encode()
        reference = new_reference(data, location, token_hex(16))
        return reference.text, StoredObject(reference.key, data)

    def put(self, objects: Iterable[StoredObject]) -> None:
        """Store objects. Raises `PayloadUnavailable` with the store's error."""
        for each in objects:
            try:
                self._store.put(each.key, each.data)
            except Exception as error:
                raise PayloadUnavailable(
                    f"the payload store {_name(self._store)} cannot store an object of {len(each.data):,} bytes: "
                    f"{type(error).__name__}: {error_message(error)}"
                ) from error

    def fetch(self, reference: Reference, location: Location) -> str:
        """Return the JSON text of a value in the store, decrypted.

        Raises `InvalidPayload` when the reference belongs to another place or the object has changed, and
        `PayloadUnavailable` when the object is missing or the store cannot be reached, which may end.
        """
        if not belongs_to(reference, location):
            raise InvalidPayload(f"the reference of the {location.title} was made for another place")
        store = self._store
        try:
            data: object = store.get(reference.key)
        except KeyError:
            raise PayloadUnavailable(
                f"the {location.title} is missing in the payload store {_name(store)}: no object {reference.key}",
                hint="Restore the object from a backup, or check that this process has the right store.",
            ) from None
        except Exception as error:
            raise PayloadUnavailable(
                f"the {location.title} cannot be read from the payload store {_name(store)}: "
                f"{type(error).__name__}: {error_message(error)}"
            ) from error
        if not isinstance(data, bytes):
            raise PayloadUnavailable(f"{_name(store)}.get() returned {type(data).__name__}, not bytes")
        return decrypt_text(self.codec, verified(reference, data), location)

    def require_store(self, location: Location) -> None:
        """Raise `PayloadUnavailable` if this app has no payload store."""
        if self.store is None:
            raise PayloadUnavailable(
                f"the {location.title} is in a payload store, and this app has none",
                hint="Give the app the store that holds it: Pgflow(…, payload_store=…).",
            )

    @property
    def _store(self) -> PayloadStore:
        if self.store is None:
            raise PayloadUnavailable(
                "this app has no payload store", hint="Give it the one that holds the value: payload_store=…."
            )
        return self.store

    def _is_outside(self, text: str) -> bool:
        if self.store is None or 4 * len(text) <= self.store_above:  # a character has at most four bytes
            return False
        return len(text) > self.store_above or len(text.encode()) > self.store_above


DEFAULT = PayloadPolicy()


def _name(store: PayloadStore) -> str:
    return type(store).__name__


def _is_size(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
