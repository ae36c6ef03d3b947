"""What an action is: a right, an input, a dialog that asks for it, and a function that does it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from pgflow.app import Pgflow
from pgflow.database.pooling.pool import AConn
from pgflow.database.statement import Statement
from pgflow.web.rendering.forms import Field
from pgflow.web.routing.page import NoParams, View

__all__ = ["Act", "Action", "Done", "Form", "Input", "NoInput"]

T = TypeVar("T")
P = TypeVar("P", bound=BaseModel)
I = TypeVar("I", bound=BaseModel)  # noqa: E741 -- the input


class Input(BaseModel):
    """The base of what an action takes, as a form or as JSON; an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class NoInput(Input):
    """For an action that takes nothing."""


class Done(BaseModel):
    """What an action has done.

    - `message`: one sentence for the person. `outcome`: "partial" if something was skipped.
    - `go`: the path of the page to show next; None stays.
    - `details`: for programs, such as the number of the audit row of a bulk operation.
    - `more`: the path to POST to for the rest of a long action, and `progress` from 0 to 1; None when it is over.
    """

    message: str
    outcome: Literal["done", "partial"] = "done"
    go: str | None = None
    details: dict[str, Any] = {}
    more: str | None = None
    progress: float | None = None


@dataclass(frozen=True, slots=True)
class Form:
    """The dialog that asks before an action.

    `title` is a question or the action. `text` are paragraphs: what happens to work that runs, and whether it can be
    undone. `fields` are made from the action's input unless given. A `danger` is a filled red button.
    """

    title: str
    submit: str
    text: Sequence[str] = ()
    fields: Sequence[Field] | None = None
    values: dict[str, Any] = field(default_factory=dict)
    icon: str = "tick"
    keep: str = "Close"
    danger: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class Act(Generic[P, I]):
    """One request to act: who acts, on what (`params`), and with which `input`."""

    view: View[P]
    input: I

    @property
    def params(self) -> P:
        """The parameters of the path."""
        return self.view.params

    @property
    def schema(self) -> str:
        """The schema of pgflow's tables."""
        return self.view.schema

    @property
    def user(self) -> str:
        """The name that the audit records."""
        return self.view.access.user

    async def read(self, statement: Statement[T]) -> T:
        """Run a statement that reads."""
        return await self.view.read(statement)

    @property
    def app(self) -> Pgflow:
        """The app, whose calls take the connection of `transaction` as `conn`."""
        return self.view.context.app

    def transaction(self) -> AbstractAsyncContextManager[AConn]:
        """Begin a transaction that names the person for the audit.

        async with act.transaction() as conn:
            await act.app.queues.apause("mail", conn=conn)
        """
        return self.view.context.database.acting(self.user)

    async def write(self, statement: Statement[T]) -> T:
        """Run a statement in a transaction of its own that names the person for the audit."""
        (result,) = await self.view.context.database.write(self.user, statement)
        return result


@dataclass(frozen=True, slots=True)
class Action(Generic[P, I]):
    """One action of the dashboard, and one operation of the API.

    POST on `path` does it, GET shows its dialog. `name` is that of its route, such as "instance.cancel".

        CANCEL = Action("instance.cancel", "/instances/{run:int}/cancel", "cancel", "Cancel an instance",
                        cancel, ask=ask_cancel, params=OfRun, input=Reason)
    """

    name: str
    path: str
    right: str
    title: str
    perform: Callable[[Act[P, I]], Awaitable[Done]]
    ask: Callable[[View[P]], Awaitable[Form]]
    params: type[P] = NoParams  # type: ignore[assignment]  # the default of an action whose P is NoParams
    input: type[I] = NoInput  # type: ignore[assignment]  # as above
