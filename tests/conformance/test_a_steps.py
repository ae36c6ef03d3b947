"""Group A: the results of a step, its key, configuration and retries, and the built-in steps."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from pgflow import Async, Context, Debug, Done, Error, Ok, Retry, Snooze, Step, Wait, WaitForEvent
from pgflow.core.definition.retry import resolve
from pgflow.errors import DefinitionError, UndeclaredEvent
from tests.conformance.conftest import Stack
from tests.conformance.definitions import Input, chain, define, make
from tests.worker.waiting import BUSY, until

ONCE = Retry(max_attempts=1)
SOON = timedelta(milliseconds=10)


def returning(*results: Any) -> Step:
    """Return a step with these results, one per attempt; the last one is repeated."""
    left = list(results)
    return make("act", "done", "other", act=lambda ctx: left.pop(0) if len(left) > 1 else left[0], retry=ONCE)


# -- what a step returns


@pytest.mark.parametrize(
    ("result", "output", "metadata"),
    [
        (Ok("done"), {}, {}),
        (Ok("done", {"n": 1}), {"n": 1}, {}),
        (Ok("done", {"n": 1}, {"status": "paid"}), {"n": 1}, {"status": "paid"}),
    ],
)
def test_a1_a_step_completes_with_an_event_data_and_metadata(
    stack: Stack, result: Ok, output: Any, metadata: Any
) -> None:
    """A1: `Ok(event)`, `Ok(event, output)` and `Ok(event, output, metadata)` complete a step; all of it is stored."""
    flow = chain(returning(result))
    stack.run(flow)
    flow.start("v")
    done = stack.until(flow, "v")
    assert (done.status, done.steps, done.metadata) == ("completed", {"act": output}, metadata)
    assert [(entry.step, entry.event, entry.output) for entry in done.history] == [("act", "done", output)]


@pytest.mark.parametrize(("sent", "output"), [((), {}), ((None,), None), (({"amount": 3},), {"amount": 3})])
def test_a1_a_step_waits_and_a_resume_completes_it(stack: Stack, sent: tuple[Any, ...], output: Any) -> None:
    """A1: `Async()` stores nothing and waits; a resume completes the step, and its payload is the output."""
    flow = chain(returning(Async()))
    stack.run(flow)
    flow.start("v")
    waiting = stack.until(flow, "v", "waiting")
    assert (waiting.steps, waiting.metadata, waiting.history) == ({}, {}, ())
    flow.resume("v", "other", *sent)
    done = stack.until(flow, "v")
    assert (done.status, done.steps, done.history[0].event) == ("completed", {"act": output}, "other")


@pytest.mark.parametrize(
    ("result", "kind", "reason"),
    [
        (Error("declined"), "Error", "declined"),
        ({"event": "done"}, "TypeError", "step act returned dict; a step returns Ok, Async, Error or Snooze"),
        (None, "TypeError", "step act returned NoneType; a step returns Ok, Async, Error or Snooze"),
    ],
)
def test_a1_an_error_and_an_invalid_result_fail_the_step(stack: Stack, result: Any, kind: str, reason: str) -> None:
    """A1: `Error(reason)` fails the step and stores nothing, and so does a value that is not a result."""
    flow = chain(returning(result))
    stack.run(flow)
    flow.start("v")
    failed = stack.until(flow, "v")
    assert failed.error is not None
    assert (failed.status, failed.steps, failed.metadata) == ("failed", {}, {})
    assert (failed.error["step"], failed.error["type"], failed.error["reason"]) == ("act", kind, reason)


def test_a1_a_snooze_calls_the_step_again(stack: Stack) -> None:
    """A1: `Snooze(delay)`, an addition to the list, calls the step again later and does not count as an attempt."""
    flow = chain(returning(Snooze(SOON), Snooze(SOON), Ok("done", 3)))
    stack.run(flow)
    flow.start("v")
    done = stack.until(flow, "v")
    assert (done.status, done.steps, done.history[0].attempt) == ("completed", {"act": 3}, 1)


NEVER = (timedelta.max, timedelta(days=365 * 9000), timedelta(-1))


@pytest.mark.parametrize("delay", NEVER)
def test_a1_a_snooze_out_of_range_fails_the_step(stack: Stack, delay: timedelta) -> None:
    """A1: a `Snooze` beyond the range of dates fails its step with the rule, and the instance stays readable."""
    flow = chain(make("act", act=lambda ctx: Snooze(delay), retry=ONCE))
    stack.run(flow)
    flow.start("v")
    failed = stack.until(flow, "v")
    assert failed.error is not None
    assert (failed.status, failed.error["type"]) == ("failed", "InvalidValue")
    assert "from zero to 100 years" in failed.error["reason"]


def test_a2_an_event_alone_stores_an_empty_dict(stack: Stack) -> None:
    """A2: `Ok(event)` stores an empty dict, which later steps read."""
    flow = chain(make("a"), make("b", act=lambda ctx: Ok("done", {"seen": ctx.steps["a"]})))
    stack.run(flow)
    flow.start("v")
    assert stack.until(flow, "v").steps == {"a": {}, "b": {"seen": {}}}


def test_a3_an_output_is_never_merged(stack: Stack) -> None:
    """A3: a step's output is exactly that of its completion, without values of earlier runs or attempts."""

    def act(ctx: Context[Input]) -> Ok | Error:
        return Ok("done", ctx.initial) if ctx.attempt == 2 else Error("not yet")

    flow = chain(make("a", act=act, retry=Retry(max_attempts=2, base=SOON)), make("b", act=look))
    stack.run(flow)
    for given in ({"one": 1, "kept": 1}, {"two": 2}):
        flow.start("v", given)
        assert stack.until(flow, "v").steps == {"a": given, "b": {"a": given}}


def look(ctx: Context[Input]) -> Ok:
    return Ok("done", dict(ctx.steps))


def test_a4_metadata_merges_and_the_later_step_wins(stack: Stack) -> None:
    """A4: the metadata of each step is merged into the instance's runtime metadata; the later step wins."""
    flow = chain(
        make("a", act=lambda ctx: Ok("done", metadata={"status": "new", "by": "a"})),
        make("b", act=lambda ctx: Ok("done", {"seen": dict(ctx.metadata)}, {"status": "paid"})),
        WaitForEvent(),
    )
    stack.run(flow)
    flow.start("v", metadata={"team": "x", "by": "nobody"})
    waiting = stack.until(flow, "v", "waiting")
    flow.resume("v", "received")
    for seen in (waiting, stack.until(flow, "v")):
        assert seen.metadata == {"team": "x", "by": "a", "status": "paid"}
    assert waiting.steps["b"] == {"seen": {"team": "x", "by": "a", "status": "new"}}


# -- what a step is


class ValidateOrder(Step):
    events = ("valid",)

    def execute(self, ctx: Context[Input]) -> Ok:
        return Ok("valid", {"count": 3})


class Custom(ValidateOrder):
    step_key = "custom_key"


def test_a5_the_key_is_the_name_in_snake_case(stack: Stack) -> None:
    """A5: a step's output is stored under its name in snake_case, unless it has another key."""
    assert ValidateOrder.key == ValidateOrder().key == "validate_order"
    flow = chain(ValidateOrder())
    stack.run(flow)
    flow.start("v")
    assert stack.until(flow, "v").steps == {"validate_order": {"count": 3}}


def test_a6_a_step_may_have_another_key(stack: Stack) -> None:
    """A6: `step_key` sets the key under which the output is stored; `.named` sets it for one use of a step."""
    assert (Custom.key, Custom().named("again").key) == ("custom_key", "again")
    flow = chain(Custom(), Custom().named("again"))
    stack.run(flow)
    flow.start("v")
    assert stack.until(flow, "v").steps == {"custom_key": {"count": 3}, "again": {"count": 3}}


def test_a7_a_step_declares_its_events() -> None:
    """A7: a workflow with a step without events is refused, with workflow, step and fix."""

    class Silent(Step):
        def execute(self, ctx: Context[Input]) -> Ok:
            return Ok("done")

    with pytest.raises(DefinitionError, match=r'^Flow: Silent declares no events: add events = \("done",\)'):
        define(Silent, {Silent: {"done": Done}})


class Echo(Step):
    events = ("done",)
    word: str
    times: int = 2
    pause: timedelta = timedelta(seconds=1)

    def execute(self, ctx: Context[Input]) -> Ok:
        return Ok("done", {"text": self.word * self.times, "pause": self.pause, "config": self.config()})


def test_a8_a_steps_configuration_reaches_it(stack: Stack) -> None:
    """A8: `execute` reads the configuration from typed fields of the step; a step without fields has None."""
    flow = chain(Echo(word="ho"), make("plain", act=lambda ctx: Ok("done", {"config": plain().config()})))
    stack.run(flow)
    flow.start("v")
    config = {"word": "ho", "times": 2, "pause": "PT1S"}
    assert stack.until(flow, "v").steps == {
        "echo": {"text": "hoho", "pause": "PT1S", "config": config},
        "plain": {"config": None},
    }


def plain() -> Step:
    return make("plain")


def test_a9_a_steps_policy_overrides_the_workflows_and_that_the_default() -> None:
    """A9: a retry policy is the step's own, else the workflow's, else five attempts, exponential, up to a minute."""
    own, bare = make("own", retry=Retry(max_attempts=8, backoff="linear")), make("bare")
    patient, silent = chain(own, bare, retry=Retry(max_attempts=3, backoff="constant")), chain(own, bare)
    default = Retry(max_attempts=5, backoff="exponential", max_backoff=timedelta(milliseconds=60_000))
    assert [resolve(each, patient) for each in (own, bare)] == [own.retry, patient.retry_policy]
    assert [resolve(each, silent) for each in (own, bare)] == [own.retry, default]
    assert [node.retry for node in silent.graph.nodes.values()][:2] == [own.retry, default]


@pytest.mark.parametrize(("step_retry", "attempts"), [(Retry(max_attempts=2, base=SOON), 2), (None, 3)])
def test_a9_a_step_has_the_attempts_of_its_policy(stack: Stack, step_retry: Retry | None, attempts: int) -> None:
    """A9: a failing step has as many attempts as its effective policy allows, and each is recorded."""
    flow = chain(make("a", act=lambda ctx: Error("no"), retry=step_retry), retry=Retry(max_attempts=3, base=SOON))
    stack.run(flow)
    flow.start("v")
    failed = stack.until(flow, "v")
    assert failed.error is not None
    assert (failed.error["attempt"], len(failed.error["attempts"])) == (attempts, attempts - 1)


def test_a10_a_step_without_execute_is_refused_at_its_definition() -> None:
    """A10: a step that does not implement `execute` is refused when its workflow is defined, not when it runs."""

    class Idle(Step):
        events = ("done",)

    with pytest.raises(DefinitionError, match=r"^Flow: Idle has no execute method: add `def execute"):
        define(Idle, {Idle: {"done": Done}})


# -- the steps that come with pgflow


def test_a11_done_has_one_event_and_no_configuration() -> None:
    """A11: `Done` declares "done", returns `Ok("done")` and refuses any configuration."""
    assert (Done().emits(), Done().execute(Context(None)), Done().config()) == (("done",), Ok("done"), None)
    wrong: Any = {"x": 1}
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        Done(**wrong)


def test_a12_debug_logs_the_state_of_an_instance(stack: Stack, caplog: pytest.LogCaptureFixture) -> None:
    """A12: `Debug` logs input, outputs and history at level DEBUG, and completes with "completed"."""
    flow = chain(make("a", act=lambda ctx: Ok("done", {"x": 1})), Debug())
    with caplog.at_level(logging.DEBUG, logger="pgflow.debug"):
        stack.run(flow)
        flow.start("v", {"n": 3})
        done = stack.until(flow, "v")
    (record,) = [each for each in caplog.records if each.name == "pgflow.debug"]
    assert record.levelno == logging.DEBUG
    assert "k::v: initial={'n': 3} steps={'a': {'x': 1}} history=['a']" in record.getMessage()
    assert done.history[1].event == "completed"


@pytest.mark.parametrize(
    ("wait", "milliseconds"),
    [
        (Wait(seconds=10), 10_000),
        (Wait(minutes=5), 300_000),
        (Wait(hours=2), 7_200_000),
        (Wait(days=1), 86_400_000),
        (Wait(timedelta(days=1)), 86_400_000),
    ],
)
def test_a13_a_wait_has_the_given_delay(wait: Wait, milliseconds: int) -> None:
    """A13: a wait of 10 s, 5 min, 2 h or 1 d lasts as many milliseconds."""
    assert wait.parking().delay == timedelta(milliseconds=milliseconds)


def test_a13_another_unit_is_refused() -> None:
    """A13: a wait in another unit, or of no length, is refused."""
    for wrong in ({"weeks": 1}, {"milliseconds": 5}, {"unit": "day"}):
        options: Any = wrong
        with pytest.raises(TypeError):
            Wait(**options)
    for span in (timedelta(0), 5, "5 seconds"):
        given: Any = span
        with pytest.raises(DefinitionError, match=r"^Wait cannot wait for"):
            Wait(given)


def test_a14_a_timer_ends_a_wait(stack: Stack) -> None:
    """A14: a wait completes with "timeout" when its time is over, and not before."""
    flow = chain(Wait(timedelta(milliseconds=150)))
    stack.run(flow)
    flow.start("v")
    done = stack.until(flow, "v")
    assert [(entry.step, entry.event) for entry in done.history] == [("wait", "timeout")]
    assert timedelta(milliseconds=150) <= done.history[0].at - done.created_at < timedelta(seconds=2 + BUSY)


def test_a14_a_timer_ends_a_wait_after_a_restart(stack: Stack) -> None:
    """A14: a timer also ends a wait in the next process."""
    flow = chain(Wait(timedelta(milliseconds=300)))
    stack.run(flow)
    flow.start("v")
    (wait,) = stack.until(flow, "v", "waiting").waiting_for
    stack.restart()
    done = stack.until(flow, "v")
    assert (done.status, wait.kind, wait.step) == ("completed", "timer", "wait")
    assert wait.until is not None
    assert wait.until <= done.history[0].at < wait.until + timedelta(seconds=2)


def test_a15_a_wait_for_an_event_consumes_only_its_signal(stack: Stack) -> None:
    """A15: `WaitForEvent(name)` waits for the signal of that name ("received" by default), then completes."""
    flow = chain(WaitForEvent("payment_confirmed"), WaitForEvent().named("second"))
    stack.run(flow)
    flow.start("v")
    stack.until(flow, "v", "waiting")
    with pytest.raises(UndeclaredEvent, match="takes no signal 'payment'"):
        flow.resume("v", "payment")
    assert flow.resume("v", "payment_confirmed", {"amount": 3}) == "delivered"
    until(lambda: [wait.events for wait in flow.get("v").waiting_for] == [("received",)], "the second wait")
    assert flow.get("v").steps == {"wait_for_event": {"amount": 3}}
    flow.resume("v", "received")
    assert [entry.event for entry in stack.until(flow, "v").history] == ["received", "received"]


def test_a15_a_wait_for_an_event_has_a_timeout(stack: Stack) -> None:
    """A15: with a `timeout` it completes with "timeout" if no signal arrives in time."""
    pay, late = WaitForEvent("paid", timeout=timedelta(milliseconds=100)), make("late")
    flow = define(pay, {pay: {"received": Done, "timeout": late}, late: {"done": Done}})
    stack.run(flow)
    flow.start("v")
    assert [(entry.step, entry.event) for entry in stack.until(flow, "v").history] == [
        ("wait_for_event", "timeout"),
        ("late", "done"),
    ]
