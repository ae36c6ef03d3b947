"""Find a place for each step, label and bend of a layered drawing, so that few arrows cross and most run straight.

The method is that of Sugiyama, Tagawa and Toda (1981): long arrows are cut into pieces from layer to layer, each layer
is ordered by the barycentres of its neighbours, and then places are given that keep the order. As in Graphviz, a label
is a place of its own on the arrow, so that nothing is ever written over anything else.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from pgflow.core.picture.outline import Arrow, Outline

__all__ = ["Layout", "Place", "Size", "arrange"]

SWEEPS = 12  # down and up, to order the layers; then again to place what stands in them
GAP = 24.0  # between neighbours in a layer
LINE_GAP = 14.0  # between two arrows that pass by one another
STRAIGHT = 8.0  # how much more an arrow's own bends attract one another than steps attract arrows

Size = tuple[float, float]


@dataclass(eq=False, slots=True)
class Place:
    """Where something stands: the middle in `x`, and how broad it is. `kind` is "step", "label" or "bend"."""

    kind: str
    rank: int
    width: float
    height: float
    x: float = 0.0
    above: list[Place] = field(default_factory=list, repr=False)
    below: list[Place] = field(default_factory=list, repr=False)


@dataclass(frozen=True, slots=True)
class Layout:
    """The places: of the steps by key, and of each arrow all from its source to its target. `ranks` go down."""

    steps: Mapping[str, Place]
    ways: Mapping[Arrow, Sequence[Place]]
    ranks: Sequence[Sequence[Place]]


def arrange(outline: Outline, step_size: Callable[[str], Size], label_size: Callable[[Arrow], Size]) -> Layout:
    """Return a layout: steps in the even ranks, labels in the odd one below the step that the arrow comes from.

    The sizes, as (width, height), are in any unit that fits gaps of 14 to 24; `x` comes in it, from 0.
    """
    steps = {
        step: Place("step", 2 * number, *step_size(step))
        for number, layer in enumerate(outline.layers)
        for step in layer
    }
    ranks: list[list[Place]] = [[] for _ in range(2 * len(outline.layers) - 1)]
    for place in steps.values():
        ranks[place.rank].append(place)
    ways = {}
    for arrow in outline.arrows:
        start, end = steps[arrow.source], steps[arrow.target]
        between = [Place("bend", rank, 0.0, 0.0) for rank in range(start.rank + 2, end.rank)]
        way = [start, Place("label", start.rank + 1, *label_size(arrow)), *between, end]
        for place in way[1:-1]:
            ranks[place.rank].append(place)
        for upper, lower in pairwise(way):
            upper.below.append(lower)
            lower.above.append(upper)
        ways[arrow] = way
    best = _ordered(ranks)
    _place(best)
    for way in ways.values():
        _straighten(way[1:-1], best)
    _shift(best)
    return Layout(steps, ways, best)


def _ordered(ranks: list[list[Place]]) -> list[list[Place]]:
    """Return the ranks in the order with the fewest crossings of those that the sweeps come by."""
    best, fewest = ranks, _crossings(ranks)
    now = ranks
    for sweep in range(2 * SWEEPS):
        if not fewest:
            break
        now = _swept(now, is_down=sweep % 2 == 0)
        crossings = _crossings(now)
        if crossings < fewest:
            best, fewest = now, crossings
    return best


def _swept(ranks: list[list[Place]], *, is_down: bool) -> list[list[Place]]:
    at = {id(place): float(index) for rank in ranks for index, place in enumerate(rank)}
    swept = []
    for rank in ranks if is_down else reversed(ranks):
        means = {}
        for place in rank:
            near = place.above if is_down else place.below
            means[id(place)] = sum(at[id(each)] for each in near) / len(near) if near else at[id(place)]
        order = sorted(rank, key=lambda place: means[id(place)])
        at |= {id(place): float(index) for index, place in enumerate(order)}
        swept.append(order)
    return swept if is_down else swept[::-1]


def _crossings(ranks: Sequence[Sequence[Place]]) -> int:
    """Count the pairs of pieces that cross: for each piece, those before it that end farther right."""
    count = 0
    for upper, lower in pairwise(ranks):
        at = {id(place): index for index, place in enumerate(lower)}
        ends: list[int] = []
        for place in upper:
            own = sorted(at[id(each)] for each in place.below)
            for end in own:
                # those of the same place begin together and do not cross
                count += len(ends) - bisect_left(ends, end + 1)
            for end in own:
                insort(ends, end)
    return count


def _place(ranks: Sequence[Sequence[Place]]) -> None:
    """Give each place its `x`: as near to the mean of its neighbours as order and gaps allow, in turn down and up."""
    for rank in ranks:
        _settle(rank, [0.0] * len(rank), [1.0] * len(rank))
    for sweep in range(2 * SWEEPS):
        for rank in ranks if sweep % 2 == 0 else reversed(ranks):
            wanted, weights = [], []
            for place in rank:
                pulls = [(each.x, _weight(place, each)) for each in (*place.above, *place.below)]
                weight = sum(pull for _, pull in pulls)
                wanted.append(sum(x * pull for x, pull in pulls) / weight if weight else place.x)
                weights.append(weight or 1.0)
            _settle(rank, wanted, weights)


def _straighten(way: Sequence[Place], ranks: Sequence[Sequence[Place]]) -> None:
    """Line up as many places of an arrow, one after the other, as the neighbours leave room for."""
    run: list[Place] = []
    low, high = float("-inf"), float("inf")
    for place in way:
        left, right = _room(place, ranks[place.rank])
        if max(low, left) > min(high, right):
            _align(run, low, high)
            run, low, high = [], left, right
        run.append(place)
        low, high = max(low, left), min(high, right)
    _align(run, low, high)


def _align(run: Sequence[Place], low: float, high: float) -> None:
    mean = sum(place.x for place in run) / len(run)
    for place in run:
        place.x = min(max(mean, low), high)


def _room(place: Place, rank: Sequence[Place]) -> tuple[float, float]:
    """Return from where to where a place may be moved between its neighbours; not at all counts as room, too."""
    index = rank.index(place)
    low = rank[index - 1].x + _distance(rank[index - 1], place) if index else float("-inf")
    high = rank[index + 1].x - _distance(place, rank[index + 1]) if index + 1 < len(rank) else float("inf")
    return min(low, place.x), max(high, place.x)


def _distance(left: Place, right: Place) -> float:
    gap = GAP if "step" in (left.kind, right.kind) else LINE_GAP
    return left.width / 2 + gap + right.width / 2


def _shift(ranks: Sequence[Sequence[Place]]) -> None:
    left = min(place.x - place.width / 2 for rank in ranks for place in rank)
    for rank in ranks:
        for place in rank:
            place.x = round(place.x - left, 1)


def _weight(one: Place, other: Place) -> float:
    return 1.0 if "step" in (one.kind, other.kind) else STRAIGHT


def _settle(rank: Sequence[Place], wanted: Sequence[float], weights: Sequence[float]) -> None:
    """Put a rank where the weighted squares of what each is off from its wish are least, without a change of order.

    By pooling adjacent violators (Ayer et al., 1955): who would be too near becomes one block, placed as one.
    """
    offsets = [0.0]
    for left, right in pairwise(rank):
        offsets.append(offsets[-1] + _distance(left, right))
    blocks: list[tuple[float, float, int]] = []  # the mean wish, the weight, and how many
    for wish, offset, weight in zip(wanted, offsets, weights, strict=True):
        block = (wish - offset, weight, 1)
        while blocks and blocks[-1][0] > block[0]:
            mean, heavy, count = blocks.pop()
            total = heavy + block[1]
            block = ((mean * heavy + block[0] * block[1]) / total, total, count + block[2])
        blocks.append(block)
    means = [mean for mean, _, count in blocks for _ in range(count)]
    for place, mean, offset in zip(rank, means, offsets, strict=True):
        place.x = mean + offset
