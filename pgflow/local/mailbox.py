"""The signals that an instance has received and no step has consumed, by event and step."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from itertools import count

from pgflow.core.models.instance import PendingSignal

__all__ = ["Mailbox"]


class Mailbox:
    """Signals in the order of arrival. Finding and taking one has a constant cost."""

    def __init__(self, signals: Iterable[PendingSignal] = ()) -> None:
        self._numbers = count()
        self._signals: dict[int, PendingSignal] = {}
        # Ordered: finding the first key of a plain dict skips over all keys that were deleted before it.
        self._by_address: dict[tuple[str, str | None], OrderedDict[int, None]] = {}
        for signal in signals:
            self.put(signal)

    def __iter__(self) -> Iterator[PendingSignal]:
        return iter(self._signals.values())

    def __len__(self) -> int:
        return len(self._signals)

    def put(self, signal: PendingSignal) -> int:
        """Keep a signal; returns its number here."""
        number = next(self._numbers)
        self._signals[number] = signal
        self._by_address.setdefault((signal.event, signal.step), OrderedDict())[number] = None
        return number

    def first_for(self, step: str, awaits: Mapping[str, str]) -> int | None:
        """Return the number of the oldest signal that ends a step's wait, None without one."""
        addresses = [(event, to) for event in awaits for to in (None, step)]
        found = [next(iter(self._by_address[address])) for address in addresses if address in self._by_address]
        return min(found, default=None)

    def __getitem__(self, number: int) -> PendingSignal:
        return self._signals[number]

    def take(self, number: int) -> None:
        """Remove a signal that a step has consumed."""
        signal = self._signals.pop(number)
        address = (signal.event, signal.step)
        del self._by_address[address][number]
        if not self._by_address[address]:
            del self._by_address[address]
