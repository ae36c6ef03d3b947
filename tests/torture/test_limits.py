"""The short forms of `python -m tests.torture.limits` and `….limits.workers`: no limit is exceeded, nothing is lost."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Server
from tests.torture.limits.overlaps import (
    NEVER,
    Body,
    Hold,
    excesses,
    overfull_windows,
    ran_without_a_place,
    spans_of,
)
from tests.torture.limits.proof import Proof
from tests.torture.limits.workers import prove

SECONDS = 3.0


@pytest.fixture
def proof(server: Server, new_database: Callable[..., str], template: str) -> Proof:
    """Claimers, producers and faults on a database of their own."""
    proof = Proof(new_database(server, template), claimers=6, producers=1)
    proof.install()
    return proof


def test_no_limit_is_exceeded_and_no_job_is_lost(proof: Proof, is_long: bool) -> None:
    figures = proof.limits(SECONDS * 20 if is_long else SECONDS)
    assert figures.violations == []
    assert all([figures.kills, figures.changes, figures.places])
    assert figures.starts > 100


def test_rates_hold_in_every_window(proof: Proof, is_long: bool) -> None:
    figures = proof.rates(SECONDS * 20 if is_long else SECONDS)
    assert figures.violations == []
    assert figures.starts > 100


@pytest.mark.chaos
@pytest.mark.slow
def test_four_workers_keep_all_limits_through_a_kill_a_pause_and_a_restart(tmp_path: Path, is_long: bool) -> None:
    report = prove(tmp_path, 120.0 if is_long else 1.0)
    assert report.violations == []
    assert all([report.killed, report.stopped, report.restarts, report.rescued])
    assert report.bodies >= report.jobs > 200
    assert report.full == report.peaks  # the limits: no place has leaked


# A queue with two places, and one for the key "a": what each of three holds does, as (since, until).
HOLDS = [
    Hold(1, "q", "a", 1, pid=7, since=10.0, until=20.0),
    Hold(2, "q", "b", 1, pid=7, since=10.0, until=20.0),
    Hold(3, "q", "a", 1, pid=8, since=20.0, until=30.0),
]


def judged(*bodies: Body, **changed: Any) -> list[str]:
    """What is wrong with bodies of these holds, of which `changed` changes the last."""
    holds = [dataclasses.replace(each, bodies=[]) for each in HOLDS]
    holds[2] = dataclasses.replace(holds[2], **changed)
    _, faults = ran_without_a_place(holds, bodies)
    return [*faults, *excesses("ran", spans_of(holds, of_bodies=True), {"q": 2}, {("q", "a"): 1})]


def test_the_audit_of_bodies_finds_what_ran_beside_a_full_queue() -> None:
    first, second, third = Body(1, 7, 11.0, 19.0), Body(2, 7, 11.0, 19.0), Body(3, 8, 21.0, 29.0)
    assert judged(first, second, third) == []
    assert judged(first, second, Body(3, 8, 15.0, 29.0), since=14.0) == [
        "ran: queue q had 3 of 2 places at 15.000",
        "ran: key a of queue q had 2 of 1 places at 15.000",
    ]
    assert judged(Body(3, 9, 21.0, 29.0)) == ["job 3 ran in process 9, which had not claimed it"]
    assert judged(Body(3, 8, 21.0, 35.0)) == ["job 3 was taken from process 8 while it ran and had its lease"]
    assert judged(Body(3, 8, 21.0, 35.0), was_leased=False) == []
    assert judged(Body(3, 8, 21.0, NEVER)) == []  # its process was killed


def test_the_audit_of_rates_finds_one_start_too_many_in_a_window() -> None:
    starts = [(10.0, 1), (10.0, 1), (10.5, 1)]
    assert list(overfull_windows("q", starts, rate=2.0, burst=2)) == []
    assert list(overfull_windows("q", [*starts, (10.6, 1)], rate=2.0, burst=2)) == ["q: 2.80 of 2 at 10.600"]
