"""`pgflow queue` and `pgflow limit`: what they print, and what they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from pgflow import Pgflow
from tests.acceptance.command import environment, error_line, run
from tests.acceptance.shop import OrderFlow
from tests.conftest import Server


@pytest.fixture(scope="module")
def app(server: Server, new_database: Callable[..., str], template: str) -> Iterator[Pgflow]:
    """A database with one job and no worker."""
    app = Pgflow(new_database(server, template), workflows=[OrderFlow])
    app.start(OrderFlow, "a", {"item_count": 1})
    yield app
    app.close()


def pgflow(app: Pgflow, *arguments: str, code: int = 0) -> str:
    done = run(*arguments, env=environment(PGFLOW_DSN=app.dsn))
    if code:
        return error_line(done, code)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def listed(app: Pgflow, what: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(pgflow(app, what, "list", "--json"))[f"{what}s"]
    return found


def test_a_queue_is_paused_scaled_and_resumed(app: Pgflow) -> None:
    assert pgflow(app, "queue", "pause", "default", "--by", "ada") == "queue default is paused\n"
    pgflow(app, "queue", "pause", "default", "--node", "host-7", "--by", "bob")
    pgflow(app, "queue", "scale", "default", "--per-worker", "3")
    (queue,) = [each for each in listed(app, "queue") if each["name"] == "default"]
    assert (queue["paused_by"], queue["worker_concurrency"], queue["ready"]) == ("ada", 3, 1)
    assert queue["paused_at"]
    text = pgflow(app, "queue", "list")
    assert "paused since 20" in text
    assert " by ada" in text
    assert "host-7: paused since" in text
    pgflow(app, "queue", "scale", "default", "--reset")
    assert pgflow(app, "queue", "resume", "default") == "queue default is resumed\n"
    assert pgflow(app, "queue", "resume", "default") == "queue default was not paused\n"
    pgflow(app, "queue", "drain", "default", "--node", "host-7", "--timeout", "1s")
    pgflow(app, "queue", "resume", "default", "--node", "host-7")
    assert all(each["nodes"] == [] for each in listed(app, "queue"))


def test_limits_are_set_listed_and_cleared(app: Pgflow) -> None:
    pgflow(app, "limit", "set", "default", "--concurrency", "5", "--rate", "90/m", "--burst", "20")
    pgflow(app, "limit", "set", "default", "--key", "a", "--weight", "2")
    (queue, key) = listed(app, "limit")
    assert queue["limits"] == {
        **{"concurrency": 5, "key_concurrency": None, "rate": 1.5, "burst": 20},
        **{"key_rate": None, "key_burst": 1},
    }
    assert (key["key"], key["weight"]) == ("a", 2)
    assert "5, 90/m burst 20" in pgflow(app, "limit", "list")
    assert pgflow(app, "limit", "clear", "default") == "queue default has no limits now\n"
    assert listed(app, "limit") == []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["queue", "pause", "defualt"], 5, "no queue is named 'defualt'. Did you mean default?"),
        (["queue", "scale", "default", "--per-worker", "0"], 6, "--per-worker=0 is refused"),
        (["limit", "set", "default", "--concurrency", "0"], 6, "concurrency=0 is refused"),
        (["limit", "set", "default", "--rate", "5"], 2, "--rate must be a number per period, such as 100/m"),
        (["limit", "set", "default", "--rate", "0/m"], 2, "such as 100/m or 1/30s, got '0/m'. From 1 start to"),
        (["limit", "set", "default", "--rate", "1/0s"], 2, "--rate must be a number per period"),
        (["limit", "set", "default", "--key-rate", "9/parsec"], 2, "--key-rate must be a number per period"),
        (["limit", "set", "default"], 6, "no limit given"),
        (["limit", "set", "defualt", "--concurrency", "1"], 5, "no queue is named 'defualt'"),
    ],
)
def test_wrong_values_are_refused(app: Pgflow, arguments: list[str], code: int, message: str) -> None:
    assert message in pgflow(app, *arguments, code=code)
