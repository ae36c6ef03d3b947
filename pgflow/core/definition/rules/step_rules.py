"""Check one step: its events, `execute`, attributes, configuration, and the end of its wait."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from pgflow.core.definition.retry import Retry
from pgflow.core.definition.rules.callables import arity_problem, is_generator
from pgflow.core.definition.rules.problems import Problems, defect_of
from pgflow.core.definition.step import Parking, Step
from pgflow.core.values.duration import is_duration
from pgflow.core.values.names import is_event, is_key, is_queue
from pgflow.core.values.payload import METADATA_LIMIT, encode
from pgflow.errors import DefinitionError, InvalidPayload

__all__ = ["CPU_RULE", "check_step"]

CPU_RULE = "a connection cannot be shared with another process, so choose one of them"


def check_step(workflow: str, step: Step, title: str, problems: Problems) -> bool:
    """Record the problems that would keep the step from running; `title` is its name in messages.

    Returns whether its events are valid, so that they can be compared with the transitions.
    """
    who = f"{workflow}: {title}"
    defect = defect_of(step, type(step))
    if defect is not None:
        problems.add([f"{who}: {defect}"])
        return False
    has_events = problems.check(False, _check_events, who, step)
    problems.check(None, _check_execute, who, step)
    problems.check(None, _check_attributes, who, step)
    problems.check(None, _check_config, who, step)
    if has_events:
        problems.check(None, _check_parking, who, step)
    return has_events


def _check_events(who: str, step: Step) -> bool:
    events: Any = type(step).events
    if isinstance(events, str) or not isinstance(events, tuple | list):
        raise DefinitionError(f'{who} has events = {events!r}: write a tuple of names, as in events = ("done",)')
    emitted = step.emits()
    if not emitted:
        raise DefinitionError(f'{who} declares no events: add events = ("done",), or the events that it may emit')
    for event in emitted:
        if not is_event(event):
            raise DefinitionError(
                f"{who} declares the event {event!r}: the name of an event must be a string of 1 to 100 characters, "
                "without white space or control characters"
            )
    if len(set(emitted)) < len(emitted):
        raise DefinitionError(f"{who} declares an event twice in {emitted!r}: name each once")
    return True


def _check_execute(who: str, step: Step) -> None:
    execute: Any = step.execute
    if type(step).execute is Step.execute or not callable(execute):
        raise DefinitionError(f"{who} has no execute method: add `def execute(self, ctx)` that returns an Ok")
    if is_generator(execute):
        raise DefinitionError(f"{who}: execute is a generator: return one result, without yield")
    if arity_problem(execute, "ctx") is not None:
        raise DefinitionError(f"{who}: execute gets the context and nothing else: write `def execute(self, ctx)`")


def _check_attributes(who: str, step: Step) -> None:
    retry: Any = step.retry
    if retry is not None and not isinstance(retry, Retry):
        raise DefinitionError(f"{who} has retry = {retry!r}: write a policy, as in retry = Retry(max_attempts=8)")
    defect = defect_of(retry)
    if defect is not None:
        raise DefinitionError(f"{who}: {defect}")
    if step.queue is not None and not is_queue(step.queue):
        raise DefinitionError(f"{who} has queue = {step.queue!r}: use up to 63 letters, digits, '_', '-' and '.'")
    if not isinstance(step.transactional, bool):
        raise DefinitionError(f"{who} has transactional = {step.transactional!r}: write True or False")
    if not isinstance(step.cpu, bool):
        raise DefinitionError(f"{who} has cpu = {step.cpu!r}: write True or False")
    if step.cpu and step.transactional:
        raise DefinitionError(f"{who} has cpu and transactional = True: {CPU_RULE}")
    limit: Any = step.max_runtime
    if limit is not None and not (is_duration(limit) and limit):
        raise DefinitionError(f"{who} has max_runtime = {limit!r}: write a timedelta greater than zero")
    if (field := step.output_problem()) is not None:
        raise DefinitionError(f"{who}: its output cannot be read back: {field}")
    if not is_key(step.key):
        raise DefinitionError(
            f"{who} has the key {step.key!r}: set step_key to up to 100 letters, digits and underscores, "
            "not starting with a digit"
        )


def _check_config(who: str, step: Step) -> None:
    try:
        config = step.config()
        if config is None:
            return
        encode(config, what="the configuration", limit=METADATA_LIMIT)
        again = step.with_config(config)
    except (InvalidPayload, DefinitionError) as error:
        raise DefinitionError(f"{who}: {error}") from None
    if again != step:
        raise DefinitionError(
            f"{who}: its configuration is read back from JSON as {again!r}, not as {step!r}: "
            "use field types that JSON can represent"
        )


def _check_parking(who: str, step: Step) -> None:
    parking: Any = step.parking()
    if not isinstance(parking, Parking):
        raise DefinitionError(f"{who}: parking() returned {parking!r}: return a Parking")
    for name, event in parking.awaits.items():
        if not is_event(name):
            raise DefinitionError(f"{who}: it cannot wait for a signal named {name!r}: use a name without white space")
        if event not in step.emits():
            raise DefinitionError(f"{who}: the signal {name!r} becomes {event!r}, which it does not declare")
    if parking.timeout_event is not None and parking.timeout_event not in step.emits():
        raise DefinitionError(f"{who}: its timeout becomes {parking.timeout_event!r}, which it does not declare")
    if (parking.delay is None) != (parking.timeout_event is None) or not is_duration(parking.delay or timedelta(0)):
        raise DefinitionError(f"{who}: a timeout needs both a delay, from zero to 100 years, and an event: {parking!r}")
    if not set(parking.awaits) <= set(step.signals()):
        raise DefinitionError(f"{who}: it awaits {', '.join(parking.awaits)}, but signals() returns {step.signals()!r}")
