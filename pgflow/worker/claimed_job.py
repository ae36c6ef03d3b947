"""The values that a worker keeps in memory: claimed jobs, and its copies of their instances."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from pgflow.core.definition.control import Control
from pgflow.core.definition.definition import Definition
from pgflow.core.definition.graph import Graph
from pgflow.core.definition.step import Step
from pgflow.core.definition.unique import extract_value
from pgflow.core.engine.machine import advance, replay
from pgflow.core.engine.state import Parked, State, Status
from pgflow.core.values.codec import Location, decrypt, decrypt_text
from pgflow.core.values.names import TELEMETRY
from pgflow.core.values.payload import ENCRYPTED_MARKER, REFERENCE_MARKER, decode
from pgflow.core.values.reference import Reference, is_reference, read_reference
from pgflow.errors import InvalidPayload
from pgflow.payloads.policy import DEFAULT, PayloadPolicy
from pgflow.store.job import ClaimedRow

__all__ = [
    "POISONED_FROM",
    "QUARANTINE_FROM",
    "CachedInstance",
    "ClaimedJob",
    "Signal",
    "StoredResult",
    "cached_instance",
    "caller",
    "claimed_job",
]


# Workers lost while they held a job, from which on it is quarantined and from which on it fails.
# Also in sql/queries/job/{claim,rescue}.sql and in the predicate of an index.
QUARANTINE_FROM = 2
POISONED_FROM = 5


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal in an instance's mailbox; `step` is None when any step may consume it.

    `payload` is None both without a payload and with the payload null: `has_payload` distinguishes the two.
    """

    id: int
    step: str | None
    name: str
    payload: Any
    has_payload: bool


@dataclass(frozen=True, slots=True)
class StoredResult:
    """A result that is recorded but not yet applied; an advance job will fold it in."""

    event: str
    targets: tuple[str, ...] | None


@dataclass(slots=True)
class CachedInstance:
    """This worker's copy of an instance, as of `revision`.

    Decisions are made on it without a lock, and the settle writes them only if the revision is still the same
    (optimistic concurrency). A value in a payload store is a `Reference` until it is fetched. `status` is the one in
    the database, `state` the engine's: a pure function of graph and results. `caller` is the telemetry metadata of the
    start; `age` is in seconds, at `known_at` (monotonic).
    """

    run: int
    id: str
    workflow: Definition
    version: int
    status: Status
    revision: int
    state: State
    input: str | Reference
    metadata: dict[str, Any]
    outputs: dict[str, Any]
    unapplied: dict[str, StoredResult]
    signals: list[Signal]
    caller: Mapping[str, Any]
    age: float | None
    jobs: int = 0  # held here
    fetched: dict[str, str] = field(default_factory=dict)  # texts of the payload store, by key
    advances: int = 0  # decisions written since this worker cached it
    known_at: float = field(default_factory=time.monotonic)
    _value: str = ""

    @property
    def value(self) -> str:
        """The business value in its id."""
        if not self._value:
            self._value = extract_value(self.id)
        return self._value

    @property
    def graph(self) -> Graph:
        """The graph that this instance follows, pinned when it started."""
        return self.state.graph

    def refresh(self, newer: CachedInstance) -> None:
        """Take over what a later claim has read."""
        self.status, self.revision, self.state = newer.status, newer.revision, newer.state
        self.metadata, self.outputs = newer.metadata, newer.outputs
        self.unapplied, self.signals = newer.unapplied, newer.signals


@dataclass(slots=True, eq=False)
class ClaimedJob:
    """A job that this worker has claimed: the right to advance one branch of one instance.

    Compared by identity: a job that moves to its next step, or is claimed again, is another claim.
    """

    id: int
    instance: CachedInstance
    kind: str
    step: str
    config: str | None
    queue: str
    priority: int
    attempt: int
    max_attempts: int
    solo: bool
    awaits: Mapping[str, str] | None = None
    errors: list[dict[str, Any]] = field(default_factory=list)
    waited: float | None = None  # seconds since it parked, when it was claimed
    since: float = 0.0  # monotonic seconds at which it was buffered
    crashes: int = 0  # workers that were lost while they held it
    checkpoint: str | None = None  # as it is stored
    expires: float | None = None  # monotonic seconds after which it must not begin
    control: Control | None = None  # of the attempt that runs
    worker: int = 0  # the id of the worker that holds it
    key: str | None = None  # its partition key, "*" for a job without one in a queue with limits

    @property
    def work(self) -> Step | None:
        """The step that it executes; None if it ends a wait, or decides."""
        return self.instance.graph.nodes[self.step].step if self.step and self.kind == "execute" else None

    @property
    def title(self) -> str:
        """What it is, for messages."""
        return f"step {self.step} of {self.instance.id}"

    @property
    def is_quarantined(self) -> bool:
        """Whether it may be a poison job, which has to run alone."""
        return QUARANTINE_FROM <= self.crashes < POISONED_FROM

    @property
    def is_poisoned(self) -> bool:
        """Whether it has run alone several times and its worker was lost each time: it must not run again."""
        return self.crashes >= POISONED_FROM


def cached_instance(row: ClaimedRow, workflow: Definition, policy: PayloadPolicy = DEFAULT) -> CachedInstance:
    """Build the cache entry of an instance from the first row that a claim returned of it.

    Raises when a stored value cannot be read, `DecryptionUnavailable` when it cannot be decrypted here, and
    `PayloadUnavailable` for a reference without a payload store.
    """
    # The first row of a run has them all.
    assert row.business_id is not None  # noqa: S101 -- for the type checker
    assert row.version is not None  # noqa: S101
    assert row.status is not None  # noqa: S101
    assert row.revision is not None  # noqa: S101
    assert row.input is not None  # noqa: S101
    applied: list[tuple[str, str, tuple[str, ...] | None]] = []
    outputs: dict[str, Any] = {}
    unapplied: dict[str, StoredResult] = {}
    metadata: dict[str, Any] = decode(row.metadata) if row.metadata else {}
    of_caller = metadata.pop(TELEMETRY, None)
    results = decode(row.results, extra_levels=2) if row.results else []
    for step, event, targets, output, has_output, extra, is_applied in results:
        chosen = tuple(targets) if targets is not None else None
        outputs[step] = output if has_output else _absent_output(workflow.graph, step)
        metadata.update(extra or {})
        if is_applied and not workflow.graph.is_route_pending(step, event, chosen):
            applied.append((step, event, chosen))
        else:
            unapplied[step] = StoredResult(event, chosen)
    given: str | Reference = row.input
    signals = [Signal(*signal) for signal in (decode(row.signals, extra_levels=2) if row.signals else ())]
    if policy.codec is not None or any(map(_is_marked, (row.input, row.results, row.signals))):
        place = partial(Location, workflow.name, row.business_id)
        given = _opened_text(policy, row.input, place("input"))
        stored = {step: output for step, _, _, output, has_output, *_ in results if has_output}
        outputs.update({step: _opened(policy, output, place("output", step)) for step, output in stored.items()})
        signals = [_opened_signal(policy, each, place("payload", each.name)) for each in signals]
    state = replay(workflow.graph, applied)
    for step in row.parked or ():
        state, _ = advance(state, Parked(step))
    assert row.run is not None  # noqa: S101 -- as above
    return CachedInstance(
        run=row.run,
        id=row.business_id,
        workflow=workflow,
        version=row.version,
        status=row.status,
        revision=row.revision,
        state=state,
        input=given,
        metadata=metadata,
        outputs=outputs,
        unapplied=unapplied,
        signals=signals,
        caller=of_caller if isinstance(of_caller, dict) else {},
        age=row.age,
    )


def _is_marked(text: str | None) -> bool:
    return text is not None and (ENCRYPTED_MARKER in text or REFERENCE_MARKER in text)


def _opened(policy: PayloadPolicy, value: Any, place: Location) -> Any:
    """Return a stored value decrypted, or the `Reference` that it is."""
    if (reference := read_reference(value)) is not None:
        policy.require_store(place)
        return reference
    return decrypt(policy.codec, value, place)


def _opened_text(policy: PayloadPolicy, text: str, place: Location) -> str | Reference:
    if REFERENCE_MARKER in text:  # cheaper than decoding; a match inside a string is ruled out
        value = decode(text)
        if is_reference(value):
            opened: Reference = _opened(policy, value, place)
            return opened
    return decrypt_text(policy.codec, text, place)


def _opened_signal(policy: PayloadPolicy, each: Signal, place: Location) -> Signal:
    return replace(each, payload=_opened(policy, each.payload, place)) if each.has_payload else each


def _absent_output(graph: Graph, step: str) -> Any:
    """Return the output of a step that has none stored: `{}`, or None where the declared type is optional.

    Earlier releases stored nothing for an optional type.
    """
    node = graph.nodes.get(step)
    return {} if node is None or node.step.absent_text() is None else None


def claimed_job(row: ClaimedRow, instance: CachedInstance, now: float) -> ClaimedJob:
    """Build a job from its claimed row. Raises when a stored value cannot be read."""
    return ClaimedJob(
        id=row.id,
        instance=instance,
        kind=row.kind,
        step=row.step,
        config=row.config,
        queue=row.queue,
        priority=row.priority,
        attempt=row.attempt,
        max_attempts=row.max_attempts,
        solo=row.solo,
        awaits=json.loads(row.awaits) if row.awaits else None,
        errors=decode(row.errors, extra_levels=2) if row.errors else [],
        waited=row.waited,
        since=now,
        crashes=row.crashes,
        key=row.key,
        checkpoint=row.checkpoint,
        expires=None if row.expires_in is None or row.attempt > 1 else now + row.expires_in,
    )


def caller(metadata: str | None) -> Mapping[str, Any]:
    """Return the telemetry metadata of an instance's start; empty when the metadata cannot be read."""
    try:
        found = decode(metadata or "{}")
    except InvalidPayload:
        return {}
    of_caller = found.get(TELEMETRY) if isinstance(found, dict) else None
    return of_caller if isinstance(of_caller, dict) else {}
