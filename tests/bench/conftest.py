"""What the tests of the benchmarks share: a ground on the tests' own server, so that none has to be started."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pgflow.cli.bench.ground import BenchEnvironment


@pytest.fixture(scope="module")
def ground(dsn: str) -> Iterator[BenchEnvironment]:
    """A ground in an empty database, in the schema that pgflow's own SQL names."""
    with BenchEnvironment(dsn, "pgflow") as ground:
        yield ground
