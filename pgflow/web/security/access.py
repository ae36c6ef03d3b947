"""Rights, and what a person may do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from pgflow.errors import ConfigError

__all__ = ["ALL", "READ_ONLY", "RIGHTS", "Access", "Deny"]

# Every right. A page or an action names one of them; a new one is added here first.
RIGHTS: Mapping[str, str] = {
    "read": "See pages, lists and states",
    "signal": "Send signals to instances",
    "start": "Start instances and enqueue tasks",
    "cancel": "Cancel instances and tasks",
    "retry": "Retry failed instances, steps and tasks",
    "complete": "Complete or fail a step that waits for an operator",
    "run-now": "End a wait or a back-off now",
    "edit": "Move, reprioritise and reschedule",
    "delete": "Delete ended instances and tasks",
    "queues": "Pause, resume and scale queues",
    "limits": "Set and clear limits",
    "schedules": "Add, pause, resume and remove schedules",
}


@dataclass(frozen=True, slots=True)
class Access:
    """What one person may do: `rights` are names of `RIGHTS`, `user` is the name for the audit and the page.

    Access({"read", "signal"}, user="ada")
    """

    rights: frozenset[str]
    user: str = ""

    def __init__(self, rights: Iterable[str], user: str = "") -> None:
        given = frozenset(rights)
        if unknown := sorted(given - RIGHTS.keys()):
            raise ConfigError(f"there is no right {unknown[0]!r}", hint=f"Rights: {', '.join(RIGHTS)}.")
        object.__setattr__(self, "rights", given)
        object.__setattr__(self, "user", user)

    def named(self, user: str) -> Access:
        """Return the same rights for a person of this name."""
        return replace(self, user=user)

    @property
    def is_read_only(self) -> bool:
        """Whether no action is allowed."""
        return self.rights <= {"read"}


@dataclass(frozen=True, slots=True)
class Deny:
    """The answer of `authorize` for a user who may see nothing: `login` is where they can sign in, or None."""

    login: str | None = None


ALL = Access(RIGHTS)
READ_ONLY = Access({"read"})
