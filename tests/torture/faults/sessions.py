"""Harm to sessions, from within the database: each kind of connection ended, statements cancelled, rows locked."""

from __future__ import annotations

from tests.torture.faults.fault import Aim, Harm
from tests.torture.trial.setup import Arena

__all__ = ["HARMS"]

ROLES = ("worker", "heart", "listen", "step", "client")
TERMINATE = """
    select count(*) filter (where pg_terminate_backend(pid)) from pg_stat_activity
    where datname = current_database() and application_name = %s and pid <> pg_backend_pid()
"""
# One that waits for the standby is left alone: cancelled, it would say that it is committed although only half the
# servers have it, and the next failover would take it back.
CANCEL = """
    select count(*) filter (where pg_cancel_backend(pid)) from pg_stat_activity
    where datname = current_database() and application_name like 'pgflow:%%' and state = 'active'
        and pid <> pg_backend_pid() and wait_event is distinct from 'SyncRep'
"""


def end_sessions(role: str) -> Harm:
    """End all sessions of a role."""

    def apply(arena: Arena, aim: Aim) -> bool:
        with arena.admin() as conn:
            return bool(conn.execute(TERMINATE, [f"pgflow:{role}"]).fetchall()[0][0])

    return Harm(f"end sessions: {role}", "session", apply)


def cancel(arena: Arena, aim: Aim) -> bool:
    with arena.admin() as conn:
        ended = 0
        for _ in range(200):
            ended += conn.execute(CANCEL).fetchall()[0][0]
        return ended > 0


HARMS = (*(end_sessions(role) for role in ROLES), Harm("cancel statements", "session", cancel))
