"""Compute a layered layout in which few arrows cross and most are straight.

The method is that of Sugiyama, Tagawa and Toda (1981): long arrows are split into segments from layer to layer, each
layer is ordered by the barycentres of its neighbours, and then coordinates are assigned that keep the order. As in
Graphviz, a label is a vertex on the arrow, so that labels never overlap anything.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from pgflow.core.picture.outline import Arrow, Outline

__all__ = ["Layout", "Size", "Vertex", "arrange"]

SWEEPS = 12  # pairs of passes, down and up: first to order the layers, then to assign coordinates
GAP = 24.0  # between neighbours in a layer
LINE_GAP = 14.0  # between two parallel arrows
STRAIGHT = 8.0  # weight of an arrow's own segments, relative to that of steps, in favour of straight arrows

Size = tuple[float, float]


@dataclass(eq=False, slots=True)
class Vertex:
    """A vertex of the drawing, with its centre at `x`. `kind` is "step", "label" or "bend"."""

    kind: str
    rank: int
    width: float
    height: float
    x: float = 0.0
    above: list[Vertex] = field(default_factory=list, repr=False)
    below: list[Vertex] = field(default_factory=list, repr=False)


@dataclass(frozen=True, slots=True)
class Layout:
    """The vertices of the steps by key, those on the path of each arrow from source to target, and all by rank."""

    steps: Mapping[str, Vertex]
    paths: Mapping[Arrow, Sequence[Vertex]]
    ranks: Sequence[Sequence[Vertex]]  # from the top down


def arrange(outline: Outline, step_size: Callable[[str], Size], label_size: Callable[[Arrow], Size]) -> Layout:
    """Return a layout with steps in the even ranks, and labels in the odd rank below the step that the arrow leaves.

    Sizes are (width, height), in any unit that suits gaps of 14 to 24; `x` is in the same unit, from 0.
    """
    steps = {
        step: Vertex("step", 2 * number, *step_size(step))
        for number, layer in enumerate(outline.layers)
        for step in layer
    }
    ranks: list[list[Vertex]] = [[] for _ in range(2 * len(outline.layers) - 1)]
    for vertex in steps.values():
        ranks[vertex.rank].append(vertex)
    paths = {}
    for arrow in outline.arrows:
        start, end = steps[arrow.source], steps[arrow.target]
        bends = [Vertex("bend", rank, 0.0, 0.0) for rank in range(start.rank + 2, end.rank)]
        path = [start, Vertex("label", start.rank + 1, *label_size(arrow)), *bends, end]
        for vertex in path[1:-1]:
            ranks[vertex.rank].append(vertex)
        for upper, lower in pairwise(path):
            upper.below.append(lower)
            lower.above.append(upper)
        paths[arrow] = path
    best = _order(ranks)
    _assign_x(best)
    for path in paths.values():
        _straighten(path[1:-1], best)
    _shift(best)
    return Layout(steps, paths, best)


def _order(ranks: list[list[Vertex]]) -> list[list[Vertex]]:
    """Return the ranks in the order with the fewest crossings that the sweeps find."""
    best, fewest = ranks, _crossings(ranks)
    current = ranks
    for sweep in range(2 * SWEEPS):
        if not fewest:
            break
        current = _sweep(current, is_down=sweep % 2 == 0)
        crossings = _crossings(current)
        if crossings < fewest:
            best, fewest = current, crossings
    return best


def _sweep(ranks: list[list[Vertex]], *, is_down: bool) -> list[list[Vertex]]:
    """Sort each rank by the mean position of its neighbours in the previous one."""
    position = {id(vertex): float(index) for rank in ranks for index, vertex in enumerate(rank)}
    swept = []
    for rank in ranks if is_down else reversed(ranks):
        means = {}
        for vertex in rank:
            near = vertex.above if is_down else vertex.below
            means[id(vertex)] = sum(position[id(each)] for each in near) / len(near) if near else position[id(vertex)]
        order = sorted(rank, key=lambda vertex: means[id(vertex)])
        position |= {id(vertex): float(index) for index, vertex in enumerate(order)}
        swept.append(order)
    return swept if is_down else swept[::-1]


def _crossings(ranks: Sequence[Sequence[Vertex]]) -> int:
    """Count the pairs of segments that cross: for each segment, the earlier ones that end farther right."""
    count = 0
    for upper, lower in pairwise(ranks):
        position = {id(vertex): index for index, vertex in enumerate(lower)}
        ends: list[int] = []
        for vertex in upper:
            own = sorted(position[id(each)] for each in vertex.below)
            for end in own:
                # segments of the same vertex start together and do not cross
                count += len(ends) - bisect_left(ends, end + 1)
            for end in own:
                insort(ends, end)
    return count


def _assign_x(ranks: Sequence[Sequence[Vertex]]) -> None:
    """Set each `x` as near to the weighted mean of its neighbours as order and gaps allow, in passes down and up."""
    for rank in ranks:
        _fit(rank, [0.0] * len(rank), [1.0] * len(rank))
    for sweep in range(2 * SWEEPS):
        for rank in ranks if sweep % 2 == 0 else reversed(ranks):
            targets, weights = [], []
            for vertex in rank:
                pulls = [(each.x, _weight(vertex, each)) for each in (*vertex.above, *vertex.below)]
                weight = sum(pull for _, pull in pulls)
                targets.append(sum(x * pull for x, pull in pulls) / weight if weight else vertex.x)
                weights.append(weight or 1.0)
            _fit(rank, targets, weights)


def _straighten(path: Sequence[Vertex], ranks: Sequence[Sequence[Vertex]]) -> None:
    """Align as many successive vertices of an arrow as their neighbours leave room for."""
    aligned: list[Vertex] = []
    low, high = float("-inf"), float("inf")
    for vertex in path:
        left, right = _room(vertex, ranks[vertex.rank])
        if max(low, left) > min(high, right):
            _align(aligned, low, high)
            aligned, low, high = [], left, right
        aligned.append(vertex)
        low, high = max(low, left), min(high, right)
    _align(aligned, low, high)


def _align(vertices: Sequence[Vertex], low: float, high: float) -> None:
    mean = sum(vertex.x for vertex in vertices) / len(vertices)
    for vertex in vertices:
        vertex.x = min(max(mean, low), high)


def _room(vertex: Vertex, rank: Sequence[Vertex]) -> tuple[float, float]:
    """Return the range in which a vertex can move between its neighbours; it always includes its current `x`."""
    index = rank.index(vertex)
    low = rank[index - 1].x + _distance(rank[index - 1], vertex) if index else float("-inf")
    high = rank[index + 1].x - _distance(vertex, rank[index + 1]) if index + 1 < len(rank) else float("inf")
    return min(low, vertex.x), max(high, vertex.x)


def _distance(left: Vertex, right: Vertex) -> float:
    gap = GAP if "step" in (left.kind, right.kind) else LINE_GAP
    return left.width / 2 + gap + right.width / 2


def _shift(ranks: Sequence[Sequence[Vertex]]) -> None:
    left = min(vertex.x - vertex.width / 2 for rank in ranks for vertex in rank)
    for rank in ranks:
        for vertex in rank:
            vertex.x = round(vertex.x - left, 1)


def _weight(one: Vertex, other: Vertex) -> float:
    return 1.0 if "step" in (one.kind, other.kind) else STRAIGHT


def _fit(rank: Sequence[Vertex], targets: Sequence[float], weights: Sequence[float]) -> None:
    """Move a rank to the coordinates with the least weighted squared distance to `targets`, in unchanged order.

    By pooling adjacent violators (Ayer et al., 1955): vertices that would be too close form a block that moves as one.
    """
    offsets = [0.0]
    for left, right in pairwise(rank):
        offsets.append(offsets[-1] + _distance(left, right))
    blocks: list[tuple[float, float, int]] = []  # mean target, weight, number of vertices
    for target, offset, weight in zip(targets, offsets, weights, strict=True):
        block = (target - offset, weight, 1)
        while blocks and blocks[-1][0] > block[0]:
            mean, pooled, count = blocks.pop()
            total = pooled + block[1]
            block = ((mean * pooled + block[0] * block[1]) / total, total, count + block[2])
        blocks.append(block)
    means = [mean for mean, _, count in blocks for _ in range(count)]
    for vertex, mean, offset in zip(rank, means, offsets, strict=True):
        vertex.x = mean + offset
