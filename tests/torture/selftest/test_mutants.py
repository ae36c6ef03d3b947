"""The seeded defects keep up with the code: each of them can still be made, and what is to notice it is there."""

from __future__ import annotations

import ast
from itertools import pairwise
from pathlib import Path

import pytest

from tests.torture.faults.injector import FAULTS
from tests.torture.mutants import MUTANTS, TESTS, Mutant

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_each_defect_can_be_made(mutant: Mutant) -> None:
    text = (ROOT / mutant.path).read_text()
    changed = mutant.apply(text)
    assert changed != text
    if mutant.path.endswith(".py"):
        ast.parse(changed)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_what_is_to_notice_it_is_there(mutant: Mutant) -> None:
    if isinstance(mutant.by, str):
        words = mutant.by.split(" and ")
        assert any(all(word in (ROOT / path).read_text() for word in words) for path in TESTS)
    else:
        wanted = [value for option, value in pairwise(mutant.by) if option == "--only"]
        assert wanted
        assert all(any(part in fault.name for fault in FAULTS) for part in wanted)


def test_no_two_have_the_same_name() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
