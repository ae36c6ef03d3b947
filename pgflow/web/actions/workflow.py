"""Start an instance of a workflow, with a form from the JSON schema of its input."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from pydantic import Field
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticUserError

from pgflow.app import Pgflow
from pgflow.core.definition.definition import Definition
from pgflow.core.values.absent import ABSENT
from pgflow.errors import UnknownWorkflow
from pgflow.web.rendering.forms import Field as FormField
from pgflow.web.rendering.forms import fields_of
from pgflow.web.routing.action import Act, Action, Done, Form, Input
from pgflow.web.routing.page import Params, View

__all__ = ["ACTIONS"]


class ForWorkflow(Params):
    """The workflow that the form is for."""

    workflow: str | None = Field(None, max_length=1000, description="A workflow, for the fields of its input")


class Start(Input):
    """An instance to start: the workflow, its business value and its input."""

    workflow: str = Field(min_length=1, max_length=1000, description="The name of the workflow")
    value: str = Field(min_length=1, max_length=1000, description="The business value, such as an order number")
    input: Any = Field(None, description="JSON")
    input_json: Any = Field(None, description="Instead of input")
    delay: float | None = Field(None, ge=0, le=315_360_000, description="Seconds to wait first")


async def ask(view: View[ForWorkflow]) -> Form:
    """Ask for a workflow, its business value, and its input."""
    names = [each.name for each in view.context.app.workflows]
    name = view.params.workflow or next(iter(names), "")
    if name not in names:
        raise _unknown(view.context.app, name)
    found = next(each for each in view.context.app.workflows if each.name == name).definitions
    fields = [
        FormField("workflow", "Workflow", "choice", value=name, choices=[(each, each) for each in names], reloads=True),
        FormField("value", "Business value", about=f"{found.unique.key}, which names the instance", required=True),
        FormField("delay", "Delay", "number", "seconds, optional", minimum="0"),
    ]
    schema = _schema(found.resolve())
    if schema is not None:
        fields += fields_of(schema, prefix="input.")
        fields.append(FormField("input_json", "Input as JSON", "json", "instead of the fields", mono=True, folded=True))
    else:
        fields.append(FormField("input", "Input", "json", "JSON, optional", mono=True))
    return Form("Start instance", "Start instance", fields=fields, icon="plus", note="Validated before it is stored.")


async def start(act: Act[ForWorkflow, Start]) -> Done:
    """Start an instance."""
    given = act.input
    if given.workflow not in [each.name for each in act.app.workflows]:
        raise _unknown(act.app, given.workflow)
    names = given.model_fields_set & {"input", "input_json"}
    value = ABSENT if not names else given.input_json if "input_json" in names else given.input
    delay = None if given.delay is None else timedelta(seconds=given.delay)
    async with act.transaction() as conn:
        done = await act.app.astart(given.workflow, given.value, value, conn=conn, delay=delay)
    return Done(message=f"{done.id} is started.", go=f"/instances/{done.run}", details={"run": str(done.run)})


def _unknown(app: Pgflow, name: str) -> UnknownWorkflow:
    names = ", ".join(each.name for each in app.workflows)
    if not names:
        hint = "Start it with the app: pgflow web --app module:name"
        return UnknownWorkflow("this dashboard has no app, whose code checks inputs", hint=hint)
    return UnknownWorkflow(f"this dashboard's app has no workflow named {name!r}", hint=f"It has: {names}.")


def _schema(found: Definition) -> dict[str, Any] | None:
    """Return the JSON schema of an input that is an object, None for any other."""
    try:
        schema: dict[str, Any] = found.input.adapter.json_schema()
    except (PydanticInvalidForJsonSchema, PydanticUserError):
        return None
    return schema if schema.get("type") == "object" and schema.get("properties") else None


ACTIONS: tuple[Action[Any, Any], ...] = (
    Action(
        *("start", "/workflows/start", "start", "Start an instance"),
        *(start, ask, ForWorkflow, Start),
    ),
)
