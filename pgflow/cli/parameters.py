"""Parse command-line parameters: JSON (literal, from a file or stdin), durations, timestamps and plain text."""

import re
import sys
from datetime import datetime, timedelta
from json import JSONDecodeError
from pathlib import Path
from typing import Any

import click

from pgflow.core.definition.unique import extract_value, validate_value
from pgflow.core.values.names import SEPARATOR
from pgflow.core.values.payload import MAX_PAYLOAD_BYTES, decode, encode
from pgflow.errors import ConfigError, InvalidPayload, InvalidValue

__all__ = [
    "DURATION",
    "JSON_FORMS",
    "TEXT",
    "Duration",
    "format_duration",
    "parse_business_value",
    "parse_duration",
    "parse_json",
    "parse_timestamp",
    "payload",
    "read_json_argument",
]

JSON_FORMS = "JSON|@FILE|-"
JSON_LIMIT = 4 * MAX_PAYLOAD_BYTES  # bytes: JSON on the command line may be indented, what is stored is compact
PART = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(ms|s|m|h|d|w)")
PARTS = re.compile(rf"(?:{PART.pattern})+")
NUMBER = re.compile(r"[0-9]{0,9}\.?[0-9]{1,9}(?:e-?[0-9]{1,2})?|[0-9]{1,9}\.")
UNITS = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
LONGEST_DELAY = timedelta(days=3650)


class Text(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions of click only
    """Text that PostgreSQL can store: valid UTF-8 without NUL."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text. Raises `InvalidValue`."""
        text = str(value)
        name = param.human_readable_name if param else "an argument"
        if "\0" in text:
            raise InvalidValue(f"{name} contains a NUL character")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidValue(f"{name} is not valid UTF-8") from None
        return text


TEXT = Text()


def read_json_argument(text: str, name: str) -> Any:
    """Return the value of an argument that is JSON, `@` followed by the path of a JSON file, or `-` for stdin.

    Raises `InvalidPayload`, whose message begins with `name`, and `ConfigError` when the file cannot be read.
    """
    if text in ("-", "@-"):
        return parse_json(_decode(sys.stdin.buffer.read(JSON_LIMIT + 1), name), name)
    if text.startswith("@"):
        try:
            with Path(text[1:]).open("rb") as file:
                return parse_json(_decode(file.read(JSON_LIMIT + 1), name), name)
        except OSError as error:
            raise ConfigError(f"{name}: cannot read {text[1:]}: {error.strerror}") from error
    return parse_json(text, name, hint="Quote it for the shell: '{\"count\": 3}'.")


def parse_json(text: str, name: str, *, hint: str | None = None) -> Any:
    """Return the value of JSON text.

    Raises `InvalidPayload`, whose message begins with `name`; `hint` is given for a syntax error.
    """
    try:
        return decode(text, is_written=True)
    except InvalidPayload as error:
        cause = error.__cause__
        is_too_deep = cause is None or isinstance(cause, RecursionError)
        reason = "is nested too deeply" if is_too_deep else f"is not valid JSON: {cause}"
        raise InvalidPayload(f"{name} {reason}", hint=hint if isinstance(cause, JSONDecodeError) else None) from error


def payload(argument: str | None, name: str) -> str | None:
    """Return the JSON text to store for an argument (see `read_json_argument`), None for an option not given."""
    return None if argument is None else encode(read_json_argument(argument, name), what=name, limit=MAX_PAYLOAD_BYTES)


def parse_business_value(value: Any) -> str:
    """Return a business value, or a whole business id, whose key only the database can check.

    Raises `InvalidValue`.
    """
    if isinstance(value, str) and SEPARATOR in value:
        extract_value(value)
        return value
    return validate_value(value)


def parse_duration(text: str, *, bare: bool = False) -> timedelta:
    """Return the duration of a text such as "500ms", "10m" or "1h30m"; with `bare`, a plain number is seconds.

    Raises `ConfigError`.
    """
    if not PARTS.fullmatch(text) and not (bare and NUMBER.fullmatch(text)):
        raise ConfigError(
            f"{text!r} is not a valid duration: use a number with a unit, such as 30s, 5m, 1h30m or 2d"
            + (", or a number of seconds" if bare else ""),
            hint=f"Units: {', '.join(UNITS)}.",
        )
    parts = PART.findall(text) or [(text, "s")]
    try:
        duration = sum((timedelta(**{UNITS[unit]: float(number)}) for number, unit in parts), timedelta())
    except OverflowError:
        duration = timedelta.max
    if duration > LONGEST_DELAY:
        raise ConfigError(f"duration must be at most {LONGEST_DELAY.days} days, got {text}")
    return duration


class Duration(click.ParamType):  # type: ignore[type-arg]  # as above
    """A duration such as 90s or 1h30m between `least` and `most`; a plain number is seconds if `bare`."""

    name = "duration"

    def __init__(self, least: timedelta = timedelta(0), most: timedelta = LONGEST_DELAY, *, bare: bool = False) -> None:
        self.least, self.most, self.bare = least, most, bare

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Return the duration. Raises `ConfigError` if it is malformed or out of range."""
        duration = value if isinstance(value, timedelta) else parse_duration(str(value), bare=self.bare)
        if not self.least <= duration <= self.most:
            option = param.opts[0] if param else "duration"
            limits = f"{format_duration(self.least)} and {format_duration(self.most)}"
            raise ConfigError(f"{option} must be between {limits}, got {value}")
        return duration


DURATION = Duration()


def format_duration(duration: timedelta) -> str:
    """Return a duration as `parse_duration` accepts it, in its largest whole unit: "500ms", "30s", "1h"."""
    for unit in ("w", "d", "h", "m", "s"):
        count, rest = divmod(duration, timedelta(**{UNITS[unit]: 1}))
        if count and not rest:
            return f"{count}{unit}"
    return f"{duration / timedelta(milliseconds=1):g}ms" if duration else "0s"


def parse_timestamp(text: str) -> datetime:
    """Return the time of an ISO 8601 text with a time zone. Raises `ConfigError`."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(
            f"{text!r} is not a valid timestamp: {error}",
            hint="Use ISO 8601 with a time zone, such as 2030-01-31T12:00:00Z.",
        ) from error
    if time.tzinfo is None:
        raise ConfigError(f"timestamp {text!r} has no time zone", hint=f"For UTC, write {time.isoformat()}Z.")
    return time


def _decode(content: bytes, name: str) -> str:
    if len(content) > JSON_LIMIT:
        raise InvalidPayload(
            f"{name} is longer than {JSON_LIMIT:,} bytes", hint="Store large data elsewhere and pass a reference to it."
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidPayload(f"{name} is not valid UTF-8 (byte {error.start})") from error
