"""Draw a graph of steps as SVG: of one run, or of a workflow with the instances that are at each step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from markupsafe import Markup, escape

from pgflow.web.rendering.charts import drawn, number
from pgflow.web.rendering.layout import NODE_HEIGHT, Layout, arrange
from pgflow.web.rendering.states import STATES

__all__ = ["GraphEdge", "GraphNode", "graph"]

WIDTH = 136.0
GAP = 28  # between ranks; wider where an edge has a label
LABEL_GAP = 22
LETTER = 5.7  # of a label, on average
NAME_LETTERS = 15
LABEL_LETTERS = 24
TOP = 10.0
NATURAL, SHRINKING = 880, 1200  # up to these widths: drawn as it is; shrinks to fit


class GraphNode(Protocol):
    """A step: `what` is the line below its name, `pill` a remark on its corner, such as "2/8" for attempts."""

    @property
    def key(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def what(self) -> str: ...
    @property
    def pill(self) -> str: ...


class GraphEdge(Protocol):
    """A transition; "live" leads to a step that runs, "dead" was not taken, "open" is not decided."""

    @property
    def source(self) -> str: ...
    @property
    def target(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def state(self) -> Literal["taken", "live", "dead", "open"]: ...
    @property
    def is_critical(self) -> bool: ...


def graph(
    nodes: Sequence[GraphNode],
    edges: Sequence[GraphEdge],
    link: Callable[[str], str],
    label: str,
    current: str | None = None,
) -> Markup:
    """Return the drawing; `link` makes the URL of a step by its key, `current` is the one that is selected."""
    layout = arrange([node.key for node in nodes], [(edge.source, edge.target) for edge in edges])
    left = _columns(layout, edges)
    width = max(left.values(), default=0.0) + WIDTH + 2
    height = layout.height + TOP + 12
    css = "graph-s" if width < NATURAL else "graph-m" if width < SHRINKING else "graph-l"
    lines, labels = [], []
    for edge, chain in zip(edges, layout.chains, strict=True):
        line, text = _edge(edge, chain, layout, left)
        lines.append(line)
        labels.append(text)
    boxes = [_node(node, left[layout.rank[node.key]], layout.y[node.key], link, node.key == current) for node in nodes]
    return Markup(
        '<svg class="{}" width="{}" height="{}" viewBox="0 0 {} {}" role="group" aria-label="{}">'
        "<g>{}</g><g>{}</g>{}</svg>"
    ).format(
        css,
        *(number(width), number(height), number(width), number(height)),
        label,
        *(drawn(*lines), drawn(*labels), drawn(*boxes)),
    )


def _columns(layout: Layout, edges: Sequence[GraphEdge]) -> dict[int, float]:
    ranks = max(layout.rank.values(), default=-1) + 1
    gap = dict.fromkeys(range(ranks), GAP)
    for edge in edges:
        if edge.label:
            before = layout.rank[edge.target] - 1
            gap[before] = max(gap[before], LABEL_GAP + round(LETTER * len(_cut(edge.label, LABEL_LETTERS))))
    left, at = {}, 1.0
    for rank in range(ranks):
        left[rank] = at
        at += WIDTH + gap[rank]
    return left


def _edge(edge: GraphEdge, chain: Sequence[str], layout: Layout, left: dict[int, float]) -> tuple[str, str]:
    start = (left[layout.rank[edge.source]] + WIDTH, layout.y[edge.source] + TOP)
    end = (left[layout.rank[edge.target]] - 6, layout.y[edge.target] + TOP)
    points = [start, *((left[layout.rank[each]], layout.y[each] + TOP) for each in chain), end]
    path = f"M{number(start[0])} {number(start[1])}"
    x, y = start
    for i, (to_x, to_y) in enumerate(points[1:], 1):
        middle = number((x + to_x) / 2)
        path += f"C{middle} {number(y)} {middle} {number(to_y)} {number(to_x)} {number(to_y)}"
        x, y = to_x, to_y
        if i < len(points) - 1:  # straight past the nodes of this rank
            x += WIDTH
            path += f"H{number(x)}"
    css = f"edge edge-{edge.state}" + (" edge-critical" if edge.is_critical else "")
    tip = "tip" + (f" tip-{edge.state}" if edge.state in ("taken", "live") else "")
    tip += " tip-critical" if edge.is_critical else ""
    line = (
        f'<path class="{css}" d="{path}"/><path class="{tip}" d="M{number(end[0] + 6)} {number(end[1])}l-6 -3.5v7z"/>'
    )
    if not edge.label:
        return line, ""
    dead = " dead" if edge.state in ("dead", "open") else ""
    at_x, at_y = (start[0] + points[1][0]) / 2, (start[1] + points[1][1]) / 2 + 3.5
    text = escape(_cut(edge.label, LABEL_LETTERS))
    return (
        line,
        f'<text class="edge-label{dead}" x="{number(at_x)}" y="{number(at_y)}" text-anchor="middle">{text}</text>',
    )


def _node(node: GraphNode, x: float, y: float, link: Callable[[str], str], is_current: bool) -> str:
    look = STATES[node.state]
    icon_css = "icon icon-turn" if look.icon == "turn" else "icon"
    pill = ""
    if node.pill:
        width = 12 + 6 * len(node.pill)
        pill = (
            f'<rect class="pill" x="{number(WIDTH - width - 6)}" y="-8" width="{width}" height="16" rx="8"/>'
            f'<text class="pill-text" x="{number(WIDTH - width / 2 - 6)}" y="3.5">{escape(node.pill)}</text>'
        )
    title = escape(" ".join(filter(None, (node.key, node.what, node.pill))))
    current = ' aria-current="true"' if is_current else ""
    return (
        f'<a class="node s-{node.state}" href="{escape(link(node.key))}"{current} '
        f'transform="translate({number(x)} {number(y - NODE_HEIGHT / 2 + TOP)})"><title>{title}</title>'
        f'<rect class="ring" x="-4" y="-4" width="{number(WIDTH + 8)}" height="{number(NODE_HEIGHT + 8)}" rx="11"/>'
        f'<rect class="box tint" width="{number(WIDTH)}" height="{number(NODE_HEIGHT)}" rx="8"/>'
        f'<svg x="9" y="14" width="16" height="16"><use class="{icon_css}" href="#i-{look.icon}"/></svg>'
        f'<text class="name" x="32" y="19">{escape(_cut(node.key, NAME_LETTERS))}</text>'
        f'<text class="what" x="32" y="34">{escape(_cut(node.what, 18))}</text>{pill}</a>'
    )


def _cut(text: str, letters: int) -> str:
    return text if len(text) <= letters else text[: letters - 1] + "…"
