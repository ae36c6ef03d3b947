"""Why each live branch of a run waits, in one sentence each, the one that needs a decision first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from pgflow.store.run_rows import LiveJob
from pgflow.web.rendering.words import clock, duration, exact
from pgflow.web.run.models import Edge, Part, Reason, Step

__all__ = ["reasons"]

ORDER = ("held", "failed", "waiting", "retrying", "ready", "scheduled", "running", "idle")
MOST = 20


def reasons(steps: Sequence[Step], edges: Sequence[Edge], jobs: Sequence[LiveJob], now: datetime) -> list[Reason]:
    """Return why each live branch waits, and for which branches a join still waits."""
    by_step = {job.step: job for job in jobs}
    found = [
        reason
        for step in steps
        if (reason := _reason(step, by_step.get(step.key), now) or _join(step, steps, edges)) is not None
    ]
    found.sort(key=lambda each: ORDER.index(each.state) if each.state in ORDER else len(ORDER))
    return found[:MOST]


def _reason(step: Step, job: LiveJob | None, now: datetime) -> Reason | None:
    match step.state:
        case "held":
            tried = f" failed {step.attempt} of {step.max_attempts} attempts. Retry, complete or fail it to continue."
            return _of(step, [Part(text=tried)], "step.retry", "step.complete", "step.fail")
        case "waiting":
            return _waiting(step, now)
        case "retrying":
            coming = f" is backing off: attempt {step.attempt + 1} of {step.max_attempts} "
            return _of(step, [Part(text=coming), *_starts(step.until, now)], "step.run-now")
        case "scheduled":
            return _of(step, [Part(text=" is scheduled: it "), *_starts(step.until, now)], "step.run-now")
        case "running":
            done = f": {step.progress:.0%} done" if step.progress is not None else ""
            note = f" ({step.note})" if step.note else ""
            on = f" on {step.worker}" if step.worker else ""
            return _of(step, [Part(text=f" is running{on}{done}{note}.")])
        case "ready" if job is not None:
            return _of(step, [Part(text=" is ready; "), *_ready(job)])
    return None


def _of(step: Step, parts: Sequence[Part], *actions: str, signal: str | None = None) -> Reason:
    whole = (Part(text=step.key, kind="step"), *parts)
    message = "".join(each.text for each in whole)
    return Reason(state=step.state, step=step.key, message=message, parts=whole, actions=actions, signal=signal)


def _waiting(step: Step, now: datetime) -> Reason:
    signals = step.awaits
    timer = [Part(text=clock(step.until), kind="time", at=step.until)] if step.until is not None else []
    actions = ("instance.signal",) if signals else ()
    if timer:
        actions = (*actions, "step.run-now")
    if not signals:
        left = f", in {duration(step.until - now)}." if step.until is not None and step.until > now else "."
        return _of(step, [Part(text=" waits until "), *timer, Part(text=left)], *actions)
    named = list(_listed(signals))
    word = " waits for the signal " if len(signals) == 1 else " waits for one of the signals "
    end = [Part(text=". It times out at "), *timer, Part(text=".")] if timer else [Part(text=".")]
    return _of(step, [Part(text=word), *named, *end], *actions, signal=signals[0])


def _listed(names: Sequence[str]) -> Iterator[Part]:
    for number, name in enumerate(names):
        if number:
            yield Part(text=", " if number < len(names) - 1 else " or ")
        yield Part(text=name, kind="name")


def _starts(at: datetime | None, now: datetime) -> Iterator[Part]:
    if at is None or at <= now:
        yield Part(text="is due.")
    else:
        yield Part(text="starts in ")
        yield Part(text=duration(at - now), kind="time", at=at)
        yield Part(text=".")


def _ready(job: LiveJob) -> Iterator[Part]:
    queue = Part(text=job.queue, kind="queue")
    if job.paused_at is not None:
        by = f" by {job.paused_by}" if job.paused_by else ""
        yield from (Part(text="queue "), queue, Part(text=f" is paused since {exact(job.paused_at)}{by}."))
    elif not job.workers:
        yield from (Part(text="no worker serves queue "), queue, Part(text="."))
    elif job.is_limited and (job.concurrency or job.key_concurrency):
        limit = f"allows {job.concurrency} at a time" if job.concurrency else f"allows {job.key_concurrency} per key"
        key = f", key {job.key}" if job.key and job.key != "*" else ""
        yield from (Part(text="the limit of queue "), queue, Part(text=f" {limit}{key}."))
    else:
        many = "1 worker serves" if job.workers == 1 else f"{job.workers} workers serve"
        yield from (Part(text=f"{many} queue "), queue, Part(text=" and will claim it."))


def _join(step: Step, steps: Sequence[Step], edges: Sequence[Edge]) -> Reason | None:
    """Return why a join has not started: one of its branches is resolved, and not all of them are."""
    if step.state != "idle":
        return None
    into = [edge for edge in edges if edge.target == step.key]
    resolved = [edge for edge in into if edge.state in ("taken", "dead")]
    if len(into) < 2 or not any(edge.state == "taken" for edge in into) or len(resolved) == len(into):
        return None
    states: Mapping[str, str] = {each.key: each.state for each in steps}
    missing = [edge.source for edge in into if edge.state == "open" and states[edge.source] != "skipped"]
    text = f" joins {len(into)} branches, {len(resolved)} resolved; it needs "
    parts = [Part(text=text)]
    for number, key in enumerate(missing[:3]):
        parts += [Part(text=", ")] if number else []
        parts.append(Part(text=key, kind="step"))
    more = len(missing) - 3
    return _of(step, [*parts, Part(text=f" and {more} more." if more > 0 else ".")])
