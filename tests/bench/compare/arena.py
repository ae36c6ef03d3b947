"""The common server, and for each run of a peer an empty database, a driver that starts jobs, and timed workers."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from pgflow.bench import trace
from pgflow.bench.environment import server_settings
from pgflow.bench.machine import LocalServer, OtherLoad
from pgflow.bench.trace import TraceReader
from pgflow.embedded import EmbeddedPostgres
from tests.bench.compare.roster import Peer

__all__ = ["Arena", "Bout", "Counters", "Failed"]

CHECKOUT = Path(__file__).parents[3]
PROGRAMS = [*["-m", "tests.bench.compare.peers"]]
QUIET, QUIET_SECONDS = 0.1, 1.0  # a machine is quiet when other processes use less than this share, for so many seconds
STALL_SECONDS = 60.0
STOP_SECONDS = 20.0
POLL_SECONDS = 0.002
TAIL = 1500  # characters


class Failed(Exception):
    """A run that failed, with its error output."""


@dataclass(frozen=True, slots=True)
class Counters:
    """Counters at one point of a run: bytes of WAL and CPU seconds of the whole server, commits of the database."""

    wal: int
    commits: int
    seconds: float


class Arena:
    """The server, as a context manager."""

    def __init__(self, envs: Path) -> None:
        self.envs = envs
        self._server = EmbeddedPostgres(settings=server_settings())

    def __enter__(self) -> Arena:
        self._server.start()
        self._conn = psycopg.connect(self._server.dsn, autocommit=True)
        return self

    def __exit__(self, *exception: object) -> None:
        self._conn.close()
        self._server.stop()

    def other_load(self) -> OtherLoad:
        """Start measuring how much of the machine other processes use."""
        return OtherLoad(LocalServer(self._server.pid))

    def wait_for_quiet(self, patience: float) -> None:
        """Wait until other processes use little of the machine, at most `patience` seconds."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            other_load = self.other_load()
            time.sleep(QUIET_SECONDS)
            if other_load.share() < QUIET:
                return

    def settings(self) -> dict[str, str]:
        """Return the server's version and settings."""
        names = "server_version", "shared_buffers", "fsync", "synchronous_commit", "max_wal_size"
        return {name: str(self._ask("select current_setting(%s)", name)) for name in names}

    @contextmanager
    def bout(self, peer: Peer, config: str, python: Path) -> Iterator[Bout]:
        """Provide a database prepared for the peer; it is dropped afterwards."""
        name = f"bench_{peer.module}"
        self._server.drop_database(name)
        dsn = self._server.create_database(name)
        with tempfile.TemporaryDirectory(prefix="pgflow-bench-") as folder:
            bout = Bout(self, peer, config, python, name, dsn, Path(folder))
            try:
                bout.run("prepare")
                yield bout
            finally:
                bout.close()
                self._server.drop_database(name)

    def spent(self, database: str) -> Counters:
        """Read the counters, once all sessions of the database have ended and reported their statistics."""
        deadline = time.monotonic() + STOP_SECONDS
        while self._ask("select count(*) from pg_stat_activity where datname = %s", database):
            if time.monotonic() > deadline:
                raise Failed(f"sessions in {database} do not end")
            time.sleep(0.02)
        wal = self._ask("select (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint")
        commits = self._ask("select xact_commit from pg_stat_database where datname = %s", database)
        return Counters(int(wal), int(commits), LocalServer(self._server.pid).seconds())

    def analyze(self, dsn: str) -> None:
        """Analyze the filled tables, as autovacuum does; it leaves empty tables alone."""
        with psycopg.connect(dsn, autocommit=True) as conn:
            for (name,) in conn.execute("select relid::regclass::text from pg_stat_user_tables where n_live_tup > 0"):
                conn.execute(sql.SQL("analyze " + name))

    @property
    def programs(self) -> Path:
        """The folder of PostgreSQL's programs, which some peers call."""
        return self._server.installation.bindir

    def _ask(self, query: str, *values: object) -> Any:
        row = self._conn.execute(sql.SQL(query), values).fetchone()
        assert row is not None
        return row[0]


class Bout:
    """One run of one peer in one configuration, on a database of its own."""

    def __init__(
        self, arena: Arena, peer: Peer, config: str, python: Path, database: str, dsn: str, folder: Path
    ) -> None:
        self.arena = arena
        self.peer = peer
        self.config = config
        self.database = database
        self.dsn = dsn
        self.trace = TraceReader(folder)
        self._python = python
        self._folder = folder
        self._driver: subprocess.Popen[str] | None = None
        self._workers: list[subprocess.Popen[bytes]] = []

    def run(self, order: str) -> None:
        """Run the peer's program to its end."""
        done = subprocess.run(
            self._command(order), capture_output=True, check=False, cwd=self._folder, env=self._environment(), text=True
        )
        if done.returncode != 0:
            raise Failed((done.stderr or done.stdout)[-TAIL:])

    def drive(self, do: str, **more: Any) -> Any:
        """Send the driver a command and return its answer."""
        if self._driver is None:
            with (self._folder / "driver.log").open("wb") as log:
                self._driver = subprocess.Popen(
                    self._command("drive"),
                    cwd=self._folder,
                    env=self._environment(),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                )
        assert self._driver.stdin is not None
        assert self._driver.stdout is not None
        with suppress(BrokenPipeError):
            self._driver.stdin.write(json.dumps({"do": do, **more}) + "\n")
            self._driver.stdin.flush()
        answer = self._driver.stdout.readline()
        if not answer:
            raise Failed(f"{do}: {self._log_tail('driver.log')}")
        return json.loads(answer)

    def dismiss(self) -> None:
        """Stop the driver and its sessions."""
        if self._driver is not None:
            assert self._driver.stdin is not None
            assert self._driver.stdout is not None
            self._driver.stdin.close()
            _stop(self._driver)
            self._driver.stdout.close()
        self._driver = None

    @contextmanager
    def workers(self, number: int) -> Iterator[None]:
        """Run worker processes inside the `with` block."""
        try:
            for _ in range(number):
                with (self._folder / "workers.log").open("ab") as log:
                    worker = subprocess.Popen(
                        self._command("serve"), cwd=self._folder, env=self._environment(), stdout=log, stderr=log
                    )
                self._workers.append(worker)
            yield
        finally:
            for worker in self._workers:
                worker.terminate()
            for worker in self._workers:
                _stop(worker)
            self._workers.clear()

    def wait_for_steps(self, number: int) -> None:
        """Wait until so many steps have begun."""
        seen, changed = -1, time.monotonic()
        while (marked := self.trace.read().steps) < number:
            if marked != seen:
                seen, changed = marked, time.monotonic()
            self._check(changed, f"{marked} of {number} steps have begun")
            time.sleep(POLL_SECONDS)

    def until_done(self) -> None:
        """Wait until no work is left in the database."""
        since = time.monotonic()
        while not self.drive("is_done"):
            self._check(since, "not all jobs are done")
            time.sleep(POLL_SECONDS)

    def close(self) -> None:
        """Stop the driver."""
        self.dismiss()

    def _check(self, since: float, what: str) -> None:
        if any(worker.poll() is not None for worker in self._workers):
            codes = [worker.returncode for worker in self._workers]
            raise Failed(f"a worker has ended, exit codes {codes}: {self._log_tail('workers.log')}")
        if time.monotonic() - since > STALL_SECONDS:
            raise Failed(f"no progress for {STALL_SECONDS:.0f} s, {what}: {self._log_tail('workers.log')}")

    def _command(self, order: str) -> list[str]:
        return [str(self._python), *PROGRAMS, self.peer.module, order]

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "DATABASE_URL"))}
        return {
            **kept,
            "BENCH_DSN": self.dsn,
            "BENCH_CONFIG": self.config,
            trace.FOLDER: str(self._folder),
            "PATH": f"{self.arena.programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": str(CHECKOUT),
        }

    def _log_tail(self, name: str) -> str:
        path = self._folder / name
        return path.read_text(errors="replace")[-TAIL:] if path.exists() else ""


def _stop(process: subprocess.Popen[Any]) -> None:
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
