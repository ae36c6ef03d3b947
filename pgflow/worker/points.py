"""Named points in a worker's run, just before and just after each commit, at which a test harness may act.

`reached` does nothing unless a hook is installed. The fault-injection harness starts its workers through an entry point
of its own, which installs one, and so does the crash mode of `pgflow.testing`, while it lasts.
"""

from collections.abc import Callable
from typing import TypeAlias

__all__ = ["Hook", "install", "reached"]

Hook: TypeAlias = Callable[[str, object], object]

_hook: Hook | None = None


def install(hook: Hook | None) -> Hook | None:
    """Call `hook(point, subject)` at each point that this process reaches from now on; returns the hook before it.

    The subject of a point of a step is its claimed job, that of "claimer.sending" the decisions that are sent.
    """
    global _hook
    before, _hook = _hook, hook
    return before


def reached(point: str, subject: object = None) -> None:
    """Mark that execution is at `point`, such as "claimer.sent"."""
    if _hook is not None:
        _hook(point, subject)
