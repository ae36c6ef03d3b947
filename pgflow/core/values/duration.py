"""How long anything may be put off: no longer than the calendars of PostgreSQL and Python both reach."""

from __future__ import annotations

from datetime import timedelta

__all__ = ["MAX_DURATION", "is_duration", "plain"]

MAX_DURATION = timedelta(days=36_525)  # a hundred years


def is_duration(value: object) -> bool:
    """Whether `value` is a timedelta of zero or more, and of a hundred years at most."""
    return isinstance(value, timedelta) and timedelta(0) <= value <= MAX_DURATION


def plain(span: timedelta) -> timedelta:
    """Return an equal `timedelta` of the class itself: the methods of a subclass may raise."""
    return span if type(span) is timedelta else timedelta.__add__(timedelta(0), span)
