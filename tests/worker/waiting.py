"""Poll for a condition until it holds, with a generous deadline: the only place where tests poll."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from tenacity import RetryCallState, Retrying, retry_if_result, stop_after_delay, wait_fixed

T = TypeVar("T")

PATIENCE = 30.0  # seconds; a machine may be busy
BUSY = 20.0  # seconds that a busy machine may add to a time limit


def until(look: Callable[[], T], what: str = "it", *, patience: float = PATIENCE, pause: float = 0.02) -> T:
    """Look until something true is seen, and return it; fail the test when it does not come about."""

    def give_up(state: RetryCallState) -> Any:
        pytest.fail(
            f"{what} did not come about in {patience:g} s; seen last: {state.outcome and state.outcome.result()!r}"
        )

    looking = Retrying(
        stop=stop_after_delay(patience),
        wait=wait_fixed(pause),
        retry=retry_if_result(lambda seen: not seen),
        retry_error_callback=give_up,
    )
    found: T = looking(look)
    return found
