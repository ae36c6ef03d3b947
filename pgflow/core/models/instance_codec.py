"""Encrypt and decrypt the input, outputs and payloads of whole instances, for readers and storages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

from pgflow.core.models.instance import Entry, Instance
from pgflow.core.values.codec import Codec, Kind, Location, decrypt, is_encrypted
from pgflow.core.values.payload import decode, encode
from pgflow.core.values.reference import is_reference
from pgflow.errors import DecryptionUnavailable, InvalidPayload

__all__ = ["close_values", "convert_values", "decrypt_instance"]

Convert: TypeAlias = Callable[[Kind, str, Any], Any]
NO_LIMIT = 2**31  # bytes of text: the sizes of an instance's values were checked before


def decrypt_instance(codec: Codec | None, instance: Instance) -> Instance:
    """Return an instance with its input, outputs and payloads decrypted; without a codec unchanged.

    A value that cannot be decrypted stays encrypted, and `unreadable` gives the reason. References stay as they are.
    """
    if codec is None:
        return instance
    faults: list[str] = []

    def convert(kind: Kind, name: str, value: Any) -> Any:
        if value is None and instance.unreadable is not None:  # maybe in place of a value that could not be read
            return value
        if value == {} and kind == "output":  # an output that was left out is stored as nothing, not encrypted
            return value
        if is_reference(value):
            return value
        try:
            return decrypt(codec, value, Location(instance.workflow, instance.id, kind, name))
        except (InvalidPayload, DecryptionUnavailable) as error:
            faults.append(str(error))
            return value

    converted = convert_values(instance, convert)
    reasons = ([] if instance.unreadable is None else [instance.unreadable]) + faults
    return replace(converted, unreadable="; ".join(reasons) or None)


def close_values(instance: Instance, close: Callable[[str, Location], str]) -> Instance:
    """Return a checked instance with the values that `close` returns for their JSON texts, encrypted for example.

    A value that an app without the codec has read stays encrypted as it is.
    """

    def convert(kind: Kind, name: str, value: Any) -> Any:
        if is_encrypted(value):
            return value
        text = encode(value, what=kind, limit=NO_LIMIT)
        return decode(close(text, Location(instance.workflow, instance.id, kind, name)))

    return convert_values(instance, convert)


def convert_values(instance: Instance, convert: Convert) -> Instance:
    """Return an instance with `convert(kind, name, value)` in place of its input, outputs and payloads."""
    history = tuple(_convert_entry(entry, convert) for entry in instance.history)
    signals = (
        replace(each, payload=convert("payload", each.event, each.payload)) if each.has_payload else each
        for each in instance.signals
    )
    return replace(
        instance,
        input=convert("input", "", instance.input),
        steps={entry.step: entry.output for entry in history} if history else instance.steps,
        history=history,
        signals=tuple(signals),
    )


def _convert_entry(entry: Entry, convert: Convert) -> Entry:
    return replace(entry, output=convert("output", entry.step, entry.output))
