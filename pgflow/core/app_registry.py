"""To which app a workflow's calls go: the one that it was given to, else the only one in this process."""

from __future__ import annotations

from typing import Any, ClassVar
from weakref import WeakSet, ref

from pgflow.core.facade import Facade
from pgflow.errors import NotBound

__all__ = ["Bound", "closed", "opened", "single"]

# Weak: an app that nobody has any more is not open. Copied before it is read, since other threads may open and close.
apps: WeakSet[Any] = WeakSet()


def opened(app: Facade) -> None:
    """Count an app among the open ones."""
    apps.add(app)


def closed(app: Facade) -> None:
    """Count it no more."""
    apps.discard(app)


def single(workflow: type[Any]) -> Facade:
    """Return the one app that is open. Raises `NotBound` when none is, or several, which it names."""
    found: list[Facade] = list(apps.copy())
    match found:
        case [app]:
            return app
        case []:
            raise NotBound(
                f"{workflow.name} belongs to no app, and none is open",
                hint=f"Make one first: Pgflow(dsn, workflows=[{workflow.__name__}]).",
            )
    several = ", ".join(sorted(map(repr, found)))
    raise NotBound(
        f"{workflow.name} belongs to no app, and several are open: {several}",
        hint=f"Say which: list it in that one's workflows, write class {workflow.__name__}(…, app=app), or call "
        f"app.start({workflow.__name__}, …).",
    )


class Bound:
    """A class with an app that its calls go to."""

    name: ClassVar[str]
    _app: ClassVar[Facade | None] = None
    _earlier: ClassVar[tuple[ref[Facade], ...]] = ()  # weak: who holds no app any more has done with it

    @classmethod
    def bind(cls, app: Facade) -> None:
        """Let these calls go to `app`, until it is closed or another one is made."""
        before = cls._own_app()
        if before is not None and before is not app:
            cls._earlier = (*cls.__dict__.get("_earlier", ()), ref(before))
        cls._app = app

    @classmethod
    def unbind(cls, app: Facade) -> None:
        """Let these calls go to the app that was made before `app`, if there is one: it is closed."""
        earlier = [each for each in cls.__dict__.get("_earlier", ()) if each() is not None and each() is not app]
        if cls._own_app() is app and earlier:
            cls._app = earlier.pop()()
        cls._earlier = tuple(earlier)

    @classmethod
    def bound(cls) -> Facade:
        """Return the app that these calls go to. Raises `NotBound`.

        OrderFlow.bound().get("OrderFlow", "abc123")
        """
        own = cls._own_app()
        if own is None:
            own = single(cls)
            own.adopt(cls)
        return own

    @classmethod
    def _own_app(cls) -> Facade | None:
        # Not what a parent class is bound to: that app does not know this workflow.
        own: Facade | None = cls.__dict__.get("_app")
        return own
