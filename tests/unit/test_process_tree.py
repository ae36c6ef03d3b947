"""Ending a process also ends its children, including those that ignore signals."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pgflow.embedded import process_tree

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the children of a process are known only on Linux")

# A parent with two children: one ends when its parent does, one does not.
FAMILY = """
import os, sys, time
child, lasting = os.pipe()
obedient = os.fork()
if obedient == 0:
    os.close(lasting)
    os.read(child, 1)
    os._exit(0)
stubborn = os.fork()
if stubborn == 0:
    os.close(lasting)
    time.sleep(60)
print(obedient, stubborn, flush=True)
time.sleep(60)
"""


@contextmanager
def family() -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """Return a process with two children, which are represented by file descriptors."""
    with subprocess.Popen([sys.executable, "-c", FAMILY], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        children = [os.pidfd_open(int(pid)) for pid in parent.stdout.readline().split()]
        try:
            yield parent, children
        finally:
            parent.kill()
            for child in children:
                os.close(child)


def test_children_that_ignore_the_signal_are_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_tree, "GRACE_SECONDS", 0.1)
    with family() as (parent, children):
        process_tree.kill(parent.pid)
        assert len(select.select(children, [], [], 0)[0]) == 2
        assert parent.wait(10) == -9


def test_children_have_time_to_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_tree, "GRACE_SECONDS", 0.3)
    with family() as (parent, _):
        began = time.monotonic()
        process_tree.kill(parent.pid)
        assert time.monotonic() - began >= 0.3
