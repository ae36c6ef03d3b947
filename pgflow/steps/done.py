"""The end of every workflow."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pgflow.core.definition.context import Context
from pgflow.core.definition.results import Ok
from pgflow.core.definition.step import Parking, Step
from pgflow.errors import DefinitionError

__all__ = ["Done"]


class Done(Step):
    """The end: an instance is completed when it is reached. It leads nowhere and is never run as a job.

    Ship: {"shipped": Done}
    """

    events = ("done",)
    step_key = "done"
    is_end: ClassVar[bool] = True

    def execute(self, ctx: Context[Any]) -> Ok:
        """Do nothing."""
        return Ok("done")

    def named(self, key: str) -> Self:
        """Refuse another key: there is one Done in a workflow, and its key is "done". Raises `DefinitionError`."""
        if key != self.key:
            raise DefinitionError(f"Done cannot be named {key!r}: a workflow has one end, and every path leads to it")
        return self

    def parking(self) -> Parking:
        """Return that it waits for nothing."""
        return Parking({})
