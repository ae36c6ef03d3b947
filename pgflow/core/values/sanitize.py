"""Make untrusted text and exceptions safe to store, and safe for a log line or a terminal."""

from __future__ import annotations

import re
import traceback
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import islice
from types import TracebackType
from typing import Any, TypeVar

from pydantic import ValidationError

__all__ = [
    "MAX_TEXT_LENGTH",
    "error_message",
    "format_traceback",
    "guarded",
    "sanitize_line",
    "sanitize_text",
    "type_name",
    "validation_errors",
]

T = TypeVar("T")

MAX_TEXT_LENGTH = 8_000  # characters of an error's message, and of its traceback
MAX_NAME_LENGTH = 200  # characters of the name of an exception's type
MAX_FRAMES = 20  # of a traceback, the innermost
MAX_CHAIN = 10  # exceptions in a chain of causes and contexts
MAX_GROUP_MEMBERS = 15
MAX_GROUP_DEPTH = 5
MAX_EXCEPTIONS = 50  # in one text
MAX_NOTES = 20  # of one exception
CAUSE_LINE = "\nThe above exception was the direct cause of the following exception:\n\n"
CONTEXT_LINE = "\nDuring handling of the above exception, another exception occurred:\n\n"
OMITTED_LINE = "(earlier exceptions are left out)\n\n"
QUOTED_TAG = re.compile(r"Input tag '.*' found")  # the only message of pydantic that quotes the input
CUT_QUOTED_TAG = re.compile(r"Input tag '.*")
# Control characters, which can drive a terminal or forge a line; a traceback needs line feeds and tabs.
CONTROL = {code: f"\\x{code:02x}" for code in (*range(1, 32), *range(127, 160)) if chr(code) not in "\n\t"}


def sanitize_text(text: str, limit: int = MAX_TEXT_LENGTH, *, tail: bool = False) -> str:
    """Return the first `limit` characters of text, or the last with `tail`, safe for jsonb and for a terminal.

    NUL becomes U+FFFD and a lone surrogate a question mark; other control characters except line feeds and tabs are
    escaped.

        sanitize_text("\\x1b[2Jgone\\r\\n")    # "\\\\x1b[2Jgone\\\\x0d\\n"
    """
    part = text[-limit:] if tail else text[:limit]  # cut first: the text may be very long
    plain = part.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8").translate(CONTROL)
    return plain[-limit:] if tail else plain[:limit]


def sanitize_line(text: str, limit: int = 500) -> str:
    """Return text as one log line: runs of white space become one blank, unprintable characters are escaped.

    sanitize_line("no\\n2030-01-01 INFO all is well")    # "no 2030-01-01 INFO all is well"
    """
    line = " ".join(text[:MAX_TEXT_LENGTH].split())[:limit]
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in line)


def error_message(error: BaseException) -> str:
    """Return an exception's message, or "" if its `__str__` raises; of pydantic's errors without the input they quote.

    The user's `__str__` makes the message, and may raise anything.
    """
    if issubclass(type(error), ValidationError):
        return guarded(lambda: validation_message(error), "")  # type: ignore[arg-type]  # it is one
    return guarded(lambda: str.__str__(str(error)), "")


def type_name(value: object) -> str:
    """Return the name of a value's class, without calling a `__name__` that a metaclass defines."""
    return sanitize_text(str.__str__(type.__dict__["__name__"].__get__(type(value))), MAX_NAME_LENGTH)


def guarded(read: Callable[[], T], default: T) -> T:
    """Return the result of `read`, or `default` if it raises anything. `read` must not await.

    It catches `BaseException` because a `__str__` may call sys.exit() or raise GeneratorExit.
    """
    try:
        return read()
    except BaseException:
        return default


def validation_message(error: ValidationError) -> str:
    """Return all of pydantic's errors, one a line, without the input that they quote."""
    lines = [f"{'.'.join(map(str, loc)) or '(the value)'}: {message}" for loc, message in validation_errors(error)]
    return "\n".join([f"{error.error_count()} validation errors for {error.title}", *lines])


def validation_errors(error: ValidationError) -> list[tuple[tuple[int | str, ...], str]]:
    """Return location and message of each of pydantic's errors, without the input that they quote."""
    errors = error.errors(include_url=False, include_input=False)
    return [(each["loc"], _without_tag(each["type"], each["msg"], each.get("ctx", {}))) for each in errors]


def _without_tag(kind: str, message: str, context: dict[str, object]) -> str:
    return f"Input tag is none of {context['expected_tags']}" if kind == "union_tag_invalid" else message


def format_traceback(error: BaseException) -> str:
    """Return the traceback of an exception and its causes; of pydantic's errors without the input they quote.

    It looks like Python's own, but is bounded in time and size whatever the exceptions contain. It runs no user code
    except `__str__` and `__notes__`, both guarded. It contains the last 10 exceptions of a chain, 15 members and 5
    levels of a group, 50 exceptions in all; the 20 innermost frames of each and the beginning of its message.
    """
    shown: list[BaseException] = []
    text = "".join(guarded(lambda: _chain(error, shown, 0), [])) or f"{type_name(error)}\n"
    for each in shown:
        if issubclass(type(each), ValidationError):  # another exception's message may quote it, input included
            text = guarded(partial(_without_inputs, text, each), "")
    return text


def _without_inputs(text: str, error: BaseException) -> str:
    for line in {line.strip() for line in str(error).splitlines()}:  # one by one: in a group they are indented
        if (bare := _without_input(line)) != line:
            text = text.replace(line, bare)
    return text


def _without_input(line: str) -> str:
    return QUOTED_TAG.sub("Input tag found", line.partition(" [type=")[0])


def _chain(error: BaseException, shown: list[BaseException], depth: int) -> list[str]:
    """Format an exception after its causes; `shown` collects all exceptions in the text."""
    links: list[tuple[BaseException, str]] = []  # the outermost first, each with the line that follows it
    inner: BaseException | None = error
    separator = first_line = ""
    while inner is not None and all(inner is not other for other in shown):
        if len(links) == MAX_CHAIN or len(shown) == MAX_EXCEPTIONS:
            first_line = OMITTED_LINE
            break
        shown.append(inner)
        links.append((inner, separator))
        # Read through the base class: a subclass may have properties of these names.
        if (cause := _read("__cause__", inner)) is not None:
            inner, separator = cause, CAUSE_LINE
        else:
            is_hidden = _read("__suppress_context__", inner)
            inner, separator = None if is_hidden else _read("__context__", inner), CONTEXT_LINE
    lines = [first_line]
    for each, after in reversed(links):
        lines += [*_format_one(each, shown, depth), after]
    return lines


def _format_one(error: BaseException, shown: list[BaseException], depth: int) -> list[str]:
    """Format one exception: its frames, its message and notes, and the members of a group indented below."""
    lines = []
    innermost: deque[TracebackType] = deque(maxlen=MAX_FRAMES)
    frame: TracebackType | None = _read("__traceback__", error)
    while frame is not None:
        innermost.append(frame)
        frame = frame.tb_next
    if innermost:
        lines += ["Traceback (most recent call last):\n", *_frames(innermost[0])]
    message = _cut(error_message(error))
    lines.append(f"{_full_name(error)}: {message}\n" if message else f"{_full_name(error)}\n")
    lines += [f"{note}\n" for note in _notes(error)]
    if issubclass(type(error), BaseExceptionGroup):
        members = BaseExceptionGroup.exceptions.__get__(error)
        for number, member in enumerate(members, 1):
            if number > MAX_GROUP_MEMBERS or depth == MAX_GROUP_DEPTH or len(shown) == MAX_EXCEPTIONS:
                lines.append(f"  | and {len(members) - number + 1} more exceptions\n")
                break
            lines.append(f"  +-- {number} of {len(members)}\n")
            text = "".join(_chain(member, shown, depth + 1)) or "(shown above)"
            lines += [f"  | {line}\n" for line in text.splitlines()]
    return lines


def _cut(message: str) -> str:
    """Return the beginning of a message. It strips the input from a cut line, which `_without_inputs` cannot match."""
    if len(message) <= MAX_TEXT_LENGTH:
        return sanitize_text(message)
    whole, newline, cut = message[:MAX_TEXT_LENGTH].rpartition("\n")
    return sanitize_text(whole + newline + _without_input(CUT_QUOTED_TAG.sub("Input tag", cut)))


def _read(attribute: str, error: BaseException) -> Any:
    return BaseException.__dict__[attribute].__get__(error)


def _full_name(error: BaseException) -> str:
    """Return the name of an exception's class, qualified by its module unless it is a builtin."""
    module = guarded(lambda: str.__str__(type.__dict__["__module__"].__get__(type(error))), "")
    name = type_name(error)
    return name if module in ("", "builtins", "__main__") else f"{sanitize_text(module, MAX_NAME_LENGTH)}.{name}"


def _frames(first: TracebackType) -> list[str]:
    lines: list[str] = guarded(lambda: traceback.format_tb(first), [])  # may call a user's loader for the source
    return lines


def _notes(error: BaseException) -> list[str]:
    def read() -> list[str]:
        notes: Any = getattr(error, "__notes__", None)
        if not issubclass(type(notes), list | tuple):
            return []
        return [sanitize_text(str.__str__(note)) for note in islice(notes, MAX_NOTES) if issubclass(type(note), str)]

    return guarded(read, [])
