"""Which app a workflow's calls go to: the one it was given to, else the only open one in this process."""

from __future__ import annotations

from typing import Any, ClassVar
from weakref import WeakSet, ref

from pgflow.client.client import Client
from pgflow.errors import NotBound

__all__ = ["Bound", "closed", "only_app", "opened"]

# Weak: an app without references is not open. Copied before it is read, since other threads may open and close apps.
open_apps: WeakSet[Client] = WeakSet()


def opened(app: Client) -> None:
    """Add an app to the open ones."""
    open_apps.add(app)


def closed(app: Client) -> None:
    """Remove it."""
    open_apps.discard(app)


def only_app(workflow: type[Any]) -> Client:
    """Return the one app that is open. Raises `NotBound` when none is, or several, which it names."""
    match list(open_apps.copy()):
        case [app]:
            return app
        case []:
            raise NotBound(
                f"{workflow.name} belongs to no app, and none is open",
                hint=f"Make one first: Pgflow(dsn, workflows=[{workflow.__name__}]).",
            )
        case found:
            several = ", ".join(sorted(map(repr, found)))
            raise NotBound(
                f"{workflow.name} belongs to no app, and several are open: {several}",
                hint=f"Choose one: list it in that app's workflows, write class {workflow.__name__}(…, app=app), or "
                f"call app.start({workflow.__name__}, …).",
            )


class Bound:
    """A class whose calls go to an app."""

    name: ClassVar[str]
    _app: ClassVar[Client | None] = None
    _earlier: ClassVar[tuple[ref[Client], ...]] = ()  # weak: a class does not keep an app alive

    @classmethod
    def bind(cls, app: Client) -> None:
        """Send these calls to `app`, until it is closed or a later one takes its place."""
        before = cls._own_app()
        if before is not None and before is not app:
            cls._earlier = (*cls.__dict__.get("_earlier", ()), ref(before))
        cls._app = app

    @classmethod
    def unbind(cls, app: Client) -> None:
        """Send these calls to the app that was made before `app`, if there is one: `app` is closed."""
        earlier = [each for each in cls.__dict__.get("_earlier", ()) if each() is not None and each() is not app]
        if cls._own_app() is app and earlier:
            cls._app = earlier.pop()()
        cls._earlier = tuple(earlier)

    @classmethod
    def bound(cls) -> Client:
        """Return the app that these calls go to. Raises `NotBound`.

        OrderFlow.bound().get("OrderFlow", "abc123")
        """
        own = cls._own_app()
        if own is None:
            own = only_app(cls)
            own.adopt(cls)
        return own

    @classmethod
    def _own_app(cls) -> Client | None:
        # Not the one of a parent class: that app does not know this workflow.
        own: Client | None = cls.__dict__.get("_app")
        return own
