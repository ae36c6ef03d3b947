"""The apps of this process that are open: where a workflow's calls go that was given to none of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from pgflow.errors import NotBound

if TYPE_CHECKING:
    from pgflow.core.facade import Facade

__all__ = ["closed", "opened", "single"]

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
