"""Prepare the values of an action for the database: checked by the app's types, and encrypted if its values are."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticUserError

from pgflow.app import Pgflow
from pgflow.client.signal_request import payload_text
from pgflow.core.definition.graph import Graph, Node
from pgflow.core.values.absent import ABSENT
from pgflow.core.values.codec import Location
from pgflow.core.values.payload import ENCRYPTED_MARKER, INPUT_LIMIT, encode
from pgflow.errors import InvalidPayload
from pgflow.store.run_rows import Run
from pgflow.web.rendering.forms import FieldErrors
from pgflow.web.routing.problems import field_errors

__all__ = ["NOTHING", "check_fields", "graph_of", "schema_of", "stored_text"]

NOTHING = ABSENT


def graph_of(app: Pgflow, run: Run) -> Graph | None:
    """Return the definition of an instance in the app's own code, None if the app does not have it."""
    kind = next((each for each in app.workflows if each.name == run.workflow), None)
    if kind is None:
        return None
    found = kind.definitions.versions.get(run.version)
    return None if found is None else found.graph


def schema_of(nodes: Sequence[Node]) -> dict[str, Any] | None:
    """Return the JSON schema of what these steps take as a payload, None if they declare none or different ones."""
    declared = {node.step.output for node in nodes if node.step.output is not None}
    if len(declared) != 1:
        return None
    try:
        schema: dict[str, Any] = TypeAdapter(declared.pop()).json_schema()
    except (PydanticInvalidForJsonSchema, PydanticUserError):
        return None
    return schema if schema.get("type") == "object" and schema.get("properties") else None


def check_fields(nodes: Sequence[Node], value: Any, prefix: str) -> None:
    """Check a value by the type that these steps declare, so that an error is at its field. Raises `FieldErrors`."""
    declared = {node.step.output for node in nodes if node.step.output is not None}
    if len(declared) != 1 or value is NOTHING:
        return
    try:
        TypeAdapter(declared.pop()).validate_json(json.dumps(value))
    except ValidationError as error:
        raise FieldErrors({f"{prefix}{name}": message for name, message in field_errors(error).items()}) from None


async def stored_text(
    app: Pgflow, run: Run, name: str, value: Any, nodes: Sequence[Node], *, what: str = "payload"
) -> str | None:
    """Return a payload or an output as the database stores it, None if it was left out.

    Raises `InvalidPayload` when it does not fit the declared type, or when the instance's values are encrypted and this
    dashboard has no codec.
    """
    if not nodes:
        if value is NOTHING:
            return None
        if ENCRYPTED_MARKER in run.input:
            raise InvalidPayload(
                f"the values of {run.workflow} {run.id!r} are encrypted, and this dashboard has no codec",
                hint="Start it with the app: pgflow web --app module:name",
            )
        return encode(value, what=what, limit=INPUT_LIMIT)
    policy = app.payloads
    text = payload_text(value, nodes, reveal=policy.reveal, limit=policy.limit, what=what)
    if text is None:
        return None
    closed, outside = policy.close(text, Location(run.workflow, run.id, "payload", name))
    if outside is not None:
        await asyncio.to_thread(policy.put, [outside])
    return closed
