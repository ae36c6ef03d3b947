"""What a worker holds in memory: the tokens it has claimed and what it knows of their instances."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from pgflow.core.definition.definition import Definition
from pgflow.core.definition.graph import Graph
from pgflow.core.engine.machine import advance, replay
from pgflow.core.engine.state import Parked, State, Status
from pgflow.core.values.codec import Codec, Location, decrypt, decrypt_text
from pgflow.core.values.names import TELEMETRY
from pgflow.core.values.payload import ENCRYPTED_MARKER, decode
from pgflow.errors import InvalidPayload
from pgflow.store.job import ClaimedRow

__all__ = [
    "POISONED_FROM",
    "QUARANTINE_FROM",
    "CachedInstance",
    "ClaimedJob",
    "Signal",
    "StoredResult",
    "caller",
    "known",
    "token",
]


QUARANTINE_FROM = 2  # lost workers from which on a step runs alone, and those that end it:
POISONED_FROM = 5  # sql/queries/job/{claim,rescue}.sql and an index say both, too


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal that waits in the mailbox of an instance; `step` is None when any step may take it.

    `payload` is None without one, and where it is None: `has_payload` tells them apart.
    """

    id: int
    step: str | None
    name: str
    payload: Any
    has_payload: bool


@dataclass(frozen=True, slots=True)
class StoredResult:
    """A result that is recorded but not yet applied: an advance token will fold it in."""

    event: str
    targets: tuple[str, ...] | None


@dataclass(slots=True)
class CachedInstance:
    """An instance as this worker knows it, true as of `revision`: decisions made on it hold only as long.

    `status` is the one in the database; `state` the engine's, a pure function of graph and results. `caller` is what
    its starter gave along for telemetry, `age` how many seconds it had existed at `known_at` (monotonic).
    """

    run: int
    id: str
    workflow: Definition
    version: int
    status: Status
    revision: int
    state: State
    input: str
    metadata: dict[str, Any]
    outputs: dict[str, Any]
    unapplied: dict[str, StoredResult]
    signals: list[Signal]
    caller: Mapping[str, Any]
    age: float | None
    tokens: int = 0
    advances: int = 0  # decisions written since this worker took it up
    known_at: float = field(default_factory=time.monotonic)

    @property
    def graph(self) -> Graph:
        """The graph that this instance follows, pinned when it started."""
        return self.state.graph


@dataclass(slots=True, eq=False)
class ClaimedJob:
    """The right to move one branch of one instance, leased to this worker."""

    id: int
    run: CachedInstance
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
    since: float = 0.0  # monotonic seconds at which it came into the buffer
    crashes: int = 0  # workers that were lost while they held it

    @property
    def is_quarantined(self) -> bool:
        """Whether it may be what its workers died of, so that it has to run alone."""
        return QUARANTINE_FROM <= self.crashes < POISONED_FROM

    @property
    def is_poisoned(self) -> bool:
        """Whether it has run alone again and again, and each time its worker was lost: it does not run any more."""
        return self.crashes >= POISONED_FROM


def known(row: ClaimedRow, workflow: Definition, codec: Codec | None = None) -> CachedInstance:
    """Make what is known of an instance out of the first token claimed of it.

    Raises when a stored payload cannot be read, and `DecryptionUnavailable` when it cannot be opened here.
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
    told = metadata.pop(TELEMETRY, None)
    results = decode(row.results, extra_levels=2) if row.results else []
    for step, event, targets, output, has_output, extra, is_applied in results:
        chosen = tuple(targets) if targets is not None else None
        outputs[step] = output if has_output else _absent_output(workflow.graph, step)
        metadata.update(extra or {})
        if is_applied and not workflow.graph.is_route_pending(step, event, chosen):
            applied.append((step, event, chosen))
        else:
            unapplied[step] = StoredResult(event, chosen)
    text, signals = (
        row.input,
        [Signal(*signal) for signal in (decode(row.signals, extra_levels=2) if row.signals else ())],
    )
    if (
        codec is not None
        or ENCRYPTED_MARKER in text
        or ENCRYPTED_MARKER in (row.results or "")
        or ENCRYPTED_MARKER in (row.signals or "")
    ):
        place = partial(Location, workflow.name, row.business_id)
        text = decrypt_text(codec, text, place("input"))
        stored = {step: output for step, _, _, output, has_output, *_ in results if has_output}
        outputs.update({step: decrypt(codec, output, place("output", step)) for step, output in stored.items()})
        signals = [_opened_signal(codec, each, place("payload", each.name)) for each in signals]
    state = replay(workflow.graph, applied)
    for step in row.parked or ():
        state, _ = advance(state, Parked(step))
    return CachedInstance(
        run=row.run,
        id=row.business_id,
        workflow=workflow,
        version=row.version,
        status=row.status,
        revision=row.revision,
        state=state,
        input=text,
        metadata=metadata,
        outputs=outputs,
        unapplied=unapplied,
        signals=signals,
        caller=told if isinstance(told, dict) else {},
        age=row.age,
    )


def _opened_signal(codec: Codec | None, each: Signal, place: Location) -> Signal:
    return replace(each, payload=decrypt(codec, each.payload, place)) if each.has_payload else each


def _absent_output(graph: Graph, step: str) -> Any:
    """The output of a step without a stored one: `{}`, or None where the declared type is optional.

    Earlier releases stored nothing for an optional type.
    """
    node = graph.nodes.get(step)
    return {} if node is None or node.step.absent_text() is None else None


def token(row: ClaimedRow, run: CachedInstance, now: float) -> ClaimedJob:
    """Make the token of a claimed row. Raises when a stored payload cannot be read."""
    return ClaimedJob(
        id=row.id,
        run=run,
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
    )


def caller(metadata: str | None) -> Mapping[str, Any]:
    """Return what an instance's starter gave along for telemetry; nothing when its metadata cannot be read."""
    try:
        found = decode(metadata or "{}")
    except InvalidPayload:
        return {}
    told = found.get(TELEMETRY) if isinstance(found, dict) else None
    return told if isinstance(told, dict) else {}
