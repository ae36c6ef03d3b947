"""What every contestant's step does: it makes a mark, with the very code of pgflow's own benchmark.

That is loaded as a file, because the package around it needs what is not installed in the other environments.
"""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

__all__ = ["mark"]

SOURCE = Path(__file__).parents[4] / "pgflow" / "bench" / "trace.py"


def _load() -> Any:
    spec = spec_from_file_location("pgflow_trace", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TRACE = _load()


def mark(sent: int = 0, number: int = 0) -> None:
    """Count this step; with the time at which its job was sent, keep when it began, too."""
    if sent:
        TRACE.record(sent, number)
    else:
        TRACE.count()
