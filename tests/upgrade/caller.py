"""An application of one release.

`caller PREFIX STOP` starts instances and signals them until the file STOP exists.
`caller PREFIX STOP CALL …` makes only these calls, each once. Prints the result of each call as JSON.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from threading import Event

import psycopg

from pgflow.errors import PgflowError
from tests.upgrade.flow import Load, app


def in_a_transaction(value: str) -> None:
    """Start one and read another in one transaction."""
    with psycopg.connect(os.environ["PGFLOW_DSN"]) as conn:
        Load.start(f"{value}-t", {}, conn=conn)
        Load.get(value, conn=conn)


PACE = Event()
CALLS: dict[str, Callable[[str], object]] = {
    "start": lambda value: Load.start(value, {}),
    "resume": lambda value: Load.resume(value, "confirmed"),
    "get": lambda value: Load.get(value).status,
    "list": lambda value: Load.list(limit=3),
    "transaction": in_a_transaction,
    "cancel": lambda value: Load.cancel(value),
}


def attempt(name: str, value: str) -> str:
    """Make a call; returns "ok" or its error."""
    try:
        CALLS[name](value)
    except PgflowError as error:
        return f"{error.code}: {error} {error.hint}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "ok"


def main(prefix: str, stop: Path, calls: list[str]) -> None:
    """Make the calls, and print how often each had which result."""
    answers: Counter[tuple[str, str]] = Counter()
    number = 0
    while True:
        for name in calls or ("start", "resume", "get"):
            answers[name, attempt(name, f"{prefix}-{number}")] += 1
        number += 1
        if number == 1:
            print("begun", flush=True)
        if calls or stop.exists():
            break
        PACE.wait(0.06)  # a steady load, below the capacity of the machine
    print(json.dumps([[*key, count] for key, count in answers.items()]), flush=True)
    app.close()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
