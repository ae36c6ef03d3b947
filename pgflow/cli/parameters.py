"""Read what a command was given: JSON (in place, from a file, from a pipe), durations, moments, plain text."""

import re
import sys
from datetime import datetime, timedelta
from json import JSONDecodeError
from pathlib import Path
from typing import Any

import click

from pgflow.core.definition.unique import extract_value, validate_value
from pgflow.core.values.names import SEPARATOR
from pgflow.core.values.payload import INPUT_LIMIT, decode, encode
from pgflow.errors import ConfigError, InvalidPayload, InvalidValue

__all__ = [
    "DURATION",
    "JSON_FORMS",
    "TEXT",
    "Duration",
    "format_duration",
    "parse_business_value",
    "parse_json",
    "parse_timestamp",
    "payload",
    "read_json_argument",
]

JSON_FORMS = "JSON|@FILE|-"
LONGEST = 16 * INPUT_LIMIT  # of JSON as people lay it out; what is stored is compact
PART = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(ms|s|m|h|d|w)")
PARTS = re.compile(rf"(?:{PART.pattern})+")
NUMBER = re.compile(r"[0-9]{0,9}\.?[0-9]{1,9}(?:e-?[0-9]{1,2})?|[0-9]{1,9}\.")
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


def read_json_argument(given: str, what: str) -> Any:
    """Return the value of `given`, which is JSON, `@` and the name of a file that holds it, or `-` for standard input.

    Raises `InvalidPayload`, which begins with `what`, and `ConfigError` when the file cannot be read.
    """
    if given in ("-", "@-"):
        return parse_json(_text(sys.stdin.buffer.read(LONGEST + 1), what), what)
    if given.startswith("@"):
        try:
            with Path(given[1:]).open("rb") as file:
                return parse_json(_text(file.read(LONGEST + 1), what), what)
        except OSError as error:
            raise ConfigError(f"{what}: {given[1:]} cannot be read: {error.strerror}") from error
    return parse_json(given, what, hint="Quote it for the shell: '{\"count\": 3}'.")


def parse_json(text: str, what: str, *, hint: str | None = None) -> Any:
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
    """Return what `given` (see `read_json_argument`) holds as the JSON text to store, None when nothing was given."""
    return None if given is None else encode(read_json_argument(given, what), what=what, limit=INPUT_LIMIT)


def parse_business_value(value: Any) -> str:
    """Return a business value, or what may be a whole id: the database knows the workflow's key, and checks the rest.

    Raises `InvalidValue`.
    """
    if isinstance(value, str) and SEPARATOR in value:
        extract_value(value)
        return value
    return validate_value(value)


def parse_duration(text: str, *, bare: bool = False) -> timedelta:
    """Return the duration of a text such as "500ms", "10m" or "1h30m"; with `bare`, a number alone is seconds.

    Every option of the command that takes a duration is read here. Raises `ConfigError`.
    """
    if not PARTS.fullmatch(text) and not (bare and NUMBER.fullmatch(text)):
        hint = f"Write a number and a unit ({', '.join(UNITS)}): 500ms, 90s, 10m, 1h30m, 2d"
        raise ConfigError(f"{text!r} is not a duration", hint=hint + (", or seconds: 90." if bare else "."))
    parts = PART.findall(text) or [(text, "s")]
    try:
        duration = sum((timedelta(**{UNITS[unit]: float(number)}) for number, unit in parts), timedelta())
    except OverflowError:
        duration = timedelta.max
    if duration > LONGEST_DELAY:
        raise ConfigError(f"{text} is longer than {LONGEST_DELAY.days} days")
    return duration


class Duration(click.ParamType):  # type: ignore[type-arg]  # as above
    """A duration such as 90s or 1h30m, from `least` to `most`; a number without a unit is seconds if `bare`."""

    name = "duration"

    def __init__(self, least: timedelta = timedelta(0), most: timedelta = LONGEST_DELAY, *, bare: bool = False) -> None:
        self.least, self.most, self.bare = least, most, bare

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Return the duration. Raises `ConfigError` for what is not a duration or is out of range."""
        duration = value if isinstance(value, timedelta) else parse_duration(str(value), bare=self.bare)
        if not self.least <= duration <= self.most:
            option = param.opts[0] if param else "a duration"
            raise ConfigError(
                f"{option} must be from {format_duration(self.least)} to {format_duration(self.most)}, got {value}"
            )
        return duration


DURATION = Duration()


def format_duration(duration: timedelta) -> str:
    """Return a duration as `parse_duration` reads it, in its largest whole unit: "500ms", "30s", "1h"."""
    for unit in ("w", "d", "h", "m", "s"):
        count, rest = divmod(duration, timedelta(**{UNITS[unit]: 1}))
        if count and not rest:
            return f"{count}{unit}"
    return f"{duration / timedelta(milliseconds=1):g}ms" if duration else "0s"


def parse_timestamp(text: str) -> datetime:
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
