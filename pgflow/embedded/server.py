"""Start a throwaway PostgreSQL server of this process's own, on a private socket, that never outlives it."""

import atexit
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import psycopg
from psycopg import sql

from pgflow import process
from pgflow.embedded import process_tree
from pgflow.embedded.installation import (
    BACKUP,
    Installation,
    borrow,
    choose,
    find_installations,
    major_version,
    unprivileged,
)
from pgflow.embedded.tempdir import TempDir
from pgflow.errors import ConfigError, DatabaseError

__all__ = ["EmbeddedPostgres", "Installation", "find_installations"]

PORT = 5432  # names the socket's file; no TCP port is opened unless the settings say so
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
# TZ: initdb would else try a thousand time zones.
ENVIRONMENT: Mapping[str, str] = {"LC_ALL": "C", "PATH": os.defpath, "TZ": "UTC"}
# A crash of the *machine* may then ruin the data; a crash of the server cannot.
NOT_DURABLE: Mapping[str, str] = {"fsync": "off", "full_page_writes": "off"}

# Becomes the server. It is a program of its own, rather than code between fork and exec, because our process may have
# threads. It loads what it needs before it changes the user, who may not be able to read our Python's files, and asks
# to be told of its parent's death afterwards, because changing the user revokes that wish.
LAUNCH = """
import os, signal, sys
parent, uid, gid, *command = sys.argv[1:]
prctl = None
if sys.platform == "linux":
    import ctypes
    prctl = ctypes.CDLL(None).prctl
if int(uid) != os.geteuid():
    os.setgroups([])
    os.setgid(int(gid))
    os.setuid(int(uid))
if prctl is not None:
    PR_SET_PDEATHSIG = 1
    prctl(PR_SET_PDEATHSIG, signal.SIGINT)
if os.getppid() == int(parent):
    os.execv(command[0], command)
"""


class EmbeddedPostgres:
    """A real PostgreSQL server in a temporary folder: for a demo, a test, a first look; not for data worth keeping.

    `version` is a major version (default: the preferred of `find_installations()`); `settings` are lines of
    postgresql.conf and win over ours; `durable=False` turns fsync off, for tests; `data_root` is a directory of
    another file
    system for the data to lie in, one that the server's account may enter. It listens on a Unix socket that only
    this user (and root) may use, and on no TCP port. Everything is gone when it stops: at the end of the `with`,
    at `stop()`, when the interpreter ends, and on Linux even when this process is killed with SIGKILL (the folder is
    then removed by the next server that starts).

    Raises `ConfigError` when no PostgreSQL is installed, saying what to install, and `DatabaseError` with the end of
    the server's log when it does not come up. Takes one to two seconds to start.

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
        self._shelf = data_root
        self._account = unprivileged()
        self._bindir = self.installation.bindir
        self._owner = process.current()
        self._scratch: TempDir | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._keeper: threading.Thread | None = None

    @property
    def version(self) -> int:
        """The server's major version, such as 18."""
        return self.installation.version

    @property
    def running(self) -> bool:
        """Whether the server's process lives. A forked child reports what it inherited: the server is its parent's."""
        return self._keeper is not None and (self._keeper.is_alive() or not self._is_ours)

    @property
    def pid(self) -> int:
        """The process id of the server (the postmaster). Raises `DatabaseError` when it does not run."""
        if self._process is None or not self.running:
            raise DatabaseError("the embedded PostgreSQL is not running", hint="Call start() first.")
        return self._process.pid

    @property
    def data(self) -> Path:
        """The folder of its data."""
        return self._home / "data" if self._shelf is None else self._shelf / self._home.name

    @property
    def host(self) -> str:
        """What stands for `host` in a connection string: the folder of its socket."""
        return str(self._home / "s")

    @property
    def port(self) -> str:
        """What stands for `port` in a connection string, over TCP too."""
        return self._settings["port"]

    @property
    def dsn(self) -> str:
        """The connection string of the database `postgres`, as its superuser."""
        return self.database_dsn("postgres")

    @property
    def log(self) -> str:
        """What the server has written to its log."""
        return (self._home / "log").read_text(errors="replace")

    def database_dsn(self, name: str) -> str:
        """Return the connection string of the database `name`, which need not exist."""
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
        """Drop a database, if it exists, and end the connections to it."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))

    def start(self) -> Self:
        """Start the server: with its data after `halt`, `crash` or `kill`, else with an empty database.

        Does nothing when it runs. A first start that fails leaves nothing behind, a later one the data. Raises
        `DatabaseError` in a forked child, when the server belongs to its parent.
        """
        self._check_ours()
        if not self.running:
            is_new = self._scratch is None
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
        """Start as a standby of `primary`, with a copy of its data in place of whatever was here.

        `name` is what the primary knows it by, in `synchronous_standby_names` for example. It takes part in what the
        primary commits from then on, and answers queries; `select pg_promote()` makes it a server of its own.

        Raises `ConfigError` when this PostgreSQL has no `pg_basebackup`, `DatabaseError` when it fails.
        """
        if not (self._bindir / BACKUP).exists():
            raise ConfigError(f"{self._bindir} has no {BACKUP}", hint="Install the client programs of PostgreSQL.")
        self.crash()
        if self._scratch is None:
            self._prepare()
        else:
            shutil.rmtree(self.data)
            self._make_own(self.data)
        self._copy(primary, name)
        self._configure()
        self._boot()
        return self

    def stop(self) -> None:
        """Stop the server, ending its connections, and remove its folder with all data."""
        if not self._is_ours:  # a forked child holds a copy of this object, not the server
            return
        self._end(signal.SIGINT)
        atexit.unregister(self.stop)
        if self._scratch is not None:
            shutil.rmtree(self.data, ignore_errors=True)
            self._scratch.remove()
        self._scratch = None

    def halt(self) -> None:
        """Stop the server in order, ending its connections, and keep its data for `start()`."""
        self._check_ours()
        self._end(signal.SIGINT)

    def crash(self) -> None:
        """Crash the server: connections break, nothing is written down. `start()` then recovers what was committed."""
        self._check_ours()
        self._end(signal.SIGQUIT)

    def kill(self) -> None:
        """Kill the server's first process with SIGKILL, as the kernel does when memory runs out, and wait for the rest.

        The others notice it and go, each when it comes to it; who does not within five seconds is killed, too. For
        Linux: elsewhere they are not waited for. `start()` then recovers what was committed.
        """
        self._check_ours()
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop the server in order and start it with the same data."""
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
        return self._scratch is None or self._owner is process.current()

    def _check_ours(self) -> None:
        if not self._is_ours:
            raise DatabaseError(
                f"the embedded PostgreSQL belongs to process {self._owner.pid}, of which this is a forked child",
                hint="Start and stop it in that process, or make an EmbeddedPostgres of this one.",
            )

    @property
    def _home(self) -> Path:
        if self._scratch is None:
            raise DatabaseError("the embedded PostgreSQL is not running", hint="Call start() first.")
        return self._scratch.path

    def _prepare(self) -> None:
        """Make the folder, with a data and a socket folder that belong to the server's account."""
        self._owner = process.current()
        other = self._account.user is not None
        shelves = (Path(tempfile.gettempdir()), Path("/tmp"))  # noqa: S108 - a data_root; the folder made there is private
        self._scratch = TempDir(shelves, reach=f"s/.s.PGSQL.{self.port}", limit=SOCKET_PATH_LIMIT, passable=other)
        atexit.register(self.stop)
        self._make_own(self.data)
        self._make_own(self._home / "s")
        self._bindir = self.installation.bindir
        if other and major_version(self.installation.bindir, self._account) is None:
            self._bindir = borrow(self.installation, self._home / "programs").bindir

    def _make_own(self, folder: Path) -> None:
        folder.mkdir(mode=0o700)
        if self._account.user is not None and self._account.group is not None:
            os.chown(folder, self._account.user, self._account.group)

    def _initdb(self) -> None:
        # Locale C: the only one that every machine has.
        options = ["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-instructions", "--no-sync"]
        self._run("initdb", f"--pgdata={self.data}", "--username=postgres", *options)

    def _copy(self, primary: Self, name: str) -> None:
        source = f"host={primary.host} port={primary.port} user=postgres application_name={name}"
        options = ["--checkpoint=fast", "--wal-method=stream", "--write-recovery-conf", "--no-sync"]
        self._run(BACKUP, f"--pgdata={self.data}", f"--dbname={source}", *options)

    def _configure(self) -> None:
        """Append our settings; the last line for a setting counts, so they win over those of a server copied."""
        settings = {**self._settings, "unix_socket_directories": self.host}
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.writelines(f"{name} = '{_escaped(value)}'\n" for name, value in settings.items())

    def _run(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs as the server's account. Raises `DatabaseError` with what it said."""
        ran = subprocess.run(
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
        if ran.returncode != 0:
            raise DatabaseError(f"{program} of PostgreSQL {self.version} failed: {_tail(ran.stdout)}")

    def _boot(self) -> None:
        spawned: Future[subprocess.Popen[bytes]] = Future()
        self._keeper = threading.Thread(target=self._keep, args=(spawned,), daemon=True, name="embedded-postgres")
        self._keeper.start()
        self._process = spawned.result()
        deadline = time.monotonic() + BOOT_SECONDS
        while not _is_ready(self.data / "postmaster.pid", self._process.pid):
            if not self.running or time.monotonic() > deadline:
                raise DatabaseError(f"PostgreSQL {self.version} did not start: {_tail(self.log)}")
            self._keeper.join(0.01)

    def _keep(self, spawned: Future[subprocess.Popen[bytes]]) -> None:
        """Start the server and wait for its end, in one thread: "parent" means the *thread* that started it."""
        try:
            spawned.set_result(process := self._spawn())
        except BaseException as error:  # raised again where start() waits
            spawned.set_exception(error)
        else:
            process.wait()

    def _spawn(self) -> subprocess.Popen[bytes]:
        account = [str(self._account.user or os.geteuid()), str(self._account.group or os.getegid())]
        server = [str(self._bindir / "postgres"), "-D", str(self.data)]
        with (self._home / "log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", LAUNCH, str(os.getpid()), *account, *server],
                cwd=self._home,
                env=ENVIRONMENT,
                pass_fds=[self._scratch.lock] if self._scratch else [],
                start_new_session=True,  # or a Ctrl-C in the terminal would reach the server before it reaches us
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _end(self, request: signal.Signals) -> None:
        if self._process is None or self._keeper is None:
            return
        milder = () if request == signal.SIGKILL else ((request, 10.0), (signal.SIGQUIT, 5.0))
        for order, seconds in milder:
            if self._keeper.is_alive():
                self._process.send_signal(order)
                self._keeper.join(seconds)
        if self._keeper.is_alive():
            process_tree.kill(self._process.pid)
            self._keeper.join(process_tree.GONE_SECONDS)
        self._process = self._keeper = None


def _is_ready(pidfile: Path, pid: int) -> bool:
    """Whether the server that runs as `pid` takes connections: it says so in its pid file's eighth line."""
    try:
        lines = pidfile.read_text().splitlines()
    except (FileNotFoundError, UnicodeDecodeError):
        return False
    return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "''")


def _tail(log: str) -> str:
    return "\n".join(log.strip().splitlines()[-LOG_TAIL_LINES:]) or "it said nothing"
