"""Read what a command was given: JSON (in place, from a file, from a pipe), durations, moments, plain text."""

import re
import sys
from datetime import datetime, timedelta
from json import JSONDecodeError
from pathlib import Path
from typing import Any

import click

from pgflow.core.payload import INPUT_LIMIT, decode, encode
from pgflow.core.unique import SEPARATOR, extract_value, validate_value
from pgflow.errors import ConfigError, InvalidPayload, InvalidValue

__all__ = ["JSON_FORMS", "TEXT", "checked_value", "json_value", "payload", "read_duration", "read_json", "read_moment"]

JSON_FORMS = "JSON|@FILE|-"
LONGEST = 16 * INPUT_LIMIT  # of JSON as people lay it out; what is stored is compact
PART = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(ms|s|m|h|d|w)")
DURATION = re.compile(rf"(?:{PART.pattern})+")
UNITS = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
LONGEST_DELAY = timedelta(days=3650)


class Text(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions of click only
    """Text that PostgreSQL can store: bytes of the command line that were no UTF-8 are refused with one line."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text. Raises `InvalidValue`."""
        text = str(value)
        what = param.human_readable_name if param else "an argument"
        if "\0" in text:
            raise InvalidValue(f"{what} holds a NUL character")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidValue(f"{what} is no UTF-8 text") from None
        return text


TEXT = Text()


def json_value(given: str, what: str) -> Any:
    """Return the value of `given`, which is JSON, `@` and the name of a file that holds it, or `-` for standard input.

    Raises `InvalidPayload`, which begins with `what`, and `ConfigError` when the file cannot be read.
    """
    if given in ("-", "@-"):
        return read_json(_text(sys.stdin.buffer.read(LONGEST + 1), what), what)
    if given.startswith("@"):
        try:
            with Path(given[1:]).open("rb") as file:
                return read_json(_text(file.read(LONGEST + 1), what), what)
        except OSError as error:
            raise ConfigError(f"{what}: {given[1:]} cannot be read: {error.strerror}") from error
    return read_json(given, what, hint="Quote it for the shell: '{\"count\": 3}'.")


def read_json(text: str, what: str, *, hint: str | None = None) -> Any:
    """Return the value of JSON text. Raises `InvalidPayload`, which begins with `what`; `hint` mends broken syntax."""
    try:
        return decode(text, is_written=True)
    except InvalidPayload as error:
        cause = error.__cause__
        is_deep = cause is None or isinstance(cause, RecursionError)
        reason = "is nested too deeply" if is_deep else f"is no JSON: {cause}"
        mend = hint if isinstance(cause, JSONDecodeError) else None
        raise InvalidPayload(f"{what} {reason}", hint=mend) from error


def payload(given: str | None, what: str) -> str | None:
    """Return what `given` (see `json_value`) holds as the JSON text to store, None when nothing was given."""
    return None if given is None else encode(json_value(given, what), what=what, limit=INPUT_LIMIT)


def checked_value(value: Any) -> str:
    """Return a business value, or what may be a whole id: the database knows the workflow's key, and checks the rest.

    Raises `InvalidValue`.
    """
    if isinstance(value, str) and SEPARATOR in value:
        extract_value(value)
        return value
    return validate_value(value)


def read_duration(text: str) -> timedelta:
    """Return the duration that a text like "10m" or "1h30m" means. Raises `ConfigError`."""
    if not DURATION.fullmatch(text):
        raise ConfigError(f"{text!r} is no duration", hint="Write a number and a unit: 90s, 10m, 1h30m, 2d.")
    try:
        duration = sum((timedelta(**{UNITS[unit]: float(number)}) for number, unit in PART.findall(text)), timedelta())
    except OverflowError:
        duration = timedelta.max
    if duration > LONGEST_DELAY:
        raise ConfigError(f"{text} is longer than {LONGEST_DELAY.days} days")
    return duration


def read_moment(text: str) -> datetime:
    """Return the moment that an ISO 8601 text with a time zone means. Raises `ConfigError`."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"{text!r} is no moment: {error}", hint="Write it as 2030-01-31T12:00:00Z.") from error
    if moment.tzinfo is None:
        raise ConfigError(f"{text!r} has no time zone", hint=f"In UTC it is {moment.isoformat()}Z.")
    return moment


def _text(read: bytes, what: str) -> str:
    if len(read) > LONGEST:
        raise InvalidPayload(
            f"{what} is longer than {LONGEST:,} bytes", hint="Keep large data elsewhere and pass a reference to it."
        )
    try:
        return read.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidPayload(f"{what} is no UTF-8 text (byte {error.start})") from error
