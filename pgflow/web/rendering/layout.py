"""Compute a layered layout of a run from left to right; a thousand steps take some tens of milliseconds.

A step's rank is the length of the longest path to it. Edges over several ranks pass through dummies, so that they run
between the rows. Ranks are ordered by barycentres, and heights minimise the distance to neighbours while they keep that
order (pool adjacent violators), as in Sugiyama, Tagawa and Toda (1981).
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

__all__ = ["NODE_HEIGHT", "Layout", "arrange"]

NODE_HEIGHT = 44.0
DUMMY_HEIGHT = 8.0
GAP = 20.0
ORDER_SWEEPS = 6
HEIGHT_SWEEPS = 8


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each node is: `rank` from the left, the centre `y` from the top; `chains` are the dummies of each edge."""

    rank: dict[str, int]
    y: dict[str, float]
    chains: Sequence[Sequence[str]]
    height: float


@dataclass(slots=True)
class _Draft:
    rank: dict[str, int]
    size: dict[str, float]
    layers: dict[int, list[str]]
    chains: list[list[str]]
    left: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    right: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


def arrange(keys: Sequence[str], edges: Sequence[tuple[str, str]]) -> Layout:
    """Return the layout of an acyclic graph; edges are (source, target), each pair once."""
    if not keys:
        return Layout({}, {}, [], 0.0)
    draft = _ranked(keys, edges)
    _order(draft)
    y = _heights(draft)
    low = min(y[key] - draft.size[key] / 2 for key in y)
    high = max(y[key] + draft.size[key] / 2 for key in y)
    return Layout(draft.rank, {key: value - low for key, value in y.items()}, draft.chains, high - low)


def _ranked(keys: Sequence[str], edges: Sequence[tuple[str, str]]) -> _Draft:
    targets: dict[str, list[str]] = defaultdict(list)
    missing = dict.fromkeys(keys, 0)
    for source, target in edges:
        targets[source].append(target)
        missing[target] += 1
    queue = deque(key for key in keys if not missing[key])
    rank = dict.fromkeys(queue, 0)
    layers: dict[int, list[str]] = defaultdict(list)
    while queue:
        key = queue.popleft()
        layers[rank[key]].append(key)
        for target in targets[key]:
            rank[target] = max(rank.get(target, 0), rank[key] + 1)
            missing[target] -= 1
            if not missing[target]:
                queue.append(target)
    draft = _Draft(rank, dict.fromkeys(keys, NODE_HEIGHT), layers, [])
    for number, (source, target) in enumerate(edges):
        last, chain = source, []
        for between in range(rank[source] + 1, rank[target]):
            dummy = f"\0{number}.{between}"
            rank[dummy], draft.size[dummy] = between, DUMMY_HEIGHT
            layers[between].append(dummy)
            chain.append(dummy)
            draft.right[last].append(dummy)
            draft.left[dummy].append(last)
            last = dummy
        draft.right[last].append(target)
        draft.left[target].append(last)
        draft.chains.append(chain)
    return draft


def _sweep(draft: _Draft, number: int) -> tuple[Sequence[int], dict[str, list[str]]]:
    """Return the ranks in the order of a sweep, and the neighbours that it looks at: to the right, then to the left."""
    ranks = sorted(draft.layers)
    return (ranks[1:], draft.left) if number % 2 == 0 else (ranks[-2::-1], draft.right)


def _order(draft: _Draft) -> None:
    place = {key: float(i) for layer in draft.layers.values() for i, key in enumerate(layer)}
    for number in range(ORDER_SWEEPS):
        ranks, near = _sweep(draft, number)
        for rank in ranks:
            layer = draft.layers[rank]
            mean = {key: _mean([place[each] for each in near[key]], place[key]) for key in layer}
            layer.sort(key=mean.__getitem__)
            place.update((key, float(i)) for i, key in enumerate(layer))


def _heights(draft: _Draft) -> dict[str, float]:
    y: dict[str, float] = {}
    offsets: dict[int, list[float]] = {}  # of each node from the first one of its rank
    for rank, layer in draft.layers.items():
        offsets[rank] = [0.0]
        for above, below in pairwise(layer):
            offsets[rank].append(offsets[rank][-1] + (draft.size[above] + draft.size[below]) / 2 + GAP)
        first = draft.size[layer[0]] / 2
        y.update((key, first + offset) for key, offset in zip(layer, offsets[rank], strict=True))
    for number in range(HEIGHT_SWEEPS):
        ranks, near = _sweep(draft, number)
        for rank in ranks:
            layer = draft.layers[rank]
            wanted = [
                _mean([y[each] for each in near[key]], y[key]) - offset
                for key, offset in zip(layer, offsets[rank], strict=True)
            ]
            for key, value, offset in zip(layer, _monotone(wanted), offsets[rank], strict=True):
                y[key] = value + offset
    return y


def _mean(values: Sequence[float], default: float) -> float:
    return sum(values) / len(values) if values else default


def _monotone(values: Sequence[float]) -> list[float]:
    """Return the nearest values that never decrease (pool adjacent violators)."""
    blocks: list[tuple[float, int]] = []
    for value in values:
        mean, many = value, 1
        while blocks and blocks[-1][0] > mean:
            other, more = blocks.pop()
            mean, many = (mean * many + other * more) / (many + more), many + more
        blocks.append((mean, many))
    return [mean for mean, many in blocks for _ in range(many)]
