"""The profile: samples are counted by file, and the server's log is added up by statement."""

from __future__ import annotations

import sys
import time

import pytest

from pgflow.bench import flows
from pgflow.core.values.payload import encode
from tests.bench.profile import Sampler, durations, place, profile, table

LOG = """\
2030-01-01 00:00:00.000 UTC [1] LOG:  duration: 0.250 ms  bind _pg3_1: -- Claims ready jobs: so many. => id
2030-01-01 00:00:00.000 UTC [1] LOG:  duration: 1.500 ms  execute _pg3_1: -- Claims ready jobs: so many. => id
\tselect 1
2030-01-01 00:00:00.000 UTC [1] LOG:  duration: 2.000 ms  execute <unnamed>: -- Ends a lease. => id
2030-01-01 00:00:00.000 UTC [1] LOG:  duration: 9.000 ms  statement: select 1
"""


def test_the_servers_time_is_added_up_by_statement() -> None:
    assert durations(LOG) == {"Claims ready jobs": 1.75, "Ends a lease": 2.0}


def test_time_in_a_library_counts_for_the_calling_file() -> None:
    class Nosy(dict[str, str]):
        def items(self) -> object:  # type: ignore[override]
            seen.append(place(sys._getframe()))
            return super().items()

    seen: list[str] = []
    encode({"a": Nosy(b="c")}, what="input", limit=100)
    assert set(seen) == {"pgflow/core/values/payload.py"}
    assert place(None) == "else"


def test_a_busy_loop_is_sampled() -> None:
    with Sampler() as sampler:
        until = time.process_time() + 0.5
        while time.process_time() < until:
            pass
    assert sampler.seen["else"] > 10


def test_negligible_rows_are_omitted() -> None:
    assert table("it", {"a": 0.01, "b": 2.0, "c": 30.0})[2:] == ["|---|--:|", "| c | 30.0 |", "| b | 2.0 |"]


@pytest.mark.slow
def test_worker_and_server_are_reported() -> None:
    told = profile(flows.Chain, 1000, 10)  # enough for a kernel with a timer of 100 Hz
    assert "5,000 steps of 1,000 instances, 10 at once" in told
    assert "| pgflow/worker/" in told
    assert "| Writes the outcomes of a batch of claimed jobs |" in told
