"""Write a workflow in the languages of Mermaid and Graphviz, which compute the layout."""

from __future__ import annotations

import re

from pgflow.core.definition.graph import DONE
from pgflow.core.picture.outline import Outline, Source, quoted

__all__ = ["dot", "mermaid"]

SPECIAL = re.compile(r"[^\w .,:/+?-]")


def mermaid(source: Source) -> str:
    """Return a Mermaid flowchart, top down, without a trailing newline. Raises `DefinitionError` for invalid data.

    Most code forges render a fenced Markdown block marked `mermaid` as a picture.
    """
    outline = Outline.of(source)
    # Numbers, not keys: keywords of the language, such as `end`, cannot name a node.
    numbers = {step: f"s{number}" for number, step in enumerate(outline.steps)}
    lines = ["flowchart TD"]
    for step, number in numbers.items():
        label = f'"{_escape_mermaid(quoted(step))}"'
        if step == DONE:
            lines.append(f"    {number}(({label}))")
        elif step == outline.initial:
            lines.append(f"    {number}([{label}])")
        else:
            lines.append(f"    {number}[{label}]")
    for arrow in outline.arrows:
        stroke = "-.->" if arrow.is_dynamic else "-->"
        label = _escape_mermaid(", ".join(arrow.labels))
        lines.append(f'    {numbers[arrow.source]} {stroke}|"{label}"| {numbers[arrow.target]}')
    return "\n".join(lines)


def dot(source: Source) -> str:
    """Return a digraph for Graphviz, without a trailing newline. Raises `DefinitionError` for invalid data.

    pgflow graph OrderFlow --format dot | dot -Tpng -o order-flow.png
    """
    outline = Outline.of(source)
    lines = [
        f"digraph {_quote(outline.name)} {{",
        "    rankdir=TB;",
        '    node [shape=box, style=rounded, fontname="sans-serif"];',
        '    edge [fontname="sans-serif", fontsize=11];',
    ]
    for step in outline.steps:
        look = ""
        if step == DONE:
            look = " [shape=doublecircle]"
        elif step == outline.initial:
            look = ' [style="rounded,bold"]'
        lines.append(f"    {_quote(step)}{look};")
    for arrow in outline.arrows:
        label = _quote(", ".join(arrow.labels))
        style = ", style=dashed" if arrow.is_dynamic else ""
        lines.append(f"    {_quote(arrow.source)} -> {_quote(arrow.target)} [label={label}{style}];")
    return "\n".join([*lines, "}"])


def _escape_mermaid(text: str) -> str:
    return SPECIAL.sub(lambda found: f"#{ord(found[0])};", text)


def _quote(text: str) -> str:
    """Quote for DOT, where backslashes and entities in a label are special, too."""
    return '"{}"'.format(text.replace("\\", "\\\\").replace('"', '\\"').replace("&", "&amp;"))
