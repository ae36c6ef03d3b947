"""Draw a workflow as a standalone SVG: boxes in layers, arrows with their events, readable on dark and light pages.

It uses only presentation attributes, no style, script or id, so that a strict content security policy allows it and a
page can contain several. Programs find the parts by class (`step`, `arrow`) and by `data-step`, `data-source` and
`data-target`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from html import escape
from unicodedata import east_asian_width

from pgflow.core.definition.graph import DONE
from pgflow.core.picture.layout import Layout, Size, Vertex, arrange
from pgflow.core.picture.outline import Arrow, Outline, Source, quoted

__all__ = ["svg"]

MARGIN = 16.0
STEP_HEIGHT = 38.0
STEP_CHAR_WIDTH = 7.6  # an estimate with a margin: the font is the reader's
LABEL_CHAR_WIDTH = 6.6
LABEL_LINE = 15.0
RANK_GAP = 26.0
ARROW_HEAD = 8.0
MIN_BEND = 4.0  # smaller bends are drawn as straight lines
MAX_PORT_GAP = 16.0  # between the arrows at a step

# Boxes have their own background, and strokes are a medium grey, so the picture fits dark and light pages.
INK, LINE = "#1f2933", "#7b8794"
PLAIN, FIRST, LAST = ("#eef2f7", "#8795a6"), ("#dbeafe", "#3b82f6"), ("#dcfce7", "#22a35a")
LABEL, ROUTED = "#ffffff", "#b7791f"
FONT = "ui-sans-serif, system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def svg(source: Source) -> str:
    """Return an SVG document, without a trailing newline. Raises `DefinitionError` for invalid stored data.

    The initial step is blue, Done is green; arrows are dashed if a route decides whether they are taken.

        Path("order-flow.svg").write_text(svg(OrderFlow.graph))
    """
    outline = Outline.of(source)
    sides = Counter(
        [*(("in", arrow.target) for arrow in outline.arrows), *(("out", arrow.source) for arrow in outline.arrows)]
    )
    layout = arrange(outline, lambda step: _step_size(step, max(sides["in", step], sides["out", step])), _label_size)
    tops = _tops(layout)
    vertices = [vertex for rank in layout.ranks for vertex in rank]
    width = max(vertex.x + vertex.width / 2 for vertex in vertices) + 2 * MARGIN
    height = tops[-1] + max(vertex.height for vertex in layout.ranks[-1]) + MARGIN
    ports = _ports(layout)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" role="img" font-family="{escape(FONT)}" font-size="13" text-anchor="middle">'
    )
    lines = [head, f"<title>{_text(f'{outline.name} version {outline.version}')}</title>"]
    for arrow, path in layout.paths.items():
        lines += _arrow(arrow, path, ports, tops)
    for arrow, path in layout.paths.items():
        lines += _label(arrow, path[1], tops)
    for step, vertex in layout.steps.items():
        lines += _step(outline, step, vertex, tops)
    return "\n".join([*lines, "</svg>"])


def _step_size(step: str, arrows: int) -> Size:
    return max(64.0, _length(quoted(step)) * STEP_CHAR_WIDTH + 28, (arrows - 1) * ARROW_HEAD + 28), STEP_HEIGHT


def _label_size(arrow: Arrow) -> Size:
    return max(map(_length, arrow.labels)) * LABEL_CHAR_WIDTH + 14, len(arrow.labels) * LABEL_LINE + 4


def _length(text: str) -> int:
    """Return the width of text in characters; East Asian wide characters count twice."""
    return sum(2 if east_asian_width(letter) in "WF" else 1 for letter in text)


def _tops(layout: Layout) -> list[float]:
    """Return the y coordinate of the top of each rank."""
    tops = [MARGIN]
    for rank in layout.ranks[:-1]:
        tops.append(tops[-1] + max(vertex.height for vertex in rank) + RANK_GAP)
    return tops


def _ports(layout: Layout) -> dict[tuple[int, int], float]:
    """Return the x coordinate at which each arrow touches a step: side by side, ordered by their other ends."""
    ports = {}
    for step in layout.steps.values():
        for neighbours in (step.above, step.below):
            gap = min(MAX_PORT_GAP, (step.width - 28) / max(1, len(neighbours) - 1))
            first = step.x - gap * (len(neighbours) - 1) / 2
            for number, each in enumerate(sorted(neighbours, key=lambda vertex: vertex.x)):
                ports[id(step), id(each)] = first + number * gap
    return ports


def _arrow(
    arrow: Arrow, path: Sequence[Vertex], ports: dict[tuple[int, int], float], tops: Sequence[float]
) -> Iterator[str]:
    """Draw an arrow: straight down through the ranks on its path, in a curve to the next vertex between them."""
    start, end = path[0], path[-1]
    x, y = ports[id(start), id(path[1])], tops[start.rank] + start.height
    strokes = [f"M{x + MARGIN:.1f} {y:.1f}"]
    for vertex in path[1:]:
        top = tops[vertex.rank]
        is_end = vertex is end
        next_x = ports[id(end), id(path[-2])] if is_end else vertex.x
        next_y = top - ARROW_HEAD + 1 if is_end else top
        if abs(next_x - x) < MIN_BEND:
            next_x = x
        gap_top = top - RANK_GAP
        if gap_top > y:
            strokes.append(f"V{gap_top:.1f}")
        if next_x == x:
            strokes.append(f"V{next_y:.1f}")
        else:
            middle = (gap_top + next_y) / 2
            strokes.append(
                f"C{x + MARGIN:.1f} {middle:.1f} {next_x + MARGIN:.1f} {middle:.1f} {next_x + MARGIN:.1f} {next_y:.1f}"
            )
        x, y = next_x, next_y
    color = ROUTED if arrow.is_dynamic else LINE
    dashes = ' stroke-dasharray="5 4"' if arrow.is_dynamic else ""
    tip = tops[end.rank]
    left, right = x + MARGIN - ARROW_HEAD / 2, x + MARGIN + ARROW_HEAD / 2
    yield f'<g class="arrow" data-source="{_text(arrow.source)}" data-target="{_text(arrow.target)}">'
    yield f'<path d="{"".join(strokes)}" fill="none" stroke="{color}" stroke-width="1.5"{dashes}/>'
    yield f'<path d="M{left:.1f} {tip - ARROW_HEAD:.1f}H{right:.1f}L{x + MARGIN:.1f} {tip:.1f}Z" fill="{color}"/>'
    yield "</g>"


def _label(arrow: Arrow, vertex: Vertex, tops: Sequence[float]) -> Iterator[str]:
    x, top = vertex.x + MARGIN, tops[vertex.rank]
    color = ROUTED if arrow.is_dynamic else LINE
    yield (
        f'<rect x="{x - vertex.width / 2:.1f}" y="{top:.1f}" width="{vertex.width:.1f}" height="{vertex.height:.1f}" '
        f'rx="7" fill="{LABEL}" stroke="{color}" stroke-width="0.75"/>'
    )
    for number, label in enumerate(arrow.labels):
        y = top + (number + 1) * LABEL_LINE - 2
        yield f'<text x="{x:.1f}" y="{y:.1f}" font-size="11" fill="{INK}">{_text(label)}</text>'


def _step(outline: Outline, step: str, vertex: Vertex, tops: Sequence[float]) -> Iterator[str]:
    x, top = vertex.x + MARGIN, tops[vertex.rank]
    is_first, is_last = step == outline.initial, step == DONE
    fill, stroke = FIRST if is_first else LAST if is_last else PLAIN
    corner = STEP_HEIGHT / 2 if is_last else 8
    yield f'<g class="step" data-step="{_text(step)}">'
    yield (
        f'<rect x="{x - vertex.width / 2:.1f}" y="{top:.1f}" width="{vertex.width:.1f}" height="{vertex.height:.1f}" '
        f'rx="{corner:g}" fill="{fill}" stroke="{stroke}" stroke-width="{2 if is_first or is_last else 1.25:g}"/>'
    )
    weight = ' font-weight="600"' if is_first or is_last else ""
    yield f'<text x="{x:.1f}" y="{top + STEP_HEIGHT / 2 + 4.5:.1f}" fill="{INK}"{weight}>{_text(quoted(step))}</text>'
    yield "</g>"


def _text(text: str) -> str:
    """Escape for XML, which cannot represent control characters."""
    return escape("".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text))
