"""A step without a further attempt: its policy decides, on both stacks. And how steps choose their own pauses."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from pgflow import Async, Context, Done, Error, Ok, Retry, Step, Unique, Workflow, route, step
from pgflow.errors import DefinitionError, InvalidPayload, InvalidValue, NotActive, UndeclaredEvent, UnknownStep
from tests.stacks.conftest import Stack
from tests.worker.waiting import until

Input = dict[str, Any]
MOMENT = timedelta(milliseconds=5)
TWICE = Retry(max_attempts=2, base=MOMENT)
HOUR = timedelta(hours=1)
REPAIRED: set[str] = set()
CALLS: list[tuple[str, int, str]] = []


class Busy(Exception):
    """Asks for a pause."""

    def __init__(self, **asked: Any) -> None:
        super().__init__("busy")
        self.__dict__.update(asked)


class Receipt(BaseModel):
    number: str


def broken(ctx: Context[Input]) -> None:
    if ctx.value not in REPAIRED:
        raise OSError("the bank is down")


@step(events=("paid", "failed"), retry=Retry(max_attempts=2, base=MOMENT, on_exhausted="transition"))
def charge(ctx: Context[Input]) -> Ok:
    broken(ctx)
    return Ok("paid")


@step
def refund(ctx: Context[Input]) -> Ok:
    return Ok("done", ctx.steps["charge"])


@step(events=("paid", "declined"), retry=Retry(max_attempts=1, on_exhausted="declined"))
async def bill(ctx: Context[Input]) -> Error:
    return Error("no card", retry=False)


@step
def after(ctx: Context[Input]) -> Ok:
    return Ok("done", dict(ctx.steps))


@step
def never(ctx: Context[Input]) -> Ok:
    raise AssertionError("it must not run")


def choose(ctx: Context[Input]) -> Step:
    assert ctx.steps["bill"]["error"]["reason"] == "no card"
    return after


@step
def fork(ctx: Context[Input]) -> Ok:
    return Ok("done")


@step(retry=Retry(max_attempts=2, base=MOMENT, on_exhausted="skip"))
def enrich(ctx: Context[Input]) -> Ok:
    broken(ctx)
    return Ok("done")


@step
def publish(ctx: Context[Input]) -> Ok:
    return Ok("done")


@step
def store(ctx: Context[Input]) -> Ok:
    return Ok("done")


@step
def join(ctx: Context[Input]) -> Ok:
    return Ok("done", {"seen": sorted(ctx.steps), "error": ctx.steps["enrich"].get("error", {}).get("type")})


@step(events=("paid", "declined"), output=Receipt, retry=Retry(max_attempts=2, base=MOMENT, on_exhausted="pause"))
def settle(ctx: Context[Input]) -> Ok:
    CALLS.append(("settle", ctx.attempt, ctx.value))
    broken(ctx)
    return Ok("paid", Receipt(number=f"r-{ctx.attempt}"))


@step(retry=Retry(max_attempts=1, on_exhausted="pause"))
def other(ctx: Context[Input]) -> Ok:
    broken(ctx)
    return Ok("done")


@step
async def waits(ctx: Context[Input]) -> Async:
    return Async()


@step(retry=Retry(max_attempts=2, base=HOUR, max_backoff=HOUR))
def asks(ctx: Context[Input]) -> Ok | Error:
    if ctx.attempt == 1:
        match ctx.initial["how"]:
            case "returned":
                return Error("busy", retry_in=MOMENT)
            case "timedelta":
                raise Busy(retry_in=MOMENT)
            case "seconds":
                raise Busy(retry_after=0.005)
    return Ok("done")


def soon(attempt: int, error: Any) -> timedelta:
    CALLS.append((type(error).__name__, attempt, str(getattr(error, "reason", error))))
    return MOMENT


@step(retry=Retry(max_attempts=3, backoff=soon, base=HOUR, max_backoff=HOUR))
async def chosen(ctx: Context[Input]) -> Ok | Error:
    if ctx.attempt == 1:
        raise KeyError("one")
    return Error(f"two of {ctx.value}") if ctx.attempt == 2 else Ok("done")


def bad_pause(attempt: int, error: Any) -> Any:
    return ["raise", -1, timedelta(seconds=-1), "soon"][attempt - 1] if attempt > 1 else 1 / 0


@step(retry=Retry(max_attempts=5, backoff=bad_pause, base=MOMENT))
def guarded(ctx: Context[Input]) -> Ok:
    if ctx.attempt < 5:
        raise Busy(retry_after=-1, retry_in="later")
    return Ok("done")


class ChargeFlow(Workflow[Input], unique=Unique("charge")):
    initial = charge
    transitions = {charge: {"paid": Done, "failed": refund}, refund: {"done": Done}}


class BillFlow(Workflow[Input], unique=Unique("bill")):
    initial = bill
    transitions = {
        bill: {"paid": Done, "declined": route(choose, after, never)},
        after: {"done": Done},
        never: {"done": Done},
    }


class SkipFlow(Workflow[Input], unique=Unique("skip")):
    initial = fork
    transitions = {
        fork: {"done": [enrich, store]},
        enrich: {"done": publish},
        publish: {"done": join},
        store: {"done": join},
        join: {"done": Done},
    }


class OnlyFlow(Workflow[Input], unique=Unique("only")):
    initial = enrich
    transitions = {enrich: {"done": Done}}


class PauseFlow(Workflow[Input], unique=Unique("pause")):
    initial = settle
    transitions = {settle: {"paid": after, "declined": Done}, after: {"done": Done}}


class TwoFlow(Workflow[Input], unique=Unique("two")):
    initial = fork
    transitions = {
        fork: {"done": [settle, other, waits]},
        settle: {"paid": after, "declined": after},
        other: {"done": after},
        waits: {"done": after},
        after: {"done": Done},
    }


class AskFlow(Workflow[Input], unique=Unique("ask")):
    initial = asks
    transitions = {asks: {"done": Done}}


class ChosenFlow(Workflow[Input], unique=Unique("chosen")):
    initial = chosen
    transitions = {chosen: {"done": Done}}


class GuardedFlow(Workflow[Input], unique=Unique("guarded")):
    initial = guarded
    transitions = {guarded: {"done": Done}}


WORKFLOWS = (ChargeFlow, BillFlow, SkipFlow, OnlyFlow, PauseFlow, TwoFlow, AskFlow, ChosenFlow, GuardedFlow)
ERROR = {"reason": "the bank is down", "type": "OSError", "attempt": 2}


def test_it_takes_its_transition_for_failures(stack: Stack) -> None:
    ChargeFlow.start(stack.value, {})
    ended = stack.until(ChargeFlow, "completed")
    failed, handled, *_ = ended.history
    assert (failed.step, failed.event, failed.output, failed.attempt) == ("charge", "failed", {"error": ERROR}, 2)
    assert [each["attempt"] for each in failed.errors] == [1, 2]
    assert handled.output == {"error": ERROR}
    assert ended.error is None


def test_it_takes_the_transition_that_its_policy_names_and_its_route_sees_the_error(stack: Stack) -> None:
    BillFlow.start(stack.value, {})
    ended = stack.until(BillFlow, "completed")
    assert ended.completed_steps == ("bill", "after", "done")
    assert (ended.history[0].event, ended.history[0].targets) == ("declined", ("after",))


def test_it_is_skipped_with_its_branch_and_a_join_runs_without_it(stack: Stack) -> None:
    SkipFlow.start(stack.value, {})
    ended = stack.until(SkipFlow, "completed")
    assert set(ended.completed_steps) == {"fork", "enrich", "store", "join", "done"}
    assert ended.output(join) == {"seen": ["enrich", "fork", "store"], "error": "OSError"}
    skipped = next(entry for entry in ended.history if entry.step == "enrich")
    assert (skipped.event, skipped.targets, len(skipped.errors)) == ("skipped", (), 2)


def test_an_instance_fails_whose_only_branch_is_skipped(stack: Stack) -> None:
    OnlyFlow.start(stack.value, {})
    failed = stack.until(OnlyFlow, "failed")
    assert failed.error is not None
    assert failed.error["reason"] == "no path to Done is left: skipped after the last attempt: enrich"


def paused(stack: Stack, workflow: type[Workflow[Input]] = PauseFlow) -> None:
    workflow.start(stack.value, {})
    stack.until(workflow, "waiting")


def test_it_waits_for_an_operator_who_retries_it(stack: Stack, app: Any) -> None:
    paused(stack)
    (wait,) = PauseFlow.get(stack.value).waiting_for
    assert (wait.step, wait.kind, wait.attempt, wait.max_attempts) == ("settle", "operator", 2, 2)
    assert wait.error == "OSError: the bank is down"
    (listed,) = [each for each in PauseFlow.list(status="waiting") if each.id.endswith(f"::{stack.value}")]
    assert [each.kind for each in listed.waiting_for] == ["operator"]
    (job,) = [each for each in app.jobs(PauseFlow, state="parked") if each.instance_id == listed.id]
    assert (job.kind, job.attempt, [each["attempt"] for each in job.errors]) == ("execute", 2, [1, 2])
    PauseFlow.retry(stack.value)
    until(lambda: PauseFlow.get(stack.value).waiting_for[0].attempt == 4, "two more attempts")
    stack.until(PauseFlow, "waiting")
    REPAIRED.add(stack.value)
    PauseFlow.retry(stack.value, step=settle)
    (entry, *_) = stack.until(PauseFlow, "completed").history
    assert (entry.output, entry.attempt, len(entry.errors)) == ({"number": "r-5"}, 5, 4)
    assert [attempt for _, attempt, value in CALLS if value == stack.value] == [1, 2, 3, 4, 5]


def test_an_operator_completes_it_with_an_output(stack: Stack) -> None:
    paused(stack)
    with pytest.raises(InvalidPayload, match="output is refused"):
        PauseFlow.complete_step(stack.value, settle, {"numbers": 3}, event="paid")
    with pytest.raises(UndeclaredEvent, match="several events"):
        PauseFlow.complete_step(stack.value, settle, {"number": "r"})
    with pytest.raises(UndeclaredEvent, match="has no event 'payed'"):
        PauseFlow.complete_step(stack.value, settle, {"number": "r"}, event="payed")
    with pytest.raises(UnknownStep):
        PauseFlow.complete_step(stack.value, "settel", {"number": "r"}, event="paid")
    PauseFlow.complete_step(stack.value, settle, Receipt(number="by hand"), event="paid")
    ended = stack.until(PauseFlow, "completed")
    assert ended.output(settle) == Receipt(number="by hand")
    assert [each["attempt"] for each in ended.history[0].errors] == [1, 2]
    assert ended.signals == ()
    with pytest.raises(NotActive, match="is completed"):
        PauseFlow.complete_step(stack.value, settle, Receipt(number="again"), event="paid")


def test_an_operator_fails_it_and_the_instance_can_be_retried(stack: Stack) -> None:
    paused(stack)
    PauseFlow.fail_step(stack.value, settle, reason="stolen card")
    failed = stack.until(PauseFlow, "failed")
    assert failed.error is not None
    assert (failed.error["step"], failed.error["reason"], failed.error["type"]) == (
        "settle",
        "stolen card",
        "FailedByOperator",
    )
    assert [(each["attempt"], each["reason"]) for each in failed.error["attempts"]] == [
        (1, "the bank is down"),
        (2, "the bank is down"),
    ]
    REPAIRED.add(stack.value)
    PauseFlow.retry(stack.value)
    stack.until(PauseFlow, "completed")


def test_without_a_reason_it_fails_for_that_of_the_last_attempt(stack: Stack) -> None:
    paused(stack)
    PauseFlow.fail_step(stack.value, "settle")
    failed = stack.until(PauseFlow, "failed")
    assert failed.error is not None
    assert (failed.error["reason"], failed.error["type"], failed.error["attempt"]) == ("the bank is down", "OSError", 2)
    assert [each["attempt"] for each in failed.error["attempts"]] == [1]


def test_branches_wait_for_operators_beside_each_other_and_can_be_cancelled(stack: Stack) -> None:
    paused(stack, TwoFlow)
    kinds = {each.step: each.kind for each in TwoFlow.get(stack.value).waiting_for}
    assert kinds == {"settle": "operator", "other": "operator", "waits": "signal"}
    with pytest.raises(NotActive, match="does not wait for an operator"):
        TwoFlow.retry(stack.value, step=waits)
    with pytest.raises(NotActive, match="does not wait for an operator"):
        TwoFlow.fail_step(stack.value, after)
    TwoFlow.complete_step(stack.value, settle, event="declined", output={"number": ""})
    TwoFlow.complete_step(stack.value, other)
    TwoFlow.resume(stack.value, "done")
    assert set(stack.until(TwoFlow, "completed").completed_steps) == {
        "fork",
        "settle",
        "other",
        "waits",
        "after",
        "done",
    }
    again = f"{stack.value}-again"
    TwoFlow.start(again, {})
    stack.until(TwoFlow, "waiting", value=again)
    TwoFlow.cancel(again)
    assert TwoFlow.get(again).waiting_for == ()


@pytest.mark.parametrize("how", ["returned", "timedelta", "seconds"])
def test_a_step_chooses_when_it_is_retried(stack: Stack, how: str) -> None:
    AskFlow.start(stack.value, {"how": how})
    (entry,) = stack.until(AskFlow, "completed").history
    assert entry.attempt == 2


def test_a_function_chooses_each_pause(stack: Stack) -> None:
    CALLS.clear()
    ChosenFlow.start(stack.value, {})
    stack.until(ChosenFlow, "completed")
    assert [("KeyError", 1, "'one'"), ("Error", 2, f"two of {stack.value}")] == CALLS


def test_a_pause_that_cannot_be_is_recorded_and_the_formula_applies(stack: Stack) -> None:
    GuardedFlow.start(stack.value, {})
    (entry,) = stack.until(GuardedFlow, "completed").history
    assert [each["backoff"].split(": ")[1] for each in entry.errors] == ["ZeroDivisionError", *["TypeError"] * 3]
    assert entry.errors[0]["retry_after"].startswith("ignored: -1 is neither a timedelta nor a number of seconds")
    assert entry.errors[0]["retry_in"].startswith("ignored: 'later' is neither")


# -- bad input


@pytest.mark.parametrize("policy", [None, 3, "", "two words"])
def test_an_unknown_policy_is_refused(policy: Any) -> None:
    with pytest.raises(DefinitionError, match=r"give one of 'fail', 'transition', 'skip', 'pause', or the name of an"):
        Retry(on_exhausted=policy)


@pytest.mark.parametrize(("policy", "where"), [("transition", "failed"), ("pauze", "pauze")])
def test_a_policy_needs_an_event_that_the_step_declares(policy: str, where: str) -> None:
    @step(events=("paid", "declined"), retry=Retry(on_exhausted=policy))
    def pay(ctx: Context[Input]) -> Ok:
        return Ok("paid")

    with pytest.raises(DefinitionError) as raised:

        class Wrong(Workflow[Input], unique=Unique("wrong")):
            initial = pay
            transitions = {pay: {"paid": Done, "declined": Done}}

    assert str(raised.value) == (
        f"Wrong: pay: its retry has on_exhausted={policy!r} without the event {where!r}: use one of 'fail', "
        "'transition', 'skip', 'pause', or one of the step's events ('paid', 'declined')"
    )


def test_the_policy_of_a_workflow_needs_the_event_in_each_of_its_steps() -> None:
    with pytest.raises(DefinitionError, match=r"publish: the workflow's retry has on_exhausted='transition' without"):

        class Wrong(Workflow[Input], unique=Unique("wrong"), retry=Retry(on_exhausted="transition")):
            initial = charge
            transitions = {charge: {"paid": publish, "failed": Done}, publish: {"done": Done}}


@pytest.mark.parametrize("pause", [timedelta(seconds=-1), timedelta(days=40_000), 5, "5s"])
def test_a_pause_out_of_range_is_refused(pause: Any) -> None:
    with pytest.raises(InvalidValue, match="retry_in must be a timedelta from zero to 100 years"):
        Error("no", retry_in=pause)


async def waiting(attempt: int, error: Any) -> timedelta:
    return MOMENT


@pytest.mark.parametrize("function", [waiting, lambda: MOMENT, lambda a, b, c: MOMENT])
def test_a_function_that_cannot_choose_a_pause_is_refused(function: Any) -> None:
    with pytest.raises(DefinitionError, match=r"Retry\(backoff=.*: give a "):
        Retry(backoff=function)
