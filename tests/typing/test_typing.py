"""What users write passes mypy --strict, and what they get wrong does not."""

from pathlib import Path

import pytest
from mypy import api

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["accepted.py", "refused.py"])
def test_mypy_finds_what_is_marked_and_nothing_else(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    # bin/check checks the package itself.
    said, trouble, _ = api.run(["--strict", "--follow-imports=silent", f"tests/typing/{name}"])
    assert trouble == ""
    assert said.startswith("Success")


def test_what_is_accepted_also_runs() -> None:
    from tests.typing import accepted

    assert accepted.OrderFlow.graph.initial == "validate_order"
