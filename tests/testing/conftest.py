"""Fixtures of the tests of `pgflow.testing`: its own, with the shop's workflows."""

from __future__ import annotations

from typing import Any

import pytest

from tests.testing.shop import CHARGES, MAILS, PARCELS, TASKS, WORKFLOWS


@pytest.fixture
def pgflow_options() -> dict[str, Any]:
    """The shop's workflows and tasks, for `pgflow_app`."""
    CHARGES.clear()
    PARCELS.clear()
    MAILS.clear()
    return {"workflows": WORKFLOWS, "tasks": TASKS}
