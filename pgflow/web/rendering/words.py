"""Words for times, durations, counts and sizes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

__all__ = ["COUNT_LIMIT", "ago", "clock", "count", "duration", "exact", "iso", "rate", "size", "when"]

COUNT_LIMIT = 10_000  # counts are exact up to here
UNITS = (("d", 86_400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0))


def duration(value: timedelta | float | None, units: int = 2) -> str:
    """Return a duration with so many units at most.

    duration(160.0)    # "2 min 40 s"
    """
    if value is None:
        return ""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    seconds = max(0.0, seconds)
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    parts: list[str] = []
    rest = float(round(seconds))
    for name, unit in UNITS:
        if rest >= unit or parts:
            many, rest = divmod(rest, unit)
            parts += [f"{many:.0f} {name}"] if many else []
            if len(parts) == units or (parts and unit == 86_400 and many >= 10):
                break
    return " ".join(parts)


def ago(at: datetime | None, now: datetime) -> str:
    """Return how long ago a time is, or how far ahead, with one unit."""
    if at is None:
        return ""
    seconds = (now - at).total_seconds()
    span = abs(seconds)
    name, unit = next(((name, unit) for name, unit in UNITS if span >= unit), ("s", 1.0))
    text = f"{span // unit:.0f} {name}"
    return "now" if span < 1 else f"in {text}" if seconds < 0 else f"{text} ago"


def clock(at: datetime | None) -> str:
    """Return the time of day in UTC."""
    return "" if at is None else at.astimezone(UTC).strftime("%H:%M:%S")


def exact(at: datetime | None) -> str:
    """Return a time in full, in UTC."""
    return "" if at is None else at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def iso(at: datetime | None) -> str:
    """Return a time as an attribute of <time>."""
    return "" if at is None else at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def count(number: int | None, limit: int = COUNT_LIMIT) -> str:
    """Return a bounded count: exact up to `limit`, "10,000+" above it.

    count(10_001)    # "10,000+"
    """
    if number is None:
        return ""
    return f"{limit:,}+" if number > limit else f"{number:,}"


def size(octets: int) -> str:
    """Return a size of data.

    size(1234)    # "1.2 kB"
    """
    value = float(octets)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def rate(per_second: float) -> str:
    """Return starts per second in the unit that makes a whole number of it, if one does.

    rate(100 / 60)    # "100 per minute"
    """
    for unit, seconds in (("second", 1), ("minute", 60), ("hour", 3600), ("day", 86_400)):
        number = per_second * seconds
        if abs(number - round(number)) < 1e-6 * max(number, 1) and round(number) >= 1:
            return f"{round(number):,} per {unit}"
    return f"{per_second:g} per second"


def when(at: datetime | None, now: datetime) -> str:
    """Return a time that is near `now` in few words, in UTC: "14:45", "Mon 09:00", "1 Dec"."""
    if at is None:
        return ""
    at, now = at.astimezone(UTC), now.astimezone(UTC)
    if at.date() == now.date():
        return f"{at:%H:%M:%S}" if at.second else f"{at:%H:%M}"
    if abs(at - now) < timedelta(days=6):
        return f"{at:%a %H:%M}"
    return f"{at.day} {at:%b}" if abs(at - now) < timedelta(days=330) else f"{at.day} {at:%b %Y}"
