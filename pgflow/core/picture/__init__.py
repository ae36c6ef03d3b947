"""Draw a workflow as text: for a terminal or a docstring, for Mermaid, for Graphviz, as an SVG.

Each function takes a `Graph`, or the JSON values that `Graph.spec()` gives and the database keeps, and draws the same
picture of both. An arrow stands for a pair of steps and bears all the events that lead from the one to the other. An
event with a question mark is dynamic: a route chooses among its targets at run time; without one, it leads to all.

    outline      what all pictures show: steps in layers, and arrows between them
    text         rows and lines
    markup       for programs that have a layout of their own
    layout, svg  places and strokes
    docstring    the picture's way into a class's docstring
"""

from pgflow.core.picture.docstring import embed
from pgflow.core.picture.markup import dot, mermaid
from pgflow.core.picture.outline import Arrow, Outline
from pgflow.core.picture.svg import svg
from pgflow.core.picture.text import ascii  # noqa: A004 -- the name of this kind of picture

__all__ = ["Arrow", "Outline", "ascii", "dot", "embed", "mermaid", "svg"]
