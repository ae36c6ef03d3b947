"""References, the policy of an app, and the store in a folder."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pgflow import FolderStore, Pgflow
from pgflow.core.values.codec import Codec, Location
from pgflow.core.values.payload import INPUT_LIMIT, MAX_PAYLOAD_BYTES, METADATA_LIMIT, REFERENCE_MARKER, encode
from pgflow.core.values.reference import Reference, belongs_to, read_reference
from pgflow.errors import ConfigError, InvalidPayload, InvalidValue, PayloadUnavailable
from pgflow.local import Local
from pgflow.payloads.policy import MAX_STORE_LIMIT, STORE_LIMIT, PayloadPolicy

HERE = Location("Import", "file::a", "input")
THERE = Location("Import", "file::b", "input")
KEY = "0" * 32 + "-" + "1" * 32


class Reversed(Codec):
    strict = True

    def encrypt(self, text: str, associated_data: str) -> str:
        return text[::-1]

    def decrypt(self, encrypted: str, associated_data: str) -> str:
        return encrypted[::-1]


class Broken:
    """A store whose calls fail."""

    def put(self, key: str, data: bytes) -> None:
        raise ConnectionError("the bucket is gone")

    def get(self, key: str) -> bytes:
        raise ConnectionError("the bucket is gone")

    def delete(self, keys: Sequence[str]) -> None:
        raise ConnectionError("the bucket is gone")

    def list(self, older_than: timedelta) -> list[str]:
        return []


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path)


def files(store: FolderStore) -> list[str]:
    return sorted(path.name for path in store.path.rglob("*") if path.is_file())


# -- the store in a folder


def test_a_folder_store_keeps_reads_and_deletes_objects(store: FolderStore) -> None:
    store.put(KEY, b"some bytes")
    store.put(KEY, b"some bytes")  # a repeated call
    assert store.get(KEY) == b"some bytes"
    assert files(store) == [KEY]
    store.delete([KEY, "1" * 32])  # a key without an object is skipped
    assert files(store) == []
    with pytest.raises(KeyError):
        store.get(KEY)


def test_a_folder_store_lists_old_objects_and_clears_what_a_crash_left(store: FolderStore) -> None:
    old, new, torn = "a" * 33, "b" * 33, "c" * 33
    for key in (old, new, torn):
        store.put(key, b"x")
    left = store.path / "cc" / f"{torn}.0123456789abcdef.tmp"
    left.write_bytes(b"half")
    an_hour_ago = time.time() - 3600
    for path in (store.path / "aa" / old, left):
        os.utime(path, (an_hour_ago, an_hour_ago))
    (store.path / "notes.txt").write_text("not an object")
    assert list(store.list(timedelta(minutes=30))) == [old]
    assert not left.exists()
    assert files(store) == sorted([old, new, torn, "notes.txt"])


@pytest.mark.parametrize(
    "key", ["", "../../etc/passwd", "/etc/passwd", "a/b", "..", "ab\0c", "-rf", "A" * 33, "a" * 200]
)
def test_a_key_cannot_leave_the_folder(key: str, store: FolderStore) -> None:
    for call in (lambda: store.put(key, b""), lambda: store.get(key), lambda: store.delete([key])):
        with pytest.raises(InvalidValue, match="is not a key of a payload store"):
            call()
    assert files(store) == []


def test_a_failed_write_leaves_nothing_behind(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    (store.path / KEY[:2]).mkdir()
    with pytest.raises(OSError, match="No space left"):
        store.put(KEY, b"x" * 100)
    assert files(store) == []


def test_objects_are_readable_by_their_owner_alone(store: FolderStore) -> None:
    store.put(KEY, b"x")
    assert (store.path / KEY[:2] / KEY).stat().st_mode & 0o777 == 0o600


def test_a_missing_folder_is_an_error_and_is_not_created(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such folder") as caught:
        FolderStore(tmp_path / "not mounted")
    assert "mkdir" in (caught.value.hint or "")
    assert not (tmp_path / "not mounted").exists()


# -- the policy


def test_a_small_value_stays_in_the_row_and_a_large_one_goes_to_the_store(store: FolderStore) -> None:
    policy = PayloadPolicy.of(None, None, store, 100)
    assert policy.close('{"a": 1}', HERE) == ('{"a": 1}', None)
    text = json.dumps("x" * 100)
    row, stored = policy.close(text, HERE)
    assert stored is not None
    reference = read_reference(json.loads(row))
    assert reference is not None
    assert (reference.key, reference.size) == (stored.key, len(text))
    assert files(store) == []  # nothing is stored before `put`
    policy.put([stored])
    assert policy.fetch(reference, HERE) == text


def test_the_threshold_counts_bytes_not_characters(store: FolderStore) -> None:
    policy = PayloadPolicy.of(None, None, store, 100)
    assert policy.close(json.dumps("ü" * 40, ensure_ascii=False), HERE)[1] is None  # 82 bytes
    assert policy.close(json.dumps("ü" * 60, ensure_ascii=False), HERE)[1] is not None  # 122 bytes


def test_a_codec_encrypts_what_is_stored_outside_and_refuses_plain_objects(store: FolderStore) -> None:
    policy = PayloadPolicy.of(Reversed(), None, store, 10)
    row, stored = policy.close('{"card": "canary-4711"}', HERE)
    assert stored is not None
    policy.put([stored])
    assert b"canary-4711" not in store.get(stored.key)
    reference = read_reference(json.loads(row))
    assert reference is not None
    assert policy.fetch(reference, HERE) == '{"card": "canary-4711"}'
    plain, stored = PayloadPolicy.of(None, None, store, 1).close('{"a": 1}', HERE)
    assert stored is not None
    policy.put([stored])
    found = read_reference(json.loads(plain))
    assert found is not None
    with pytest.raises(InvalidPayload, match="not encrypted, and the codec is strict"):
        policy.fetch(found, HERE)


def stored_at(policy: PayloadPolicy, location: Location) -> Reference:
    row, stored = policy.close(json.dumps("x" * 200), location)
    assert stored is not None
    policy.put([stored])
    reference = read_reference(json.loads(row))
    assert reference is not None
    return reference


def test_a_reference_works_only_in_its_own_place(store: FolderStore) -> None:
    policy = PayloadPolicy.of(None, None, store, 100)
    reference = stored_at(policy, HERE)
    assert belongs_to(reference, HERE)
    assert not belongs_to(reference, THERE)
    with pytest.raises(InvalidPayload, match="was made for another place"):
        policy.fetch(reference, THERE)


def test_a_changed_object_is_invalid_and_a_missing_one_may_come_back(store: FolderStore) -> None:
    policy = PayloadPolicy.of(None, None, store, 100)
    reference = stored_at(policy, HERE)
    data = store.get(reference.key)
    for changed in (data[:-1], data.replace(b"x", b"y"), b""):
        store.put(reference.key, changed)
        with pytest.raises(InvalidPayload, match=f"the object {reference.key} of the payload store was changed"):
            policy.fetch(reference, HERE)
    store.delete([reference.key])
    with pytest.raises(PayloadUnavailable, match="the input is missing in the payload store FolderStore") as caught:
        policy.fetch(reference, HERE)
    assert "Restore" in (caught.value.hint or "")


def test_the_error_of_a_store_names_the_store_and_the_value() -> None:
    policy = PayloadPolicy.of(None, None, Broken(), 100)
    _, stored = policy.close(json.dumps("x" * 200), HERE)
    assert stored is not None
    with pytest.raises(
        PayloadUnavailable, match=r"Broken cannot store an object of 202 bytes: ConnectionError: the bu"
    ):
        policy.put([stored])
    reference = Reference(stored.key, 202, "0" * 64)
    with pytest.raises(PayloadUnavailable, match="the input cannot be read from the payload store Broken"):
        policy.fetch(reference, HERE)


@pytest.mark.parametrize(
    "made_up",
    [
        {"key": "../../secret", "size": 1, "sha256": "0"},
        {"key": KEY, "size": "1", "sha256": "0"},
        {"key": KEY},
        {},
    ],
)
def test_a_made_up_reference_is_invalid(made_up: dict[str, Any]) -> None:
    with pytest.raises(InvalidPayload, match="is not a reference of pgflow"):
        read_reference({REFERENCE_MARKER: made_up})


@pytest.mark.parametrize(
    "value", [{REFERENCE_MARKER: "x", "b": 1}, {REFERENCE_MARKER: 1}, "pgflow:ref", None, {"a": 1}]
)
def test_other_values_are_not_references(value: Any) -> None:
    assert read_reference(value) is None


def test_a_value_of_a_user_cannot_look_like_a_reference() -> None:
    reference = Reference(KEY, 1, "0" * 64)
    with pytest.raises(InvalidPayload, match=f"the key '{REFERENCE_MARKER}' of input is reserved for pgflow"):
        encode(json.loads(reference.text), what="input", limit=INPUT_LIMIT)


# -- the options


def test_the_defaults_are_one_mebibyte_and_with_a_store_64(store: FolderStore) -> None:
    assert Pgflow().payloads.limit == 1_048_576
    with_store = Pgflow(payload_store=store).payloads
    assert (with_store.limit, with_store.store_above) == (STORE_LIMIT, 1_048_576)
    assert Pgflow(payload_store=store, max_payload_bytes=1000).payloads.store_above == 1000


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_payload_bytes": 0}, "max_payload_bytes must be a whole number from 1 to 16,777,216, got 0"),
        ({"max_payload_bytes": MAX_PAYLOAD_BYTES + 1}, "from 1 to 16,777,216, got 16777217"),
        ({"max_payload_bytes": "1MB"}, "got '1MB'"),
        ({"max_payload_bytes": True}, "got True"),
        ({"max_payload_bytes": MAX_STORE_LIMIT + 1, "payload_store": Broken()}, "from 1 to 1,073,741,824"),
        ({"store_above": 100}, "store_above=100 is given without a payload_store"),
        ({"store_above": -1, "payload_store": Broken()}, "store_above must be a whole number from 0 to 16,777,216"),
        ({"store_above": 2**30, "payload_store": Broken()}, "store_above must be a whole number from 0"),
        ({"payload_store": "/srv/payloads"}, "payload_store=str has no method put, get, delete, list"),
        ({"payload_store": FolderStore}, "is a class: pass an object of it"),
    ],
)
def test_an_invalid_option_is_refused_by_name(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Pgflow(**options)
    assert said in str(caught.value)
    assert caught.value.hint


def test_memory_takes_the_limit_and_refuses_a_store_by_name(store: FolderStore) -> None:
    with pytest.raises(ConfigError, match="Local keeps values in memory and has no payload_store, got FolderStore"):
        Local(payload_store=store)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="max_payload_bytes must be"):
        Local(max_payload_bytes=0)


# -- sizes


def test_an_oversized_value_is_refused_with_size_limit_and_fix() -> None:
    with pytest.raises(InvalidPayload) as caught:
        encode("x" * INPUT_LIMIT, what="input", limit=INPUT_LIMIT)
    assert str(caught.value) == (
        "input is 1,048,578 bytes of JSON, more than the 1,048,576 allowed: "
        "raise max_payload_bytes of the app, or give it a payload_store"
    )
    with pytest.raises(InvalidPayload, match="keep large data elsewhere"):
        encode("x" * METADATA_LIMIT, what="metadata", limit=METADATA_LIMIT)


def test_a_value_that_postgresql_would_write_too_long_is_refused() -> None:
    fits = encode([5e-324] * 149_000, what="input", limit=INPUT_LIMIT)
    assert len(fits) > 1_000_000
    with pytest.raises(InvalidPayload, match="bytes as PostgreSQL writes its numbers, more than the 67,108,864"):
        encode([5e-324] * 300_000, what="input", limit=MAX_PAYLOAD_BYTES)
    encode(["5e-324"] * 300_000, what="input", limit=MAX_PAYLOAD_BYTES)  # strings do not grow
