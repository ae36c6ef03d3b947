"""The built-in steps: the end of a workflow, two kinds of waits, and debug logging.

They use only what any step can use. A step returns in `parking()` what it waits for, so neither the engine nor the
workers know `Wait` or `WaitForEvent`; `Done` alone is special, as the end of the graph.
"""

from pgflow.steps.debug import Debug
from pgflow.steps.done import Done
from pgflow.steps.wait import Wait
from pgflow.steps.wait_for_event import WaitForEvent

__all__ = ["Debug", "Done", "Wait", "WaitForEvent"]
