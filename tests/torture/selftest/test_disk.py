"""A disk of our own is full and free again, a server on it survives that, and nothing is left of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from pgflow.errors import DatabaseError, PgflowError
from tests.torture.host import disk as module
from tests.torture.host.cluster import Cluster
from tests.torture.host.disk import Disk
from tests.torture.selftest.unsupported import is_unsupported
from tests.torture.selftest.writer import QUICK, Writer
from tests.worker.waiting import until

pytestmark = pytest.mark.chaos

MIB = 1024 * 1024
# Creates a disk, prints its path, and waits to be killed.
MAKER = """
from tests.torture.host.disk import Disk
disk = Disk(1024 * 1024)
print(disk.path, flush=True)
input()
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster | None]:
    """A server on a disk of its own; None where that is unsupported."""
    if Disk.why_not():
        yield None
    else:
        with Cluster(settings=QUICK, disk=512 * MIB) as cluster:
            yield cluster


def test_an_unsupported_disk_has_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert Disk.why_not() == "only root can mount a file system"
    with pytest.raises(PgflowError, match="only root"):
        Disk(MIB)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(module, "find", lambda program: None)
    assert Disk.why_not() == "the program mount is not installed"


def test_on_a_full_disk_nothing_can_be_written_until_it_is_freed() -> None:
    if is_unsupported(Disk.why_not()):
        return
    with Disk(4 * MIB) as disk:
        (disk.path / "before").write_bytes(bytes(MIB))
        for _ in range(2):
            disk.fill()
        with pytest.raises(OSError, match="No space left on device"):
            (disk.path / "during").write_bytes(bytes(MIB))
        for _ in range(2):
            disk.free()
        (disk.path / "after").write_bytes(bytes(2 * MIB))
        with pytest.raises(OSError, match="No space left on device"):
            (disk.path / "too much").write_bytes(bytes(2 * MIB))


def test_two_disks_are_two_and_nothing_is_left_of_them() -> None:
    if is_unsupported(Disk.why_not()):
        return
    with Disk(MIB) as one, Disk(MIB) as other:
        assert one.path != other.path
        one.fill()
        (other.path / "file").write_bytes(bytes(1000))
    assert not one.path.exists()
    assert not other.path.exists()
    assert str(one.path) not in Path("/proc/mounts").read_text()


def test_a_disk_in_use_is_not_removed() -> None:
    if is_unsupported(Disk.why_not()):
        return
    disk = Disk(MIB)
    with (disk.path / "open").open("w"), pytest.raises(PgflowError, match="busy"):
        disk.close()
    disk.close()
    assert not disk.path.exists()


def test_the_disk_of_a_killed_process_is_removed_by_the_next_one_once_it_is_unused() -> None:
    if is_unsupported(Disk.why_not()):
        return
    maker = subprocess.Popen([sys.executable, "-c", MAKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with maker:
        assert maker.stdout is not None
        path = Path(maker.stdout.readline().strip())
        with Disk(MIB) as another:
            assert another.path != path
            assert path.is_mount()
        used = (path / "open").open("w")
        maker.kill()
    with used, Disk(MIB):
        assert (path / "open").exists()
    with Disk(MIB) as taken:
        assert path == taken.path or not path.exists()


def test_a_server_on_a_full_disk_refuses_what_needs_room_and_goes_on_afterwards(cluster: Cluster | None) -> None:
    if is_unsupported(Disk.why_not()):
        return
    assert cluster is not None
    assert cluster.why_not_full() is None
    with psycopg.connect(cluster.dsn, autocommit=True) as conn:
        conn.execute("create table if not exists filled (page text)")
        conn.execute("alter table filled alter page set storage external")
        cluster.fill_disk()
        with pytest.raises(psycopg.OperationalError, match=r"could not extend file|No space left|closed"):
            conn.execute("insert into filled select repeat('.', 100000) from generate_series(1, 10000)")
    cluster.free_disk()
    cluster.bring_up()
    with psycopg.connect(cluster.dsn, autocommit=True) as conn:
        conn.execute("insert into filled values ('room')")


def test_a_server_that_cannot_write_its_log_ends_and_comes_back_with_all_that_it_accepted(
    cluster: Cluster | None,
) -> None:
    if is_unsupported(Disk.why_not()):
        return
    assert cluster is not None
    with Writer(cluster.dsn) as writer:
        for round_ in range(1, 3):
            cluster.fill_log()
            until(lambda count=round_: cluster.primary.log.count("PANIC") >= count, "the panic")  # type: ignore[misc]
            with pytest.raises(DatabaseError, match="accepted no writes"):
                cluster.bring_up(1)
            cluster.free_disk()
            cluster.bring_up()
            writer.wait_for_writes()
    assert writer.lost() == set()
