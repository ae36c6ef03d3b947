"""Results of steps and tasks as JSON objects, for those that run in another process."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from pgflow.core.definition.results import Async, Error, Ok, Result, Snooze
from pgflow.core.definition.step import Step
from pgflow.core.definition.task import TaskDefinition
from pgflow.core.engine.attempt import AttemptError
from pgflow.core.values.absent import ABSENT
from pgflow.core.values.payload import METADATA_LIMIT, decode, encode
from pgflow.core.values.sanitize import type_name

__all__ = ["pack_result", "pack_task_result", "unpack_result", "unpack_task_result"]

Packed = dict[str, Any]


def pack_result(step: Step, result: object, *, limit: int, reveal: bool) -> Packed:
    """Return what a step returned as a JSON object, its output in the form in which it is stored.

    Raises `InvalidPayload`, `UnencryptedSecret` for an output or metadata that cannot be stored.

        pack_result(resize, Ok("done", {"width": 80}), limit=1_048_576, reveal=False)
        # {"type": "Ok", "event": "done", "output": '{"width":80}', "metadata": None}
    """
    match result:
        case Ok(event, output, metadata):
            text = None
            if output is not ABSENT:
                what = f"{step.key}.output"
                text = step.encode_output(output, what, limit, reveal=reveal)
                if step.output is not None:
                    step.check_output(output, decode(text), what)
            kept = None if metadata is None else encode(metadata, what=f"{step.key}.metadata", limit=METADATA_LIMIT)
            return {"type": "Ok", "event": event, "output": text, "metadata": kept}
        case Async():
            return {"type": "Async"}
    if (packed := _pack_other(result)) is not None:
        return packed
    returned = f"step {step.key} returned {type_name(result)}; a step returns Ok, Async, Error or Snooze"
    return {"type": "AttemptError", "reason": returned, "kind": "TypeError", "retry": False, "details": {}}


def unpack_result(step: Step, packed: Mapping[str, Any]) -> Result | AttemptError:
    """Return the result that `pack_result` has packed, with an output in its declared type. Raises `TypeError`."""
    match packed:
        case {"type": "Ok", "event": event, "output": text, "metadata": kept}:
            output = ABSENT if text is None else step.read_output(decode(text))
            return Ok(event, output, None if kept is None else decode(kept))
        case {"type": "Async"}:
            return Async()
    return _unpack_other(packed)


def pack_task_result(task: TaskDefinition, result: object, *, limit: int, reveal: bool) -> Packed:
    """`pack_result`, for what a task returned."""
    if (packed := _pack_other(result)) is not None:
        return packed
    if isinstance(result, Result):
        fix = "a task returns its output" if isinstance(result, Ok) else "only a step can wait for a signal"
        reason = f"task {task.name} returned {type_name(result)}: {fix}"
        return {"type": "AttemptError", "reason": reason, "kind": "TypeError", "retry": False, "details": {}}
    return {"type": "Output", "output": task.output.write(result, reveal=reveal, limit=limit)}


def unpack_task_result(task: TaskDefinition, packed: Mapping[str, Any]) -> Any:
    """Return what `pack_task_result` has packed: the output in its declared type, or another result."""
    match packed:
        case {"type": "Output", "output": text}:
            return task.output.read(text)
    return _unpack_other(packed)


def _pack_other(result: object) -> Packed | None:
    match result:
        case AttemptError(reason, kind, retry, details, pause):
            packed = {"type": "AttemptError", "reason": reason, "kind": kind, "retry": retry, "details": details}
            return {**packed, "pause": _seconds(pause)}
        case Error(reason, retry, retry_in):
            return {"type": "Error", "reason": str(reason), "retry": bool(retry), "retry_in": _seconds(retry_in)}
        case Snooze(delay):
            return {"type": "Snooze", "seconds": delay.total_seconds()}
    return None


def _unpack_other(packed: Mapping[str, Any]) -> Error | Snooze | AttemptError:
    match packed:
        case {"type": "AttemptError", "reason": reason, "kind": kind, "retry": retry, "details": details}:
            return AttemptError(reason, kind, retry, details, _duration(packed.get("pause")))
        case {"type": "Error", "reason": reason, "retry": retry}:
            return Error(reason, retry, _duration(packed.get("retry_in")))
        case {"type": "Snooze", "seconds": seconds}:
            return Snooze(timedelta(seconds=seconds))
    raise TypeError("a child process answered with something that is not a result")


def _seconds(duration: timedelta | None) -> float | None:
    return None if duration is None else duration.total_seconds()


def _duration(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)
