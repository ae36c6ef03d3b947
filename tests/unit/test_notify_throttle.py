"""Notifications that follow one another closely are sent together, and the end waits for all of them."""

from __future__ import annotations

import threading

from pgflow.client.notify_throttle import NotifyThrottle
from pgflow.store.notification import Notification, QueueReady

PATIENCE = 30.0


def test_join_waits_for_every_late_notification_and_not_only_for_the_newest() -> None:
    throttle, sent = NotifyThrottle(), list[set[Notification]]()
    is_sending, may_end = threading.Event(), threading.Event()

    def send_slowly(late: set[Notification]) -> None:
        is_sending.set()
        may_end.wait(PATIENCE)
        sent.append(late)

    while throttle.due({QueueReady("mail")}, send_slowly):
        pass  # sent at once, until one follows soon enough
    assert is_sending.wait(PATIENCE)
    throttle.due({QueueReady("mail")}, sent.append)  # a second timer, while the first still sends
    waiter = threading.Thread(target=throttle.join, daemon=True)
    waiter.start()
    waiter.join(0.2)
    assert waiter.is_alive()
    may_end.set()
    waiter.join(PATIENCE)
    assert not waiter.is_alive()
    assert {QueueReady("mail")} in sent
