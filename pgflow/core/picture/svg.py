"""Draw a workflow as an SVG that stands alone: boxes in layers, arrows with their events, readable on dark and light.

It has presentation attributes only, no style, script or id, so that a strict content security policy lets it pass and
several may stand on one page. Programs find the parts by class (`step`, `arrow`) and by `data-step`, `data-source` and
`data-target`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from html import escape
from unicodedata import east_asian_width

from pgflow.core.definition.graph import DONE
from pgflow.core.picture.layout import Layout, Place, Size, arrange
from pgflow.core.picture.outline import Arrow, Outline, Source, word

__all__ = ["svg"]

MARGIN = 16.0
STEP_HEIGHT = 38.0
STEP_LETTER = 7.6  # how broad one is, about, with room to spare: the font is the reader's
LABEL_LETTER = 6.6
LABEL_LINE = 15.0
PASS = 26.0  # between ranks
HEAD = 8.0  # of an arrow
JOG = 4.0  # a bend too slight to be drawn
PORT = 16.0  # between arrows at a step, at most

# Boxes bring their own background, and the strokes between them are of a middle grey: any page will do.
INK, LINE = "#1f2933", "#7b8794"
PLAIN, FIRST, LAST = ("#eef2f7", "#8795a6"), ("#dbeafe", "#3b82f6"), ("#dcfce7", "#22a35a")
LABEL, ROUTED = "#ffffff", "#b7791f"
FONT = "ui-sans-serif, system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def svg(source: Source) -> str:
    """Return an SVG document, without a last line break. Raises `DefinitionError` for stored data without sense.

    The initial step is blue, Done is green; arrows are dashed when a route decides whether they are taken.

        Path("order-flow.svg").write_text(svg(OrderFlow.graph))
    """
    outline = Outline.of(source)
    sides = Counter(
        [*(("in", arrow.target) for arrow in outline.arrows), *(("out", arrow.source) for arrow in outline.arrows)]
    )
    layout = arrange(outline, lambda step: _step_size(step, max(sides["in", step], sides["out", step])), _label_size)
    tops = _tops(layout)
    places = [place for rank in layout.ranks for place in rank]
    width = max(place.x + place.width / 2 for place in places) + 2 * MARGIN
    height = tops[-1] + max(place.height for place in layout.ranks[-1]) + MARGIN
    ports = _ports(layout)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" role="img" font-family="{escape(FONT)}" font-size="13" text-anchor="middle">'
    )
    lines = [head, f"<title>{_text(f'{outline.name} version {outline.version}')}</title>"]
    for arrow, way in layout.ways.items():
        lines += _arrow(arrow, way, ports, tops)
    for arrow, way in layout.ways.items():
        lines += _label(arrow, way[1], tops)
    for step, place in layout.steps.items():
        lines += _step(outline, step, place, tops)
    return "\n".join([*lines, "</svg>"])


def _step_size(step: str, arrows: int) -> Size:
    return max(64.0, _length(word(step)) * STEP_LETTER + 28, (arrows - 1) * HEAD + 28), STEP_HEIGHT


def _label_size(arrow: Arrow) -> Size:
    return max(map(_length, arrow.labels)) * LABEL_LETTER + 14, len(arrow.labels) * LABEL_LINE + 4


def _length(text: str) -> int:
    return sum(2 if east_asian_width(letter) in "WF" else 1 for letter in text)


def _tops(layout: Layout) -> list[float]:
    """Return where each rank begins."""
    tops = [MARGIN]
    for rank in layout.ranks[:-1]:
        tops.append(tops[-1] + max(place.height for place in rank) + PASS)
    return tops


def _ports(layout: Layout) -> dict[tuple[int, int], float]:
    """Return where each piece of an arrow touches a step: side by side, in the order of what they lead to."""
    ports = {}
    for step in layout.steps.values():
        for near in (step.above, step.below):
            spread = min(PORT, (step.width - 28) / max(1, len(near) - 1))
            first = step.x - spread * (len(near) - 1) / 2
            for number, each in enumerate(sorted(near, key=lambda place: place.x)):
                ports[id(step), id(each)] = first + number * spread
    return ports


def _arrow(
    arrow: Arrow, way: Sequence[Place], ports: dict[tuple[int, int], float], tops: Sequence[float]
) -> Iterator[str]:
    """Draw an arrow: down through the ranks that it passes, and over to its next place between two of them."""
    start, end = way[0], way[-1]
    x, y = ports[id(start), id(way[1])], tops[start.rank] + start.height
    path = [f"M{x + MARGIN:.1f} {y:.1f}"]
    for place in way[1:]:
        top = tops[place.rank]
        is_end = place is end
        next_x = ports[id(end), id(way[-2])] if is_end else place.x
        next_y = top - HEAD + 1 if is_end else top
        if abs(next_x - x) < JOG:
            next_x = x
        floor = top - PASS
        if floor > y:
            path.append(f"V{floor:.1f}")
        if next_x == x:
            path.append(f"V{next_y:.1f}")
        else:
            middle = (floor + next_y) / 2
            path.append(
                f"C{x + MARGIN:.1f} {middle:.1f} {next_x + MARGIN:.1f} {middle:.1f} {next_x + MARGIN:.1f} {next_y:.1f}"
            )
        x, y = next_x, next_y
    color = ROUTED if arrow.is_dynamic else LINE
    dashes = ' stroke-dasharray="5 4"' if arrow.is_dynamic else ""
    tip = tops[end.rank]
    left, right = x + MARGIN - HEAD / 2, x + MARGIN + HEAD / 2
    yield f'<g class="arrow" data-source="{_text(arrow.source)}" data-target="{_text(arrow.target)}">'
    yield f'<path d="{"".join(path)}" fill="none" stroke="{color}" stroke-width="1.5"{dashes}/>'
    yield f'<path d="M{left:.1f} {tip - HEAD:.1f}H{right:.1f}L{x + MARGIN:.1f} {tip:.1f}Z" fill="{color}"/>'
    yield "</g>"


def _label(arrow: Arrow, place: Place, tops: Sequence[float]) -> Iterator[str]:
    x, top = place.x + MARGIN, tops[place.rank]
    color = ROUTED if arrow.is_dynamic else LINE
    yield (
        f'<rect x="{x - place.width / 2:.1f}" y="{top:.1f}" width="{place.width:.1f}" height="{place.height:.1f}" '
        f'rx="7" fill="{LABEL}" stroke="{color}" stroke-width="0.75"/>'
    )
    for number, label in enumerate(arrow.labels):
        y = top + (number + 1) * LABEL_LINE - 2
        yield f'<text x="{x:.1f}" y="{y:.1f}" font-size="11" fill="{INK}">{_text(label)}</text>'


def _step(outline: Outline, step: str, place: Place, tops: Sequence[float]) -> Iterator[str]:
    x, top = place.x + MARGIN, tops[place.rank]
    is_first, is_last = step == outline.initial, step == DONE
    fill, stroke = FIRST if is_first else LAST if is_last else PLAIN
    corner = STEP_HEIGHT / 2 if is_last else 8
    yield f'<g class="step" data-step="{_text(step)}">'
    yield (
        f'<rect x="{x - place.width / 2:.1f}" y="{top:.1f}" width="{place.width:.1f}" height="{place.height:.1f}" '
        f'rx="{corner:g}" fill="{fill}" stroke="{stroke}" stroke-width="{2 if is_first or is_last else 1.25:g}"/>'
    )
    weight = ' font-weight="600"' if is_first or is_last else ""
    yield f'<text x="{x:.1f}" y="{top + STEP_HEIGHT / 2 + 4.5:.1f}" fill="{INK}"{weight}>{_text(word(step))}</text>'
    yield "</g>"


def _text(text: str) -> str:
    """Escape for XML, which cannot hold control characters at all."""
    return escape("".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text))
