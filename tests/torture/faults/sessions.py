"""Faults of sessions, from within the database: connections of each role terminated, statements cancelled."""

from __future__ import annotations

from tests.torture.faults.fault import Aim, Fault
from tests.torture.trial.setup import Environment

__all__ = ["FAULTS"]

ROLES = ("worker", "heart", "listen", "step", "client")
TERMINATE = """
    select count(*) filter (where pg_terminate_backend(pid)) from pg_stat_activity
    where datname = current_database() and application_name = %s and pid <> pg_backend_pid()
"""
# Not sessions that wait for the standby: when cancelled, they report a commit that the standby does not have yet, and
# the next failover would lose it.
CANCEL = """
    select count(*) filter (where pg_cancel_backend(pid)) from pg_stat_activity
    where datname = current_database() and application_name like 'pgflow:%%' and state = 'active'
        and pid <> pg_backend_pid() and wait_event is distinct from 'SyncRep'
"""


def end_sessions(role: str) -> Fault:
    """Terminate all sessions of a role."""

    def apply(environment: Environment, aim: Aim) -> bool:
        with environment.admin() as conn:
            return bool(conn.execute(TERMINATE, [f"pgflow:{role}"]).fetchall()[0][0])

    return Fault(f"end sessions: {role}", "session", apply)


def cancel(environment: Environment, aim: Aim) -> bool:
    with environment.admin() as conn:
        ended = 0
        for _ in range(200):
            ended += conn.execute(CANCEL).fetchall()[0][0]
        return ended > 0


FAULTS = (*(end_sessions(role) for role in ROLES), Fault("cancel statements", "session", cancel))
