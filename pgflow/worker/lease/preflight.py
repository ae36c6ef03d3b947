"""Check the server once, before a worker registers."""

from __future__ import annotations

from pgflow.database.connect import AsyncConnection
from pgflow.database.statement import arun
from pgflow.logs import Logger
from pgflow.store import doctor

__all__ = ["warn_of_unsafe_settings"]

log = Logger("pgflow.worker")

DURABILITY_SETTINGS = ("fsync", "full_page_writes", "synchronous_commit")


async def warn_of_unsafe_settings(conn: AsyncConnection, schema: str) -> None:
    """Log it when this server may lose commits in a crash: pgflow's guarantees depend on them."""
    found = await arun(conn, doctor.settings(schema))
    unsafe = [name for name in DURABILITY_SETTINGS if found[name] == "off"]
    if unsafe:
        log.warning("%s: off. This server may lose committed transactions in a crash", ", ".join(unsafe))
