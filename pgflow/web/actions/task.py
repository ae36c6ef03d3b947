"""What a person can do with tasks: enqueue one, and retry, cancel, run now, move, reschedule or delete one."""

from __future__ import annotations

import warnings
from datetime import timedelta
from typing import Any

from pydantic import AwareDatetime, Field
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticUserError
from pydantic.json_schema import PydanticJsonSchemaWarning

from pgflow.app import Pgflow
from pgflow.client.enqueue_request import check_queue
from pgflow.core.definition.task import TaskDefinition
from pgflow.core.values.payload import INPUT_LIMIT, encode
from pgflow.database.statement import arun
from pgflow.errors import InvalidInput, UnknownTask
from pgflow.store import task
from pgflow.web.pages.task import OfTask, found_task
from pgflow.web.rendering.forms import Field as FormField
from pgflow.web.rendering.forms import fields_of
from pgflow.web.routing.action import Act, Action, Done, Form, Input, NoInput
from pgflow.web.routing.page import Params, View

__all__ = ["ACTIONS"]

LOWEST, HIGHEST = -32_768, 32_767  # priorities


class Reason(Input):
    """Why: recorded with the task."""

    reason: str | None = Field(None, max_length=1000, description="Recorded with the task")


class Move(Input):
    """Where a task goes; a value that is left out stays."""

    queue: str | None = Field(None, max_length=63, description="The queue")
    priority: int | None = Field(None, ge=LOWEST, le=HIGHEST, description="Lower runs first")


class Reschedule(Input):
    """When a task runs."""

    at: AwareDatetime = Field(description="Not before this time; a time that has passed is now")


class ForTask(Params):
    """The task that the form is for."""

    task: str | None = Field(None, max_length=1000, description="A task, for the fields of its arguments")


class Enqueue(Input):
    """A task with its arguments, as JSON, and options."""

    task: str = Field(min_length=1, max_length=1000, description="The name of the task")
    args: Any = Field(None, description="Arguments by name")
    args_json: Any = Field(None, description="Instead of args")
    delay: float | None = Field(None, ge=0, le=315_360_000, description="Seconds to wait first")
    queue: str | None = Field(None, max_length=63, description="Instead of the task's queue")
    priority: int | None = Field(None, ge=LOWEST, le=HIGHEST, description="Lower runs first")


# -- one task


async def _title(view: View[OfTask], verb: str) -> str:
    found = await found_task(view)
    return f"{verb} {found.task} {found.id}"


async def ask_retry(view: View[OfTask]) -> Form:
    """Ask before running a task that has ended once more."""
    text = ["It runs once more, as soon as a worker is free, with the same arguments."]
    return Form(f"{await _title(view, 'Retry')}?", "Retry task", text, [], icon="retry")


async def retry(act: Act[OfTask, NoInput]) -> Done:
    """Run a failed or cancelled task once more."""
    await act.write(task.retry(act.schema, id=act.params.id, task=None, notify=True))
    return Done(message="The task runs again.")


async def ask_run_now(view: View[OfTask]) -> Form:
    """Ask before ending a delay or a back-off."""
    text = ["It does not wait for its time any longer, and runs as soon as a worker is free."]
    return Form(f"{await _title(view, 'Run')} now?", "Run now", text, [], icon="bolt")


async def run_now(act: Act[OfTask, NoInput]) -> Done:
    """End the delay or the back-off of a task."""
    await act.write(_update(act, delay=timedelta(0)))
    return Done(message="The task does not wait any longer.")


async def ask_cancel(view: View[OfTask]) -> Form:
    """Ask before cancelling."""
    return Form(
        f"{await _title(view, 'Cancel')}?",
        "Cancel task",
        ["If it runs, it is asked to stop; otherwise it never runs. It can be retried later."],
        [FormField("reason", "Reason", about="optional, recorded with the task")],
        icon="cancel",
        keep="Keep it",
        danger=True,
    )


async def cancel(act: Act[OfTask, Reason]) -> Done:
    """Cancel a task that has not ended."""
    await act.write(task.cancel(act.schema, id=act.params.id, task=None, reason=act.input.reason, notify=True))
    return Done(message="The task is cancelled.")


async def ask_move(view: View[OfTask]) -> Form:
    """Ask for the queue and the priority."""
    found = await found_task(view)
    fields = [
        FormField("queue", "Queue", value=found.queue, required=True),
        FormField(
            *("priority", "Priority", "integer", "lower runs first"),
            value=str(found.priority),
            minimum=str(LOWEST),
            maximum=str(HIGHEST),
            step="1",
        ),
    ]
    return Form(await _title(view, "Move"), "Move task", fields=fields, icon="stack")


async def move(act: Act[OfTask, Move]) -> Done:
    """Move a task to another queue or priority."""
    check_queue(act.input.queue)
    await act.write(_update(act, queue=act.input.queue, priority=act.input.priority))
    return Done(message="The task is moved.")


async def ask_reschedule(view: View[OfTask]) -> Form:
    """Ask for the time."""
    found = await found_task(view)
    at = "" if found.run_at is None else found.run_at.strftime("%Y-%m-%dT%H:%M:%SZ")
    field = FormField("at", "Not before", "time", "date and time, UTC", value=at, required=True)
    return Form(await _title(view, "Reschedule"), "Reschedule task", fields=[field], icon="clock")


async def reschedule(act: Act[OfTask, Reschedule]) -> Done:
    """Set when a task runs."""
    await act.write(_update(act, at=act.input.at))
    return Done(message="The task is rescheduled.")


def _update(act: Act[OfTask, Any], **changes: Any) -> Any:
    options: dict[str, Any] = {"queue": None, "priority": None, "at": None, "delay": None, **changes}
    return task.update(act.schema, id=act.params.id, task=None, notify=True, **options)


async def ask_delete(view: View[OfTask]) -> Form:
    """Ask before deleting."""
    text = ["Its arguments, errors and result are gone. This cannot be undone."]
    return Form(f"{await _title(view, 'Delete')}?", "Delete task", text, [], icon="trash", keep="Keep it", danger=True)


async def delete(act: Act[OfTask, NoInput]) -> Done:
    """Delete a task that does not run."""
    await act.write(task.delete(act.schema, id=act.params.id, task=None))
    return Done(message=f"Task {act.params.id} is deleted.", go="/tasks")


# -- enqueue


async def ask_enqueue(view: View[ForTask]) -> Form:
    """Ask for a task, and for its arguments by its signature."""
    own = {each.name: each for each in _own(view.context.app)}
    names = sorted({*own, *await view.read(task.names(view.schema))})
    name = view.params.task or next(iter(names), "")
    known = own.get(name)
    choices = [(each, each if each in own else f"{each} (not in this app)") for each in names]
    if name not in names:
        choices.insert(0, (name, name or "No task is registered"))
    fields = [FormField("task", "Task", "choice", value=name, choices=choices, reloads=True)]
    schema = None if known is None else _schema(known)
    if schema is not None:
        assert known is not None  # noqa: S101 -- for the type checker
        fields += fields_of(schema, _defaults(known), prefix="args.")
        as_json = FormField("args_json", "Arguments as JSON", "json", "instead of the fields", mono=True, folded=True)
        fields.append(as_json)
    else:
        fields.append(FormField("args", "Arguments", "json", "a JSON object by name", value="{}", mono=True))
    default = "default" if known is None else known.queue
    fields += [
        FormField("delay", "Delay", "number", "seconds, optional", minimum="0"),
        FormField("queue", "Queue", about=f"optional, by default {default}"),
    ]
    return Form("Enqueue task", "Enqueue task", fields=fields, icon="plus", note="Validated before it is stored.")


async def enqueue(act: Act[ForTask, Enqueue]) -> Done:
    """Enqueue a task; by its signature if the app has it, otherwise as a registered name."""
    given = act.input
    args = given.args if given.args_json is None else given.args_json
    args = {} if args is None else args
    if not isinstance(args, dict):
        raise InvalidInput("the arguments must be a JSON object by parameter name", hint='Example: {"order_id": 7}')
    delay = None if given.delay is None else timedelta(seconds=given.delay)
    check_queue(given.queue)
    known = next((each for each in _own(act.app) if each.name == given.task), None)
    async with act.transaction() as conn:
        if known is not None:
            options: dict[str, Any] = {"delay": delay, "queue": given.queue, "priority": given.priority}
            handle = await act.app.aenqueue(given.task, args, conn=conn, **options)
            number: int | None = handle.id
            created = handle.created
        else:
            number, created = await _by_name(act, conn, args, delay)
    if number is None:
        return Done(message="It was not enqueued: a task with its unique key exists.", outcome="partial")
    message = f"Task {number} is enqueued." if created else f"Task {number} existed: it has the same unique key."
    return Done(message=message, go=f"/tasks/{number}", details={"id": str(number), "created": created})


async def _by_name(
    act: Act[ForTask, Enqueue], conn: Any, args: dict[str, Any], delay: timedelta | None
) -> tuple[int | None, bool]:
    names = await act.read(task.names(act.schema))
    if act.input.task not in names:
        raise UnknownTask(
            f"no task is named {act.input.task!r}", hint=f"Registered: {', '.join(names[:20]) or 'none'}."
        )
    statement = task.enqueue(
        act.schema,
        task=act.input.task,
        args=[encode(args, what="args", limit=INPUT_LIMIT)],
        at=None,
        delay=delay,
        queue=act.input.queue,
        priority=act.input.priority,
        max_attempts=None,
        tags=(),
        metadata={},
        notify=True,
    )
    (one,) = await arun(conn, statement)
    return one.id, one.created


def _own(app: Pgflow) -> list[TaskDefinition]:
    return [each.definition for each in app.tasks]


def _schema(known: TaskDefinition) -> dict[str, Any] | None:
    """Return the JSON schema of a task's arguments, None for types that have none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PydanticJsonSchemaWarning)  # of defaults, which are filled in below
            return known.arguments.fields.adapter.json_schema()
    except (PydanticInvalidForJsonSchema, PydanticUserError):
        return None


def _defaults(known: TaskDefinition) -> dict[str, Any]:
    """Return the defaults that a form can show, under the names of its fields."""
    plain = (str, int, float, bool, list, dict)
    shown = {name: value for name, value in known.arguments.defaults.items() if isinstance(value, plain)}
    secrets = known.arguments.secret_names
    return {"args": {name: value for name, value in shown.items() if name not in secrets}}


OF_TASK = "/tasks/{id:int}"

ACTIONS: tuple[Action[Any, Any], ...] = (
    Action(
        *("task.enqueue", "/tasks/enqueue", "start", "Enqueue a task"),
        *(enqueue, ask_enqueue, ForTask, Enqueue),
    ),
    Action(
        *("task.retry", f"{OF_TASK}/retry", "retry", "Run a failed or cancelled task once more"),
        *(retry, ask_retry, OfTask, NoInput),
    ),
    Action(
        *("task.run-now", f"{OF_TASK}/run-now", "run-now", "End the delay or the back-off of a task"),
        *(run_now, ask_run_now, OfTask, NoInput),
    ),
    Action(
        *("task.cancel", f"{OF_TASK}/cancel", "cancel", "Cancel a task"),
        *(cancel, ask_cancel, OfTask, Reason),
    ),
    Action(
        *("task.move", f"{OF_TASK}/move", "edit", "Move a task to another queue or priority"),
        *(move, ask_move, OfTask, Move),
    ),
    Action(
        *("task.reschedule", f"{OF_TASK}/reschedule", "edit", "Set when a task runs"),
        *(reschedule, ask_reschedule, OfTask, Reschedule),
    ),
    Action(
        *("task.delete", f"{OF_TASK}/delete", "delete", "Delete a task that does not run"),
        *(delete, ask_delete, OfTask, NoInput),
    ),
)
