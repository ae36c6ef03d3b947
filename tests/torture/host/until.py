"""Wait for a condition, with a time limit."""

import time
from collections.abc import Callable
from typing import TypeVar

from pgflow.errors import DatabaseError

__all__ = ["until"]

T = TypeVar("T")

POLL_SECONDS = 0.02


def until(condition: Callable[[], T], what: str, seconds: float = 30.0) -> T:
    """Wait until the condition is true, and return its value. Raises `DatabaseError` on a timeout.

    until(lambda: server.running, "the server's start")
    """
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise DatabaseError(f"timed out after {seconds:g} s waiting for {what}")
        time.sleep(POLL_SECONDS)
    return value
