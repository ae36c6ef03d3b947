"""What a person can do with one instance and its steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pydantic import Field

from pgflow.client.operator_request import completed_event
from pgflow.client.signal_request import consumers
from pgflow.core.definition.graph import Graph, Node
from pgflow.core.values.names import is_event
from pgflow.errors import InvalidValue, UnknownStep
from pgflow.store import definition, run
from pgflow.store.run_rows import Run
from pgflow.web.actions.values import NOTHING, check_fields, graph_of, schema_of, stored_text
from pgflow.web.pages.instance import OfRun, found_run
from pgflow.web.rendering.forms import Field as FormField
from pgflow.web.rendering.forms import fields_of
from pgflow.web.routing.action import Act, Action, Done, Form, Input, NoInput
from pgflow.web.routing.page import View

__all__ = ["ACTIONS"]

OPERATOR = "pgflow:complete"  # the name of the signal with which a step is completed, as in sql/functions/operator.sql


class OfStep(OfRun):
    """A step of an instance."""

    step: str = Field(max_length=1000, description="The step's key")


class ForSignal(OfRun):
    """An instance, and the signal that the form is for."""

    event: str | None = Field(None, max_length=100, description="The signal, for the fields of its payload")
    step: str | None = Field(None, max_length=1000, description="The step that it is addressed to")


class Reason(Input):
    """Why: recorded in the audit and shown with the instance."""

    reason: str | None = Field(None, max_length=1000, description="Shown with the instance, and in the audit")


class Signal(Input):
    """A signal with its payload, as JSON."""

    event: str = Field(min_length=1, max_length=100, description="The name of the signal")
    step: str | None = Field(None, description="The step, where several wait for the same signal")
    payload: Any = Field(None, description="JSON; left out: no payload")
    payload_json: Any = Field(None, description="Instead of payload")

    def value(self) -> Any:
        """Return the payload, `NOTHING` if it was left out."""
        given = next((name for name in ("payload_json", "payload") if name in self.model_fields_set), None)
        return NOTHING if given is None else getattr(self, given)


class Completion(Input):
    """The outcome of a step, as if it had run."""

    event: str | None = Field(None, max_length=100, description="Its event; may be left out if it has only one")
    output: Any = Field(None, description="JSON; left out: no output")

    def value(self) -> Any:
        """Return the output, `NOTHING` if it was left out."""
        return self.output if "output" in self.model_fields_set else NOTHING


# -- instances


async def ask_cancel(view: View[OfRun]) -> Form:
    """Ask before cancelling."""
    found = await found_run(view)
    return Form(
        f"Cancel {found.id}?",
        "Cancel instance",
        [
            "No further step starts. Running steps are asked to stop, waits end, and later signals are rejected.",
            "Completed steps are not undone. This cannot be undone.",
        ],
        [FormField("reason", "Reason", about="optional, recorded in the audit log")],
        icon="cancel",
        keep="Keep it running",
        danger=True,
    )


async def cancel(act: Act[OfRun, Reason]) -> Done:
    """Cancel."""
    await act.write(run.cancel(act.schema, act.params.run, reason=act.input.reason))
    return Done(message="The instance is cancelled.")


async def ask_retry(view: View[OfRun]) -> Form:
    """Ask before retrying an instance."""
    found = await found_run(view)
    text = ["It continues from the failed step, with a new set of attempts. Completed steps do not run again."]
    return Form(f"Retry {found.id}?", "Retry instance", text, [], icon="retry")


async def retry(act: Act[OfRun, NoInput]) -> Done:
    """Retry a failed instance."""
    await act.write(run.retry(act.schema, act.params.run))
    return Done(message="The instance continues from its failed step.")


# -- signals


async def ask_signal(view: View[ForSignal]) -> Form:
    """Ask for a signal: which, and its payload by the schema that the waiting step declares."""
    found = await found_run(view)
    names = await _signals(view, found)
    event = view.params.event or next(iter(names), "")
    own = graph_of(view.context.app, found)
    nodes = _consumers(own, event, view.params.step)
    schema = schema_of(nodes)
    which = (
        FormField("event", "Signal", "choice", value=event, choices=list(names.items()), reloads=True)
        if names
        else FormField("event", "Signal", required=True, value=event)
    )
    fields = [which]
    if view.params.step:
        fields.append(FormField("step", "Step", "hidden", value=view.params.step))
    if schema is not None:
        fields += [replace(each, unless="payload_json") for each in fields_of(schema, prefix="payload.")]
        fields.append(
            FormField("payload_json", "Payload as JSON", "json", about="instead of the fields", mono=True, folded=True)
        )
    else:
        fields.append(FormField("payload", "Payload", "json", about="JSON, optional", mono=True))
    return Form(
        "Send signal",
        "Send signal",
        fields=fields,
        icon="send",
        note="Validated on the server before it is stored." if nodes else "",
    )


async def send_signal(act: Act[ForSignal, Signal]) -> Done:
    """Send a signal."""
    given = act.input
    if not is_event(given.event):
        raise InvalidValue(f"{given.event!r} is not the name of a signal", hint="No white space or control characters.")
    found = await found_run(act.view)
    own = graph_of(act.view.context.app, found)
    nodes: Sequence[Node] = () if own is None else consumers([own], given.event, given.step)[2]
    check_fields(nodes, given.value(), "payload.")
    text = await stored_text(act.view.context.app, found, given.event, given.value(), nodes)
    sending = run.signal(act.schema, act.params.run, event=given.event, payload=text, step=given.step)
    result = await act.write(sending)
    if result == "delivered":
        return Done(message=f"The signal {given.event} was delivered.", details={"result": result})
    return Done(message=f"The signal {given.event} is kept until a step waits for it.", details={"result": result})


async def _signals(view: View[Any], found: Run) -> dict[str, str]:
    """Return the signals that an instance takes, those that a step waits for first, with words for each."""
    awaited: dict[str, str] = {}
    for job in await view.read(run.jobs(view.schema, found.run, limit=1000)):
        if job.state == "parked" and job.kind != "execute":
            awaited |= {name: f"{name}: {job.step} waits for it" for name in job.awaits if ":" not in name}
    stored = await view.read(definition.read(view.schema, workflow=found.workflow, version=found.version))
    steps = {} if stored is None else stored.graph.get("steps", {})
    others = {
        str(name): f"{name}: kept until {key} waits for it"
        for key, spec in steps.items()
        for name in spec.get("signals", ())
        if name not in awaited and name != "timeout"
    }
    return {**awaited, **others}


def _consumers(graph: Graph | None, event: str, step: str | None) -> Sequence[Node]:
    if graph is None or not event:
        return ()
    return tuple(node for node in graph.consumers(event) if step in (None, node.key))


# -- steps


async def ask_retry_step(view: View[OfStep]) -> Form:
    """Ask before retrying a step."""
    text = ["It runs again as soon as a worker is free, with a new set of attempts. Completed steps do not run again."]
    return Form(f"Retry {view.params.step}?", "Retry step", text, [], icon="retry")


async def retry_step(act: Act[OfStep, NoInput]) -> Done:
    """Retry a step that waits for an operator."""
    await act.write(run.retry_step(act.schema, act.params.run, step=act.params.step))
    return Done(message=f"{act.params.step} runs again.")


async def ask_complete(view: View[OfStep]) -> Form:
    """Ask for the outcome of a step."""
    found = await found_run(view)
    stored = await view.read(definition.read(view.schema, workflow=found.workflow, version=found.version))
    spec = {} if stored is None else stored.graph.get("steps", {}).get(view.params.step)
    if spec is None:
        raise UnknownStep(f"{found.workflow} has no step {view.params.step!r}")
    events = [(str(each), str(each)) for each in spec.get("events", ())]
    return Form(
        f"Complete {view.params.step} manually",
        "Complete step",
        ["The step is recorded as completed, with the event and the output below. Its code does not run."],
        [
            FormField("event", "Event", "choice", choices=events, value=events[0][0] if events else ""),
            FormField("output", "Output", "json", about="JSON, optional", mono=True),
        ],
    )


async def complete_step(act: Act[OfStep, Completion]) -> Done:
    """Complete a step that waits for an operator."""
    found, given, step = await found_run(act.view), act.input, act.params.step
    own = graph_of(act.view.context.app, found)
    nodes = () if own is None else (own.node(step),)
    event = given.event if not nodes else completed_event(nodes, given.event)
    text = await stored_text(act.view.context.app, found, OPERATOR, given.value(), nodes, what="output")
    await act.write(run.complete_step(act.schema, act.params.run, step=step, event=event, output=text))
    return Done(message=f"{step} is completed.")


async def ask_fail(view: View[OfStep]) -> Form:
    """Ask before failing a step."""
    return Form(
        f"Fail {view.params.step}?",
        "Fail instance",
        ["The step fails, and the instance with it. Other branches stop. It can be retried later."],
        [FormField("reason", "Reason", about="optional, recorded in the audit log")],
        icon="fail",
        danger=True,
    )


async def fail_step(act: Act[OfStep, Reason]) -> Done:
    """Fail a step that waits for an operator, and its instance."""
    await act.write(run.fail_step(act.schema, act.params.run, step=act.params.step, reason=act.input.reason))
    return Done(message=f"{act.params.step} has failed, and the instance with it.")


async def ask_run_now(view: View[OfStep]) -> Form:
    """Ask before ending a wait."""
    text = ["It does not wait for its time any longer: a timer ends, a back-off or a delay is skipped."]
    return Form(f"Run {view.params.step} now?", "Run now", text, [], icon="bolt")


async def run_now(act: Act[OfStep, NoInput]) -> Done:
    """End a timer, a back-off or a delay of a step now."""
    await act.write(run.run_now(act.schema, act.params.run, step=act.params.step))
    return Done(message=f"{act.params.step} does not wait any longer.")


OF_STEP = "/instances/{run:int}/steps/{step:path}"

ACTIONS: tuple[Action[Any, Any], ...] = (
    Action(
        *("instance.signal", "/instances/{run:int}/signal", "signal", "Send a signal to an instance"),
        *(send_signal, ask_signal, ForSignal, Signal),
    ),
    Action(
        *("instance.cancel", "/instances/{run:int}/cancel", "cancel", "Cancel an instance"),
        *(cancel, ask_cancel, OfRun, Reason),
    ),
    Action(
        *("instance.retry", "/instances/{run:int}/retry", "retry", "Retry a failed instance from its failed step"),
        *(retry, ask_retry, OfRun, NoInput),
    ),
    Action(
        *("step.retry", f"{OF_STEP}/retry", "retry", "Retry a step that waits for an operator"),
        *(retry_step, ask_retry_step, OfStep, NoInput),
    ),
    Action(
        *("step.complete", f"{OF_STEP}/complete", "complete", "Complete a step that waits for an operator"),
        *(complete_step, ask_complete, OfStep, Completion),
    ),
    Action(
        *("step.fail", f"{OF_STEP}/fail", "complete", "Fail a step that waits for an operator"),
        *(fail_step, ask_fail, OfStep, Reason),
    ),
    Action(
        *("step.run-now", f"{OF_STEP}/run-now", "run-now", "End a timer, a back-off or a delay now"),
        *(run_now, ask_run_now, OfStep, NoInput),
    ),
)
