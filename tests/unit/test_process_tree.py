"""A process is ended together with its children, also with those who do not want to."""

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

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who a process's children are")

# A parent with two children: one ends when its parent does, one does not.
FAMILY = """
import os, sys, time
heir, lasting = os.pipe()
heeding = os.fork()
if heeding == 0:
    os.close(lasting)
    os.read(heir, 1)
    os._exit(0)
deaf = os.fork()
if deaf == 0:
    os.close(lasting)
    time.sleep(60)
print(heeding, deaf, flush=True)
time.sleep(60)
"""


@contextmanager
def family() -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A process with two children, who are given as file descriptors."""
    with subprocess.Popen([sys.executable, "-c", FAMILY], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        children = [os.pidfd_open(int(pid)) for pid in parent.stdout.readline().split()]
        try:
            yield parent, children
        finally:
            parent.kill()
            for child in children:
                os.close(child)


def test_children_that_do_not_end_by_themselves_are_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_tree, "GRACE_SECONDS", 0.1)
    with family() as (parent, children):
        process_tree.kill(parent.pid)
        assert len(select.select(children, [], [], 0)[0]) == 2
        assert parent.wait(10) == -9


def test_children_have_time_to_end_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_tree, "GRACE_SECONDS", 0.3)
    with family() as (parent, _):
        began = time.monotonic()
        process_tree.kill(parent.pid)
        assert time.monotonic() - began >= 0.3
