"""Draw a workflow as plain text: a row with the steps of each layer, and below it a line for each of their arrows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pgflow.core.picture.outline import Arrow, Outline, Source, quoted

__all__ = ["ascii"]

WIDTH = 100  # characters of a row of steps; longer rows are wrapped
INDENT = "    "
ROUTED = "?  a route chooses among the targets of this event"
FORKED = "an event that leads to several steps starts them all"


def ascii(source: Source) -> str:  # noqa: A001 -- the name of this kind of picture
    """Return the picture as lines, without a trailing newline. Raises `DefinitionError` for invalid stored data.

    The initial step is `[*key]`, Done is `(done)`. A step is below all of its predecessors. Arrows are dotted if a
    route decides whether they are taken.

        print(ascii(OrderFlow.graph))

        [*triage]
            triage ──refused──> done
            triage ··routed?··> fast_track
            triage ··routed?··> standard

        [fast_track]  [standard]
            fast_track ──done──> done
            standard   ──done──> done

        (done)

        ?  a route chooses among the targets of this event
    """
    outline = Outline.of(source)
    blocks = []
    for layer in outline.layers:
        below = [arrow for step in layer for arrow in outline.arrows if arrow.source == step]
        blocks.append("\n".join([*_rows([outline.framed(step) for step in layer]), *_lines(below)]))
    return "\n\n".join([*blocks, *_legend(outline)])


def _rows(steps: Sequence[str]) -> Iterator[str]:
    row = ""
    for step in steps:
        longer = f"{row}  {step}" if row else step
        if row and len(longer) > WIDTH:
            yield row
            longer = step
        row = longer
    yield row


def _lines(arrows: Sequence[Arrow]) -> Iterator[str]:
    labels = [", ".join(arrow.labels) for arrow in arrows]
    left = max((len(quoted(arrow.source)) for arrow in arrows), default=0)
    middle = max(map(len, labels), default=0)
    for arrow, label in zip(arrows, labels, strict=True):
        stroke = "·" if arrow.is_dynamic else "─"
        line = f"{stroke * 2}{label}{stroke * (middle - len(label) + 2)}>"
        yield f"{INDENT}{quoted(arrow.source):{left}} {line} {quoted(arrow.target)}"


def _legend(outline: Outline) -> Iterator[str]:
    starts = [(arrow.source, event) for arrow in outline.arrows for event in arrow.events if event not in arrow.dynamic]
    notes = [ROUTED] if any(arrow.dynamic for arrow in outline.arrows) else []
    if len(set(starts)) < len(starts):
        notes.append(FORKED)
    if notes:
        yield "\n".join(notes)
