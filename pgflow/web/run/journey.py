"""Work out the state of each step and edge of a run from its definition, its results and its live jobs."""

from __future__ import annotations

import json
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pgflow.store.run_rows import LiveJob, Recorded, Run, failures
from pgflow.web.rendering.values import Value
from pgflow.web.rendering.words import duration
from pgflow.web.run.models import Edge, EdgeState, Failure, Span, Step, StepState

__all__ = ["Journey", "failure_of", "journey"]

SKIPPED = "skipped"  # the event of a step that has failed and whose policy is to go on
KNOWN = ("attempt", "type", "reason", "trace", "exhausted")  # of an error, and shown as such


@dataclass(frozen=True, slots=True)
class Journey:
    """Every step in the order in which it started, those that did not last; and every edge."""

    steps: tuple[Step, ...]
    edges: tuple[Edge, ...]


@dataclass(slots=True)
class _Known:
    """What is known about one step before its state is worked out."""

    key: str
    spec: Mapping[str, Any]
    result: Recorded | None = None
    job: LiveJob | None = None
    into: list[str] = field(default_factory=list)
    state: StepState = "idle"
    activated_at: datetime | None = None


def journey(
    run: Run,
    graph: Mapping[str, Any],
    results: Sequence[Recorded],
    jobs: Sequence[LiveJob],
    shown: Callable[[str | None, int | None], Value],
) -> Journey:
    """Return the journey of a run through `graph`, the JSON of its definition; `shown` is how its values may be shown.

    A step that the definition does not have, as a stored instance may have been changed by hand, is added to it.
    """
    known = {str(key): _Known(str(key), spec) for key, spec in graph.get("steps", {}).items()}
    for result in results:
        known.setdefault(result.step, _Known(result.step, {})).result = result
    for job in jobs:
        if job.step:
            known.setdefault(job.step, _Known(job.step, {})).job = job
    arrows = _arrows(graph, known)
    for source, target in arrows:
        known[target].into.append(source)
    states: dict[tuple[str, str], EdgeState] = {}
    for key in _in_order(known, arrows):
        _settle(known[key], run, known, arrows, states, is_initial=key == graph.get("initial"))
    critical = _critical(known, states)
    fans = Counter((source, event) for (source, _), events in arrows.items() for event in events)
    several = {key for key, each in known.items() if len(each.spec.get("events", ())) > 1}
    edges = tuple(
        Edge(
            source=source,
            target=target,
            events=tuple(events),
            label=", ".join(event for event in events if fans[source, event] == 1) if source in several else "",
            state=states[source, target],
            is_critical=(source, target) in critical,
        )
        for (source, target), events in arrows.items()
    )
    on_path = {key for pair in critical for key in pair}
    steps = [_step(each, run, shown, is_critical=each.key in on_path) for each in known.values()]
    far = datetime.max.replace(tzinfo=run.now.tzinfo)
    steps.sort(key=lambda each: (each.state == "skipped" and not each.started_at, each.activated_at or far))
    return Journey(tuple(steps), edges)


def _arrows(graph: Mapping[str, Any], known: Mapping[str, _Known]) -> dict[tuple[str, str], list[str]]:
    arrows: dict[tuple[str, str], list[str]] = {}
    for edge in graph.get("edges", ()):
        for target in edge["targets"]:
            if edge["from"] in known and target in known:
                arrows.setdefault((edge["from"], target), []).append(edge["event"])
    return arrows


def _in_order(known: Mapping[str, _Known], arrows: Mapping[tuple[str, str], Any]) -> list[str]:
    """Return the keys so that predecessors come first."""
    missing = {key: len(each.into) for key, each in known.items()}
    targets: dict[str, list[str]] = defaultdict(list)
    for source, target in arrows:
        targets[source].append(target)
    queue = deque(key for key, many in missing.items() if not many)
    order = []
    while queue:
        order.append(key := queue.popleft())
        for target in targets[key]:
            missing[target] -= 1
            if not missing[target]:
                queue.append(target)
    return order


def _settle(
    each: _Known,
    run: Run,
    known: Mapping[str, _Known],
    arrows: Mapping[tuple[str, str], Sequence[str]],
    states: dict[tuple[str, str], EdgeState],
    *,
    is_initial: bool,
) -> None:
    """Work out a step's state and those of the edges that lead to it, whose sources are known."""
    into = [(source, _edge_state(known[source], each, arrows[source, each.key])) for source in each.into]
    taken = [source for source, state in into if state == "taken"]
    is_dead = bool(into) and all(state == "dead" for _, state in into)
    is_resolved = not any(state == "open" for _, state in into)
    ends = [result.finished_at for source in taken if (result := known[source].result) is not None]
    if each.result is not None or each.job is not None or (taken and is_resolved) or is_initial:
        each.activated_at = max(ends, default=run.created_at)
    each.state = _state(each, run, is_dead=is_dead, is_reached=is_initial or (bool(taken) and is_resolved))
    for source, state in into:
        states[source, each.key] = "live" if state == "taken" and each.state == "running" else state


def _edge_state(source: _Known, target: _Known, events: Sequence[str]) -> EdgeState:
    if source.state == "skipped" and source.result is None:
        return "dead"
    if source.result is None or source.state == "failed":
        return "open"
    if source.result.targets is not None:  # a route has chosen, or a skipped step leads nowhere
        return "taken" if target.key in source.result.targets else "dead"
    return "taken" if source.result.event in events else "dead"


def _state(each: _Known, run: Run, *, is_dead: bool, is_reached: bool) -> StepState:
    if each.job is not None and (each.result is None or each.job.kind != "advance"):
        return _job_state(each.job)
    if each.result is not None:
        return "skipped" if each.result.event == SKIPPED and each.result.targets == () else "completed"
    if run.status == "failed" and each.key == _failed_step(run):
        return "failed"
    if is_dead:
        return "skipped"
    if is_reached and run.status in ("failed", "cancelled"):
        return "cancelled"
    if is_reached:
        return "completed" if run.status == "completed" else "ready"
    return "idle"


def _job_state(job: LiveJob) -> StepState:
    match job.state, job.kind:
        case "running", _:
            return "running"
        case "ready", _:
            return "ready"
        case "parked", "execute":
            return "held"
        case "parked", _:
            return "waiting"
    return "retrying" if job.errors is not None else "scheduled"


def _failed_step(run: Run) -> str | None:
    found = failures(f"[{run.error}]") if run.error is not None else []
    return str(found[0].get("step")) if found else None


def _step(each: _Known, run: Run, shown: Callable[[str | None, int | None], Value], *, is_critical: bool) -> Step:
    spec, result, job = each.spec, each.result, each.job
    failed = _failures(each, run, shown)
    attempt = job.attempt if job is not None else result.attempt if result is not None else len(failed)
    most = job.max_attempts if job is not None else int(spec.get("max_attempts", 0))
    is_wait = result is not None and result.worker is None and not failed
    started = result.started_at if result is not None else None
    step = Step(
        key=each.key,
        name=str(spec.get("name", each.key)),
        state=each.state,
        events=tuple(map(str, spec.get("events", ()))),
        signals=tuple(map(str, spec.get("signals", ()))),
        event=None if result is None else result.event,
        attempt=attempt,
        max_attempts=most,
        queue=job.queue if job is not None else spec.get("queue"),
        worker=(job.worker if job is not None else None) or (result.worker if result is not None else None),
        activated_at=each.activated_at,
        started_at=started,
        finished_at=None if result is None else result.finished_at,
        until=job.run_at if job is not None and each.state in ("waiting", "retrying", "scheduled") else None,
        awaits=_signals(job) if job is not None and each.state == "waiting" else (),
        progress=None if job is None else job.progress_at,
        note="" if job is None else job.progress_note,
        output=Value(state="absent") if result is None else shown(result.output, result.output_size),
        failures=failed,
        is_critical=is_critical,
    )
    updates = {"what": _what(step, run.now), "spans": _spans(step, job, run, is_wait=is_wait)}
    if attempt > 1 or (failed and job is not None):
        updates["pill"] = f"{attempt}/{most}" if most else str(attempt)
    return step.model_copy(update=updates)


def _signals(job: LiveJob) -> tuple[str, ...]:
    """Return the signals that people can send; the timer and an operator's completion are not among them."""
    is_timed = job.run_at is not None
    return tuple(name for name in job.awaits if not name.startswith("pgflow:") and not (is_timed and name == "timeout"))


def _failures(each: _Known, run: Run, shown: Callable[[str | None, int | None], Value]) -> tuple[Failure, ...]:
    texts = [each.job.errors] if each.job is not None else [each.result.errors] if each.result is not None else []
    found = [error for text in texts for error in failures(text)]
    if each.state == "failed" and run.error is not None:
        last = failures(f"[{run.error}]")[0]
        found = [*(part for part in last.pop("attempts", []) if isinstance(part, dict)), last]
    return tuple(failure_of(error, shown) for error in found)


def failure_of(error: Mapping[str, Any], shown: Callable[[str | None, int | None], Value]) -> Failure:
    """Return a stored error of an attempt as pages show it."""
    rest = {key: value for key, value in error.items() if key not in (*KNOWN, "step", "checkpoint")}
    attempt, trace = error.get("attempt"), error.get("trace")
    return Failure(
        attempt=attempt if isinstance(attempt, int) else None,
        type=str(error.get("type", "Error")),
        reason=str(error.get("reason", "")),
        trace=trace if isinstance(trace, str) else None,
        details=shown(json.dumps(rest, ensure_ascii=False), None) if rest else Value(state="absent"),
    )


def _what(step: Step, now: datetime) -> str:
    """Return the state in words, with its most useful time."""
    match step.state:
        case "completed" if step.finished_at is None:
            return "Completed"
        case "completed":
            wait = step.waited if step.worker is None else step.ran
            return f"Completed {duration(step.ran if step.worker is not None else wait or step.ran)}"
        case "running":
            return f"{step.progress:.0%} done" if step.progress is not None else "Running"
        case "waiting":
            since = step.activated_at
            return "Waiting" if since is None else f"Waiting {duration(now - since, 1)}"
        case "retrying":
            return (
                "Retry due" if step.until is None or step.until <= now else f"Retry in {duration(step.until - now, 1)}"
            )
        case "scheduled":
            return "Due" if step.until is None or step.until <= now else f"Starts in {duration(step.until - now, 1)}"
        case "held":
            return "Held, needs you"
        case "failed":
            return step.failures[-1].type if step.failures else "Failed"
    return {"ready": "Ready", "skipped": "Skipped", "cancelled": "Cancelled"}.get(step.state, "Not reached")


def _spans(step: Step, job: LiveJob | None, run: Run, *, is_wait: bool) -> tuple[Span, ...]:
    since, end = step.activated_at, run.finished_at or run.now
    if since is None:
        return ()
    if step.finished_at is not None and step.started_at is not None:
        ran = Span(
            kind="waited" if is_wait else "ran",
            state="waiting" if is_wait else "completed",
            since=step.started_at,
            until=step.finished_at,
        )
        if (step.started_at - since).total_seconds() < 0.001:
            return (ran,)
        before = "failed" if step.failures else "retrying"
        return (Span(kind="queued", state=before, since=since, until=step.started_at), ran)
    match step.state:
        case "waiting":
            parked = since if job is None or job.parked_at is None else job.parked_at
            return (Span(kind="waited", state="waiting", since=max(since, parked), until=end),)
        case "running":
            start = job.run_at if job is not None and job.run_at is not None and job.run_at <= end else since
            started = max(since, start)
            queued = (Span(kind="queued", state="retrying", since=since, until=started),) if started > since else ()
            return (*queued, Span(kind="ran", state="running", since=started, until=end))
        case "ready" | "retrying" | "scheduled" | "held" | "failed":
            state = "failed" if step.state in ("held", "failed") else "retrying"
            return (Span(kind="queued", state=state, since=since, until=end),)
    return ()


def _critical(known: Mapping[str, _Known], states: Mapping[tuple[str, str], EdgeState]) -> frozenset[tuple[str, str]]:
    """Return the edges of the chain that decided how long the run takes: back from what ended, or is alive, last."""
    live = [each for each in known.values() if each.job is not None]
    ended = [each for each in known.values() if each.result is not None]

    def end(each: _Known) -> float:
        return each.result.finished_at.timestamp() if each.result is not None else 0.0

    def since(each: _Known) -> float:
        return each.activated_at.timestamp() if each.activated_at is not None else 0.0

    at = min(live, key=since, default=None) if live else max(ended, key=end, default=None)
    found: list[tuple[str, str]] = []
    while at is not None:
        before = [known[key] for key in at.into if states[key, at.key] in ("taken", "live") and known[key].result]
        last = max(before, key=end, default=None)
        if last is not None:
            found.append((last.key, at.key))
        at = last
    return frozenset(found)
