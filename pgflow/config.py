"""Settings that come from outside: which database, and which queues a worker serves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pgflow.core.values.names import is_queue
from pgflow.errors import BadQueue, ConfigError

__all__ = ["DEFAULT_LIMIT", "DSN_VARIABLES", "parse_queue", "parse_queues", "resolve_dsn", "resolve_pooler"]

DEFAULT_LIMIT = 10  # steps of one queue that run at once on one worker
MOST_LIMIT = 10_000
DSN_VARIABLES = ("PGFLOW_DSN", "DATABASE_URL")
YES = frozenset({"1", "true", "t", "yes", "y", "on"})
NO = frozenset({"", "0", "false", "f", "no", "n", "off"})
FORM_HINT = "Write name=limit, as in default=10."


def parse_queue(text: str) -> tuple[str, int]:
    """Return the queue and the number of its steps that run at once. Raises `BadQueue`.

    parse_queue("mail=2")    # ("mail", 2)
    parse_queue("mail")      # ("mail", 10)
    """
    name, separator, limit = text.strip().partition("=")
    if not is_queue(name):
        raise BadQueue(f"{name!r} cannot be the name of a queue: use letters, digits, '_', '-' and '.'", hint=FORM_HINT)
    if not separator:
        return name, DEFAULT_LIMIT
    if not (limit.isascii() and limit.isdigit()) or not 1 <= int(limit) <= MOST_LIMIT:
        raise BadQueue(f"queue {name} cannot run {limit!r} steps at once: 1 to {MOST_LIMIT} can", hint=FORM_HINT)
    return name, int(limit)


def parse_queues(texts: Iterable[str]) -> dict[str, int]:
    """Return each queue with its limit. Raises `BadQueue` for none, for one given twice, and as `parse_queue` does.

    parse_queues(["default=10", "mail=2"])    # {"default": 10, "mail": 2}
    """
    queues: dict[str, int] = {}
    for text in texts:
        name, limit = parse_queue(text)
        if name in queues:
            raise BadQueue(f"queue {name} is given twice", hint="Give each queue once, with one limit.")
        queues[name] = limit
    if not queues:
        raise BadQueue("no queue is given", hint=FORM_HINT)
    return queues


def resolve_dsn(given: str | None, environment: Mapping[str, str]) -> str:
    """Return the connection string that counts: the given one, else PGFLOW_DSN, else DATABASE_URL, else the empty one.

    The empty one leaves all to libpq's own PG* variables. A variable that is set to nothing does not count.

        resolve_dsn(None, {"DATABASE_URL": "postgresql:///shop"})    # "postgresql:///shop"
    """
    return given or next((environment[name] for name in DSN_VARIABLES if environment.get(name)), "")


def resolve_pooler(given: bool | None, environment: Mapping[str, str]) -> bool:
    """Return whether a pooler stands before the database: as given, else as PGFLOW_POOLER says, else not.

    Raises `ConfigError` when the variable says neither yes nor no.

        resolve_pooler(None, {"PGFLOW_POOLER": "1"})    # True
    """
    said = environment.get("PGFLOW_POOLER", "").strip().lower()
    if given is None and said not in YES | NO:
        raise ConfigError(
            f"PGFLOW_POOLER={said!r} says neither yes nor no", hint="Write PGFLOW_POOLER=1 or leave it out."
        )
    return said in YES if given is None else given
