"""The error of the dashboard when a package of its extra is missing."""

from __future__ import annotations

import subprocess
import sys

import pytest

WITHOUT = """
import sys
sys.modules[sys.argv[1]] = None
from pgflow.errors import ConfigError
try:
    import pgflow.web
except ConfigError as error:
    print(error, error.hint)
"""


@pytest.mark.parametrize(
    ("module", "package"),
    [("jinja2", "jinja2"), ("markdown_it", "markdown-it-py"), ("starlette", "starlette")],
)
def test_a_missing_package_is_named_with_the_extra_that_has_it(module: str, package: str) -> None:
    command = [sys.executable, "-c", WITHOUT, module]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"the package {package}, which is not installed" in said
    assert "pip install 'pgflow-engine[web]'" in said
