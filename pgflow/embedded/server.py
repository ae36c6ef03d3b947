"""Start a throwaway PostgreSQL server for this process, on a private socket; it ends with the process."""

import atexit
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import psycopg
from psycopg import sql

from pgflow import process
from pgflow.embedded.installation import (
    BACKUP,
    choose,
    copy_installation,
    major_version,
    unprivileged,
)
from pgflow.embedded.postmaster import ENVIRONMENT, Postmaster
from pgflow.embedded.tempdir import TempDir
from pgflow.errors import ConfigError, DatabaseError

__all__ = ["EmbeddedPostgres"]

PORT = 5432  # part of the socket's file name; no TCP port is opened unless the settings request it
SOCKET_PATH_LIMIT = 103  # bytes: macOS; Linux allows 107
PROGRAM_SECONDS = 120.0
BOOT_SECONDS = 60.0
LOG_TAIL_LINES = 15

DEFAULTS: Mapping[str, str] = {
    "listen_addresses": "",
    "max_connections": "100",
    "port": str(PORT),
    "shared_buffers": "128MB",
    "unix_socket_permissions": "0700",
}
# With these, a crash of the machine may corrupt the data; a crash of the server cannot.
NOT_DURABLE: Mapping[str, str] = {"fsync": "off", "full_page_writes": "off"}


class EmbeddedPostgres:
    """A real PostgreSQL server in a temporary directory, for demos and tests; its data does not outlive it.

    `version` is a major version (default: the first of `find_installations()`); `settings` are settings for
    postgresql.conf, which win over ours; `durable=False` turns fsync off, for tests; `data_root` is a directory for the
    data on another file system, which the server's account must be able to enter. The server listens on a Unix socket
    that only this user and root can use, and not on TCP. It stops, and its directory is removed, at the end of the
    `with`, at `stop()` and when the interpreter exits. On Linux it stops even when this process is killed with SIGKILL;
    the next server that starts removes the directory then.

    Raises `ConfigError` if PostgreSQL is not installed, with what to install, and `DatabaseError` with the end of the
    server's log if it does not start. Takes one to two seconds to start.

        with EmbeddedPostgres() as server:
            psycopg.connect(server.dsn).execute("select 1")
    """

    def __init__(
        self,
        version: int | None = None,
        settings: Mapping[str, str] | None = None,
        *,
        durable: bool = True,
        data_root: Path | None = None,
    ) -> None:
        self.installation = choose(version)
        self._settings = {**DEFAULTS, **({} if durable else NOT_DURABLE), **(settings or {})}
        self._data_root = data_root
        self._account = unprivileged()
        self._bindir = self.installation.bindir
        self._owner = process.current()
        self._tempdir: TempDir | None = None
        self._postmaster: Postmaster | None = None

    @property
    def version(self) -> int:
        """The server's major version, such as 18."""
        return self.installation.version

    @property
    def running(self) -> bool:
        """Whether the server's process is running; in a forked child, whether it was at the fork."""
        return self._postmaster is not None and (self._postmaster.is_alive or not self._is_ours)

    @property
    def pid(self) -> int:
        """The process id of the server (the postmaster). Raises `DatabaseError` if it is not running."""
        if self._postmaster is None or not self.running:
            raise DatabaseError("the embedded PostgreSQL is not running", hint="Call start() first.")
        return self._postmaster.pid

    @property
    def data(self) -> Path:
        """The data directory."""
        return self._home / "data" if self._data_root is None else self._data_root / self._home.name

    @property
    def host(self) -> str:
        """The `host` of a connection string: the directory of the socket."""
        return str(self._home / "s")

    @property
    def port(self) -> str:
        """The `port` of a connection string, for TCP, too."""
        return self._settings["port"]

    @property
    def dsn(self) -> str:
        """The connection string of the database `postgres`, as its superuser."""
        return self.database_dsn("postgres")

    @property
    def log(self) -> str:
        """The text of the server's log."""
        return (self._home / "log").read_text(errors="replace")

    def database_dsn(self, name: str) -> str:
        """Return the connection string of the database `name`, which may not exist yet."""
        return f"postgresql://postgres@/{quote(name, safe='')}?host={quote(self.host, safe='')}&port={self.port}"

    def create_database(self, name: str, template: str | None = None) -> str:
        """Create a database, as a copy of `template` if given, and return its connection string."""
        statement = sql.SQL("create database {}").format(sql.Identifier(name))
        if template is not None:
            statement += sql.SQL(" template {}").format(sql.Identifier(template))
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(statement)
        return self.database_dsn(name)

    def drop_database(self, name: str) -> None:
        """Drop a database if it exists, and terminate the connections to it."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))

    def start(self) -> Self:
        """Start the server: with its data after `halt`, `crash` or `kill`, else with an empty database.

        Does nothing if it is running. If the first start fails, everything is removed; if a later one fails, the data
        is kept. Raises `DatabaseError` in a forked child if the server belongs to its parent.
        """
        self._check_ours()
        if not self.running:
            is_new = self._tempdir is None
            try:
                if is_new:
                    self._prepare()
                    self._initdb()
                    self._configure()
                self._boot()
            except BaseException:
                if is_new:
                    self.stop()
                else:
                    self.crash()
                raise
        return self

    def follow(self, primary: Self, name: str) -> Self:
        """Start as a standby of `primary`, with a copy of its data in place of this server's.

        `name` is its application_name on the primary, for `synchronous_standby_names`. It replicates from then on and
        answers queries; `select pg_promote()` makes it a primary.

        Raises `ConfigError` if this PostgreSQL lacks `pg_basebackup`, `DatabaseError` if that fails.
        """
        if not (self._bindir / BACKUP).exists():
            raise ConfigError(f"{self._bindir} has no {BACKUP}", hint="Install the client programs of PostgreSQL.")
        self.crash()
        if self._tempdir is None:
            self._prepare()
        else:
            shutil.rmtree(self.data)
            self._make_own(self.data)
        self._copy(primary, name)
        self._configure()
        self._boot()
        return self

    def stop(self) -> None:
        """Stop the server, terminating its connections, and remove its directory with all data."""
        if not self._is_ours:  # a forked child has a copy of this object only
            return
        self._end(signal.SIGINT)
        atexit.unregister(self.stop)
        if self._tempdir is not None:
            shutil.rmtree(self.data, ignore_errors=True)
            self._tempdir.remove()
        self._tempdir = None

    def halt(self) -> None:
        """Shut the server down, terminating its connections, and keep its data for `start()`."""
        self._check_ours()
        self._end(signal.SIGINT)

    def crash(self) -> None:
        """Crash the server: connections break, and there is no checkpoint. `start()` recovers committed data."""
        self._check_ours()
        self._end(signal.SIGQUIT)

    def kill(self) -> None:
        """Kill the postmaster with SIGKILL, as the kernel does when memory runs out, and wait for its children.

        They exit when they notice it; those that do not within five seconds are killed, too. On Linux only: elsewhere
        they are not waited for. `start()` recovers committed data.
        """
        self._check_ours()
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Shut the server down and start it with the same data."""
        self.halt()
        self.start()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _is_ours(self) -> bool:
        return self._tempdir is None or self._owner is process.current()

    def _check_ours(self) -> None:
        if not self._is_ours:
            raise DatabaseError(
                f"the embedded PostgreSQL belongs to process {self._owner.pid}, from which this one was forked",
                hint="Start and stop it in that process, or create another EmbeddedPostgres in this one.",
            )

    @property
    def _home(self) -> Path:
        return self._required_tempdir.path

    @property
    def _required_tempdir(self) -> TempDir:
        if self._tempdir is None:
            raise DatabaseError("the embedded PostgreSQL is not running", hint="Call start() first.")
        return self._tempdir

    def _prepare(self) -> None:
        """Create the directory, with data and socket directories that belong to the server's account."""
        self._owner = process.current()
        is_other_account = self._account.user is not None
        parents = (Path(tempfile.gettempdir()), Path("/tmp"))  # noqa: S108 - the directory made in it is private
        longest = f"s/.s.PGSQL.{self.port}"
        self._tempdir = TempDir(parents, longest, SOCKET_PATH_LIMIT, is_shared=is_other_account)
        atexit.register(self.stop)
        self._make_own(self.data)
        self._make_own(self._home / "s")
        self._bindir = self.installation.bindir
        if is_other_account and major_version(self.installation.bindir, self._account) is None:
            self._bindir = copy_installation(self.installation, self._home / "programs").bindir

    def _make_own(self, directory: Path) -> None:
        directory.mkdir(mode=0o700)
        if self._account.user is not None and self._account.group is not None:
            os.chown(directory, self._account.user, self._account.group)

    def _initdb(self) -> None:
        # Locale C is the only one that exists on every machine.
        options = ["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-instructions", "--no-sync"]
        self._run("initdb", f"--pgdata={self.data}", "--username=postgres", *options)

    def _copy(self, primary: Self, name: str) -> None:
        source = f"host={primary.host} port={primary.port} user=postgres application_name={name}"
        options = ["--checkpoint=fast", "--wal-method=stream", "--write-recovery-conf", "--no-sync"]
        self._run(BACKUP, f"--pgdata={self.data}", f"--dbname={source}", *options)

    def _configure(self) -> None:
        """Append our settings: the last line for a setting wins, so they win over those of a copied server."""
        settings = {**self._settings, "unix_socket_directories": self.host}
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.writelines(f"{name} = '{_escaped(value)}'\n" for name, value in settings.items())

    def _run(self, program: str, *arguments: str) -> None:
        """Run a program of PostgreSQL as the server's account. Raises `DatabaseError` with the end of its output."""
        done = subprocess.run(
            [self._bindir / program, *arguments],
            check=False,
            cwd=self._home,
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PROGRAM_SECONDS,
            user=self._account.user,
            group=self._account.group,
            extra_groups=self._account.groups,
        )
        if done.returncode != 0:
            raise DatabaseError(f"{program} of PostgreSQL {self.version} failed: {_tail(done.stdout)}")

    def _boot(self) -> None:
        command = [str(self._bindir / "postgres"), "-D", str(self.data)]
        self._postmaster = Postmaster(command, self._account, self._home, self._required_tempdir.lock)
        deadline = time.monotonic() + BOOT_SECONDS
        while not _is_ready(self.data / "postmaster.pid", self._postmaster.pid):
            if not self.running or time.monotonic() > deadline:
                raise DatabaseError(f"PostgreSQL {self.version} did not start: {_tail(self.log)}")
            self._postmaster.wait(0.01)

    def _end(self, request: signal.Signals) -> None:
        if self._postmaster is not None:
            self._postmaster.end(request)
            self._postmaster = None


def _is_ready(pidfile: Path, pid: int) -> bool:
    """Return whether the server with process id `pid` accepts connections: line 8 of its pid file."""
    try:
        lines = pidfile.read_text().splitlines()
    except (FileNotFoundError, UnicodeDecodeError):
        return False
    return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "''")


def _tail(log: str) -> str:
    return "\n".join(log.strip().splitlines()[-LOG_TAIL_LINES:]) or "it wrote nothing"
