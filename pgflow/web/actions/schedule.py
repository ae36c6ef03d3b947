"""What a person can do with schedules: pause, resume, run now, backfill, remove one, and add one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

from pydantic import AwareDatetime, Field

from pgflow.client.schedule_request import backfill_instants
from pgflow.core.definition.schedule_runs import plain_starts
from pgflow.core.definition.timing import every
from pgflow.core.models.schedule import ScheduledRun
from pgflow.errors import InvalidValue, UnknownSchedule
from pgflow.store import schedule
from pgflow.store.schedule import StoredSpec
from pgflow.web.rendering.forms import Field as FormField
from pgflow.web.routing.action import Act, Action, Done, Form, Input, NoInput
from pgflow.web.routing.page import NoParams, Params, View

__all__ = ["ACTIONS"]


class OfSchedule(Params):
    """A schedule by its name."""

    name: str = Field(max_length=100, description="The name of the schedule")


class Remove(Input):
    """Whether a schedule is removed that an app declares."""

    force: bool = Field(False, description="Also if an app declares it, which adds it again when it starts")


class Backfill(Input):
    """A span of time; its end is excluded."""

    start: AwareDatetime = Field(description="The first instant, included")
    end: AwareDatetime = Field(description="Until then, excluded")


class Add(Input):
    """A schedule: either a cron expression or an interval, and what it starts."""

    name: str = Field(min_length=1, max_length=100, description="Its name, which no other schedule has")
    target: str = Field(min_length=1, max_length=1000, description="A workflow or a task of the app")
    cron: str | None = Field(None, max_length=200, description="Such as 0 9 * * mon-fri")
    every: float | None = Field(None, ge=1, le=3_153_600_000, description="Seconds between two runs, instead of cron")
    tz: str | None = Field(None, max_length=100, description="The time zone of cron, such as Europe/Berlin")
    args: Any = Field(None, description="The input or the arguments")
    overlap: Literal["skip", "queue", "cancel_old", "allow"] = "skip"
    catch_up: Literal["none", "last", "all"] = "last"


async def _stored(view: View[OfSchedule]) -> StoredSpec:
    found = await view.read(schedule.get(view.schema, view.params.name))
    if found is None:
        raise UnknownSchedule(f"there is no schedule named {view.params.name!r}", hint="It may have been removed.")
    return found


async def ask_pause(view: View[OfSchedule]) -> Form:
    """Ask before pausing."""
    await _stored(view)
    text = ["Nothing fires until it is resumed. Runs that have started go on."]
    return Form(f"Pause {view.params.name}?", "Pause schedule", text, [], icon="pause")


async def pause(act: Act[OfSchedule, NoInput]) -> Done:
    """Pause."""
    async with act.transaction() as conn:
        await act.app.schedules.apause(act.params.name, by=act.user or None, conn=conn)
    return Done(message=f"{act.params.name} is paused.")


async def ask_resume(view: View[OfSchedule]) -> Form:
    """Ask before resuming."""
    await _stored(view)
    text = ["It fires again from the next instant. Those in between are not caught up: backfill them."]
    return Form(f"Resume {view.params.name}?", "Resume schedule", text, [], icon="play")


async def resume(act: Act[OfSchedule, NoInput]) -> Done:
    """Resume."""
    async with act.transaction() as conn:
        await act.app.schedules.aresume(act.params.name, conn=conn)
    return Done(message=f"{act.params.name} is resumed.")


async def ask_remove(view: View[OfSchedule]) -> Form:
    """Ask before removing."""
    await _stored(view)
    return Form(
        f"Remove {view.params.name}?",
        "Remove schedule",
        ["It will not fire again. Runs that have started go on."],
        icon="trash",
        keep="Keep it",
        danger=True,
    )


async def remove(act: Act[OfSchedule, Remove]) -> Done:
    """Remove."""
    async with act.transaction() as conn:
        await act.app.schedules.aremove(act.params.name, force=act.input.force, conn=conn)
    return Done(message=f"{act.params.name} is removed.")


async def ask_run(view: View[OfSchedule]) -> Form:
    """Ask before an extra run."""
    found = await _stored(view)
    text = [f"Starts {found.spec.target} once now, whatever runs already. The schedule itself does not change."]
    return Form(f"Run {view.params.name} now?", "Run now", text, [], icon="bolt")


async def run_now(act: Act[OfSchedule, NoInput]) -> Done:
    """Start a run now."""
    (one,) = await _start(act, None)
    return Done(message=f"{act.params.name} has started run {one.run}.", details={"run": str(one.run)})


async def ask_backfill(view: View[OfSchedule]) -> Form:
    """Ask for the span of time."""
    found = await _stored(view)
    begin, end = found.now - timedelta(days=1), found.now
    fields = [
        FormField("start", "From", "time", "date and time, UTC", value=_minute(begin), required=True),
        FormField("end", "Until", "time", "excluded", value=_minute(end), required=True),
    ]
    text = ["Starts a run for each instant in the span, at once and at most 1,000. One whose run is active is skipped."]
    return Form(f"Backfill {view.params.name}", "Backfill", text, fields, icon="undo")


async def backfill(act: Act[OfSchedule, Backfill]) -> Done:
    """Start the runs of a span of time."""
    runs = await _start(act, (act.input.start, act.input.end))
    started = sum(each.created for each in runs)
    skipped = len(runs) - started
    message = f"{started:,} {'run was' if started == 1 else 'runs were'} started"
    message += f", {skipped:,} skipped because they are active." if skipped else "."
    return Done(
        message=message,
        outcome="partial" if skipped else "done",
        details={"started": started, "skipped": skipped},
    )


async def _start(act: Act[OfSchedule, Any], span: tuple[datetime, datetime] | None) -> Sequence[ScheduledRun]:
    """Start runs, by the app's own code if it has the target, otherwise as plain SQL does."""
    stored = await _stored(act.view)
    name = act.params.name
    names = {*(each.name for each in act.app.workflows), *(each.name for each in act.app.tasks)}
    async with act.transaction() as conn:
        if stored.spec.target in names:
            if span is None:
                return [await act.app.schedules.arun(name, conn=conn)]
            return await act.app.schedules.abackfill(name, *span, conn=conn)
    moments = [stored.now] if span is None else backfill_instants(stored.spec, *span)
    if not moments:
        return []
    return await act.write(schedule.start(act.schema, stored.spec, plain_starts(stored.spec, moments), notify=True))


async def ask_add(view: View[NoParams]) -> Form:
    """Ask for a new schedule."""
    app = view.context.app
    names = [*(each.name for each in app.workflows), *(each.name for each in app.tasks)]
    target = (
        FormField("target", "Starts", "choice", choices=[(name, name) for name in names], value=names[0])
        if names
        else FormField(
            "target", "Starts", about="this dashboard has no app: pgflow web --app module:name", required=True
        )
    )
    fields = [
        FormField("name", "Name", required=True),
        target,
        FormField("cron", "Cron expression", about="such as 0 9 * * mon-fri", mono=True),
        FormField("tz", "Time zone", about="by default UTC"),
        FormField("every", "Or every", "number", about="seconds", minimum="1"),
        FormField(
            *("overlap", "While one runs", "choice"),
            choices=[
                ("skip", "Skip the new run"),
                ("queue", "Queue the new run"),
                ("cancel_old", "Cancel the old run"),
                ("allow", "Run both"),
            ],
            value="skip",
        ),
        FormField(
            *("catch_up", "After a break", "choice"),
            choices=[("last", "Start the last missed"), ("all", "Start all missed"), ("none", "Start none")],
            value="last",
        ),
        FormField("args", "Input or arguments", "json", about="JSON, optional", mono=True),
    ]
    return Form("Add schedule", "Add schedule", fields=fields, icon="plus", note="A worker computes its first run.")


async def add(act: Act[NoParams, Add]) -> Done:
    """Add a schedule."""
    given = act.input
    if (given.cron is None) == (given.every is None):
        raise InvalidValue("a schedule has either a cron expression or an interval", hint="Fill in one of them.")
    when = given.cron if given.every is None else every(timedelta(seconds=given.every))
    options: dict[str, Any] = {"args": given.args} if "args" in given.model_fields_set else {}
    async with act.transaction() as conn:
        await act.app.schedules.aadd(
            when,
            given.target,
            name=given.name,
            tz=given.tz,
            overlap=given.overlap,
            catch_up=given.catch_up,
            conn=conn,
            **options,
        )
    return Done(message=f"{given.name} is added.")


def _minute(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:00Z")


OF_SCHEDULE = "/schedules/{name:path}"

ACTIONS: tuple[Action[Any, Any], ...] = (
    Action(
        *("schedule.add", "/schedules/add", "schedules", "Add a schedule"),
        *(add, ask_add, NoParams, Add),
    ),
    Action(
        *("schedule.pause", f"{OF_SCHEDULE}/pause", "schedules", "Pause a schedule"),
        *(pause, ask_pause, OfSchedule, NoInput),
    ),
    Action(
        *("schedule.resume", f"{OF_SCHEDULE}/resume", "schedules", "Resume a schedule"),
        *(resume, ask_resume, OfSchedule, NoInput),
    ),
    Action(
        *("schedule.run", f"{OF_SCHEDULE}/run", "schedules", "Start a run of a schedule now"),
        *(run_now, ask_run, OfSchedule, NoInput),
    ),
    Action(
        *("schedule.backfill", f"{OF_SCHEDULE}/backfill", "schedules", "Start the runs of a span of time"),
        *(backfill, ask_backfill, OfSchedule, Backfill),
    ),
    Action(
        *("schedule.remove", f"{OF_SCHEDULE}/remove", "schedules", "Remove a schedule"),
        *(remove, ask_remove, OfSchedule, Remove),
    ),
)
