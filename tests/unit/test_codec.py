"""An encrypted value is decrypted only for its own location, with its own key."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgflow.contrib.encryption import AesGcm
from pgflow.core.values.codec import (
    Codec,
    Location,
    decrypt,
    decrypt_text,
    encrypt,
    encryption_key_id,
    is_encrypted,
)
from pgflow.core.values.payload import ENCRYPTED_MARKER, INPUT_LIMIT, encode
from pgflow.errors import ConfigError, DecryptionUnavailable, InvalidPayload

OLD, NEW = os.urandom(32), os.urandom(32)
CODEC = AesGcm({"k1": OLD}, current="k1")
HERE = Location("OrderFlow", "orderid::a", "input")
LOCATIONS = [
    HERE,
    Location("OrderFlow", "orderid::b", "input"),
    Location("OtherFlow", "orderid::a", "input"),
    Location("OrderFlow", "orderid::a", "output", "input"),
    Location("OrderFlow", "orderid::a", "output", "charge"),
    Location("OrderFlow", "orderid::a", "payload", "charge"),
    Location('OrderFlow", "orderid::a', "", "input"),
]


@given(st.text(), st.text())
def test_a_value_is_decrypted_with_its_own_associated_data(text: str, associated_data: str) -> None:
    try:
        (text + associated_data).encode()
    except UnicodeEncodeError:
        return
    hidden = CODEC.encrypt(text, associated_data)
    assert CODEC.decrypt(hidden, associated_data) == text
    assert CODEC.encrypt(text, associated_data) != hidden  # equal values are not recognizable as equal
    assert hidden.isascii()
    assert hidden.startswith("k1.")
    with pytest.raises(InvalidPayload):
        CODEC.decrypt(hidden, associated_data + "x")


def test_a_value_is_not_decrypted_for_another_location() -> None:
    assert len({str(location) for location in LOCATIONS}) == len(LOCATIONS)
    value = json.loads(encrypt(CODEC, '{"card":"4711"}', HERE))
    assert decrypt(CODEC, value, HERE) == {"card": "4711"}
    for location in LOCATIONS[1:]:
        with pytest.raises(
            InvalidPayload, match=f"the encrypted {location.title} cannot be decrypted: it was changed, or"
        ):
            decrypt(CODEC, value, location)


def test_all_runs_of_a_business_value_share_a_location() -> None:
    assert str(Location("Visit", "visit::ann::0a1b2c3d", "input")) == str(Location("Visit", "visit::ann", "input"))
    assert str(Location("Visit", "visit::0a1b2c3d", "input")) != str(Location("Visit", "visit", "input"))


@pytest.mark.parametrize(
    "change", [lambda s: s[:-8] + "AAAAAAA=", lambda s: s + "AAAA", lambda s: "k1.", lambda s: "k1"]
)
def test_a_changed_value_is_not_decrypted(change: object) -> None:
    assert callable(change)
    hidden = change(CODEC.encrypt("1", str(HERE)))
    with pytest.raises(InvalidPayload):
        CODEC.decrypt(hidden, str(HERE))


def test_a_wrong_key_is_invalid_and_a_missing_key_is_unavailable() -> None:
    value = json.loads(encrypt(CODEC, "1", HERE))
    with pytest.raises(InvalidPayload, match="with another key of the same id"):
        decrypt(AesGcm({"k1": NEW}, current="k1"), value, HERE)
    with pytest.raises(
        DecryptionUnavailable, match="cannot be decrypted here: it is encrypted with the key 'k1'"
    ) as caught:
        decrypt(AesGcm({"k2": NEW}, current="k2"), value, HERE)
    assert caught.value.hint == "This codec has the keys: k2."
    with pytest.raises(DecryptionUnavailable, match="this app has no codec"):
        decrypt(None, value, HERE)
    renamed = {ENCRYPTED_MARKER: value[ENCRYPTED_MARKER].replace("k1.", "k2.", 1)}
    with pytest.raises(InvalidPayload):  # the same key under another name
        decrypt(AesGcm({"k1": OLD, "k2": OLD}, current="k2"), renamed, HERE)


def test_keys_rotate() -> None:
    old = json.loads(encrypt(CODEC, "1", HERE))
    both = AesGcm({"k1": OLD, "k2": NEW}, current="k2")
    new = json.loads(encrypt(both, "2", HERE))
    assert (encryption_key_id(old), encryption_key_id(new)) == ("k1", "k2")
    assert (decrypt(both, old, HERE), decrypt(both, new, HERE)) == (1, 2)


@pytest.mark.parametrize(
    ("keys", "current"),
    [
        ({}, "k1"),
        ({"k1": OLD}, "k2"),
        ({"k1": OLD[:31]}, "k1"),
        ({"k1": "x" * 32}, "k1"),
        ({"k.1": OLD}, "k.1"),
        ({"": OLD}, ""),
        ({"k" * 65: OLD}, "k" * 65),
    ],
)
def test_invalid_keys_are_refused_and_never_shown(keys: dict[str, bytes], current: str) -> None:
    with pytest.raises(ConfigError) as caught:
        AesGcm(keys, current)
    assert str(OLD) not in f"{caught.value}"
    assert repr(CODEC) == "AesGcm(keys=['k1'], current='k1', strict=False)"
    assert all(str(OLD) not in repr(value) for value in vars(CODEC).values())


def test_a_value_in_plain_is_read_unless_the_codec_is_strict() -> None:
    strict = AesGcm({"k1": OLD}, current="k1", strict=True)
    plains: list[Any] = [1, {}, [], {"a": 1}, {ENCRYPTED_MARKER: 1}, {ENCRYPTED_MARKER: "x", "a": 1}, None]
    for plain in plains:
        assert not is_encrypted(plain)
        assert decrypt(CODEC, plain, HERE) == plain
        assert decrypt_text(CODEC, json.dumps(plain), HERE) == json.dumps(plain)
        for refused in (lambda plain=plain: decrypt(strict, plain, HERE), lambda: decrypt_text(strict, "1", HERE)):
            with pytest.raises(InvalidPayload, match="the input is not encrypted, and the codec is strict"):
                refused()
    text = f'{{"text": "{ENCRYPTED_MARKER}"}}'  # the marker as a value does not count
    assert decrypt_text(None, text, HERE) == text
    assert decrypt_text(strict, encrypt(strict, '"x"', HERE), HERE) == '"x"'


def test_a_plain_value_cannot_carry_the_marker_of_encrypted_ones() -> None:
    with pytest.raises(InvalidPayload, match="the key 'pgflow:sealed' of input is reserved for pgflow"):
        encode({ENCRYPTED_MARKER: "k1.x"}, what="input", limit=INPUT_LIMIT)


class FailingCodec(Codec):
    def encrypt(self, text: str, associated_data: str) -> str:
        return text[::-1]

    def decrypt(self, encrypted: str, associated_data: str) -> str:
        raise ConnectionError("the keys are elsewhere: canary")


def test_a_codec_that_fails_does_not_make_the_value_invalid() -> None:
    value = json.loads(encrypt(FailingCodec(), "[1]", HERE))
    assert value == {ENCRYPTED_MARKER: "]1["}
    assert encryption_key_id(value) == ""
    with pytest.raises(DecryptionUnavailable, match=r"the encrypted input cannot be decrypted now: ConnectionError$"):
        decrypt(FailingCodec(), value, HERE)
