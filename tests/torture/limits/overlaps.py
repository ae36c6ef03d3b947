"""What ran at the same time: judged from claims, releases and the bodies of tasks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["NEVER", "Body", "Hold", "Span", "excesses", "overfull_windows", "peak", "ran_without_a_place", "spans_of"]

CLOCK_SECONDS = 1e-3  # rounding, and clock ticks
NEVER = float("inf")


@dataclass(slots=True)
class Hold:
    """One claim of a job until its worker lost it: by its end, by a retry, or by a rescue.

    `was_leased`: whether the worker had its lease then.
    """

    job: int
    queue: str
    key: str
    cost: int
    pid: int
    since: float
    until: float = NEVER
    was_leased: bool = True
    bodies: list[Body] = field(default_factory=list)


@dataclass(slots=True)
class Body:
    """One execution of a task. A killed one has no end."""

    job: int
    pid: int
    begin: float
    end: float = NEVER


@dataclass(frozen=True, slots=True)
class Span:
    """A job that takes places of its queue for some time."""

    job: int
    queue: str
    key: str
    cost: int
    since: float
    until: float


def spans_of(holds: Iterable[Hold], *, of_bodies: bool) -> list[Span]:
    """Return when jobs were held, or when their bodies ran while they were held."""
    return [
        Span(hold.job, hold.queue, hold.key, hold.cost, since, min(until, hold.until))
        for hold in holds
        for since, until in ([(body.begin, body.end) for body in hold.bodies] if of_bodies else [(hold.since, NEVER)])
        if since < hold.until
    ]


def ran_without_a_place(holds: Iterable[Hold], bodies: Iterable[Body]) -> tuple[int, list[str]]:
    """Give each body to the claim that it belongs to.

    Returns how many of them ran on after their worker had lost its lease, and what must not be: a body without a claim,
    or one whose job was taken from its worker before its lease had ended.
    """
    by_job: dict[int, list[Hold]] = defaultdict(list)
    for hold in holds:
        by_job[hold.job].append(hold)
    late, faults = 0, []
    for body in bodies:
        own = [each for each in by_job[body.job] if each.pid == body.pid and each.since <= body.begin + CLOCK_SECONDS]
        if not own:
            faults.append(f"job {body.job} ran in process {body.pid}, which had not claimed it")
            continue
        hold = max(own, key=lambda each: each.since)
        hold.bodies.append(body)
        if NEVER > max(body.begin, body.end) > hold.until + CLOCK_SECONDS:
            late += 1
            if hold.was_leased:
                faults.append(f"job {body.job} was taken from process {body.pid} while it ran and had its lease")
    return late, faults


def peak(spans: Iterable[Span], limit: int) -> tuple[int, float]:
    """Return the most places that were taken at once, and when; a job that costs more than the limit takes all of it.

    What ends at the moment at which another begins is gone.
    """
    moments = sorted(
        moment
        for span in spans
        for moment in ((span.since, min(span.cost, limit)), (span.until, -min(span.cost, limit)))
    )
    taken, most, at = 0, 0, 0.0
    for moment, change in moments:
        taken += change
        if taken > most:
            most, at = taken, moment
    return most, at


def excesses(
    what: str, spans: Sequence[Span], queues: Mapping[str, int], keys: Mapping[tuple[str, str], int]
) -> Iterator[str]:
    """Yield each queue and each partition key that took more places at once than its limit.

    `keys` has the limits by queue and key; that of the key "" holds for all others of the queue.
    """
    lanes: dict[tuple[str, str], list[Span]] = defaultdict(list)
    for span in spans:
        lanes[span.queue, ""].append(span)
        lanes[span.queue, span.key].append(span)
    for (queue, key), found in sorted(lanes.items()):
        is_queue = key in ("", "*")
        limit = queues.get(queue) if is_queue else keys.get((queue, key), keys.get((queue, "")))
        if limit is None:
            continue
        most, at = peak(found, limit)
        if most > limit:
            where = f"queue {queue}" if is_queue else f"key {key} of queue {queue}"
            yield f"{what}: {where} had {most} of {limit} places at {at:.3f}"


def overfull_windows(what: str, starts: Iterable[tuple[float, int]], rate: float, burst: int) -> Iterator[str]:
    """Yield each start that did not fit into a bucket of `burst` that `rate` a second refill: some window had too many.

    `starts` are (moment, cost) in order.
    """
    full_at = 0.0
    for at, cost in starts:
        full_at = max(full_at, at) + min(cost, burst) / rate
        if full_at - at > burst / rate + CLOCK_SECONDS:
            yield f"{what}: {(full_at - at) * rate:.2f} of {burst} at {at:.3f}"
