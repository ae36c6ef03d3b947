"""Failpoints: parsing, arming and triggering."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgflow.errors import ConfigError
from tests.torture.workers import failpoints
from tests.torture.workers.failpoints import POINTS, Failpoint

PACKAGE = Path(__file__).parents[3] / "pgflow"


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    failpoints.disarm()


def test_a_failpoint_triggers_once_at_its_nth_hit() -> None:
    failpoints.arm("claimer.sent=fail@3")
    for _ in range(2):
        failpoints.hit("claimer.sent")
        failpoints.hit("claimer.sending")
    with pytest.raises(OSError, match=r"failpoint claimer\.sent"):
        failpoints.hit("claimer.sent")
    failpoints.hit("claimer.sent")


def test_several_are_separated_by_commas() -> None:
    assert failpoints.parse("claimer.sent=kill@3, heart.beaten=stop@1") == {
        "claimer.sent": Failpoint("kill", 3),
        "heart.beaten": Failpoint("stop", 1),
    }
    assert failpoints.parse("") == {}


@pytest.mark.parametrize("text", ["claimer.sent", "nowhere=kill@1", "claimer.sent=eval@1", "claimer.sent=kill@0"])
def test_invalid_failpoints_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a failpoint"):
        failpoints.arm(text)


def test_each_point_is_reached_at_exactly_one_place() -> None:
    found = [
        name
        for path in PACKAGE.rglob("*.py")
        for name in re.findall(r'points\.reached\("([a-z.]+)"[,)]', path.read_text())
    ]
    assert sorted(found) == sorted(POINTS)
