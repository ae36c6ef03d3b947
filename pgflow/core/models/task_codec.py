"""Where the values of a task belong, and how those that were read are decrypted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pgflow.core.definition.hooks import is_end, takes_end
from pgflow.core.definition.task import TaskDefinition
from pgflow.core.models.task import TaskInstance
from pgflow.core.values.codec import Codec, Location, decrypt, decrypt_text
from pgflow.core.values.payload import ENCRYPTED_MARKER, decode
from pgflow.core.values.reference import is_reference
from pgflow.errors import DecryptionUnavailable, InvalidPayload

__all__ = ["args_location", "decrypt_args", "decrypt_task", "output_location"]


def args_location(task: str) -> Location:
    """Return where the arguments of a task belong: they are encrypted before their job has an id."""
    return Location(task, "", "input")


def output_location(task: str, job: int) -> Location:
    """Return where the output of one execution belongs."""
    return Location(task, str(job), "output")


def decrypt_args(codec: Codec | None, task: TaskDefinition, text: str) -> str:
    """Return the arguments of a claimed job as JSON text. Raises `DecryptionUnavailable`, `InvalidPayload`.

    A strict codec accepts the argument of a hook in plain, because SQL writes it.
    """
    if ENCRYPTED_MARKER not in text and (codec is None or (takes_end(task) and is_end(decode(text)))):
        return text
    return decrypt_text(codec, text, args_location(task.name))


def decrypt_task(codec: Codec | None, task: TaskInstance) -> TaskInstance:
    """Return a task with its arguments and its output decrypted; without a codec unchanged.

    A value that cannot be decrypted stays encrypted, and `unreadable` gives the reason.
    """
    if codec is None:
        return task
    faults = [] if task.unreadable is None else [task.unreadable]

    def opened(value: Any, location: Location) -> Any:
        if is_reference(value) or (location.kind == "input" and is_end(value)):
            return value
        try:
            return decrypt(codec, value, location)
        except (InvalidPayload, DecryptionUnavailable) as error:
            faults.append(str(error))
            return value

    args = opened(task.args, args_location(task.task))
    has_output = task.status == "completed" and task.output is not None
    output = opened(task.output, output_location(task.task, task.id)) if has_output else task.output
    return replace(task, args=args, output=output, unreadable="; ".join(faults) or None)
