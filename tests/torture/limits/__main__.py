"""Run the proof for longer: `python -m tests.torture.limits --seconds 120`."""

from __future__ import annotations

import sys
from dataclasses import asdict

import click

from pgflow.database.connect import connect
from pgflow.embedded import EmbeddedPostgres
from pgflow.migrations.migrate import up
from tests.torture.limits.proof import Proof


@click.command()
@click.option("--seconds", type=click.FloatRange(1), default=60.0, help="How long each of the two parts takes.")
@click.option("--claimers", type=click.IntRange(1, 64), default=8, help="How many claim at once.")
@click.option("--seed", type=int, default=1, help="Seed of all that is random.")
def main(seconds: float, claimers: int, seed: int) -> None:
    """Prove limits of concurrency, then rates; the exit code is 1 if one was exceeded, or a job was lost."""
    failed = False
    for part in ("limits", "rates"):
        with EmbeddedPostgres() as postgres:
            with connect(postgres.dsn, "migrate") as conn:
                up(conn)
            proof = Proof(postgres.dsn, claimers=claimers, seed=seed)
            proof.install()
            figures = getattr(proof, part)(seconds)
        shown = asdict(figures)
        violations = shown.pop("violations")
        click.echo(f"{part}: " + ", ".join(f"{name} {value:g}" for name, value in shown.items()))
        click.echo(f"{part}: {len(violations)} violations" + "".join(f"\n  {each}" for each in violations[:20]))
        failed |= bool(violations)
    sys.exit(1 if failed else 0)


main()
