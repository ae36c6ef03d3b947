"""Where it takes place: the server, the way to it, the workers and the callers, in one hand."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgflow.app import Pgflow
from pgflow.cli.torture import flows
from pgflow.cli.torture.fleet import Berth, Fleet
from pgflow.cli.torture.flows import Script
from pgflow.store.connect import Connection, connect

__all__ = ["Arena"]


@dataclass
class Arena:
    """All that harm can be done to. `app` and `admin` go straight to the server, past everything that is disturbed."""

    folder: Path
    dsn: str
    fleet: Fleet
    app: Pgflow

    def berth(self, aim: Mapping[str, Any]) -> Berth:
        """The worker that something is aimed at."""
        return next(each for each in self.fleet.berths if each.name == aim["worker"])

    def lay_bait(self) -> None:
        """Start some of what is rare, so that it is met soon."""
        self.app.start_many(flows.Booking, [(f"bait-{secrets.token_hex(4)}", Script(pause=0.05)) for _ in range(12)])

    @contextmanager
    def admin(self) -> Iterator[Connection]:
        """A connection of the harness's own."""
        with connect(self.dsn, "torture") as conn:
            yield conn
