"""Check a run's history: invariants that must hold, and counters that show what the run covered.

A run without violations proves only what it covered. So each counter must be above zero, or the run is invalid
(Antithesis calls these "sometimes" assertions). The invariants are I1 to I28; each is a function that yields a message
for each violation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from tests.torture.checker import answers, conduct, engine, schedules, tasks, timing
from tests.torture.checker.history import History, InstanceHistory

__all__ = ["INVARIANTS", "History", "InstanceHistory", "Violation", "check", "counters"]

MAX_PER_INVARIANT = 20  # violations of one invariant that are reported

INVARIANTS: Mapping[str, Callable[[History], Iterator[str]]] = {
    "I1": answers.answers_are_true,
    "I2": engine.each_instance_ends,
    "I3": engine.jobs_move_by_the_rules,
    "I4": engine.only_the_owner_records,
    "I5": engine.outputs_are_from_an_execution,
    "I6": engine.steps_begin_with_what_was_recorded,
    "I7": engine.outcomes_are_a_path,
    "I8": engine.steps_are_reached_once,
    "I9": engine.effects_are_written_once,
    "I10": engine.revisions_have_no_gap,
    "I11": engine.executions_are_claimed,
    "I12": engine.ends_are_final,
    "I13": engine.unique_keys_are_held_once,
    "I14": timing.dead_workers_jobs_are_rescued_in_time,
    "I15": timing.timers_are_never_early,
    "I16": answers.reads_are_monotonic,
    "I17": answers.cancelled_instances_begin_no_step,
    "I18": conduct.only_own_failures_count,
    "I19": conduct.workers_stay_small,
    "I20": conduct.logs_are_clean,
    "I21": conduct.sessions_are_clean,
    "I22": schedules.instants_fire_once,
    "I23": conduct.checkpoints_are_its_own,
    "I24": tasks.enqueues_are_answered_truly,
    "I25": tasks.tasks_end_once,
    "I26": tasks.results_are_of_the_holder,
    "I27": tasks.unique_keys_are_free_after_the_end,
    "I28": tasks.hooks_run_once_for_each_end,
}


@dataclass(frozen=True, slots=True)
class Violation:
    """A violated invariant, and where."""

    invariant: str
    message: str


def check(history: History) -> list[Violation]:
    """Return the violations, at most twenty of each invariant."""
    return [
        Violation(name, message)
        for name, find in INVARIANTS.items()
        for message in islice(find(history), MAX_PER_INVARIANT)
    ]


def counters(history: History) -> dict[str, int]:
    """Count what a run must cover to be valid."""
    instances = [instance for instance in history.instances.values() if instance.changes]
    moves = [move for instance in instances for move in instance.moves]
    jobs = [task for task in history.tasks.values() if task.jobs]
    steps = [result.row for instance in instances for result in instance.results]
    begun = [(body["run"], body["step"]) for body in history.bodies if body["e"] == "begin"]
    return {
        "instances": len(instances),
        **{
            status: sum(instance.status == status for instance in instances)
            for status in ("completed", "failed", "cancelled")
        },
        "retried by callers": sum(instance.retries for instance in instances),
        "steps recorded": sum(len(instance.results) for instance in instances),
        "steps that ran twice": len(begun) - len(set(begun)),
        "rescued from dead workers": sum(
            bool(move.was and move.now and move.now["crashes"] > move.was["crashes"]) for move in moves
        ),
        "fenced": history.log_matches(r"the lease was revoked, its outcome is dropped"),
        "conflicts applied later": sum(len(instance.folds) for instance in instances),
        "waits parked": sum(bool(move.now and move.now["state"] == "parked") for move in moves),
        "snoozes and retries": sum(bool(move.now and move.now["state"] == "scheduled") for move in moves),
        "commits and answers lost": history.hits("commit lost", "reply lost", "reply cut"),
        "wake-ups lost": history.hits("drop notifications"),
        "calls refused by an outage": sum(bool(call.get("outage")) for call in history.calls),
        "instants of schedules": len(schedules.fired_instants(history)),
        "tasks": len(jobs),
        **{f"tasks {status}": sum(task.status == status for task in jobs) for status in ("completed", "cancelled")},
        "tasks retried by callers": sum(change.op == "delete" for task in jobs for change in task.results),
        "tasks that ran more than once": sum(sum(body["e"] == "begin" for body in task.bodies) > 1 for task in jobs),
        "hooks": sum("end" in task.args for task in jobs),
        "unique tasks that existed": sum(_met(call) for call in history.calls),
        "steps passed over": sum("error" in (row["output"] or ()) for row in steps),
        "steps ended or retried by operators": sum(
            call["op"].endswith("_step") and call["r"] == "ok" for call in history.calls
        ),
        "quarantined jobs run alone": sum(bool(move.now and move.now["crashes"] >= 2) for move in moves),
    }


def _met(call: Mapping[str, Any]) -> int:
    """Return how many jobs an enqueue met, instead of making them."""
    answer = call.get("answer")
    answers = answer if isinstance(answer, list) else [answer]
    return sum(call["op"].startswith("enqueue") and isinstance(each, dict) and not each["created"] for each in answers)
