"""Tie workflows to a database: `Pgflow`, and what stands behind `Workflow.start` and its kin."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

from pgflow.client import Call, Client
from pgflow.core.instance import Instance, Started
from pgflow.core.names import event_name
from pgflow.core.payload import INPUT_LIMIT, encode
from pgflow.core.step import as_step
from pgflow.core.unique import validate_value
from pgflow.core.workflow import Workflow
from pgflow.errors import (
    AlreadyRunning,
    ConfigError,
    DefinitionError,
    GraphChanged,
    UndeclaredEvent,
    UnknownStep,
    UnknownWorkflow,
)
from pgflow.store import definition, instance, signal
from pgflow.store.definition import Definition
from pgflow.store.statement import Statement
from pgflow.worker import Worker

__all__ = ["Pgflow"]

I = TypeVar("I")  # noqa: E741 -- the input model, as in Workflow[I]


class Pgflow:
    """An application's workflows and the database that they live in.

    `dsn` is a PostgreSQL connection string; empty means libpq's own variables (PGHOST, PGDATABASE, …). The workflows are an
    explicit registry: nothing is ever imported by a name from the database. Nothing connects before the first call.

        app = Pgflow("postgresql://localhost/shop", workflows=[OrderFlow])
        OrderFlow.start("abc123", Order(item_count=3, user_id=42))

    A workflow belongs to the app that was made last with it; a second app on the same database may have it too.
    """

    def __init__(self, dsn: str = "", workflows: Iterable[type[Workflow[Any]]] = (), *, schema: str = "pgflow") -> None:
        self.workflows = tuple(workflows)
        self._by_name: dict[str, type[Workflow[Any]]] = {}
        for workflow in self.workflows:
            if not (isinstance(workflow, type) and issubclass(workflow, Workflow)):
                raise DefinitionError(
                    f"{workflow!r} is not a workflow class",
                    hint="Pass Workflow subclasses: Pgflow(dsn, workflows=[OrderFlow]).",
                )
            if self._by_name.setdefault(workflow.name, workflow) is not workflow:
                raise DefinitionError(
                    f"two workflows are named {workflow.name}",
                    hint="Give one of them another name: class …(Workflow, name=…).",
                )
            workflow.bind(self)
        self._client = Client(dsn, schema)
        self._is_registered = False

    @property
    def dsn(self) -> str:
        """The connection string it was given."""
        return self._client.dsn

    @property
    def schema(self) -> str:
        """The schema that pgflow lives in."""
        return self._client.schema

    def __repr__(self) -> str:
        return f"Pgflow(workflows=[{', '.join(self._by_name)}], schema={self.schema!r})"

    def workflow(self, name: str) -> type[Workflow[Any]]:
        """Return the workflow of that name. Raises `UnknownWorkflow`."""
        known = self._by_name.get(name)
        if known is None:
            raise UnknownWorkflow(
                f"this app has no workflow named {name!r}",
                hint=f"It has: {', '.join(sorted(self._by_name)) or 'none'}.",
            )
        return known

    def worker(self, queues: Mapping[str, int] | None = None, **options: Any) -> Worker:
        """Make a worker of this app's workflows; see `Worker` for the options."""
        return Worker(self.dsn, self.workflows, queues=queues or {"default": 10}, schema=self.schema, **options)

    # -- definitions

    def register(self) -> None:
        """Store this app's definitions, once. Raises `GraphChanged` when one has other edges under the same version."""
        if not self._is_registered:
            self._check(self._client.run(self._registration()))

    async def aregister(self) -> None:
        """`register`, async."""
        if not self._is_registered:
            self._check(await self._client.arun(self._registration()))

    def _registration(self) -> Statement[list[Definition]]:
        definitions = [
            Definition(workflow.name, workflow.version, workflow.graph.digest(), workflow.graph.spec())
            for workflow in self.workflows
        ]
        return definition.register(self.schema, definitions)

    def _check(self, stored: Iterable[Definition]) -> None:
        for known in stored:
            graph = self._by_name[known.workflow].graph
            if known.hash != graph.digest():
                raise GraphChanged(
                    f"{known.workflow} version {known.version} has another graph in the database: {_difference(known.graph, graph.spec())}",
                    hint=f"Instances of version {known.version} may be under way: give the changed workflow version={known.version + 1}.",
                )
        self._is_registered = True

    # -- what stands behind Workflow.start and its kin; each pair differs by a word

    def start(
        self, workflow: type[Workflow[I]], value: str, input: Any = None, *, conn: Any = None, **options: Any
    ) -> Started:  # noqa: A002 -- the public name
        """Start one instance. Raises `AlreadyRunning`, `InvalidInput`, `InvalidValue`, `InvalidPayload`."""
        return self._one(workflow, self.start_many(workflow, [(value, input)], conn=conn, **options))

    async def astart(
        self, workflow: type[Workflow[I]], value: str, input: Any = None, *, conn: Any = None, **options: Any
    ) -> Started:  # noqa: A002
        """`start`, async."""
        return self._one(workflow, await self.astart_many(workflow, [(value, input)], conn=conn, **options))

    def start_many(
        self, workflow: type[Workflow[I]], items: Iterable[tuple[str, Any]], *, conn: Any = None, **options: Any
    ) -> list[Started]:
        """Start many instances in one statement; one whose key is active already comes back with created=False."""
        call = self._starting(workflow, items, **options)
        self.register()
        return self._client.call(call, conn)

    async def astart_many(
        self, workflow: type[Workflow[I]], items: Iterable[tuple[str, Any]], *, conn: Any = None, **options: Any
    ) -> list[Started]:
        """`start_many`, async."""
        call = self._starting(workflow, items, **options)
        await self.aregister()
        return await self._client.acall(call, conn)

    def resume(
        self,
        workflow: type[Workflow[I]],
        value: str,
        event: str,
        payload: Any = None,
        *,
        step: Any = None,
        conn: Any = None,
    ) -> str:
        """Send a signal; returns "delivered" to a wait, or "kept" for one still to come."""
        return self._client.call(self._resuming(workflow, value, event, payload, step), conn)

    async def aresume(
        self,
        workflow: type[Workflow[I]],
        value: str,
        event: str,
        payload: Any = None,
        *,
        step: Any = None,
        conn: Any = None,
    ) -> str:
        """`resume`, async."""
        return await self._client.acall(self._resuming(workflow, value, event, payload, step), conn)

    def cancel(self, workflow: type[Workflow[I]], value: str, *, reason: str | None = None, conn: Any = None) -> None:
        """Cancel the newest run of a value."""
        self._client.call(self._cancelling(workflow, value, reason), conn)

    async def acancel(
        self, workflow: type[Workflow[I]], value: str, *, reason: str | None = None, conn: Any = None
    ) -> None:
        """`cancel`, async."""
        await self._client.acall(self._cancelling(workflow, value, reason), conn)

    def retry(self, workflow: type[Workflow[I]], value: str, *, conn: Any = None) -> None:
        """Take the newest run of a value up again after it failed."""
        self._client.call(self._retrying(workflow, value), conn)

    async def aretry(self, workflow: type[Workflow[I]], value: str, *, conn: Any = None) -> None:
        """`retry`, async."""
        await self._client.acall(self._retrying(workflow, value), conn)

    def get(self, workflow: type[Workflow[I]], value: str, *, conn: Any = None) -> Instance:
        """Read the newest run of a value, with its history and what it waits for."""
        return self._client.run(instance.get(self.schema, workflow=workflow.name, value=value), conn)

    async def aget(self, workflow: type[Workflow[I]], value: str, *, conn: Any = None) -> Instance:
        """`get`, async."""
        return await self._client.arun(instance.get(self.schema, workflow=workflow.name, value=value), conn)

    def list(
        self,
        workflow: type[Workflow[I]],
        *,
        status: str | Sequence[str] | None = None,
        before: int | None = None,
        limit: int = 50,
        conn: Any = None,
    ) -> list[Instance]:
        """Read a page of instances, newest first."""
        return self._client.run(self._listing(workflow, status, before, limit), conn)

    async def alist(
        self,
        workflow: type[Workflow[I]],
        *,
        status: str | Sequence[str] | None = None,
        before: int | None = None,
        limit: int = 50,
        conn: Any = None,
    ) -> list[Instance]:
        """`list`, async."""
        return await self._client.arun(self._listing(workflow, status, before, limit), conn)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    async def aclose(self) -> None:
        """Close the connections of this event loop, and those of threads."""
        await self._client.aclose()

    # -- the statements of those calls

    def _starting(
        self,
        workflow: type[Workflow[Any]],
        items: Iterable[tuple[str, Any]],
        *,
        at: datetime | None = None,
        delay: timedelta | None = None,
        tags: Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
        priority: int | None = None,
    ) -> Call[list[Started]]:
        if at is not None and delay is not None:
            raise ConfigError(
                "an instance starts at a time or after a delay, not both", hint="Pass either at= or delay=."
            )
        if at is not None and at.tzinfo is None:
            raise ConfigError(
                f"at={at.isoformat()} has no time zone",
                hint="Use an aware datetime, such as datetime.now(timezone.utc).",
            )
        values, inputs = [], []
        for value, given in items:
            values.append(validate_value(value))
            inputs.append(workflow.write_input(given))
        encode(dict(metadata or {}), what="metadata", limit=INPUT_LIMIT)

        def statement(notify: bool) -> Statement[list[Started]]:
            return instance.start(
                self.schema,
                workflow=workflow.name,
                values=values,
                inputs=inputs,
                version=workflow.version,
                at=at,
                delay=delay,
                tags=tags,
                metadata=metadata or {},
                priority=priority,
                notify=notify,
            )

        return Call(
            statement, frozenset({self._first_queue(workflow)}) if at is None and delay is None else frozenset()
        )

    def _one(self, workflow: type[Workflow[Any]], started: list[Started]) -> Started:
        (one,) = started
        if not one.created:
            raise AlreadyRunning(
                f"{workflow.name} {one.id!r} is already running",
                hint="Wait until it has ended, cancel it, or use another value.",
            )
        return one

    def _resuming(self, workflow: type[Workflow[Any]], value: str, event: Any, payload: Any, step: Any) -> Call[str]:
        name = str(event_name(event))
        key = step if isinstance(step, str) or step is None else as_step(step).key
        nodes = workflow.graph.nodes
        if key is not None and key not in nodes:
            raise UnknownStep(f"{workflow.name} has no step {key!r}", hint=f"It has: {', '.join(sorted(nodes))}.")
        takers = [node for node in nodes.values() if name in node.step.signals() and key in (None, node.key)]
        if not takers:
            accepted = sorted(f"{signal} ({node.key})" for node in nodes.values() for signal in node.step.signals())
            raise UndeclaredEvent(f"{workflow.name} takes no signal {name!r}", hint=f"It takes: {', '.join(accepted)}.")
        text = None if payload is None else encode(payload, what="payload", limit=INPUT_LIMIT)
        queues = frozenset(taker.queue for taker in takers)
        return Call(
            lambda notify: signal.send(
                self.schema, workflow=workflow.name, value=value, event=name, payload=text, step=key, notify=notify
            ),
            queues,
        )

    def _cancelling(self, workflow: type[Workflow[Any]], value: str, reason: str | None) -> Call[None]:
        # Woken without a queue's name, every worker looks whether its steps are still wanted.
        return Call(
            lambda notify: instance.cancel(
                self.schema, workflow=workflow.name, value=value, reason=reason, notify=notify
            ),
            frozenset({""}),
        )

    def _retrying(self, workflow: type[Workflow[Any]], value: str) -> Call[None]:
        return Call(
            lambda notify: instance.retry(self.schema, workflow=workflow.name, value=value, notify=notify),
            frozenset({self._first_queue(workflow)}),
        )

    def _listing(
        self, workflow: type[Workflow[Any]], status: str | Sequence[str] | None, before: int | None, limit: int
    ) -> Statement[list[Instance]]:
        statuses = [status] if isinstance(status, str) else status
        return instance.list(self.schema, workflow=workflow.name, statuses=statuses, before=before, limit=limit)

    def _first_queue(self, workflow: type[Workflow[Any]]) -> str:
        graph = workflow.graph
        return graph.nodes[graph.initial].queue


def _difference(stored: Mapping[str, Any], brought: Mapping[str, Any]) -> str:
    """Say which edges and steps differ, the stored ones first."""
    before, after = _edges(stored), _edges(brought)
    gone = [f"-{edge}" for edge in sorted(before - after)]
    new = [f"+{edge}" for edge in sorted(after - before)]
    return ", ".join([*gone, *new]) or "its steps declare other events"


def _edges(graph: Mapping[str, Any]) -> set[str]:
    return {f"{edge['from']}.{edge['event']} → {target}" for edge in graph["edges"] for target in edge["targets"]}
