"""Streaming replication: attach a standby, pause and resume it, promote it.

A primary with `synchronous_standby_names` waits for its standby with each commit, without limit if there is none. So
the name is set only once the standby has caught up, and removed before the standby goes. Server processes apply a
reloaded setting with a delay: to be sure, replication is paused until a commit is seen to wait.

No timeout ends that wait. `pg_cancel_backend` does: the commit then returns with a warning, without being on the
standby. A test of what a failover loses must not cancel a committing session.
"""

import re
import subprocess
from typing import Any

import psycopg
from psycopg import sql

from pgflow.embedded import EmbeddedPostgres
from pgflow.embedded.installation import BACKUP, choose
from pgflow.errors import DatabaseError
from tests.torture.host.probe import write
from tests.torture.host.until import until

__all__ = [
    "SETTINGS",
    "attach",
    "count_unreplicated",
    "is_attached",
    "pause_replication",
    "promote",
    "resume_replication",
    "why_not",
]

NAME = "standby"
SETTINGS = {
    "wal_keep_size": "256MB",  # for a standby that was paused
    "wal_retrieve_retry_interval": "100ms",  # how soon a standby reconnects
}
COMMIT_SECONDS = 0.3  # a commit that takes longer counts as waiting
PROMOTION_SECONDS = 60
DUMP_SECONDS = 60.0


def why_not(version: int | None = None) -> str | None:
    """Return why replication is not possible here; None when it is."""
    bindir = choose(version).bindir
    return None if (bindir / BACKUP).exists() else f"{bindir} has no {BACKUP}"


def attach(primary: EmbeddedPostgres, standby: EmbeddedPostgres, *, synchronous: bool) -> None:
    """Make `standby` a copy of `primary` that replicates from it, whatever its state was.

    Synchronous: when this returns, everything committed is on both servers, and later commits return only when they are
    on both. Until then the primary commits alone. Raises `DatabaseError` on a timeout.
    """
    _wait_for_standby(primary, wanted=False)
    standby.follow(primary, NAME)
    until(lambda: is_attached(primary), "the standby's connection")
    if synchronous:
        _wait_for_standby(primary, wanted=True)
        pause_replication(standby)
        try:
            until(lambda: not write(primary.dsn, COMMIT_SECONDS), "a commit that waits for the standby")
        finally:
            resume_replication(primary, standby)
        until(lambda: write(primary.dsn), "a commit on the standby")


def is_attached(primary: EmbeddedPostgres) -> bool:
    """Whether `primary` is up and streams to its standby."""
    query = "select count(*) from pg_stat_replication where application_name = %s and state = 'streaming'"
    try:
        return bool(_ask(primary, query, NAME))
    except psycopg.OperationalError:
        return False


def pause_replication(standby: EmbeddedPostgres) -> None:
    """Pause replication to `standby`. Does nothing when it is paused."""
    _change(standby, "primary_conninfo", "")
    until(lambda: _ask(standby, "select count(*) from pg_stat_wal_receiver") == 0, "the end of the WAL stream")


def resume_replication(primary: EmbeddedPostgres, standby: EmbeddedPostgres) -> None:
    """Resume replication from `primary`. Does nothing when it is active."""
    source = f"host={primary.host} port={primary.port} user=postgres application_name={NAME}"
    if _ask(standby, "show primary_conninfo") == "":
        _change(standby, "primary_conninfo", source)
    if primary.running:
        until(lambda: is_attached(primary), "the standby's connection")


def promote(standby: EmbeddedPostgres) -> None:
    """Promote `standby` to a primary; its old primary must be stopped."""
    if not _ask(standby, "select pg_promote(true, %s)", PROMOTION_SECONDS):
        raise DatabaseError(f"the standby did not become a primary within {PROMOTION_SECONDS} s")


def count_unreplicated(old: EmbeddedPostgres, new: EmbeddedPostgres) -> int | None:
    """Return how many transactions `old` had committed before the failover that are missing on `new`.

    With a synchronous standby none of their commits had returned. None when unknown: without `pg_waldump` or the WAL.
    """
    program = old.installation.bindir / "pg_waldump"
    if not program.exists():
        return None
    timeline = _ask(new, "select left(pg_walfile_name(pg_current_wal_lsn()), 8)")
    history = (new.data / "pg_wal" / f"{timeline}.history").read_text()
    before, end, *_ = history.strip().splitlines()[-1].split()  # where the previous timeline ends
    where = [f"--path={old.data / 'pg_wal'}", f"--timeline={before}", f"--start={end}", "--rmgr=Transaction"]
    ran = subprocess.run(
        [program, *where], check=False, capture_output=True, env={"LC_ALL": "C"}, text=True, timeout=DUMP_SECONDS
    )
    # It reads to the end of the WAL, and reports that as an error.
    if "valid record" not in ran.stderr and "error in WAL record" not in ran.stderr:
        return None
    return len(re.findall(r"desc: COMMIT\b", ran.stdout))


def _wait_for_standby(primary: EmbeddedPostgres, *, wanted: bool) -> None:
    _change(primary, "synchronous_standby_names", NAME if wanted else "")


def _change(server: EmbeddedPostgres, setting: str, value: str) -> None:
    """Change a setting of a running server permanently, for the postmaster and all new processes."""
    if _ask(server, "select current_setting(%s)", setting) == value:
        return
    with psycopg.connect(server.dsn, autocommit=True) as conn:
        conn.execute(sql.SQL("alter system set {} = {}").format(sql.Identifier(setting), sql.Literal(value)))
        conn.execute("select pg_reload_conf()")
    until(lambda: _ask(server, "select current_setting(%s)", setting) == value, f"the setting {setting}")


def _ask(server: EmbeddedPostgres, query: str, *params: object) -> Any:
    """Return the single value of a query, in a new connection."""
    with psycopg.connect(server.dsn, autocommit=True) as conn:
        row = conn.execute(query.encode(), params).fetchone()
    return row[0] if row else None
