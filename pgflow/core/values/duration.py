"""The range of durations: short enough that adding one to now stays within the dates of PostgreSQL and Python."""

from __future__ import annotations

from datetime import timedelta

__all__ = ["MAX_DURATION", "is_duration", "plain"]

MAX_DURATION = timedelta(days=36_525)  # a hundred years


def is_duration(value: object) -> bool:
    """Whether `value` is a timedelta from zero to a hundred years."""
    return isinstance(value, timedelta) and timedelta(0) <= value <= MAX_DURATION


def plain(span: timedelta) -> timedelta:
    """Return an equal instance of `timedelta` itself: the methods of a user's subclass may raise."""
    return span if type(span) is timedelta else timedelta.__add__(timedelta(0), span)
