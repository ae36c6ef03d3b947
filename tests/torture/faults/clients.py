"""Faults of client processes: they fork after they have used their app."""

from __future__ import annotations

import random
import subprocess
from typing import Any

from tests.torture.faults.fault import Aim, Fault
from tests.torture.trial.setup import Environment
from tests.torture.workload.forking_client import CHILDREN, command

__all__ = ["FAULTS"]

LOG = "clients.log"  # checked like the workers' logs: a traceback in it is a violation
END_SECONDS = 150.0


def new_client(dice: random.Random, environment: Environment) -> dict[str, Any]:
    """Choose the client's way to the server, and numbers for its processes that no other client has."""
    number = 1000 + dice.randrange(10**9) * (1 + CHILDREN)
    way = dice.randrange(len(environment.callers))
    return {"number": number, "way": way, "seconds": round(dice.uniform(2.0, 4.0), 2)}


def fork(environment: Environment, aim: Aim) -> bool:
    line = command(environment.callers[aim["way"]], environment.folder, aim["number"], aim["seconds"])
    with (environment.folder / LOG).open("ab") as log:
        client = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        try:
            return client.wait(END_SECONDS) == 0
        except subprocess.TimeoutExpired:
            log.write(b"Traceback: the client, or a process that it forked, has not ended\n")
            return False
        finally:
            if client.poll() is None:
                client.kill()
                client.wait()


FAULTS = (Fault("a client that forks", "client", fork, aim=new_client),)
