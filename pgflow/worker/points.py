"""Named points in a worker's run, just before and just after each commit, at which a test harness may act.

`reached` does nothing unless a hook is installed, and nothing in this package installs one. The fault-injection harness
starts its workers through an entry point of its own, which does.
"""

from collections.abc import Callable

__all__ = ["install", "reached"]

_hook: Callable[[str], object] | None = None


def install(hook: Callable[[str], object]) -> None:
    """Call `hook` with the name of each point that this process reaches from now on."""
    global _hook
    _hook = hook


def reached(point: str) -> None:
    """Mark that execution is at `point`, such as "claimer.sent"."""
    if _hook is not None:
        _hook(point)
