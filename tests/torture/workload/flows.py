"""The workflows of the workload, which cover each way to run, wait, branch and join; and their app."""

from __future__ import annotations

from datetime import timedelta

from pgflow import (
    Context,
    Done,
    Pgflow,
    Step,
    Unique,
    Wait,
    WaitForEvent,
    Workflow,
    every,
    route,
    schedule,
)
from tests.torture.workers.restartable import RestartableWorker
from tests.torture.workload.steps import (
    Script,
    abook,
    alitter,
    approval,
    block_loop,
    book,
    decide,
    doze,
    fetch,
    give_way,
    grind,
    halt,
    hold_gil,
    kill_worker,
    litter,
    pass_by,
    refuse,
    stumble,
)
from tests.torture.workload.tasks import TASKS, noted

__all__ = ["SCHEDULES", "WORKFLOWS", "app"]

WIDE = 50  # branches


left, right, last = fetch.named("left"), grind.named("right"), fetch.named("last")
branches = [(fetch if number % 2 else grind).named(f"branch_{number:02}") for number in range(1, 11)]
threads = [fetch.named(f"thread_{number:02}") for number in range(1, WIDE + 1)]
pause = Wait(timedelta(milliseconds=300)).named("pause")
courier = WaitForEvent("arrived", timeout=timedelta(milliseconds=600)).named("courier")
word = WaitForEvent("word").named("word")


def either(ctx: Context[Script]) -> list[Step]:
    return [left, right] if ctx.initial.way == "yes" else [right]


def holder(ctx: Context[Script]) -> Step:
    return hold_gil if ctx.initial.way == "yes" else block_loop


class Chain(Workflow[Script], unique=Unique("chain")):
    """Five steps in a row, of every kind."""

    initial = fetch
    transitions = {
        fetch: {"done": grind},
        grind: {"done": stumble},
        stumble: {"done": doze},
        doze: {"done": last},
        last: {"done": Done},
    }


class Diamond(Workflow[Script], unique=Unique("diamond"), on_success=noted):
    """Two branches that join."""

    initial = fetch
    transitions = {fetch: {"done": [left, right]}, left: {"done": last}, right: {"done": last}, last: {"done": Done}}


class Fan(Workflow[Script], unique=Unique("fan"), on_cancel=noted):
    """Ten branches that join."""

    initial = fetch
    transitions = {fetch: {"done": branches}, **{each: {"done": last} for each in branches}, last: {"done": Done}}


class Wide(Workflow[Script], unique=Unique("wide")):
    """Fifty branches that join."""

    initial = grind
    transitions = {grind: {"done": threads}, **{each: {"done": last} for each in threads}, last: {"done": Done}}


class Branch(Workflow[Script], unique=Unique("branch")):
    """One of two exclusive branches, which join again."""

    initial = decide
    transitions = {
        decide: {"yes": left, "no": [right, stumble]},
        left: {"done": last},
        right: {"done": last},
        stumble: {"done": last},
        last: {"done": Done},
    }


class Routed(Workflow[Script], unique=Unique("routed")):
    """A choice at run time, and a join after it."""

    initial = fetch
    transitions = {
        fetch: {"done": route(either, left, right)},
        left: {"done": last},
        right: {"done": last},
        last: {"done": Done},
    }


class Waiting(Workflow[Script], unique=Unique("waiting"), on_cancel=noted):
    """An async step and a wait for a signal, in parallel."""

    initial = fetch
    transitions = {
        fetch: {"done": [approval, word]},
        approval: {"approved": last, "rejected": last},
        word: {"received": last},
        last: {"done": Done},
    }


class Timed(Workflow[Script], unique=Unique("timed")):
    """A timer, and a wait that ends by a signal or a timeout, whichever comes first."""

    initial = fetch
    transitions = {
        fetch: {"done": pause},
        pause: {"timeout": courier},
        courier: {"received": last, "timeout": last},
        last: {"done": Done},
    }


class Booking(Workflow[Script], unique=Unique("booking")):
    """Transactional steps, alone and in parallel."""

    initial = book
    transitions = {
        book: {"done": [abook, grind]},
        abook: {"done": last},
        grind: {"done": last},
        last: {"done": Done},
    }


class Littering(Workflow[Script], unique=Unique("littering")):
    """Steps that leave state in their sessions, before others that need clean ones."""

    initial = litter
    transitions = {
        litter: {"done": [alitter, book]},
        alitter: {"done": abook},
        book: {"done": last},
        abook: {"done": last},
        last: {"done": Done},
    }


class Broken(Workflow[Script], unique=Unique("broken"), on_success=noted, on_failure=noted):
    """Fails beside a sibling, and is retried once it is fixed."""

    initial = fetch
    transitions = {fetch: {"done": [left, refuse]}, left: {"done": last}, refuse: {"done": last}, last: {"done": Done}}


class Exhausted(Workflow[Script], unique=Unique("exhausted"), on_success=noted, on_failure=noted):
    """Three steps that fail, one for each policy that lets an instance live on."""

    initial = fetch
    transitions = {
        fetch: {"done": [give_way, pass_by, halt]},
        give_way: {"done": last, "failed": left},
        left: {"done": last},
        pass_by: {"done": last},
        halt: {"done": last},
        last: {"done": Done},
    }


class Holding(Workflow[Script], unique=Unique("holding")):
    """Steps that block their whole worker for longer than its lease."""

    initial = fetch
    transitions = {
        fetch: {"done": route(holder, hold_gil, block_loop)},
        hold_gil: {"done": Done},
        block_loop: {"done": Done},
    }


class Poison(Workflow[Script], unique=Unique("poison")):
    """Kills each worker that runs it."""

    initial = kill_worker
    transitions = {kill_worker: {"done": Done}}


class Visit(Workflow[Script], unique=Unique("visit", scope="none")):
    """Several instances may have the same business value: only an idempotency key identifies a repeated call."""

    initial = grind
    transitions = {grind: {"done": fetch}, fetch: {"done": Done}}


WORKFLOWS = (
    *(Chain, Diamond, Fan, Wide, Branch, Routed, Waiting, Timed, Booking, Littering, Broken, Exhausted),
    *(Holding, Poison, Visit),
)


class RestartableApp(Pgflow):
    """Its workers drain and run again on SIGHUP."""

    _worker_type = RestartableWorker


# Each instant fires, also after an outage, so that the checker can compare them with all that there are.
SCHEDULES = [
    schedule(every(timedelta(seconds=1)), Chain, name="ticks", overlap="allow", catch_up="all"),
    schedule(every(timedelta(seconds=3)), Diamond, name="turns", overlap="allow", catch_up="all"),
]

app = RestartableApp(workflows=WORKFLOWS, tasks=TASKS, schedules=SCHEDULES)
