"""Parse settings from the command line and the environment: the database, and the queues of a worker."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from pgflow.core.values.names import is_queue
from pgflow.core.values.query_args import is_integer
from pgflow.errors import BadQueue, ConfigError

__all__ = [
    "DEFAULT_LIMIT",
    "DSN_VARIABLES",
    "check_queues",
    "parse_queue",
    "parse_queues",
    "resolve_dsn",
    "resolve_pooler",
]

DEFAULT_LIMIT = 10  # concurrency of a queue on one worker
MAX_LIMIT = 10_000
DSN_VARIABLES = ("PGFLOW_DSN", "DATABASE_URL")
YES = frozenset({"1", "true", "t", "yes", "y", "on"})
NO = frozenset({"", "0", "false", "f", "no", "n", "off"})
FORM_HINT = "Write name=concurrency, such as default=10."


def parse_queue(text: str) -> tuple[str, int]:
    """Return the queue's name and its concurrency. Raises `BadQueue`.

    parse_queue("mail=2")    # ("mail", 2)
    parse_queue("mail")      # ("mail", 10)
    """
    name, separator, limit = text.strip().partition("=")
    _check_name(name)
    if not separator:
        return name, DEFAULT_LIMIT
    if not (limit.isascii() and limit.isdigit()) or not 1 <= int(limit) <= MAX_LIMIT:
        _refuse_limit(name, limit)
    return name, int(limit)


def parse_queues(texts: Iterable[str]) -> dict[str, int]:
    """Return the concurrency of each queue. Raises `BadQueue` for no queue, a duplicate, or an invalid one.

    parse_queues(["default=10", "mail=2"])    # {"default": 10, "mail": 2}
    """
    queues: dict[str, int] = {}
    for text in texts:
        name, limit = parse_queue(text)
        if name in queues:
            raise BadQueue(f"queue {name} is given twice", hint="Give each queue once.")
        queues[name] = limit
    if not queues:
        raise BadQueue("no queue given", hint=FORM_HINT)
    return queues


def check_queues(queues: Mapping[str, int]) -> dict[str, int]:
    """Return the concurrency of each queue of a worker. Raises `BadQueue` that names the queue.

    check_queues({"mail": 0})    # BadQueue: queue mail: concurrency must be between 1 and 10000, got 0
    """
    for name, limit in queues.items():
        _check_name(name)
        if not is_integer(limit, 1, MAX_LIMIT):
            _refuse_limit(name, limit)
    return dict(queues)


def _check_name(name: Any) -> None:
    if not is_queue(name):
        raise BadQueue(f"{name!r} is not a valid queue name: use letters, digits, '_', '-' and '.'", hint=FORM_HINT)


def _refuse_limit(name: str, limit: object) -> NoReturn:
    raise BadQueue(f"queue {name}: concurrency must be between 1 and {MAX_LIMIT}, got {limit!r}", hint=FORM_HINT)


def resolve_dsn(given: str | None, environment: Mapping[str, str]) -> str:
    """Return the connection string: the given one, else PGFLOW_DSN, else DATABASE_URL, else the empty one.

    With the empty one, libpq reads its PG* variables. Empty variables are ignored.

        resolve_dsn(None, {"DATABASE_URL": "postgresql:///shop"})    # "postgresql:///shop"
    """
    return given or next((environment[name] for name in DSN_VARIABLES if environment.get(name)), "")


def resolve_pooler(given: bool | None, environment: Mapping[str, str]) -> bool:
    """Return whether the DSN leads to a pooler: as given, else according to PGFLOW_POOLER, else False.

    Raises `ConfigError` when the variable is not a boolean.

        resolve_pooler(None, {"PGFLOW_POOLER": "1"})    # True
    """
    value = environment.get("PGFLOW_POOLER", "").strip().lower()
    if given is None and value not in YES | NO:
        raise ConfigError(f"PGFLOW_POOLER must be 1 or 0, got {value!r}", hint="Set PGFLOW_POOLER=1, or unset it.")
    return value in YES if given is None else given
