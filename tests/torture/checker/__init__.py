"""Check a run's history: invariants that must hold throughout, and counters that show that it was put to the test.

A run without a violation is worth what it went through. So each counter has to be above zero, or the run is invalid: a
fault that was never met proves nothing. (Antithesis's "sometimes" assertions.) The invariants are I1 to I21; each is a
function that yields a sentence for each place where it is broken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from tests.torture.checker import answers, conduct, engine, timing
from tests.torture.checker.history import History, Story

__all__ = ["INVARIANTS", "History", "Story", "Violation", "check", "counters"]

MOST_OF_ONE = 20  # violations of one invariant that are told; the rest is more of the same

INVARIANTS: Mapping[str, Callable[[History], Iterator[str]]] = {
    "I1": answers.what_was_answered_is_so,
    "I2": engine.each_instance_ends,
    "I3": engine.tokens_move_by_the_rules,
    "I4": engine.only_the_owner_records,
    "I5": engine.outputs_are_of_a_body,
    "I6": engine.steps_begin_with_what_was_recorded,
    "I7": engine.outcomes_are_a_path,
    "I8": engine.steps_are_reached_once,
    "I9": engine.effects_are_written_once,
    "I10": engine.revisions_have_no_gap,
    "I11": engine.runs_are_claimed,
    "I12": engine.ends_are_final,
    "I13": engine.keys_are_held_by_one,
    "I14": timing.dead_workers_steps_are_freed_in_time,
    "I15": timing.timers_are_never_early,
    "I16": answers.reads_go_forward,
    "I17": answers.cancelled_means_no_step_begins,
    "I18": conduct.innocents_pay_nothing,
    "I19": conduct.workers_stay_small,
    "I20": conduct.logs_are_clean,
    "I21": conduct.sessions_are_clean,
}


@dataclass(frozen=True, slots=True)
class Violation:
    """An invariant that is broken, and where."""

    invariant: str
    said: str


def check(history: History) -> list[Violation]:
    """Return what is broken, at most twenty places for each invariant."""
    return [Violation(name, said) for name, look in INVARIANTS.items() for said in islice(look(history), MOST_OF_ONE)]


def counters(history: History) -> dict[str, int]:
    """Count what a run must have come across, to be worth anything."""
    stories = [story for story in history.stories.values() if story.instance]
    moves = [move for story in stories for move in story.moves]
    begun = [(body["run"], body["step"]) for body in history.bodies if body["e"] == "begin"]
    return {
        "instances": len(stories),
        **{status: sum(story.status == status for story in stories) for status in ("completed", "failed", "cancelled")},
        "retried by hand": sum(story.retries for story in stories),
        "steps recorded": sum(len(story.results) for story in stories),
        "steps that ran twice": len(begun) - len(set(begun)),
        "freed from the dead": sum(
            bool(move.was and move.now and move.now["crashes"] > move.was["crashes"]) for move in moves
        ),
        "fenced": history.said(r"is not ours any more"),
        "conflicts folded in": sum(len(story.folds) for story in stories),
        "waits parked": sum(bool(move.now and move.now["state"] == "parked") for move in moves),
        "snoozes and retries": sum(bool(move.now and move.now["state"] == "scheduled") for move in moves),
        "commits and answers lost": history.hits("commit lost", "reply lost", "reply cut"),
        "wake-ups lost": history.hits("drop notifications"),
        "calls refused by an outage": sum(bool(call.get("outage")) for call in history.calls),
        "suspects run alone": sum(bool(move.now and move.now["crashes"] >= 2) for move in moves),
    }
