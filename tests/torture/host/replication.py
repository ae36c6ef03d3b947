"""Let one server follow another, hold the log back from it, and put it in the other's place.

A primary with `synchronous_standby_names` waits with each commit for its standby, for ever if there is none. So the
name is set only once the standby has caught up, and taken away before the standby goes; and since a setting reaches
the processes of a server when they come to it, it is not believed: the log is held back until a commit is seen to wait.

No timeout ends that waiting. `pg_cancel_backend` does: the commit then returns, with a warning, though the standby does
not have it. Whoever counts what a failover loses must not do that to a session that commits.
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

__all__ = ["SETTINGS", "attach", "count_unreplicated", "hold_back", "is_attached", "let_go", "promote", "why_not"]

NAME = "standby"
SETTINGS = {
    "wal_keep_size": "256MB",  # what a standby still needs when the log was held back from it
    "wal_retrieve_retry_interval": "100ms",  # how soon a standby is back after its primary
}
GLANCE = 0.3  # seconds that a commit is given before it counts as waiting
PROMOTION_SECONDS = 60
DUMP_SECONDS = 60.0


def why_not(version: int | None = None) -> str | None:
    """Return why no server can follow another here; None when one can."""
    bindir = choose(version).bindir
    return None if (bindir / BACKUP).exists() else f"{bindir} has no {BACKUP}"


def attach(primary: EmbeddedPostgres, standby: EmbeddedPostgres, *, synchronous: bool) -> None:
    """Make `standby` a copy of `primary` that follows it, whatever it was before.

    Synchronous: when this returns, all that has ever been committed is on both, and what is committed from then on
    comes back only when it is on both. Until then the primary commits alone. Raises `DatabaseError` when it does not
    come about.
    """
    _wait_for_standby(primary, wanted=False)
    standby.follow(primary, NAME)
    until(lambda: is_attached(primary), "the standby's connection")
    if synchronous:
        _wait_for_standby(primary, wanted=True)
        hold_back(standby)
        try:
            until(lambda: not write(primary.dsn, GLANCE), "a commit that waits for the standby")
        finally:
            let_go(primary, standby)
        until(lambda: write(primary.dsn), "a commit on the standby")


def is_attached(primary: EmbeddedPostgres) -> bool:
    """Whether `primary` is up and the log streams from it to its standby."""
    query = "select count(*) from pg_stat_replication where application_name = %s and state = 'streaming'"
    try:
        return bool(_ask(primary, query, NAME))
    except psycopg.OperationalError:
        return False


def hold_back(standby: EmbeddedPostgres) -> None:
    """Let nothing more of the log arrive at `standby`. Does nothing when that is so already."""
    _change(standby, "primary_conninfo", "")
    until(lambda: _ask(standby, "select count(*) from pg_stat_wal_receiver") == 0, "the end of the log's stream")


def let_go(primary: EmbeddedPostgres, standby: EmbeddedPostgres) -> None:
    """Let `standby` follow `primary` again. Does nothing when it does."""
    source = f"host={primary.host} port={primary.port} user=postgres application_name={NAME}"
    if _ask(standby, "show primary_conninfo") == "":
        _change(standby, "primary_conninfo", source)
    if primary.running:
        until(lambda: is_attached(primary), "the standby's connection")


def promote(standby: EmbeddedPostgres) -> None:
    """Make `standby` a server that takes writes, in place of its primary, which must not run any more."""
    if not _ask(standby, "select pg_promote(true, %s)", PROMOTION_SECONDS):
        raise DatabaseError(f"the standby did not become a primary within {PROMOTION_SECONDS} s")


def count_unreplicated(old: EmbeddedPostgres, new: EmbeddedPostgres) -> int | None:
    """Return how many transactions `old` had committed when `new` took its place that are not in `new`.

    In none of them had a commit returned that waited for the standby. None when it cannot be told: for want of
    `pg_waldump`, or of the log.
    """
    program = old.installation.bindir / "pg_waldump"
    if not program.exists():
        return None
    timeline = _ask(new, "select left(pg_walfile_name(pg_current_wal_lsn()), 8)")
    history = (new.data / "pg_wal" / f"{timeline}.history").read_text()
    before, end, *_ = history.strip().splitlines()[-1].split()  # where the last timeline was left
    where = [f"--path={old.data / 'pg_wal'}", f"--timeline={before}", f"--start={end}", "--rmgr=Transaction"]
    ran = subprocess.run(
        [program, *where], check=False, capture_output=True, env={"LC_ALL": "C"}, text=True, timeout=DUMP_SECONDS
    )
    # It reads on until there is no more, and calls that an error.
    if "valid record" not in ran.stderr and "error in WAL record" not in ran.stderr:
        return None
    return len(re.findall(r"desc: COMMIT\b", ran.stdout))


def _wait_for_standby(primary: EmbeddedPostgres, *, wanted: bool) -> None:
    _change(primary, "synchronous_standby_names", NAME if wanted else "")


def _change(server: EmbeddedPostgres, setting: str, value: str) -> None:
    """Change a setting of a running server for good, as far as its first process and all new ones go."""
    if _ask(server, "select current_setting(%s)", setting) == value:
        return
    with psycopg.connect(server.dsn, autocommit=True) as conn:
        conn.execute(sql.SQL("alter system set {} = {}").format(sql.Identifier(setting), sql.Literal(value)))
        conn.execute("select pg_reload_conf()")
    until(lambda: _ask(server, "select current_setting(%s)", setting) == value, f"the setting {setting}")


def _ask(server: EmbeddedPostgres, query: str, *params: object) -> Any:
    """Return the one value that a query yields, in a new connection."""
    with psycopg.connect(server.dsn, autocommit=True) as conn:
        row = conn.execute(query.encode(), params).fetchone()
    return row[0] if row else None
