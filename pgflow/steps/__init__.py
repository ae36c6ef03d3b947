"""The steps that come with pgflow: the end, two kinds of waiting, and a look into an instance.

They are ordinary steps: whatever they do, a step of yours can do. What a step waits for it says in `parking()`, so the
engine and the workers know nothing of `Wait` or `WaitForEvent`; only `Done` is known, as the end.
"""

from pgflow.steps.debug import Debug
from pgflow.steps.done import Done
from pgflow.steps.wait import Wait
from pgflow.steps.wait_for_event import WaitForEvent

__all__ = ["Debug", "Done", "Wait", "WaitForEvent"]
