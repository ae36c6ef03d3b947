"""The signals that an instance has received and no step has taken, found by event and step."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from itertools import count

from pgflow.core.models.instance import PendingSignal

__all__ = ["Mailbox"]


class Mailbox:
    """Signals in the order of their arrival; to find and to take one costs the same however many there are."""

    def __init__(self, signals: Iterable[PendingSignal] = ()) -> None:
        self._numbers = count()
        self._signals: dict[int, PendingSignal] = {}
        # Ordered: to find the first key of a plain dict means to step over all that were deleted before it.
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
        """Return the number of the oldest signal that a step's wait takes, None if there is none."""
        addresses = [(event, to) for event in awaits for to in (None, step)]
        found = [next(iter(self._by_address[address])) for address in addresses if address in self._by_address]
        return min(found, default=None)

    def __getitem__(self, number: int) -> PendingSignal:
        return self._signals[number]

    def take(self, number: int) -> None:
        """Remove a signal: a step has taken it."""
        signal = self._signals.pop(number)
        address = (signal.event, signal.step)
        del self._by_address[address][number]
        if not self._by_address[address]:
            del self._by_address[address]
