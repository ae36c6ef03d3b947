"""Wait for something that is to come about, with a limit."""

import time
from collections.abc import Callable
from typing import TypeVar

from pgflow.errors import DatabaseError

__all__ = ["until"]

T = TypeVar("T")

GLANCE_SECONDS = 0.02


def until(look: Callable[[], T], what: str, seconds: float = 30.0) -> T:
    """Look until something true is seen, and return it. Raises `DatabaseError` when it does not come about.

    until(lambda: server.running, "the server's start")
    """
    deadline = time.monotonic() + seconds
    while not (seen := look()):
        if time.monotonic() > deadline:
            raise DatabaseError(f"waited {seconds:g} s in vain for {what}")
        time.sleep(GLANCE_SECONDS)
    return seen
