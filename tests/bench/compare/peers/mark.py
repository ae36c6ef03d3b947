"""The step of every peer: it writes to the trace, with the code of pgflow's own benchmark.

That module is loaded as a file, because its package needs dependencies that other environments do not have.
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
    """Count this step; given the time at which its job was sent, also record when it began."""
    if sent:
        TRACE.record(sent, number)
    else:
        TRACE.count()
