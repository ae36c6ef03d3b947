"""The contract of connectors: one class per external service, with actions that steps call."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any

__all__ = ["Connector"]


class Connector(ABC):
    """A client for an external service, such as a mail or payment provider. Subclass it and write both methods.

    It is only a contract: your steps create and call connectors, pgflow never does. With it, steps call every service
    in the same way, and a test can substitute a connector. A subclass without one of the methods cannot be instantiated
    (`TypeError`).

        class Mail(Connector):
            def supported_actions(self) -> Sequence[str]:
                return ("send",)

            async def execute(
                self, action: str, params: Mapping[str, Any], config: Mapping[str, Any]
            ) -> Mapping[str, Any]:
                match action:
                    case "send":
                        return {"id": await provider.send(params["to"], params["text"], key=config["key"])}
                raise UnsupportedAction(f"Mail has no action {action!r}", hint="It has: send.")

        mail = Mail()

        @step(events=("mailed",))
        async def mail_receipt(ctx: Context[Order]) -> Ok:
            params = {"to": ctx.initial.email, "text": "Thank you."}
            return Ok("mailed", await mail.execute("send", params, {"key": settings.mail_key}))

    A step may let exceptions of `execute` propagate: its `Retry` policy then applies. `UnsupportedAction`, of
    `pgflow.errors`, fails the step without further attempts.
    """

    @abstractmethod
    def execute(
        self, action: str, params: Mapping[str, Any], config: Mapping[str, Any]
    ) -> Mapping[str, Any] | Awaitable[Mapping[str, Any]]:
        """Perform an action and return its result; may be a coroutine function.

        `params` are the arguments of this call; `config` is how to reach the service: addresses, keys, limits. A step
        runs at least once, so pass the service an idempotency key that is the same in every attempt, such as
        `f"{ctx.run}-{ctx.step}"`. Raise `UnsupportedAction` for an action that is not in `supported_actions()`, and any
        other exception when the service refuses or does not answer.
        """

    @abstractmethod
    def supported_actions(self) -> Sequence[str]:
        """Return the names of the actions that `execute` supports."""
