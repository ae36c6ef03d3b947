"""What `Pgflow` and `Local` have in common besides their calls: workflows and tasks that are bound to them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any, Self

from pgflow.client import apps
from pgflow.client.client import Client
from pgflow.client.limits import Limits
from pgflow.client.queues import Queues
from pgflow.client.task import Task
from pgflow.client.workflow import Workflow

__all__ = ["App"]


class App(Client, ABC):
    """A client that the calls of its workflows and tasks go to, from its creation until it is closed.

    `with app:` and `async with app:` close it at the end of the block.
    """

    @abstractmethod
    def close(self) -> None:
        """End what it keeps open. Its workflows and tasks go back to the app that was made before it, if any."""

    @abstractmethod
    async def aclose(self) -> None:
        """`close`, async."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def workflows(self) -> tuple[type[Workflow[Any]], ...]:
        """The workflows that it was given."""
        return self._registry.workflows

    @property
    def tasks(self) -> tuple[Task[..., Any, Any], ...]:
        """The tasks that it was given."""
        return self._registry.tasks

    @property
    def versions(self) -> tuple[type[Workflow[Any]], ...]:
        """Every class with a graph: each version of a versioned workflow, and every other workflow."""
        return tuple(self._registry.versions)

    @property
    def queues(self) -> Queues:
        """The queues, to pause, resume, scale and drain."""
        return Queues(self._backend)

    @property
    def limits(self) -> Limits:
        """The limits of queues and partition keys, to set and clear."""
        return Limits(self._backend)

    def workflow(self, name: str) -> type[Workflow[Any]]:
        """Return the workflow of that name. Raises `UnknownWorkflow`."""
        return self._registry.named(name)

    def task(self, name: str) -> Task[..., Any, Any]:
        """Return the task of that name. Raises `UnknownTask`."""
        known: Task[..., Any, Any] = self._registry.task_named(name)
        return known

    def _bind(self) -> None:
        for workflow in self.workflows:
            workflow.bind(self)
        for each in self.tasks:
            each.bind(self)
        apps.opened(self)

    def _unbind(self) -> None:
        apps.closed(self)
        for workflow in self.workflows:
            workflow.unbind(self)
        for each in self.tasks:
            each.unbind(self)
