"""The outcome of an attempt is the same on every stack, whatever the step raised."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from pgflow import Async, Context, Done, Ok, Retry, Step, step
from pgflow.core.definition.graph import Choice, Graph
from pgflow.core.definition.step import Parking
from pgflow.core.engine.attempt import attempt_error, call, parking_of
from pgflow.errors import InvalidValue, UndeclaredEvent


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def test_an_error_without_a_readable_message_has_its_type_as_reason() -> None:
    failed = attempt_error(Mute(), Retry())
    assert (failed.reason, failed.type, failed.retry) == ("Mute", "Mute", True)


def test_a_stop_iteration_is_an_error_although_no_future_can_carry_it() -> None:
    @step
    def first_of_nothing(ctx: Context[Any]) -> Ok:
        return Ok("done", next(iter([])))

    failed = call(first_of_nothing, Context(None), Retry())
    assert (failed.type, failed.retry) == ("StopIteration", True)
    assert "first_of_nothing" in failed.details["trace"]


class Asking(Step):
    events = ("done",)

    def execute(self, ctx: Context[Any]) -> Async:
        return Async()


@pytest.mark.parametrize("ends", [Parking({"done": "zzz"}), Parking({}, timedelta(1), "zzz")])
def test_a_wait_ends_with_events_that_have_transitions(ends: Parking) -> None:
    class Odd(Asking):
        def parking(self) -> Parking:
            return ends

    choices = {"odd": {"done": Choice(("done",))}}
    with pytest.raises(UndeclaredEvent, match="step 'odd' has no event 'zzz'"):
        parking_of(Graph.build("Flow", "odd", [Odd(), Done()], choices), Odd())
    for delay in (timedelta.max, timedelta(-1)):
        ends = Parking({}, delay, "done")
        with pytest.raises(InvalidValue, match="must be a timedelta from zero to 100 years"):
            parking_of(Graph.build("Flow", "odd", [Odd(), Done()], choices), Odd())
    sound = Asking().named("odd")
    assert parking_of(Graph.build("Flow", "odd", [sound, Done()], choices), sound) == Parking({"done": "done"})
