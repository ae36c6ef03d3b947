"""Make text that anybody may have written fit to be stored, and fit for a line of a log or a terminal."""

from __future__ import annotations

import re
import traceback

from pydantic import ValidationError

__all__ = ["LONGEST_TEXT", "one_line", "storable", "trace", "words"]

LONGEST_TEXT = 8_000  # characters of an error's words, and of its traceback, that are kept
FRAMES = 20  # of a traceback, the innermost
TAG = re.compile(r"Input tag '.*' found")  # the one message of pydantic's own that quotes the input
# What steers a terminal or breaks a line elsewhere, but for the line feeds and tabs that a traceback is made of.
CONTROL = {code: f"\\x{code:02x}" for code in (*range(1, 32), *range(127, 160)) if chr(code) not in "\n\t"}


def storable(text: str, limit: int = LONGEST_TEXT, *, tail: bool = False) -> str:
    """Return text that jsonb accepts and that steers no terminal, of `limit` characters at most; the last if `tail`.

    NUL becomes U+FFFD and a lone surrogate a question mark; other control characters are written out, but for line
    feeds and tabs.

        storable("\\x1b[2Jgone\\r\\n")    # "\\\\x1b[2Jgone\\\\x0d\\n"
    """
    part = text[-limit:] if tail else text[:limit]  # first, as it may be long
    plain = part.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8").translate(CONTROL)
    return plain[-limit:] if tail else plain[:limit]


def one_line(text: str, limit: int = 500) -> str:
    """Return text in one line that can forge no other: white space made one blank, what cannot be printed written out.

    one_line("no\\n2030-01-01 INFO all is well")    # "no 2030-01-01 INFO all is well"
    """
    line = " ".join(text[:LONGEST_TEXT].split())[:limit]
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in line)


def words(error: BaseException) -> str:
    """Return what an exception says, empty when it cannot; of pydantic's never the input, which may be a secret."""
    if isinstance(error, ValidationError):
        return problems(error)
    try:
        return str(error)
    except Exception:  # its own code
        return ""


def problems(error: ValidationError) -> str:
    """Return all that pydantic found, a line each, without the input that it was given."""
    found = [f"{'.'.join(map(str, loc)) or '(the value)'}: {said}" for loc, said in findings(error)]
    return "\n".join([f"{error.error_count()} validation errors for {error.title}", *found])


def findings(error: ValidationError) -> list[tuple[tuple[int | str, ...], str]]:
    """Return where pydantic found something and what, without the input that it was given."""
    found = error.errors(include_url=False, include_input=False)
    return [(each["loc"], _said(each["type"], each["msg"], each.get("ctx", {}))) for each in found]


def _said(kind: str, message: str, about: dict[str, object]) -> str:
    return f"Input tag is none of {about['expected_tags']}" if kind == "union_tag_invalid" else message


def trace(error: BaseException) -> str:
    """Return the traceback of an exception with those that led to it; of pydantic's errors without the input."""
    text = "".join(traceback.format_exception(error, limit=-FRAMES))
    for each in _all(error):
        if isinstance(each, ValidationError):
            for line in str(each).splitlines():  # one by one: in a group of exceptions they are indented
                text = text.replace(line.strip(), _without_input(line.strip()))
    return text


def _without_input(line: str) -> str:
    return TAG.sub("Input tag found", line.partition(" [type=")[0])


def _all(error: BaseException) -> list[BaseException]:
    """An exception, and whatever is printed with it."""
    seen: dict[int, BaseException] = {}
    waiting = [error]
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen[id(each)] = each
        more = [each.__cause__, each.__context__, *(each.exceptions if isinstance(each, BaseExceptionGroup) else ())]
        waiting += [other for other in more if other is not None]
    return list(seen.values())
