"""An exception is described in bounded time and size, whatever its own code does."""

from __future__ import annotations

import json
import logging
import signal
import time
from collections.abc import Iterator
from typing import Any, NoReturn

import pytest
from pydantic import BaseModel, ValidationError

from pgflow import Codec, Context, Done, Ok, Retry, Step, Unique, Workflow, route, step, telemetry
from pgflow.core.definition.results import Error
from pgflow.core.definition.route import choose
from pgflow.core.engine.attempt import AttemptError, attempt_error, call, decide, read
from pgflow.core.values.codec import Location, decrypt_text, encrypt, roundtrip
from pgflow.core.values.sanitize import MAX_TEXT_LENGTH, error_message, format_traceback, sanitize_text
from pgflow.errors import DecryptionUnavailable, DefinitionError, InvalidPayload, RouteError
from pgflow.logs import Logger
from pgflow.telemetry import bus
from tests.hostile import CONTROL_FLOW, HOSTILE, HostileRepr, HostileText, returned
from tests.worker.waiting import PATIENCE

CANARY = "canary-4711"


def caught(name: str) -> BaseException:
    error = HOSTILE[name]()
    try:
        raise error
    except BaseException as raised:
        return raised


@pytest.mark.parametrize("name", HOSTILE)
def test_any_exception_is_described_within_bounds(name: str) -> None:
    error = caught(name)
    began = time.monotonic()
    failed = returned(lambda: attempt_error(error, Retry(never_on=(OSError,))), name)
    assert time.monotonic() - began < PATIENCE / 2
    entry = failed.entry(1)
    assert failed.reason
    assert failed.type
    assert 0 < len(failed.reason) <= MAX_TEXT_LENGTH
    assert len(failed.type) <= 200
    assert len(entry["trace"]) <= MAX_TEXT_LENGTH
    stored = json.dumps(entry, ensure_ascii=False)
    assert type(failed.reason) is type(failed.type) is type(entry["trace"]) is str
    assert "\\u0000" not in json.dumps(entry)
    stored.encode()


@pytest.mark.parametrize("name", HOSTILE)
def test_an_exception_that_breaks_the_policy_check_is_retried(name: str) -> None:
    class Asked(type):
        def __instancecheck__(cls, instance: object) -> NoReturn:
            raise SystemExit("asked")

    class Refused(Exception, metaclass=Asked):
        """A class that raises in comparisons."""

    assert returned(lambda: attempt_error(caught(name), Retry(never_on=(Refused,))), name).retry


def test_a_chain_shows_its_end_and_that_the_rest_is_left_out() -> None:
    for name in ("a long chain of causes", "a long chain of contexts"):
        text = format_traceback(caught(name))
        assert "Exception: 19999\n" in text
        assert "Exception: 19990\n" in text
        assert "Exception: 19989\n" not in text
        assert text.startswith("(earlier exceptions are left out)")


def test_a_traceback_looks_like_pythons() -> None:
    def inner() -> NoReturn:
        raise KeyError("inner")

    def outer() -> NoReturn:
        try:
            inner()
        except KeyError as error:
            raise ValueError("outer") from error

    with pytest.raises(ValueError, match="outer") as found:
        outer()
    found.value.add_note("and a note")
    lines = format_traceback(found.value).splitlines()
    assert lines.count("Traceback (most recent call last):") == 2
    joint = lines.index("The above exception was the direct cause of the following exception:")
    assert lines[joint - 2] == "KeyError: 'inner'"
    assert any(line.strip() == 'raise KeyError("inner")' for line in lines[:joint])
    assert lines[-2:] == ["ValueError: outer", "and a note"]


def test_a_suppressed_context_is_not_shown() -> None:
    error = ValueError("shown")
    error.__context__ = KeyError("hidden")
    assert "hidden" in format_traceback(error)
    error.__suppress_context__ = True
    assert "hidden" not in format_traceback(error)


def test_a_group_shows_its_first_members_and_the_number_of_others() -> None:
    text = format_traceback(ExceptionGroup("several", [ValueError(str(number)) for number in range(20)]))
    assert "several (20 sub-exceptions)" in text
    assert "| ValueError: 14" in text
    assert "ValueError: 15" not in text
    assert "| and 5 more exceptions" in text


def test_a_quoted_input_stays_hidden_where_the_message_is_cut() -> None:
    class Model(BaseModel):
        count: int

    class Sink(BaseModel):
        counts: list[int]

    with pytest.raises(ValidationError) as invalid:
        Sink.model_validate({"counts": [CANARY + "x" * 30] * 2000})
    for padding in range(0, 300, 7):
        error = RuntimeError("-" * padding + str(invalid.value))
        error.__cause__ = invalid.value
        assert CANARY[:6] not in format_traceback(error)


def test_an_exception_of_a_sync_step_is_returned_as_a_value() -> None:
    for name in HOSTILE:

        @step
        def fails(ctx: Context[Any], name: str = name) -> Ok:
            raise HOSTILE[name]()

        failed = returned(lambda step=fails: call(step, Context(None), Retry()), name)  # type: ignore[misc]
        assert type(failed) is AttemptError, name


def test_an_error_whose_reason_cannot_be_read_is_an_error() -> None:
    class Flow(Workflow[None], unique=Unique("v")):
        """One step."""

        @step
        def only(ctx: Context[Any]) -> Ok:
            return Ok("done")

        initial = only
        transitions = {only: {"done": Done}}

    for reason in (HostileRepr(), HostileText("x")):
        result: Any = Error(reason)  # type: ignore[arg-type]
        found = returned(lambda result=result: read(Flow.graph, "only", result, lambda: Context(None)), "read")  # type: ignore[misc]
        assert isinstance(found, AttemptError)
        assert found.type == "Error"


# -- routes


@step
def left(ctx: Context[Any]) -> Ok:
    return Ok("done")


@step
def right(ctx: Context[Any]) -> Ok:
    return Ok("done")


DECLARED: dict[str, Step] = {"left": left, "right": right}


def route_error(chooser: Any) -> str:
    """Return the message of the `RouteError` of a chooser."""
    try:
        choose(chooser, DECLARED, Context(None), "Flow: a.done")
    except RouteError as error:
        return str(error)
    raise AssertionError("it chose")


class HostileList(list[Any]):
    def __iter__(self) -> Iterator[Any]:
        raise SystemExit("list")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_route_that_raises_anything_is_a_route_error(name: str) -> None:
    def chooser(ctx: Context[Any]) -> Step:
        raise HOSTILE[name]()

    message = returned(lambda: route_error(chooser), name)
    assert message.startswith("Flow: a.done: the route chooser raised ")
    assert len(message) < 2 * MAX_TEXT_LENGTH


def test_a_route_that_returns_an_unreadable_value_is_a_route_error() -> None:
    # Not by parametrize: pytest itself would have to show these.
    for chosen in (HostileRepr(), HostileText("left"), HostileList([left]), [HostileRepr()], 7, None):
        message = returned(lambda chosen=chosen: route_error(lambda ctx: chosen), "choose")  # type: ignore[misc]
        assert message.startswith("Flow: a.done: the route <lambda> returned ")


def test_a_route_that_returns_a_coroutine_is_a_route_error() -> None:
    async def chooser(ctx: Context[Any]) -> Step:
        return left

    with pytest.raises(RouteError, match="returned a coroutine: a route must be a plain function, not async"):
        choose(lambda ctx: chooser(ctx), DECLARED, Context(None), "Flow: a.done")  # type: ignore[arg-type, return-value]

    class Chooser:
        async def __call__(self, ctx: Context[Any]) -> Step:
            return left

    with pytest.raises(DefinitionError, match="must be a plain function of the context: not async"):
        route(Chooser(), left, right)  # type: ignore[arg-type]


def test_a_route_whose_context_cannot_be_created_has_failed() -> None:
    class Flow(Workflow[None], unique=Unique("v")):
        """A route after the first step."""

        initial = left
        transitions = {left: {"done": route(lambda ctx: right, right)}, right: {"done": Done}}

    def context() -> Context[Any]:
        raise GeneratorExit

    targets, why = decide(Flow.graph, "left", "done", None, context)
    assert targets is None
    assert why is not None
    assert (why.type, why.retry) == ("RouteError", False)
    assert why.reason.startswith("Flow: left.done: the route cannot be called")


# -- codecs


class BrokenCodec(Codec):
    """A codec that raises, or returns a given value."""

    def __init__(self, raised: BaseException | None = None, instead: Any = None) -> None:
        self.raised, self.instead = raised, instead

    def encrypt(self, text: str, associated_data: str) -> str:
        if self.raised is not None:
            raise self.raised
        return self.instead  # type: ignore[no-any-return]

    def decrypt(self, encrypted: str, associated_data: str) -> str:
        if self.raised is not None:
            raise self.raised
        return self.instead  # type: ignore[no-any-return]


PLACE = Location("Flow", "v::1", "output", "a")


@pytest.mark.parametrize("name", [name for name in HOSTILE if name != "a KeyboardInterrupt"])
def test_an_exception_of_a_codec_leaves_the_value_to_another_worker(name: str) -> None:
    def refused() -> str:
        try:
            return decrypt_text(BrokenCodec(HOSTILE[name]()), '{"pgflow:sealed": "x"}', PLACE)
        except DecryptionUnavailable as error:
            return str(error)

    assert returned(refused, name).startswith("the encrypted output of a cannot be decrypted now")


def test_ctrl_c_while_a_codec_works_reaches_the_program() -> None:
    with pytest.raises(KeyboardInterrupt):
        decrypt_text(BrokenCodec(KeyboardInterrupt()), '{"pgflow:sealed": "x"}', PLACE)


def test_a_codec_that_returns_something_other_than_text_is_refused() -> None:
    for instead in (None, 7, b"x"):
        with pytest.raises(InvalidPayload, match=r"BrokenCodec\.encrypt\(\) returned \w+ for the output of a, not a"):
            encrypt(BrokenCodec(instead=instead), "1", PLACE)
        with pytest.raises(InvalidPayload, match="not a str"):
            roundtrip(BrokenCodec(instead=instead), "1", PLACE)


# -- telemetry and logging


@pytest.fixture
def handled() -> Iterator[list[str]]:
    seen: list[str] = []
    yield seen
    for name in telemetry.attached():
        telemetry.detach(name)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_handler_that_raises_anything_is_logged_and_stays(
    name: str, handled: list[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgflow.logs.signal.getsignal", lambda number: None)  # as in a worker

    def fails(event: telemetry.Event, config: object) -> None:
        handled.append("failed")
        raise HOSTILE[name]()

    telemetry.attach("fails", [telemetry.WORKFLOW_STOP], fails)
    telemetry.attach("counts", [telemetry.WORKFLOW_STOP], lambda event, config: handled.append("counted"))
    for _ in range(2):
        returned(lambda: bus.deliver(telemetry.WORKFLOW_STOP, {}, {}), name)
    assert handled == ["failed", "counted", "failed", "counted"]
    assert [record.levelname for record in caplog.records] == ["ERROR"]  # once a minute
    assert "the handler 'fails' failed at pgflow.workflow.stop" in caplog.text


def test_ctrl_c_in_a_handler_reaches_the_program(handled: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(event: telemetry.Event, config: object) -> None:
        raise KeyboardInterrupt

    telemetry.attach("interrupted", [telemetry.WORKFLOW_STOP], interrupted)
    monkeypatch.setattr("pgflow.logs.signal.getsignal", lambda number: signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt):
        bus.deliver(telemetry.WORKFLOW_STOP, {}, {})


@pytest.mark.parametrize("raised", CONTROL_FLOW)
@pytest.mark.parametrize("part", ["filter", "formatter", "handler"])
def test_logging_that_raises_breaks_nothing(
    part: str, raised: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgflow.logs.signal.getsignal", lambda number: None)  # as in a worker

    def refuse(*args: object) -> NoReturn:
        raise raised("logging")

    class Formatter(logging.Formatter):
        format = refuse  # type: ignore[assignment]

    class Handler(logging.StreamHandler[Any]):
        handleError = refuse  # type: ignore[assignment]

    log, handler = Logger("pgflow.tests.hostile"), Handler()
    if part == "filter":
        handler.addFilter(refuse)
    elif part == "formatter":
        handler.setFormatter(Formatter())
    else:
        handler.emit = refuse  # type: ignore[method-assign, assignment]
    log.logger.addHandler(handler)
    try:
        log.warning("one %s", "thing")
        log.error("two")
        try:
            raise ValueError("x")
        except ValueError:
            log.exception("three")
    finally:
        log.logger.removeHandler(handler)


def test_a_record_names_its_caller(caplog: pytest.LogCaptureFixture) -> None:
    Logger("pgflow.tests.hostile").warning("here")
    (record,) = caplog.records
    assert (record.funcName, record.module) == ("test_a_record_names_its_caller", "test_hostile")


def test_messages_and_text_may_be_hostile() -> None:
    assert error_message(caught("str returns hostile text")) == "x"
    assert sanitize_text(error_message(caught("a message that no text holds"))) == "a\ufffdb?c\\x1b[2J"
