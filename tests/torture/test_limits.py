"""The short form of `python -m tests.torture.limits`: no limit is exceeded, no place and no job is lost."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.conftest import Server
from tests.torture.limits.proof import Proof

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
