"""What is sealed opens again in its own place alone, with its own key, and tells nothing of itself."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgflow.contrib.encryption import AesGcm
from pgflow.core.values.codec import Codec, Location, decrypt_text, encryption_key_id, is_encrypted, opened, sealed
from pgflow.core.values.payload import ENCRYPTED_MARKER, INPUT_LIMIT, encode
from pgflow.errors import ConfigError, DecryptionUnavailable, InvalidPayload

OLD, NEW = os.urandom(32), os.urandom(32)
CODEC = AesGcm({"k1": OLD}, current="k1")
HERE = Location("OrderFlow", "orderid::a", "input")
PLACES = [
    HERE,
    Location("OrderFlow", "orderid::b", "input"),
    Location("OtherFlow", "orderid::a", "input"),
    Location("OrderFlow", "orderid::a", "output", "input"),
    Location("OrderFlow", "orderid::a", "output", "charge"),
    Location("OrderFlow", "orderid::a", "payload", "charge"),
    Location('OrderFlow", "orderid::a', "", "input"),
]


@given(st.text(), st.text())
def test_what_is_sealed_opens_in_its_place(text: str, place: str) -> None:
    try:
        (text + place).encode()
    except UnicodeEncodeError:
        return
    hidden = CODEC.seal(text, place)
    assert CODEC.open(hidden, place) == text
    assert CODEC.seal(text, place) != hidden  # two of the same cannot be told to be the same
    assert hidden.isascii()
    assert hidden.startswith("k1.")
    with pytest.raises(InvalidPayload):
        CODEC.open(hidden, place + "x")


def test_it_opens_in_no_other_place() -> None:
    assert len({str(place) for place in PLACES}) == len(PLACES)
    value = json.loads(sealed(CODEC, '{"card":"4711"}', HERE))
    assert opened(CODEC, value, HERE) == {"card": "4711"}
    for place in PLACES[1:]:
        with pytest.raises(InvalidPayload, match=f"the sealed {place.title} cannot be opened: it was changed, or"):
            opened(CODEC, value, place)


def test_all_runs_of_a_business_value_are_one_place() -> None:
    assert str(Location("Visit", "visit::ann::0a1b2c3d", "input")) == str(Location("Visit", "visit::ann", "input"))
    assert str(Location("Visit", "visit::0a1b2c3d", "input")) != str(Location("Visit", "visit", "input"))


@pytest.mark.parametrize(
    "change", [lambda s: s[:-8] + "AAAAAAA=", lambda s: s + "AAAA", lambda s: "k1.", lambda s: "k1"]
)
def test_what_was_changed_does_not_open(change: object) -> None:
    assert callable(change)
    hidden = change(CODEC.seal("1", str(HERE)))
    with pytest.raises(InvalidPayload):
        CODEC.open(hidden, str(HERE))


def test_another_key_of_that_name_does_not_open_it_and_one_that_is_not_here_is_told() -> None:
    value = json.loads(sealed(CODEC, "1", HERE))
    with pytest.raises(InvalidPayload, match="with another key of that name"):
        opened(AesGcm({"k1": NEW}, current="k1"), value, HERE)
    with pytest.raises(DecryptionUnavailable, match="cannot be opened here: it is sealed with the key 'k1'") as caught:
        opened(AesGcm({"k2": NEW}, current="k2"), value, HERE)
    assert caught.value.hint == "There are here: k2."
    with pytest.raises(DecryptionUnavailable, match="there is no codec here"):
        opened(None, value, HERE)
    renamed = {ENCRYPTED_MARKER: value[ENCRYPTED_MARKER].replace("k1.", "k2.", 1)}
    with pytest.raises(InvalidPayload):  # the same key under another name
        opened(AesGcm({"k1": OLD, "k2": OLD}, current="k2"), renamed, HERE)


def test_keys_rotate() -> None:
    old = json.loads(sealed(CODEC, "1", HERE))
    both = AesGcm({"k1": OLD, "k2": NEW}, current="k2")
    new = json.loads(sealed(both, "2", HERE))
    assert (encryption_key_id(old), encryption_key_id(new)) == ("k1", "k2")
    assert (opened(both, old, HERE), opened(both, new, HERE)) == (1, 2)


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
def test_keys_that_cannot_be_are_refused_and_none_is_told(keys: dict[str, bytes], current: str) -> None:
    with pytest.raises(ConfigError) as caught:
        AesGcm(keys, current)
    assert str(OLD) not in f"{caught.value}"
    assert repr(CODEC) == "AesGcm(keys=['k1'], current='k1', strict=False)"
    assert all(str(OLD) not in repr(value) for value in vars(CODEC).values())


def test_what_is_not_sealed_is_read_unless_the_codec_is_strict() -> None:
    strict = AesGcm({"k1": OLD}, current="k1", strict=True)
    plains: list[Any] = [1, {}, [], {"a": 1}, {ENCRYPTED_MARKER: 1}, {ENCRYPTED_MARKER: "x", "a": 1}, None]
    for plain in plains:
        assert not is_encrypted(plain)
        assert opened(CODEC, plain, HERE) == plain
        assert decrypt_text(CODEC, json.dumps(plain), HERE) == json.dumps(plain)
        for refused in (lambda plain=plain: opened(strict, plain, HERE), lambda: decrypt_text(strict, "1", HERE)):
            with pytest.raises(InvalidPayload, match="the input is not sealed, and the codec is strict"):
                refused()
    text = f'{{"told": "{ENCRYPTED_MARKER}"}}'  # a word of it is no seal
    assert decrypt_text(None, text, HERE) == text
    assert decrypt_text(strict, sealed(strict, '"x"', HERE), HERE) == '"x"'


def test_nobody_can_pass_off_a_value_of_his_own_as_sealed() -> None:
    with pytest.raises(InvalidPayload, match="the key 'pgflow:sealed' of input is pgflow's own"):
        encode({ENCRYPTED_MARKER: "k1.x"}, what="input", limit=INPUT_LIMIT)


class Failing(Codec):
    def seal(self, text: str, place: str) -> str:
        return text[::-1]

    def open(self, sealed: str, place: str) -> str:
        raise ConnectionError("the keys are elsewhere: canary")


def test_a_codec_that_fails_is_no_verdict_on_what_is_sealed() -> None:
    value = json.loads(sealed(Failing(), "[1]", HERE))
    assert value == {ENCRYPTED_MARKER: "]1["}
    assert encryption_key_id(value) == ""
    with pytest.raises(DecryptionUnavailable, match=r"the sealed input cannot be opened now: ConnectionError$"):
        opened(Failing(), value, HERE)
