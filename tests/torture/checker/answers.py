"""Answers to callers must be true, and calls with an unknown outcome must be all or nothing (I1, I16, I17)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from tests.torture.checker.history import ENDED, History

__all__ = ["answers_are_true", "cancelled_instances_begin_no_step", "reads_are_monotonic"]

Call = Mapping[str, Any]
BY_OPERATOR = "pgflow:complete"  # the name of the signal with which a step is completed for it


def answers_are_true(history: History) -> Iterator[str]:
    """I1: no answered call is lost, no row lacks a call, no idempotency key is applied twice."""
    yield from _answers_agree(history)
    yield from _starts(history)
    yield from _visits(history)
    yield from _own_transactions(history)
    yield from _signals(history)


def _answers_agree(history: History) -> Iterator[str]:
    by_key: dict[str, list[Call]] = defaultdict(list)
    for call in history.calls:
        if call.get("key"):
            by_key[call["key"]].append(call)
    for key, calls in by_key.items():
        answers = [call["answer"] for call in calls if call["r"] == "ok" and call["op"] != "read"]
        if any(answer != answers[0] for answer in answers):
            yield f"{calls[0]['op']} of {calls[0]['value']} with key {key} got different answers: {answers}"
        if calls[0]["op"] != "read" and calls[-1]["r"] == "info":
            yield f"{calls[0]['op']} of {calls[0]['value']} with key {key} never got a definite answer"


def _starts(history: History) -> Iterator[str]:
    asked: Counter[str] = Counter()
    for call in history.calls:
        if call["op"] != "start" or call["r"] != "ok":
            continue
        answer = call["answer"]
        asked[answer["id"]] += 1
        instance = history.instances.get(answer["run"])
        if instance is None or not instance.changes or instance.id != answer["id"]:
            yield f"{answer['id']} was started as run {answer['run']}, which does not exist"
    keys = {(call["workflow"].lower(), call["value"]): call for call in history.calls if call["op"].startswith("start")}
    for business_id, instances in history.by_id.items():
        prefix, _, value = business_id.partition("::")
        if prefix == "visit":
            continue
        is_harness = prefix in ("poison", "holding", "littering") or value.startswith("rare-") or "@" in value
        if (prefix, value) not in keys and not is_harness:
            yield f"{business_id} has no call"
        elif not is_harness and not value.startswith("rush") and len(instances) > 1:
            yield f"{business_id} was started once and has {len(instances)} runs"
        elif value.startswith("rush") and len(instances) > asked[business_id]:
            yield f"{business_id} was started {asked[business_id]} times for certain and has {len(instances)} runs"


def _visits(history: History) -> Iterator[str]:
    wanted: Counter[str] = Counter()
    unsure: set[str] = set()
    counted: set[str] = set()
    for call in history.calls:
        if call["op"] == "start_many" and call["r"] == "ok" and call["key"] not in counted:
            counted.add(call["key"])
            wanted[call["value"]] += call["count"]
            for each in call["answer"]:
                instance = history.instances.get(each["run"])
                if instance is None or not instance.changes:
                    yield f"{each['id']} was started as run {each['run']}, which does not exist"
    for call in history.calls:
        if call["op"] == "start_many" and call["key"] not in counted:
            unsure.add(call["value"])
    there = Counter(business_id.split("::")[1] for business_id in history.by_id if business_id.startswith("visit::"))
    for value in wanted.keys() | there.keys():
        if there[value] != wanted[value] and value not in unsure:
            yield f"visit {value} was started {wanted[value]} times for certain and exists {there[value]} times"


def _own_transactions(history: History) -> Iterator[str]:
    rows = Counter(step for run, step, _ in history.effects if not run)
    for call in history.calls:
        if call["op"] != "start_in_own":
            continue
        business_id = f"{call['workflow'].lower()}::{call['value']}"
        started, entered = len(history.by_id.get(business_id, ())), rows[call["value"]]
        if started != entered:
            yield f"{business_id} exists {started} times, and the row of its transaction {entered} times"
        if call["r"] == "ok" and started != call["kept"]:
            how = "committed" if call["kept"] else "rolled back"
            yield f"{business_id}: the transaction was {how}, and it exists {started} times"
        if call["r"] == "fail" and started:
            yield f"{business_id} was certainly not started, and exists"


def _signals(history: History) -> Iterator[str]:
    stored: Counter[str] = Counter()
    for instance in history.instances.values():
        for change in instance.signals:
            if change.op == "insert" and change.now is not None and change.now["name"] != BY_OPERATOR:
                stored[(change.now["payload"] or {}).get("nonce", "")] += 1
    answered: dict[str, list[Call]] = defaultdict(list)
    for call in history.calls:
        if call["op"] == "signal":
            answered[call["nonce"]].append(call)
    for nonce, calls in answered.items():
        is_sent = any(call["r"] == "ok" for call in calls)
        if stored[nonce] != is_sent and calls[-1]["r"] != "info":
            how, what = "sent" if is_sent else "not sent", f"{calls[0]['event']} to {calls[0]['value']}"
            yield f"the signal {what} was {how}, and is stored {stored[nonce]} times"
    for nonce in stored.keys() - answered.keys():
        yield f"a signal with {nonce!r} has no call"
    for instance in history.instances.values():
        consumed = Counter(
            (change.was["id"])
            for change in instance.signals
            if change.op == "update" and change.was is not None and change.was["consumed_at"] is None
        )
        for signal, count in consumed.items():
            if count > 1:
                yield f"signal {signal} of run {instance.run} was consumed {count} times"


def reads_are_monotonic(history: History) -> Iterator[str]:
    """I16: a later read returns the same steps or more, in the same order.

    A parallel branch recorded first may be committed last, and then appears between steps that were seen before.
    """
    by_value: dict[tuple[str, str], list[Call]] = defaultdict(list)
    for call in history.calls:
        by_value[call["workflow"], call["value"]].append(call)
    for (workflow, value), calls in by_value.items():
        if value.startswith("rush") or workflow == "Visit":
            continue
        reads = sorted((call for call in calls if call["op"] == "read"), key=lambda call: call["t0"])
        starts = [call["t1"] for call in calls if call["op"] == "start" and call["r"] == "ok"]
        cancels = [call["t1"] for call in calls if call["op"] == "cancel" and call["r"] == "ok"]
        for read in reads:
            if read["r"] == "fail" and read["why"] == "instance-not-found" and any(t < read["t0"] for t in starts):
                yield f"{workflow} {value} was started and then not found"
            if read["r"] == "ok" and any(t < read["t0"] for t in cancels) and read["answer"]["status"] != "cancelled":
                yield f"{workflow} {value} was cancelled and then read as {read['answer']['status']}"
        seen = [read for read in reads if read["r"] == "ok"]
        for first, second in pairwise(seen):
            if first["t1"] >= second["t0"]:
                continue
            before, after = first["answer"], second["answer"]
            if [step for step in after["steps"] if step in before["steps"]] != before["steps"]:
                yield f"{workflow} {value} had {before['steps']} and later {after['steps']}"
            if before["status"] in ENDED - {"failed"} and after["status"] != before["status"]:
                yield f"{workflow} {value} was {before['status']} and later {after['status']}"


def cancelled_instances_begin_no_step(history: History) -> Iterator[str]:
    """I17: after a cancel is answered no step begins, except on a worker that cannot know of it yet."""
    answered = {
        f"{call['workflow'].lower()}::{call['value']}": history.wall(call["t1"])
        for call in history.calls
        if call["op"] == "cancel" and call["r"] == "ok"
    }
    tolerance = history.times["lease"] + history.times["sweep"] + history.times["slack"]
    for business_id, at in answered.items():
        for instance in history.by_id.get(business_id, ()):
            if instance.status != "cancelled":
                yield f"{business_id} was cancelled for certain and is {instance.status}"
            for body in instance.bodies:
                late = history.wall(body["t"]) - at
                if body["e"] == "begin" and late > tolerance and not history.injections_between(at, at + late):
                    yield f"{body['step']} of {business_id} began {late:.1f} s after it was cancelled"
