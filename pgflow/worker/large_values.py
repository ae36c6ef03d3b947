"""Fetch the values of a job that are in a payload store, and store its large output, without blocking the worker."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import TypeAlias

from pgflow.core.values.codec import Location
from pgflow.core.values.payload import decode
from pgflow.core.values.reference import Reference
from pgflow.payloads.policy import PayloadPolicy
from pgflow.worker.claimed_job import CachedInstance, ClaimedJob, Signal
from pgflow.worker.outcome import AttemptFailed, Finished, Parked

__all__ = ["LargeValues", "awaited"]

Place: TypeAlias = tuple[Reference, Location]


class LargeValues:
    """Calls the payload store for a worker's jobs.

    `fetch` runs in a thread, before the values are needed. A later claim may bring another reference in between, so the
    code that uses the values calls the blocking `complete` and `opened`, which nearly always find everything fetched.
    """

    def __init__(self, policy: PayloadPolicy) -> None:
        self.policy = policy

    async def fetch(self, job: ClaimedJob, signals: Iterable[Signal] = (), *, with_context: bool = False) -> None:
        """Fetch the payloads of `signals` and, with the context, the input and outputs of the instance.

        Raises `InvalidPayload`, `PayloadUnavailable`.
        """
        instance = job.instance
        places = [
            *(_values(instance) if with_context else ()),
            *(_payload(instance, each) for each in signals if _is_outside(each)),
        ]
        missing = [place for place in places if place[0].key not in instance.fetched]
        if missing:
            instance.fetched.update(await asyncio.to_thread(self._fetch_all, missing))

    def complete(self, instance: CachedInstance) -> None:
        """Put the instance's input and outputs in place of their references. Raises as `fetch` does."""
        for place in list(_values(instance)):
            self._value(instance, place)
        if isinstance(instance.input, Reference):
            instance.input = instance.fetched.pop(instance.input.key)
        for step, value in instance.outputs.items():
            if isinstance(value, Reference):
                instance.outputs[step] = decode(instance.fetched[value.key])

    def opened(self, instance: CachedInstance, signal: Signal) -> Signal:
        """Return a signal with its payload. Raises as `fetch` does."""
        if not _is_outside(signal):
            return signal
        return replace(signal, payload=decode(self._value(instance, _payload(instance, signal))))

    async def store(self, outcome: Finished) -> Finished:
        """Store the object of a large output. Raises `PayloadUnavailable`."""
        if outcome.stored_object is not None:
            await asyncio.to_thread(self.policy.put, [outcome.stored_object])
        return outcome._replace(stored_object=None)

    def store_now(self, outcome: Finished) -> Finished:
        """`store`, blocking."""
        if outcome.stored_object is not None:
            self.policy.put([outcome.stored_object])
        return outcome._replace(stored_object=None)

    async def prepared(self, job: ClaimedJob, parked: Parked) -> Parked:
        """Return a wait with the outcome of the signal in the mailbox that will end it, if its payload is outside.

        The settle ends the wait with it, in the event loop, where nothing may block.
        """
        signal = next((each for each in awaited(job, parked.awaits) if _is_outside(each)), None)
        if signal is None:
            return parked
        await self.fetch(job, [signal])
        ended = await asyncio.to_thread(parked.end, signal)

        def end(each: Signal) -> Finished | AttemptFailed[ClaimedJob]:
            return ended if each == signal else parked.end(each)

        return replace(parked, end=end)

    def _value(self, instance: CachedInstance, place: Place) -> str:
        reference, location = place
        if reference.key not in instance.fetched:
            instance.fetched[reference.key] = self.policy.fetch(reference, location)
        return instance.fetched[reference.key]

    def _fetch_all(self, places: Iterable[Place]) -> dict[str, str]:
        return {reference.key: self.policy.fetch(reference, location) for reference, location in places}


def awaited(job: ClaimedJob, awaits: Mapping[str, str]) -> Iterator[Signal]:
    """Yield the signals in the mailbox that can end a wait of the job's step, the oldest first."""
    for signal in job.instance.signals:
        if signal.name in awaits and signal.step in (None, job.step):
            yield signal


def _is_outside(signal: Signal) -> bool:
    return isinstance(signal.payload, Reference)


def _payload(instance: CachedInstance, signal: Signal) -> Place:
    return signal.payload, Location(instance.graph.name, instance.id, "payload", signal.name)


def _values(instance: CachedInstance) -> Iterator[Place]:
    place = partial(Location, instance.graph.name, instance.id)
    if isinstance(instance.input, Reference):
        yield instance.input, place("input")
    for step, value in instance.outputs.items():
        if isinstance(value, Reference):
            yield value, place("output", step)
