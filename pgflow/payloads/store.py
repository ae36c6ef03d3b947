"""The contract of a payload store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, Protocol, runtime_checkable

from pgflow.errors import ConfigError

__all__ = ["PayloadStore", "checked_store"]


@runtime_checkable
class PayloadStore(Protocol):
    """Keeps large values outside the database: `Pgflow(…, payload_store=…)`. `FolderStore` is one in a folder.

    Implement it for an object store. Its methods are synchronous and are called from many threads at once, so they must
    be thread-safe. A key is 65 characters of `0-9`, `a-f` and `-`; the bytes under it never change. With a codec the
    bytes are encrypted. A store holds the objects of one schema and nothing else, because `sweep_payloads` deletes what
    no row of that schema refers to: give each database and schema a bucket or a prefix of its own.

    An exception of `put` or `get` fails the call or the attempt of the step, which is retried by the step's `retry`.

        class Bucket:
            def __init__(self, client: Any, bucket: str) -> None:
                self.client, self.bucket = client, bucket

            def put(self, key: str, data: bytes) -> None:
                self.client.put_object(Bucket=self.bucket, Key=key, Body=data)
            ...                                                  # the whole class: docs/payloads.md
    """

    def put(self, key: str, data: bytes) -> None:
        """Store an object; return when it is durable and every process can read it. The same call may come twice."""

    def get(self, key: str) -> bytes:
        """Return the bytes of an object. Raise `KeyError` when there is none with this key."""

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects, at most 1,000 in a call. Skip keys without an object."""

    def list(self, older_than: timedelta) -> Iterable[str]:
        """Return the keys of the objects that were stored longer ago than `older_than`, by the store's own clock."""


def checked_store(given: Any) -> PayloadStore | None:
    """Return the payload store that an app was given, or None. Raises `ConfigError` for an object that is not one."""
    if given is not None and (isinstance(given, type) or not isinstance(given, PayloadStore)):
        missing = [name for name in ("put", "get", "delete", "list") if not hasattr(given, name)]
        lacks = f"has no method {', '.join(missing)}" if missing else "is a class: pass an object of it"
        raise ConfigError(
            f"payload_store={given if isinstance(given, type) else type(given).__name__} {lacks}",
            hint="Pass FolderStore('/var/lib/shop/payloads'), or an object with the methods of pgflow.PayloadStore.",
        )
    return given
