"""A workflow that waits in every supported way."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from pgflow import Async, Context, Done, Unique, Wait, WaitForEvent, Workflow, step

__all__ = ["Patient", "approval"]

Input = dict[str, Any]


@step(events=("approved",))
def approval(ctx: Context[Input]) -> Async:
    return Async()


pause = Wait(timedelta(milliseconds=30)).named("pause")
courier = WaitForEvent("arrived").named("courier")


class Patient(Workflow[Input], unique=Unique("patient")):
    """A wait of a step's own, a timer, and a signal."""

    initial = approval
    transitions = {approval: {"approved": pause}, pause: {"timeout": courier}, courier: {"received": Done}}
