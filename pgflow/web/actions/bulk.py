"""Retry, cancel or delete all instances or tasks that a filter matches: the selected ones, or all matching ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any

from pydantic import Field

from pgflow.client.bulk import bulk_command
from pgflow.core.models.bulk import APPLICABLE, APPLICABLE_TASKS
from pgflow.core.models.bulk import Action as Verb
from pgflow.core.models.query import Query, parse
from pgflow.core.models.query_terms import Kind as Subject
from pgflow.errors import InstanceNotFound, InvalidValue
from pgflow.store import audit, bulk
from pgflow.web.rendering.forms import Field as FormField
from pgflow.web.routing.action import Act, Action, Done, Form, Input, NoInput
from pgflow.web.routing.page import Params, View

__all__ = ["ACTIONS"]

BATCH = 500
PREVIEWED = 10_000  # of what the preview counts by state
TURN_SECONDS = 1.5  # of work in one request; the browser then asks for the next turn
TYPED_ABOVE = 100  # so many changes have to be confirmed by typing their number
SHOWN_REASONS = 20


@dataclass(frozen=True, slots=True)
class Kind:
    """One bulk action in words."""

    verb: Verb
    right: str
    title: str
    text: str
    done: str
    icon: str
    danger: bool = False
    subject: Subject = "workflow"

    @property
    def noun(self) -> str:
        """What it changes one of."""
        return "instance" if self.subject == "workflow" else "task"

    @property
    def base(self) -> str:
        """The path of its action."""
        return f"{self.noun}s/{self.verb}"

    @property
    def name(self) -> str:
        """The name of its route."""
        return self.base.replace("/", ".")


KINDS = (
    Kind(
        "retry", "retry", "Retry", "Each continues from its failed step with a new set of attempts.", "retried", "retry"
    ),
    Kind(
        "cancel",
        "cancel",
        "Cancel",
        "No further step starts. Running steps are asked to stop. This cannot be undone.",
        "cancelled",
        "cancel",
        danger=True,
    ),
    Kind(
        "delete",
        "delete",
        "Delete",
        "They and their histories are gone. Active ones are skipped. This cannot be undone.",
        "deleted",
        "trash",
        danger=True,
    ),
    Kind(
        *("retry", "retry", "Retry", "Failed and cancelled tasks run once more; waiting ones run now.", "retried"),
        icon="retry",
        subject="task",
    ),
    Kind(
        *("cancel", "cancel", "Cancel", "Running ones are asked to stop; the others never run.", "cancelled"),
        icon="cancel",
        danger=True,
        subject="task",
    ),
    Kind(
        *("delete", "delete", "Delete", "They are gone. Live ones are skipped. This cannot be undone.", "deleted"),
        icon="trash",
        danger=True,
        subject="task",
    ),
)


class Selection(Params):
    """The instances or tasks that a filter matches."""

    q: str = Field(
        min_length=1, max_length=100_000, description="A filter, such as `run:7,8` or `state:failed age:>1h`"
    )


class Confirmation(Input):
    """How many are expected to change, as in the preview, when there are many; and why."""

    expected: int | None = Field(None, ge=0, description="The number of the preview; needed above 100")
    reason: str | None = Field(None, max_length=1000, description="Of a cancellation")


@dataclass(frozen=True, slots=True)
class Preview:
    """How many match, how many of them can be changed, and the states of the others; counts are bounded."""

    query: Query
    matched: int
    applicable: int
    others: Mapping[str, int]
    is_cut: bool


async def preview(view: View[Selection], kind: Kind) -> Preview:
    """Count what would be changed. Raises `InvalidFilter`."""
    query = parse(view.params.q, kind=kind.subject)
    if not query:
        raise InvalidValue(
            "the filter is empty, and would match everything", hint=f"Select {kind.noun}s, or filter them."
        )
    counted = await view.read(bulk.count(view.schema, query.document(), kind=kind.subject, limit=PREVIEWED))
    can = (APPLICABLE if kind.subject == "workflow" else APPLICABLE_TASKS)[kind.verb]
    states = counted.states
    return Preview(
        query,
        sum(states.values()),
        sum(many for state, many in states.items() if state in can),
        {state: many for state, many in sorted(states.items()) if state not in can},
        sum(states.values()) >= PREVIEWED,
    )


def action(kind: Kind) -> Action[Selection, Confirmation]:
    """Return the action of one kind."""

    async def ask(view: View[Selection]) -> Form:
        found = await preview(view, kind)
        more = " or more" if found.is_cut else ""
        noun = kind.noun if found.applicable == 1 and not more else f"{kind.noun}s"
        skipped = ", ".join(f"{many:,} {state}" for state, many in found.others.items()) or "none"
        fields = []
        if found.applicable > TYPED_ABOVE:
            fields.append(
                FormField("expected", f"Type {found.applicable} to confirm", "integer", required=True, minimum="0")
            )
        if kind.verb == "cancel":
            fields.append(FormField("reason", "Reason", about="optional, recorded in the audit log"))
        return Form(
            f"{kind.title} {found.applicable:,}{more} {noun}?",
            f"{kind.title} {found.applicable:,}{more} {noun}",
            [
                kind.text,
                f"Filter: {found.query.text}",
                f"Will be {kind.done}: {found.applicable:,}{more}. Skipped: {skipped}.",
            ],
            fields,
            icon=kind.icon,
            danger=kind.danger,
        )

    async def perform(act: Act[Selection, Confirmation]) -> Done:
        found = await preview(act.view, kind)
        if found.applicable > TYPED_ABOVE and act.input.expected != found.applicable:
            raise InvalidValue(
                f"{found.applicable:,} {kind.noun}s would be {kind.done}, and {act.input.expected} was confirmed",
                hint="Look at the preview again: the number has changed, or was mistyped.",
            )
        options: dict[str, Any] = {"reason": act.input.reason} if kind.verb == "cancel" else {}
        command = bulk_command(kind.verb, found.query, options, {"by": act.user or None, "batch": BATCH})
        operation = await act.write(
            bulk.begin(
                act.schema,
                kind.verb,
                found.query.document(),
                options=command.options,
                text=found.query.text,
                who=act.user or None,
                kinds=(kind.subject,),
            )
        )
        return await work_off(act, kind, operation, found.applicable + sum(found.others.values()))

    return Action(
        kind.name,
        f"/{kind.base}",
        kind.right,
        f"{kind.title} all {kind.noun}s that a filter matches",
        perform,
        ask,
        Selection,
        Confirmation,
    )


class OfOperation(Params):
    """A bulk operation by its number, and how many instances the preview expected."""

    operation: int = Field(ge=0, le=2**63 - 1, description="The number of its audit row")
    expected: int = Field(0, ge=0, description="How many it covers, for the progress")


def continuation(kind: Kind) -> Action[OfOperation, NoInput]:
    """Return the action that works off more of an operation of one kind."""

    async def check(view: View[OfOperation]) -> None:
        number = view.params.operation
        found = await view.read(audit.list(view.schema, action=f"bulk {kind.verb}", before=number + 1, limit=1))
        if not found or found[0].id != number:
            raise InstanceNotFound(f"there is no bulk {kind.verb} with the number {number}", hint="pgflow audit list")

    async def ask(view: View[OfOperation]) -> Form:
        await check(view)
        return Form(f"Continue operation {view.params.operation}?", "Continue", [kind.text], [], icon=kind.icon)

    async def perform(act: Act[OfOperation, NoInput]) -> Done:
        await check(act.view)
        return await work_off(act, kind, act.params.operation, act.params.expected)

    return Action(
        f"{kind.name}.continue",
        f"/{kind.base}/{{operation:int}}",
        kind.right,
        f"Continue an operation: {kind.verb}",
        perform,
        ask,
        OfOperation,
        NoInput,
    )


async def work_off(act: Act[Any, Any], kind: Kind, operation: int, expected: int) -> Done:
    """Work off an operation for a while, a batch in each transaction; its position is kept in the database."""
    reasons: list[str] = []
    until = monotonic() + TURN_SECONDS
    while True:
        done = await act.write(bulk.batch(act.schema, operation, limit=BATCH))
        reasons += [f"{each.id or each.job}: {each.reason}" for each in done.skipped[: SHOWN_REASONS - len(reasons)]]
        if done.is_finished or monotonic() > until:
            break
    noun = f"{kind.noun} was" if done.changed == 1 else f"{kind.noun}s were"
    message = f"{done.changed:,} {noun} {kind.done}"
    if done.total_skipped:
        message += f", {done.total_skipped:,} skipped"
    if reasons and done.is_finished:
        message += f" ({reasons[0]}{', …' if done.total_skipped > 1 else ''})"
    return Done(
        message=f"{message}.",
        outcome="partial" if done.total_skipped else "done",
        more=None if done.is_finished else f"/{kind.base}/{operation}?expected={expected}",
        progress=None if done.is_finished else min(1.0, done.matched / max(expected, done.matched, 1)),
        details={
            "operation": operation,
            "is_finished": done.is_finished,
            "matched": done.matched,
            "changed": done.changed,
            "skipped": done.total_skipped,
            "reasons": reasons,
        },
    )


ACTIONS: tuple[Action[Any, Any], ...] = (*map(action, KINDS), *map(continuation, KINDS))
