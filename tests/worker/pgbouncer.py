"""A real PgBouncer in transaction mode, if one is installed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
from psycopg.conninfo import conninfo_to_dict

from pgflow.database.dsn import compose, parse
from pgflow.embedded.installation import unprivileged
from tests.worker.waiting import until

__all__ = ["PROGRAM", "Bouncer"]

PROGRAM = os.environ.get("PGFLOW_TEST_PGBOUNCER") or shutil.which("pgbouncer", path=f"{os.defpath}:/usr/sbin")
SETTINGS = """
[databases]
* = host={host} port={port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users
logfile = {folder}/log
pool_mode = {mode}
default_pool_size = {size}
max_client_conn = 200
{more}
"""


class Bouncer:
    """PgBouncer before the server that `dsn` leads to, by a Unix socket, for the length of a `with`."""

    def __init__(self, dsn: str, *, size: int = 3, mode: str = "transaction", more: str = "") -> None:
        self._dsn = dsn
        self._settings = {"size": size, "mode": mode, "more": more}
        self._stack = ExitStack()
        self.port = 0

    def __enter__(self) -> Self:
        assert PROGRAM is not None
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="pgflow-bouncer-")))
        with socket.create_server(("127.0.0.1", 0)) as found:
            self.port = found.getsockname()[1]
        there, account = conninfo_to_dict(self._dsn), unprivileged()
        text = SETTINGS.format(
            folder=folder, host=there["host"], port=there.get("port", 5432), listen=self.port, **self._settings
        )
        (folder / "ini").write_text(text)
        (folder / "users").write_text(f'"{there.get("user", "postgres")}" ""\n')
        if account.user is not None and account.group is not None:
            for path in (folder, folder / "ini", folder / "users"):
                os.chown(path, account.user, account.group)
        process = subprocess.Popen(
            [PROGRAM, "--quiet", str(folder / "ini")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            user=account.user,
            group=account.group,
            extra_groups=account.groups,
        )
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        until(self._is_up, "PgBouncer")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def through(self, dsn: str) -> str:
        """Return the connection string that leads through it to the database and as the user that `dsn` names."""
        plain = {"sslmode": "disable", "gssencmode": "disable"}
        return compose({**parse(dsn), **plain, "host": "127.0.0.1", "port": str(self.port)})

    def _is_up(self) -> bool:
        try:
            psycopg.connect(self.through(self._dsn)).close()
        except psycopg.OperationalError:
            return False
        return True
