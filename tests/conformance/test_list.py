"""The list is complete: each item has a test, with its number in the test's name and docstring, and none is skipped."""

from __future__ import annotations

import ast
import re
from pathlib import Path

HOW_MANY = {"A": 16, "B": 27, "C": 16, "D": 15, "E": 6, "F": 14, "G": 20, "H": 20, "I": 28, "J": 16, "R": 20}
NAME = re.compile(r"test_([a-z])(\d+)_")
SELF = Path(__file__)


def listed() -> list[tuple[str, str, list[str]]]:
    """Return name, docstring and decorators of every test."""
    found = []
    for path in sorted(SELF.parent.glob("test_*.py")):
        if path != SELF:
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                    decorators = [ast.unparse(each) for each in node.decorator_list]
                    found.append((node.name, ast.get_docstring(node) or "", decorators))
    return found


def test_every_item_has_a_test() -> None:
    items = {f"{group}{number}" for group, most in HOW_MANY.items() for number in range(1, most + 1)}
    tested = {f"{found[1].upper()}{found[2]}" for name, _, _ in listed() if (found := NAME.match(name))}
    assert tested == items


def test_every_test_has_its_item_in_name_and_docstring() -> None:
    for name, docstring, _ in listed():
        found = NAME.match(name)
        assert found, name
        assert docstring.startswith(f"{found[1].upper()}{found[2]}: "), (name, docstring)


def test_no_item_is_skipped() -> None:
    assert not [
        name for name, _, decorators in listed() if any("skip" in each or "xfail" in each for each in decorators)
    ]
