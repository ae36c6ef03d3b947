"""The list of mutants keeps up with the code: each of them can still be made, and each item of group R has one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.defects import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.item}: {mutant.defect}")
def test_each_mutant_can_be_made(mutant: Mutant) -> None:
    text = (ROOT / mutant.path).read_text()
    assert text.count(mutant.before) == 1
    assert mutant.apply(text) != text


def test_each_repair_has_a_mutant() -> None:
    assert {mutant.item for mutant in MUTANTS} == {f"R{number}" for number in range(1, 21)}
