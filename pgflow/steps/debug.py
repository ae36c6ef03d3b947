"""Log the state of an instance."""

from __future__ import annotations

from typing import Any

from pgflow.core.definition.context import Context
from pgflow.core.definition.results import Ok
from pgflow.core.definition.step import Step
from pgflow.logs import Logger

__all__ = ["Debug"]

log = Logger("pgflow.debug")


class Debug(Step):
    """Log input, outputs and metadata of the instance, at level DEBUG to the logger "pgflow.debug".

    It completes with the event "completed".

        charge: {"paid": Debug().named("after_charge")}
    """

    events = ("completed",)

    def execute(self, ctx: Context[Any]) -> Ok:
        """Log the context."""
        # The mappings are formatted only if the level is enabled.
        log.debug(
            "%s %s: initial=%r steps=%r history=%r metadata=%r",
            *(ctx.workflow, ctx.id, ctx.initial, ctx.steps, list(ctx.steps), ctx.metadata),
        )
        return Ok("completed")
