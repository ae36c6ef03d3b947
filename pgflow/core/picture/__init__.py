"""Draw a workflow: as plain text for a terminal or a docstring, for Mermaid, for Graphviz, and as SVG.

Each function takes a `Graph`, or the JSON values of `Graph.spec()` that the database stores, and draws the same picture
of both. An arrow connects a pair of steps and is labelled with all events that lead from one to the other. A question
mark after an event means that a route chooses among its targets at run time; otherwise it leads to all of them.

    outline      what all pictures show: steps in layers, and arrows between them
    text         plain text
    markup       Mermaid and Graphviz, which have their own layout
    layout, svg  a layered layout, and the SVG drawn from it
    docstring    insert a picture into the docstring of a class
"""

from pgflow.core.picture.docstring import embed
from pgflow.core.picture.markup import dot, mermaid
from pgflow.core.picture.outline import Arrow, Outline
from pgflow.core.picture.svg import svg
from pgflow.core.picture.text import ascii  # noqa: A004 -- the name of this kind of picture

__all__ = ["Arrow", "Outline", "ascii", "dot", "embed", "mermaid", "svg"]
