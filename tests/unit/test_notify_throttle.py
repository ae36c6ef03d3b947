"""Notifications that follow one another closely are sent together, and the end waits for all of them."""

from __future__ import annotations

import threading
from queue import SimpleQueue

import pytest

from pgflow.client import notify_throttle
from pgflow.client.notify_throttle import NotifyThrottle
from pgflow.store.notification import Notification, QueueReady

PATIENCE = 30.0
MAIL, REPORTS = QueueReady("mail"), QueueReady("reports")


def test_a_repeat_is_sent_a_moment_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify_throttle, "QUIET_SECONDS", 0.2)
    sent: SimpleQueue[set[Notification]] = SimpleQueue()
    throttle = NotifyThrottle(sent.put)
    assert throttle.due({MAIL}) == {MAIL}
    assert throttle.due({MAIL, REPORTS}) == {REPORTS}
    throttle.sent({REPORTS}, {MAIL})
    throttle.sent(set(), {MAIL})
    assert sent.get(timeout=PATIENCE) == {MAIL}
    throttle.join()
    assert sent.empty()


def test_a_call_that_notifies_does_so_for_earlier_ones_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify_throttle, "QUIET_SECONDS", 3600.0)
    sent: SimpleQueue[set[Notification]] = SimpleQueue()
    throttle = NotifyThrottle(sent.put)
    throttle.sent(throttle.due({MAIL}), {MAIL, REPORTS})
    assert throttle.due({REPORTS}) == {REPORTS}
    throttle.sent({REPORTS}, set())
    throttle.join()
    assert sent.get_nowait() == {MAIL}
    assert sent.empty()


def test_a_call_that_fails_takes_no_notification_of_another_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify_throttle, "QUIET_SECONDS", 3600.0)
    sent: SimpleQueue[set[Notification]] = SimpleQueue()
    throttle = NotifyThrottle(sent.put)
    throttle.sent(set(), {MAIL})
    assert throttle.due({MAIL}) == {MAIL}  # and its statement fails
    throttle.join()
    assert sent.get_nowait() == {MAIL}


def test_join_sends_what_is_late_and_waits_for_it() -> None:
    is_sending, may_end, sent = threading.Event(), threading.Event(), list[set[Notification]]()

    def send_slowly(late: set[Notification]) -> None:
        is_sending.set()
        may_end.wait(PATIENCE)
        sent.append(late)

    throttle = NotifyThrottle(send_slowly)
    throttle.sent(set(), {MAIL})
    assert is_sending.wait(PATIENCE)
    throttle.sent(set(), {REPORTS})  # while the first is being sent
    waiter = threading.Thread(target=throttle.join, daemon=True)
    waiter.start()
    waiter.join(0.2)
    assert waiter.is_alive()
    may_end.set()
    waiter.join(PATIENCE)
    assert not waiter.is_alive()
    assert sent == [{MAIL}, {REPORTS}]
    throttle.join()  # nothing is late
    throttle.sent(set(), {MAIL})  # and it can be used again
    throttle.join()
    assert sent[2:] == [{MAIL}]
