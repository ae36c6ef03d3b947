"""What an attempt came to is told alike on every stack, whatever the step raised."""

from __future__ import annotations

from typing import Any

import pytest

from pgflow import Context, Ok, Retry, step
from pgflow.core.attempt import call, failing


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def test_an_error_that_cannot_be_told_has_its_type_for_a_reason() -> None:
    failed = failing(Mute(), Retry())
    assert (failed.reason, failed.type, failed.retry) == ("Mute", "Mute", True)


def test_a_stop_iteration_becomes_an_error_that_a_future_can_hold() -> None:
    @step
    def first_of_nothing(ctx: Context[Any]) -> Ok:
        return Ok("done", next(iter([])))

    with pytest.raises(RuntimeError, match="the step raised StopIteration") as caught:
        call(first_of_nothing, Context(None))
    assert isinstance(caught.value.__cause__, StopIteration)
