"""Draw figures as a self-contained SVG: bars in panels, or lines over growing work; readable on dark and light.

It has its own background, presentation attributes only, no style or script, and a description in `<desc>`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Bar", "Chart", "Panel", "Series", "bars", "lines"]

WIDTH = 860.0
MARGIN = 24.0
PAPER, INK, SOFT, RULE = "#ffffff", "#1f2933", "#52606d", "#e4e7eb"
OURS, OTHERS, SPREAD = "#1d4ed8", "#9aa5b1", "#1f2933"
# Distinguishable for colour-blind people (Okabe and Ito); each line has its own mark and label.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
FONT = "ui-sans-serif, system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

LABELS = 150.0  # the width of a bar's label, and of the text behind it
TOLD = 150.0
BAR, BAR_GAP = 16.0, 6.0
PANEL_HEAD, PANEL_GAP = 40.0, 18.0

CHART_HEIGHT, AXIS = 190.0, 64.0
LEGEND = 190.0


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: its value, the lowest and the highest, and the text behind it."""

    label: str
    value: float
    low: float
    high: float
    text: str
    is_ours: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """Bars that are compared with one another."""

    title: str
    unit: str
    bars: Sequence[Bar]


@dataclass(frozen=True, slots=True)
class Series:
    """One line: points of (how much work, what it cost)."""

    label: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines over the same axes: `across` is what grows, by powers of ten, `unit` what is measured."""

    title: str
    across: str
    unit: str
    series: Sequence[Series]


def bars(title: str, subtitle: str, panels: Sequence[Panel]) -> str:
    """Return panels of horizontal bars, one below the other, each to a scale of its own.

    Path("speed.svg").write_text(bars("Speed", "medians", [Panel("drain", "jobs/s", [...])]))
    """
    parts, y = [], 70.0
    for panel in panels:
        parts += list(_panel(panel, y))
        y += PANEL_HEAD + len(panel.bars) * (BAR + BAR_GAP) + PANEL_GAP
    said = "; ".join(
        f"{panel.title} ({panel.unit}): " + ", ".join(f"{bar.label} {bar.text}" for bar in panel.bars)
        for panel in panels
    )
    return _document(title, subtitle, said, y, parts)


def _panel(panel: Panel, top: float) -> Iterator[str]:
    yield _text(MARGIN, top + 16, panel.title, size=14, weight=600)
    yield _text(MARGIN, top + 31, panel.unit, size=11, color=SOFT)
    room = WIDTH - 2 * MARGIN - LABELS - TOLD
    most = max((bar.high for bar in panel.bars), default=0.0) or 1.0
    left = MARGIN + LABELS
    for number, bar in enumerate(panel.bars):
        y = top + PANEL_HEAD + number * (BAR + BAR_GAP)
        width, low, high = (room * value / most for value in (bar.value, bar.low, bar.high))
        yield _text(left - 8, y + BAR - 4, bar.label, anchor="end", weight=600 if bar.is_ours else 400)
        yield (
            f'<rect x="{left:.1f}" y="{y:.1f}" width="{max(1.0, width):.1f}" height="{BAR:g}" rx="2" '
            f'fill="{OURS if bar.is_ours else OTHERS}"/>'
        )
        middle = y + BAR / 2
        if high - low >= 1:
            yield (
                f'<path d="M{left + low:.1f} {middle:.1f}H{left + high:.1f}" stroke="{SPREAD}" stroke-width="1.5" '
                'stroke-opacity="0.7"/>'
            )
        yield _text(left + max(width, high) + 8, y + BAR - 4, bar.text, weight=600 if bar.is_ours else 400)


def lines(title: str, subtitle: str, charts: Sequence[Chart]) -> str:
    """Return charts of lines, one below the other; both axes start at the lowest value, the first in powers."""
    parts, y = [], 70.0
    for chart in charts:
        parts += list(_chart(chart, y))
        y += PANEL_HEAD + CHART_HEIGHT + AXIS
    said = "; ".join(
        f"{chart.title} ({chart.unit}) by {chart.across}: "
        + ", ".join(
            f"{each.label} " + " ".join(f"{x:g}: {value:.3g}" for x, value in each.points) for each in chart.series
        )
        for chart in charts
    )
    return _document(title, subtitle, said, y, parts)


def _chart(chart: Chart, top: float) -> Iterator[str]:
    yield _text(MARGIN, top + 16, chart.title, size=14, weight=600)
    yield _text(MARGIN, top + 31, f"{chart.unit}, by {chart.across}", size=11, color=SOFT)
    left, right = MARGIN + 60, WIDTH - MARGIN - LEGEND
    floor = top + PANEL_HEAD + CHART_HEIGHT
    xs = sorted({x for each in chart.series for x, _ in each.points})
    steps = list(_ticks(max((value for each in chart.series for _, value in each.points), default=1.0)))
    spread = math.log10(max(xs, default=1.0) + 1) - math.log10(min(xs, default=1.0) + 1)

    def across(x: float) -> float:
        share = (math.log10(x + 1) - math.log10(xs[0] + 1)) / spread if spread else 0.5
        return left + share * (right - left)

    def up(value: float) -> float:
        return floor - value / steps[-1] * CHART_HEIGHT

    for step in steps:
        yield f'<path d="M{left:.1f} {up(step):.1f}H{right:.1f}" stroke="{RULE}"/>'
        yield _text(left - 8, up(step) + 4, f"{step:g}", anchor="end", size=11, color=SOFT)
    for x in xs:
        yield _text(across(x), floor + 16, _count(x), anchor="middle", size=11, color=SOFT)
    ends = _apart([up(each.points[-1][1]) for each in chart.series])
    for number, (each, end) in enumerate(zip(chart.series, ends, strict=True)):
        color = COLORS[number % len(COLORS)]
        way = "L".join(f"{across(x):.1f} {up(value):.1f}" for x, value in each.points)
        yield f'<path d="M{way}" fill="none" stroke="{color}" stroke-width="2"/>'
        for x, value in each.points:
            yield f'<circle cx="{across(x):.1f}" cy="{up(value):.1f}" r="3" fill="{color}"/>'
        yield _text(right + 12, end + 4, each.label, size=11, color=color, weight=600)


def _ticks(most: float) -> Iterator[float]:
    """Yield round numbers from 0 to the first one that is at least `most`."""
    most = most or 1.0
    power = 10 ** math.floor(math.log10(most / 4))
    size = next(factor * power for factor in (1, 2, 2.5, 5, 10, 20) if factor * power * 5 >= most)
    for number in range(math.ceil(most / size) + 1):
        yield round(number * size, 10)


def _apart(wanted: Sequence[float], least: float = 14.0) -> list[float]:
    """Return heights near the wanted ones, none too close to another."""
    placed: dict[int, float] = {}
    last = -math.inf
    for number in sorted(range(len(wanted)), key=lambda each: wanted[each]):
        last = placed[number] = max(wanted[number], last + least)
    return [placed[number] for number in range(len(wanted))]


def _count(number: float) -> str:
    for size, letter in ((1e6, " M"), (1e3, " k")):
        if number >= size:
            return f"{number / size:g}{letter}"
    return f"{number:g}"


def _document(title: str, subtitle: str, said: str, height: float, parts: Iterable[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:g} {height:g}" width="{WIDTH:g}" '
        f'height="{height:g}" role="img" font-family="{escape(FONT)}" font-size="12">'
    )
    frame = f'<rect width="{WIDTH:g}" height="{height:g}" rx="10" fill="{PAPER}" stroke="{RULE}"/>'
    heading = [_text(MARGIN, 34, title, size=18, weight=600), _text(MARGIN, 54, subtitle, color=SOFT)]
    text = [f"<title>{escape(title)}</title>", f"<desc>{escape(said)}</desc>"]
    return "\n".join([head, *text, frame, *heading, *parts, "</svg>"])


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", size: int = 12, color: str = INK, weight: int = 400
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" font-weight="{weight}" '
        f'fill="{color}">{escape(text)}</text>'
    )
