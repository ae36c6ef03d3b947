"""Which app the calls of a workflow or task go to: the one it was given to, else the only open one in this process."""

from __future__ import annotations

from typing import ClassVar
from weakref import WeakSet, ref

from pgflow.client.client import Client
from pgflow.errors import NotBound

__all__ = ["Binding", "Bound", "closed", "only_app", "opened"]

# Weak: an app without references is not open. Copied before it is read, since other threads may open and close apps.
open_apps: WeakSet[Client] = WeakSet()


def opened(app: Client) -> None:
    """Add an app to the open ones."""
    open_apps.add(app)


def closed(app: Client) -> None:
    """Remove it."""
    open_apps.discard(app)


def only_app(name: str, listed: str, call: str) -> Client:
    """Return the one app that is open. Raises `NotBound` when none is, or several, which it names.

    `listed` and `call` are examples for the hint: "workflows=[OrderFlow]", "app.start(OrderFlow, …)".
    """
    match list(open_apps.copy()):
        case [app]:
            return app
        case []:
            raise NotBound(
                f"{name} belongs to no app, and none is open", hint=f"Make one first: Pgflow(dsn, {listed})."
            )
        case found:
            several = ", ".join(sorted(map(repr, found)))
            raise NotBound(
                f"{name} belongs to no app, and several are open: {several}",
                hint=f"Choose one: write {listed} where that app is made, or call {call}.",
            )


class Binding:
    """The app that the calls of one workflow class or task go to."""

    def __init__(self) -> None:
        self.app: Client | None = None
        self._earlier: tuple[ref[Client], ...] = ()  # weak: a class does not keep an app alive

    def bind(self, app: Client) -> None:
        """Send the calls to `app`, until it is closed or a later one takes its place."""
        if self.app is not None and self.app is not app:
            self._earlier = (*self._earlier, ref(self.app))
        self.app = app

    def unbind(self, app: Client) -> None:
        """Send the calls to the app that was made before `app`, if there is one: `app` is closed."""
        earlier = [each for each in self._earlier if each() is not None and each() is not app]
        if self.app is app and earlier:
            self.app = earlier.pop()()
        self._earlier = tuple(earlier)


class Bound:
    """A class whose calls go to an app."""

    name: ClassVar[str]

    @classmethod
    def bind(cls, app: Client) -> None:
        """Send these calls to `app`, until it is closed or a later one takes its place."""
        cls._binding().bind(app)

    @classmethod
    def unbind(cls, app: Client) -> None:
        """Send these calls to the app that was made before `app`, if there is one: `app` is closed."""
        cls._binding().unbind(app)

    @classmethod
    def bound(cls) -> Client:
        """Return the app that these calls go to. Raises `NotBound`.

        OrderFlow.bound().get("OrderFlow", "abc123")
        """
        own = cls._own_app()
        if own is None:
            call = f"app.start({cls.__name__}, …), or pass app=app to its class"
            own = only_app(cls.name, f"workflows=[{cls.__name__}]", call)
            own.adopt(cls)
        return own

    @classmethod
    def _own_app(cls) -> Client | None:
        return cls._binding().app

    @classmethod
    def _binding(cls) -> Binding:
        # Not the one of a parent class: that app does not know this workflow.
        own: Binding | None = cls.__dict__.get("_app")
        if own is None:
            own = cls._app = Binding()
        return own

    _app: ClassVar[Binding]
