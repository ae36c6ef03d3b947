"""Open and seal whole instances, as readers and storages have them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pgflow.core.models.instance import Entry, Instance
from pgflow.core.values.codec import Codec, Kind, Location, is_encrypted, opened, sealed
from pgflow.core.values.payload import decode, encode
from pgflow.errors import DecryptionUnavailable, InvalidPayload

__all__ = ["decrypt_instance", "encrypt_instance"]

Turn = Callable[[Kind, str, Any], Any]
LARGEST = 2**31  # bytes of text: what is put has been checked


def decrypt_instance(codec: Codec | None, instance: Instance) -> Instance:
    """Return an instance with its input, outputs and payloads opened; without a codec as it is.

    What cannot be opened stays sealed, and `unreadable` says why.
    """
    if codec is None:
        return instance
    faults: list[str] = []

    def turn(kind: Kind, name: str, value: Any) -> Any:
        if value is None and instance.unreadable is not None:  # it may be what could not be read
            return value
        if value == {} and kind == "output":  # the step may have had no output, and nothing is not sealed
            return value
        try:
            return opened(codec, value, Location(instance.workflow, instance.id, kind, name))
        except (InvalidPayload, DecryptionUnavailable) as error:
            faults.append(str(error))
            return value

    turned = _turned(instance, turn)
    said = "; ".join(([] if instance.unreadable is None else [instance.unreadable]) + faults)
    return replace(turned, unreadable=said or None)


def encrypt_instance(codec: Codec | None, instance: Instance) -> Instance:
    """Return a checked instance with its input and outputs sealed; without a codec as it is."""
    if codec is None:
        return instance

    def turn(kind: Kind, name: str, value: Any) -> Any:
        if is_encrypted(value):
            return value
        text = encode(value, what=kind, limit=LARGEST)
        return decode(sealed(codec, text, Location(instance.workflow, instance.id, kind, name)))

    return _turned(instance, turn)


def _turned(instance: Instance, turn: Turn) -> Instance:
    history = tuple(_entry(entry, turn) for entry in instance.history)
    signals = (
        replace(each, payload=turn("payload", each.event, each.payload)) if each.has_payload else each
        for each in instance.signals
    )
    return replace(
        instance,
        input=turn("input", "", instance.input),
        steps={entry.step: entry.output for entry in history} if history else instance.steps,
        history=history,
        signals=tuple(signals),
    )


def _entry(entry: Entry, turn: Turn) -> Entry:
    return replace(entry, output=turn("output", entry.step, entry.output))
