"""The contract of a backend: it executes commands."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from pgflow.client.commands import Command

__all__ = ["Backend"]

R = TypeVar("R")


class Backend(Protocol):
    """Executes every command of `pgflow.client.commands`, or refuses it with a `ConfigError` that names it.

    `session` is what the caller passed as `conn`: the command then takes part in that transaction, and the backend
    neither commits nor rolls back. A backend without transactions refuses a session. Both methods raise the errors of
    `pgflow.errors`, and the same ones.

        backend.execute(Cancel(OrderFlow.definitions, "abc123", reason="the customer withdrew"))
    """

    def execute(self, command: Command[R], session: Any = None) -> R:
        """Execute a command and return its answer."""

    async def aexecute(self, command: Command[R], session: Any = None) -> R:
        """`execute`, async."""
