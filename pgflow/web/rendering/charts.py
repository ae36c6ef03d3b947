"""Small drawings: meters, sparklines, and plots with axes.

Presentation attributes and classes only, because the content security policy forbids styles. Where a drawing stretches
with its container, positions are percentages, so that strokes and text keep their size.
"""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup, escape

__all__ = ["axis_top", "bars", "day", "day_axis", "dots", "drawn", "meter", "number", "spark", "spark_bars"]

RUNS = 20  # ticks of `dots`


def number(value: float) -> str:
    """Return a coordinate with two digits at most."""
    return f"{round(value, 2):g}" if abs(value) < 1000 else f"{value:.1f}".removesuffix(".0")


def drawn(*parts: str) -> Markup:
    """Return elements that were made here, of numbers, fixed words and escaped text, as they are."""
    return Markup("".join(parts))  # noqa: S704 -- see above


def meter(parts: Sequence[tuple[str, float]], label: str) -> Markup:
    """Return a bar in segments; parts are (state, share of 1)."""
    x, out = 0.0, []
    for state, share in parts:
        if share > 0:
            width = number(100 * share)
            out.append(f'<rect class="s-{state}" x="{number(x)}%" width="{width}%" height="100%"/>')
            x += 100 * share
    return Markup('<svg class="meter" role="img" aria-label="{}">{}</svg>').format(label, drawn(*out))


def spark(values: Sequence[float], state: str = "", label: str = "") -> Markup:
    """Return a line over its area, without axes. The newest value is at the right edge."""
    values = list(values) if len(values) > 1 else [0.0, *values, 0.0][:2]
    top = max(values) or 1
    step = 100 / (len(values) - 1)
    points = [(i * step, 24 - 22 * value / top) for i, value in enumerate(values)]
    line = "M" + "L".join(f"{number(x)} {number(y)}" for x, y in points)
    return Markup(
        '<svg class="spark{}" viewBox="0 0 100 24" preserveAspectRatio="none" {}>'
        '<path class="a" d="{}L100 24L0 24Z"/><path class="l" d="{}"/></svg>'
    ).format(_css(state), _named(label), line, line)


def spark_bars(values: Sequence[float], state: str = "", label: str = "") -> Markup:
    """Return columns without axes, the newest at the right edge."""
    top = max(values, default=0) or 1
    width = 100 / max(1, len(values))
    out = []
    for i, value in enumerate(values):
        height = max(4.0, 100 * value / top)
        out.append(
            f'<rect x="{number(i * width)}%" y="{number(100 - height)}%" width="{number(width * 0.7)}%" '
            f'height="{number(height)}%" rx="1"/>'
        )
    return Markup('<svg class="spark{}" {}>{}</svg>').format(_css(state), _named(label), drawn(*out))


def dots(states: Sequence[str], label: str) -> Markup:
    """Return the results of the last runs as ticks, oldest first; failures are taller: colour is not the only sign."""
    out = []
    for i, state in enumerate(states[-RUNS:]):
        y, height = (0, 18) if state == "failed" else (5, 8)
        out.append(
            f'<rect class="s-{state}" x="{number(i * 100 / RUNS)}%" y="{y}" width="4.5" height="{height}" rx="1.5"/>'
        )
    return Markup('<svg class="dots" role="img" aria-label="{}">{}</svg>').format(label, drawn(*out))


def bars(
    series: Sequence[tuple[str, Sequence[float]]],
    top: float,
    ys: Sequence[str],
    xs: Sequence[str],
    label: str,
    tips: Sequence[str],
    *,
    small: bool = False,
) -> Markup:
    """Return stacked columns with axes.

    Series are (state, values), the first at the bottom: failures, so that they share a base line. The last series is
    the bulk: a soft column with a cap. `tips` are the titles of the columns.
    """
    many = len(series[0][1])
    width = 100 / many
    out = []
    for i in range(many):
        y = 100.0
        parts = []
        for state, values in series:
            height = 100 * min(1.0, values[i] / top)
            if height <= 0:
                continue
            y -= height
            place = f'x="{number(i * width)}%" y="{number(y)}%" width="{number(width * 0.76)}%"'
            is_soft = state == series[-1][0]
            css = "bar-soft" if is_soft else "bar"
            parts.append(f'<rect class="{css} s-{state}" {place} height="{number(height)}%"/>')
            if is_soft:
                parts.append(f'<rect class="bar s-{state}" {place} height="2"/>')
        out.append(Markup("<g><title>{}</title>{}</g>").format(tips[i], drawn(*parts)))
    return _frame(Markup("").join(out), ys, xs, label, small)


def _frame(inner: Markup, ys: Sequence[str], xs: Sequence[str], label: str, small: bool) -> Markup:
    lines = []
    for i in range(len(ys)):
        y = number(100 * i / (len(ys) - 1))
        lines.append(f'<line class="grid-line" x1="0" x2="100%" y1="{y}%" y2="{y}%"/>')
    return Markup(
        '<div class="plot{}"><div class="plot-y" aria-hidden="true">{}</div>'
        '<svg role="img" aria-label="{}">{}{}</svg><div class="plot-x" aria-hidden="true">{}</div></div>'
    ).format(" plot-s" if small else "", _spans(ys), label, drawn(*lines), inner, _spans(xs))


def axis_top(values: Sequence[float]) -> float:
    """Return a round number at or above all values, for the top of an axis.

    axis_top([0, 37])    # 40
    """
    highest = max(values, default=0)
    unit = 1.0
    while unit * 10 < highest:
        unit *= 10
    return next((unit * each for each in (1, 2, 4, 6, 8, 10) if unit * each >= highest), unit * 10)


def _spans(texts: Sequence[str]) -> Markup:
    return Markup("").join(Markup("<span>{}</span>").format(text) for text in texts)


def _css(state: str) -> Markup:
    return escape(f" s-{state}") if state else Markup("")


def _named(label: str) -> Markup:
    return Markup('role="img" aria-label="{}"').format(label) if label else Markup('aria-hidden="true"')


def day(shares: Sequence[float] | None, ticks: Sequence[tuple[float, str]]) -> Markup:
    """Return when something happens within a day, at `shares` of it; None for too often to distinguish: a band."""
    lines = [f'<line class="g" x1="{number(100 * x)}%" x2="{number(100 * x)}%" y1="0" y2="28"/>' for x, _ in ticks]
    if shares is None:
        marks = ['<rect class="q s-idle" width="100%" y="12" height="4" rx="2"/>']
    else:
        marks = [
            f'<rect class="b s-idle" x="{number(min(99.6, 100 * x))}%" y="8" width="4" height="12" rx="2"/>'
            for x in shares
        ]
    return drawn('<svg class="track" aria-hidden="true">', *lines, *marks, "</svg>")


def day_axis(ticks: Sequence[tuple[float, str]]) -> Markup:
    """Return the axis above rows of `day`; ticks are (share of the day, text)."""
    marks = Markup("").join(
        Markup('<line class="g" x1="{}%" x2="{}%" y1="0" y2="28"/><text x="{}%" dx="4" y="18">{}</text>').format(
            *(number(100 * x),) * 3, text
        )
        for x, text in ticks
    )
    return Markup('<svg class="track" aria-hidden="true">{}</svg>').format(marks)
