"""mypy --strict accepts valid code of users and refuses their mistakes."""

from pathlib import Path

import pytest
from mypy import api

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["accepted.py", "refused.py"])
def test_mypy_finds_the_marked_lines_and_no_others(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    # bin/check checks the package itself.
    said, trouble, _ = api.run(["--strict", "--follow-imports=silent", f"tests/typing/{name}"])
    assert trouble == ""
    assert said.startswith("Success")


def test_accepted_code_also_runs() -> None:
    from tests.typing import accepted

    assert accepted.OrderFlow.graph.initial == "validate_order"
