"""What is known of one instance: its state, its tokens and its mailbox; how it is stored, and taken up again."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy, deepcopy
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from typing import Any

from pgflow.core.definition.context import Context
from pgflow.core.definition.graph import Graph
from pgflow.core.definition.unique import extract_value
from pgflow.core.definition.workflow import Workflow
from pgflow.core.engine import machine
from pgflow.core.engine.machine import advance
from pgflow.core.engine.state import State, Status
from pgflow.core.models.instance import Entry, Instance, PendingSignal, WaitingFor
from pgflow.core.models.instance_rules import restore_state, unique_key
from pgflow.core.models.job import Job, JobState, job_meta, job_tags, waiting_for
from pgflow.core.values.append_map import AppendMap
from pgflow.core.values.payload import INPUT_LIMIT, decode, encode
from pgflow.local.mailbox import Mailbox

__all__ = ["Run", "Saved", "Token"]

NUMBERS = count(1)  # of tokens


@dataclass(slots=True, eq=False)
class Token:
    """One active step: where it stands, and when it goes on by itself.

    `completed` is its recorded result, if a route failed after it: then the route is called again, not the step.
    """

    step: str
    config: dict[str, Any] | None
    place: JobState = "ready"
    due: datetime | None = None
    parked_at: datetime | None = None
    timeout_event: str | None = None
    attempt: int = 0
    awaits: dict[str, str] = field(default_factory=dict)
    errors: list[dict[str, Any]] = field(default_factory=list)
    completed: Entry | None = None
    id: int = field(default_factory=NUMBERS.__next__)


@dataclass(frozen=True, slots=True)
class Head:
    """What identifies an instance and says where it stands."""

    run: int
    id: str
    workflow: str
    version: int
    status: Status
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Saved(Instance):
    """An instance as it is put into the storage: with what a reader does not see but a restart needs."""

    text: str = ""
    tokens: tuple[Token, ...] = ()


@dataclass(slots=True, eq=False)
class Run:
    """An instance that is under way. Only the conductor changes it, under its lock.

    `caller` is what its starter gave along for telemetry; `advances` counts the decisions since this `Local` has it.
    """

    run: int
    id: str
    workflow: type[Workflow[Any]]
    state: State
    text: str  # the input, as JSON
    metadata: dict[str, Any]
    tags: tuple[str, ...]
    created_at: datetime
    error: dict[str, Any] | None = None
    finished_at: datetime | None = None
    history: list[Entry] = field(default_factory=list)
    tokens: dict[str, Token] = field(default_factory=dict)
    outputs: AppendMap[str, Any] = field(default_factory=AppendMap)  # of each completed step
    signals: Mailbox = field(default_factory=Mailbox)  # that have come
    later: dict[int, PendingSignal] = field(default_factory=dict)  # that are to be sent, by their ids
    caller: Mapping[str, Any] = field(default_factory=dict)
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # stored, of steps to activate again
    advances: int = 0

    @property
    def graph(self) -> Graph:
        """The graph that it follows."""
        return self.state.graph

    @property
    def head(self) -> Head:
        """What identifies it and says where it stands."""
        return Head(self.run, self.id, self.graph.name, self.graph.version, self.state.status, self.tags)

    @property
    def unique_key(self) -> str | None:
        """At most one active instance has it; None: any number may be active."""
        return unique_key(self.graph, self.id)

    def config_of(self, step: str) -> dict[str, Any] | None:
        """Return the configuration to activate a step with: the stored one, else its own."""
        stored = self.configs.get(step)
        return self.graph.nodes[step].config if stored is None else dict(stored)

    def tokens_of(self, step: str | None) -> tuple[Token, ...]:
        """Return the token of a step, if it has one; for None those of all steps."""
        if step is None:
            return tuple(self.tokens.values())
        return (self.tokens[step],) if step in self.tokens else ()

    def record(self, entry: Entry) -> None:
        """Append a completed step to the history."""
        self.history.append(entry)
        self.outputs = self.outputs.adding(entry.step, entry.output)

    def holds(self, token: Token) -> bool:
        """Whether a token still is the one of its step: if not, whatever it comes to is of no account."""
        return self.tokens.get(token.step) is token

    def context(self, token: Token) -> Context[Any]:
        """What a step sees."""
        return Context(
            initial=self.workflow.read_input(self.text),
            steps=self.outputs,
            id=self.id,
            value=extract_value(self.id),
            run=self.run,
            workflow=self.graph.name,
            version=self.graph.version,
            step=token.step,
            attempt=token.attempt,
            metadata=self.metadata.copy(),
        )

    def saved(self) -> Saved:
        """Return it as it is now. Later changes replace the values in it and never write to them."""
        return Saved(
            run=self.run,
            id=self.id,
            workflow=self.graph.name,
            version=self.graph.version,
            status=self.state.status,
            input=decode(self.text),
            steps=dict(self.outputs),
            history=tuple(self.history),
            waiting_for=tuple(self._waiting(token) for token in self.tokens.values()),
            metadata=self.metadata.copy(),
            tags=self.tags,
            error=self.error,
            created_at=self.created_at,
            finished_at=self.finished_at,
            text=self.text,
            tokens=tuple(copy(token) for token in self.tokens.values()),
            signals=(*self.signals, *self.later.values()),
            telemetry=self.caller,
            step_configs={token.step: token.config for token in self.tokens.values() if token.config is not None},
        )

    @classmethod
    def taken_up(cls, stored: Instance, workflow: type[Workflow[Any]], *, is_retry: bool = False) -> Run:
        """Return the run of a stored instance; without tokens unless a `Local` stored it.

        With `is_retry` a failed one continues; without, it only waits for the signals that are scheduled for it.
        Raises `GraphChanged` when its workflow has changed meanwhile.
        """
        failed = State(workflow.graph, "failed", AppendMap())
        state = restore_state(stored, workflow.graph) if stored.is_active or is_retry else failed
        tokens = stored.tokens if isinstance(stored, Saved) else ()
        for token in tokens:
            if token.place == "parked":
                state, _ = advance(state, machine.Parked(token.step))
        return cls(
            run=stored.run,
            id=stored.id,
            workflow=workflow,
            state=state,
            text=stored.text if isinstance(stored, Saved) else encode(stored.input, what="input", limit=INPUT_LIMIT),
            metadata=dict(stored.metadata),
            tags=stored.tags,
            created_at=stored.created_at,
            error=None if is_retry or stored.error is None else dict(stored.error),
            finished_at=None if is_retry else stored.finished_at,
            history=list(stored.history),
            outputs=AppendMap({entry.step: entry.output for entry in stored.history}),
            tokens={token.step: token for token in tokens},
            signals=Mailbox(each for each in stored.signals if each.id is None),
            later={each.id: each for each in stored.signals if each.id is not None},
            caller=stored.telemetry,
            configs=stored.step_configs,
        )

    def job(self, token: Token) -> Job:
        """Return a token as readers of jobs see it."""
        graph, waits = self.graph, token.place == "parked"
        node = graph.nodes[token.step]
        return Job(
            id=token.id,
            run=self.run,
            instance_id=self.id,
            workflow=graph.name,
            version=graph.version,
            step=token.step,
            kind="resume" if waits else "advance" if token.completed else "execute",
            state=token.place,
            queue=graph.orchestration_queue_of(token.step) if waits else node.queue,
            priority=graph.priority,
            attempt=token.attempt,
            max_attempts=node.retry.max_attempts,
            run_at=token.due,
            worker=None,
            tags=job_tags(graph.name, self.tags),
            meta=deepcopy(
                job_meta(
                    self.metadata,
                    workflow=graph.name,
                    instance_id=self.id,
                    run=self.run,
                    version=graph.version,
                    step=token.step,
                )
            ),
            errors=tuple(deepcopy(token.errors)),
        )

    def _waiting(self, token: Token) -> WaitingFor:
        return waiting_for(
            token.step,
            token.place,
            events=tuple(token.awaits),
            until=token.due,
            attempt=token.attempt,
            max_attempts=self.graph.nodes[token.step].retry.max_attempts,
            errors=token.errors,
        )
