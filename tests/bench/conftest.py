"""A fixture of the benchmarks' tests: an environment on the tests' own server, so that they need not start one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pgflow.bench.environment import BenchEnvironment


@pytest.fixture(scope="module")
def environment(dsn: str) -> Iterator[BenchEnvironment]:
    """An environment in an empty database, in the schema that pgflow's own SQL names."""
    with BenchEnvironment(dsn, "pgflow") as environment:
        yield environment
