"""The peers: each engine with the Python that it needs, the kinds of jobs that it can run, and how many of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["CONFIGS", "OURS", "PEERS", "Peer"]

CONFIGS = ("default", "best")


@dataclass(frozen=True, slots=True, eq=False)
class Peer:
    """A peer: `module` is its program, `package` the distribution with its version.

    `jobs` has, for each kind that it can run, the number of jobs in its default and in its best configuration: as many
    as take some seconds here. A peer takes part in all contests of these kinds, or only in `contests`.
    """

    name: str
    module: str
    package: str
    jobs: Mapping[str, tuple[int, int]]
    bulk: int
    python: tuple[int, int] = (3, 11)
    contests: tuple[str, ...] = ()
    configs: tuple[str, ...] = CONFIGS
    has_environment: bool = True

    def count(self, kind: str, config: str) -> int:
        """How many jobs of a kind to run."""
        return self.jobs[kind][CONFIGS.index(config)]


OURS = Peer(
    "pgflow",
    "pgflow",
    "pgflow-engine",
    {"task": (40_000, 100_000), "workflow": (20_000, 40_000), "chain": (6_000, 12_000), "fan": (1_500, 3_000)},
    bulk=100_000,
    has_environment=False,
)
FLOOR = Peer(
    "plain psycopg",
    "floor",
    "psycopg",
    {"task": (1, 1)},
    bulk=0,
    contests=("enqueue", "latency"),
    configs=("best",),
    has_environment=False,
)
PEERS = (
    OURS,
    Peer("DBOS", "dbos", "dbos", {"task": (5_000, 6_000), "chain": (300, 400), "fan": (60, 150)}, bulk=10_000),
    Peer("Absurd", "absurd", "absurd-sdk", {"task": (2_000, 6_000), "chain": (600, 1_200), "fan": (60, 100)}, 15_000),
    Peer("PgQueuer", "pgqueuer", "pgqueuer", {"task": (25_000, 100_000)}, bulk=100_000),
    Peer("oban-py", "oban", "oban", {"task": (10_000, 25_000)}, bulk=15_000, python=(3, 12)),
    Peer("Procrastinate", "procrastinate", "procrastinate", {"task": (2_500, 4_000)}, bulk=40_000),
    FLOOR,
)
