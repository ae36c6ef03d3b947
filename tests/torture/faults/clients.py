"""Harm that client processes do to themselves: they fork after they have used their app."""

from __future__ import annotations

import random
import subprocess
from typing import Any

from tests.torture.faults.fault import Aim, Harm
from tests.torture.trial.setup import Arena
from tests.torture.workload.forking_client import CHILDREN, command

__all__ = ["HARMS"]

LOG = "clients.log"  # read by the checker like the logs of workers: a traceback in it is a violation
END_SECONDS = 150.0


def numbered(dice: random.Random, arena: Arena) -> dict[str, Any]:
    """Choose which way to the server a client takes, and numbers for its processes that no other client has."""
    number = 1000 + dice.randrange(10**9) * (1 + CHILDREN)
    return {"number": number, "way": dice.randrange(len(arena.callers)), "seconds": round(dice.uniform(2.0, 4.0), 2)}


def fork(arena: Arena, aim: Aim) -> bool:
    line = command(arena.callers[aim["way"]], arena.folder, aim["number"], aim["seconds"])
    with (arena.folder / LOG).open("ab") as log:
        client = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        try:
            return client.wait(END_SECONDS) == 0
        except subprocess.TimeoutExpired:
            log.write(b"Traceback: the client has not ended, or a process that it forked has not\n")
            return False
        finally:
            if client.poll() is None:
                client.kill()
                client.wait()


HARMS = (Harm("a client that forks", "client", fork, aim=numbered),)
