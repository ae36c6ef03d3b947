"""The end of every workflow."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pgflow.core.definition.context import Context
from pgflow.core.definition.results import Ok
from pgflow.core.definition.step import Parking, Step
from pgflow.errors import DefinitionError

__all__ = ["Done"]


class Done(Step):
    """The end of a workflow: an instance that reaches it is completed. It has no transitions and never runs as a job.

    Ship: {"shipped": Done}
    """

    events = ("done",)
    step_key = "done"
    is_end: ClassVar[bool] = True

    def execute(self, ctx: Context[Any]) -> Ok:
        """Do nothing."""
        return Ok("done")

    def named(self, key: str) -> Self:
        """Raise `DefinitionError` for another key than "done": a workflow has one end."""
        if key != self.key:
            raise DefinitionError(f"Done cannot be named {key!r}: a workflow has one end, and every path leads to it")
        return self

    def parking(self) -> Parking:
        """Return a wait without an end: Done never waits."""
        return Parking({})
