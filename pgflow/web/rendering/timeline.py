"""Draw the timeline of a run: one row per step, positions in percent, long spans in which nothing ran folded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, Protocol

from markupsafe import Markup

from pgflow.web.rendering.charts import drawn, number
from pgflow.web.rendering.words import clock, duration

__all__ = ["Axis", "Span", "Timeline", "folds", "timeline"]

FOLD_WIDTH = 10.0  # percent
FOLD_SHARE = 0.2  # of all that is not idle: a longer idle span is folded
MAX_FOLDS = 4
STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 43_200, 86_400, 604_800)
TICKS = 8
LAST_TICK = 86  # percent: the end of the axis has a text of its own
HEIGHT = 28
SHAPES = {"ran": ("b", 12), "waited": ("w", 12), "queued": ("q", 4)}


class Span(Protocol):
    """What a step did from `since` to `until`; `title` describes it."""

    @property
    def kind(self) -> Literal["ran", "waited", "queued"]: ...
    @property
    def state(self) -> str: ...
    @property
    def since(self) -> datetime: ...
    @property
    def until(self) -> datetime: ...


@dataclass(frozen=True, slots=True)
class Axis:
    """Seconds since the start to percent, with idle spans folded to a fixed width."""

    end: float
    folds: Sequence[tuple[float, float]]

    def __call__(self, seconds: float) -> float:
        """Return where an instant is."""
        idle = sum(until - since for since, until in self.folds)
        scale = (100 - FOLD_WIDTH * len(self.folds)) / max(self.end - idle, 0.001)
        x = at = 0.0
        for since, until in self.folds:
            if seconds <= since:
                break
            x += (since - at) * scale
            if seconds < until:
                return x + FOLD_WIDTH * (seconds - since) / (until - since)
            x += FOLD_WIDTH
            at = until
        return min(100.0, x + (seconds - at) * scale)


def folds(busy: Sequence[tuple[float, float]], end: float) -> list[tuple[float, float]]:
    """Return the longest spans of 0 to `end` outside all `busy` ones, each over a fifth of what is not folded."""
    idle, at = [], 0.0
    for since, until in sorted(busy):
        if since > at:
            idle.append((at, since))
        at = max(at, until)
    if end > at:
        idle.append((at, end))
    idle.sort(key=lambda each: each[0] - each[1])
    rest, chosen = end, []
    for since, until in idle[:MAX_FOLDS]:
        length = until - since
        if length <= FOLD_SHARE * max(rest - length, 0.001) or length < 1:
            break
        margin = 0.02 * max(rest - length, 0.1)  # so that what ends at the fold is not cut
        chosen.append((since + margin, until - margin))
        rest -= length
    return sorted(chosen)


@dataclass(frozen=True, slots=True)
class Timeline:
    """The drawings: `axis`, and one of each row."""

    axis: Markup
    rows: Sequence[Markup]


def timeline(rows: Sequence[Sequence[Span]], since: datetime, until: datetime, *, is_over: bool) -> Timeline:
    """Draw rows of spans between two times; `is_over` is whether the run has ended, otherwise `until` is now."""
    end = max((until - since).total_seconds(), 0.001)

    def at(time: datetime) -> float:
        return min(end, max(0.0, (time - since).total_seconds()))

    busy = [(at(span.since), at(span.until)) for row in rows for span in row if span.kind == "ran"]
    axis = Axis(end, folds(busy, end))
    ticks = _ticks(axis, since)
    ground = _ground(axis, [tick for tick, _ in ticks])
    now = "" if is_over else f'<line class="now" x1="100%" x2="100%" y1="0" y2="{HEIGHT}"/>'
    return Timeline(_axis_row(axis, ticks, ground, until, is_over), [_row(axis, row, at, ground, now) for row in rows])


def _ticks(axis: Axis, since: datetime) -> list[tuple[float, str]]:
    shown = axis.end - sum(until - since for since, until in axis.folds)
    step = next((float(each) for each in STEPS if shown / each <= TICKS), shown / TICKS)
    if shown < TICKS / 2:
        step = shown / TICKS
    found = [(0.0, clock(since))]
    tick, last = step, 0.0
    while tick < axis.end and len(found) < 3 * TICKS:
        fold = next((fold for fold in axis.folds if fold[0] <= tick <= fold[1]), None)
        if fold is not None:  # go on behind the fold, with the time of day
            if axis(fold[1]) < LAST_TICK:
                found.append((fold[1], clock(since + timedelta(seconds=fold[1]))))
            tick = last = fold[1]
        elif axis(tick) - axis(last) >= 3 and axis(tick) < LAST_TICK:
            found.append((tick, f"+{duration(tick)}" if not axis.folds or tick < axis.folds[0][0] else ""))
            last = tick
        tick += step
    return found


def _ground(axis: Axis, ticks: Sequence[float]) -> str:
    out = []
    for tick in ticks:
        x = number(axis(tick))
        out.append(f'<line class="g" x1="{x}%" x2="{x}%" y1="0" y2="{HEIGHT}"/>')
    for since, until in axis.folds:
        left, right = axis(since), axis(until)
        out.append(f'<rect class="fold" x="{number(left)}%" width="{number(right - left)}%" height="{HEIGHT}"/>')
        edges = (number(left), number(right))
        out += [f'<line class="fold-edge" x1="{x}%" x2="{x}%" y1="0" y2="{HEIGHT}"/>' for x in edges]
    return "".join(out)


def _axis_row(axis: Axis, ticks: Sequence[tuple[float, str]], ground: str, until: datetime, is_over: bool) -> Markup:
    texts = []
    for tick, text in ticks:
        x = axis(tick)
        is_under_fold = any(x < axis(since) < x + 10 for since, _ in axis.folds)
        if text and not (is_under_fold and tick == 0):
            minor = "" if tick == 0 else ' class="minor"'
            texts.append(f'<text{minor} x="{number(x)}%" y="18" dx="4">{text}</text>')
    for since, end in axis.folds:
        middle = number((axis(since) + axis(end)) / 2)
        words = duration(end - since).split(" ")
        texts.append(f'<text x="{middle}%" y="18" text-anchor="middle">{" ".join(words[:2])} folded</text>')
    last = clock(until) if is_over else f"now {clock(until)}"
    texts.append(f'<text x="100%" y="18" text-anchor="end" dx="-4">{last}</text>')
    return drawn('<svg class="track" aria-hidden="true">', ground, *texts, "</svg>")


def _row(axis: Axis, row: Sequence[Span], at: Callable[[datetime], float], ground: str, now: str) -> Markup:
    bars = Markup("")
    for span in row:
        css, height = SHAPES[span.kind]
        x = axis(at(span.since))
        width = max(axis(at(span.until)) - x, 0.45)
        bars += Markup(
            '<rect class="{} s-{}" x="{}%" y="50%" width="{}%" height="{}" rx="{}" transform="translate(0 -{})">'
            "<title>{}</title></rect>"
        ).format(
            *(css, span.state, number(min(x, 99.55)), number(width), height, min(3, height // 2), height // 2),
            f"{'ran' if span.kind == 'ran' else span.kind} {duration(span.until - span.since)}",
        )
    return Markup('<svg class="track" aria-hidden="true">{}{}{}</svg>').format(drawn(ground), bars, drawn(now))
