"""The references in whole instances: fetch their values for a reader."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from pgflow.core.models.instance import Instance
from pgflow.core.models.instance_codec import convert_values
from pgflow.core.values.codec import Kind, Location
from pgflow.core.values.payload import decode
from pgflow.core.values.reference import is_reference, read_reference
from pgflow.errors import Invalid
from pgflow.payloads.policy import PayloadPolicy

__all__ = ["fetched", "has_references"]


def has_references(instance: Instance) -> bool:
    """Whether a value of an instance is in a payload store."""
    return any(is_reference(value) for value in _values(instance))


def fetched(policy: PayloadPolicy, instance: Instance) -> Instance:
    """Return an instance with the values in place of their references.

    A value that cannot be fetched stays a reference, and `unreadable` gives the reason.
    """
    faults: list[str] = []

    def convert(kind: Kind, name: str, value: Any) -> Any:
        if not is_reference(value):
            return value
        location = Location(instance.workflow, instance.id, kind, name)
        try:
            policy.require_store(location)
            reference = read_reference(value)
            return value if reference is None else decode(policy.fetch(reference, location))
        except Invalid as error:
            faults.append(str(error))
            return value

    converted = convert_values(instance, convert)
    reasons = ([] if instance.unreadable is None else [instance.unreadable]) + faults
    return replace(converted, unreadable="; ".join(reasons) or None)


def _values(instance: Instance) -> Iterator[Any]:
    yield instance.input
    yield from instance.steps.values()
    yield from (each.payload for each in instance.signals)
