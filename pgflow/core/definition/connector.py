"""What a connector is: one class per outside service, whose actions the steps of any workflow may call."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any

__all__ = ["Connector"]


class Connector(ABC):
    """The way to an outside service: a mail provider, a payment service. Subclass it and write both methods.

    It is a contract and no more: pgflow never makes one and never calls one; your steps do. So they speak to every
    service in the same way, and a test can put another connector in its place. A class that lacks one of the two
    methods cannot be instantiated (`TypeError`).

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

    Whatever `execute` raises the step may let through: then it is tried again as its `Retry` says. After
    `UnsupportedAction`, of `pgflow.errors`, it is not: another attempt would come to the same.
    """

    @abstractmethod
    def execute(
        self, action: str, params: Mapping[str, Any], config: Mapping[str, Any]
    ) -> Mapping[str, Any] | Awaitable[Mapping[str, Any]]:
        """Do one action and return what came of it; may be a coroutine function.

        `params` says what this call is about, `config` how to reach the service: addresses, keys, limits. A step runs
        at least once, so pass the service a key that is the same in each attempt, such as `f"{ctx.run}-{ctx.step}"`.
        Raise `UnsupportedAction` for an action that is not among `supported_actions()`, and any other exception when
        the service refuses or does not answer.
        """

    @abstractmethod
    def supported_actions(self) -> Sequence[str]:
        """Return the names of the actions that `execute` knows."""
