"""What the database's own history must look like: tokens, results, instances (I2 to I13)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from tests.torture.checker.history import ENDED, History, Story, seconds_of
from tests.torture.checker.model import follow
from tests.torture.install.audit import Change

__all__ = [
    "each_instance_ends",
    "effects_are_written_once",
    "ends_are_final",
    "keys_are_held_by_one",
    "only_the_owner_records",
    "outcomes_are_a_path",
    "outputs_are_of_a_body",
    "revisions_have_no_gap",
    "runs_are_claimed",
    "steps_are_reached_once",
    "steps_begin_with_what_was_recorded",
    "tokens_move_by_the_rules",
]

# From a token's state to the next one; None is before its birth and after its end.
LEGAL = {
    (None, "ready"),
    (None, "running"),
    (None, "scheduled"),
    ("ready", "running"),
    ("running", "running"),
    ("running", "ready"),
    ("running", "scheduled"),
    ("running", "parked"),
    ("scheduled", "ready"),
    ("parked", "ready"),
    ("ready", None),
    ("running", None),
    ("scheduled", None),
    ("parked", None),
}
WAITS = frozenset({"approval", "word", "courier", "pause"})  # ended by a signal or a timer, not by a body


def each_instance_ends(history: History) -> Iterator[str]:
    """I2: after the last fault every instance ends, and no token is left."""
    for story in history.stories.values():
        if not story.instance:
            yield f"run {story.run} is known to its steps only"
            continue
        if story.status not in ENDED:
            yield f"{story.id} (run {story.run}) is {story.status} in the end"
        for token, changes in story.tokens.items():
            if changes[-1].op != "delete":
                yield f"token {token} of {story.id} is left: {_state(changes[-1].now)}"


def tokens_move_by_the_rules(history: History) -> Iterator[str]:
    """I3: a token goes from state to state as it may, and an attempt is counted with a claim and at no other time."""
    for story in history.stories.values():
        for token, changes in story.tokens.items():
            for change in changes:
                was, now = change.was, change.now
                pair = (was and was["state"], now and now["state"])
                if pair not in LEGAL:
                    yield f"token {token} of run {story.run} went from {pair[0]} to {pair[1]}"
                if now is not None and now["attempt"] > now["max_attempts"]:
                    yield f"token {token} of run {story.run} is in attempt {now['attempt']} of {now['max_attempts']}"
                if was is not None and now is not None and not _attempt_is_right(was, now):
                    yield (
                        f"token {token} of run {story.run}: attempt {was['attempt']} became {now['attempt']} "
                        f"({_state(was)} → {_state(now)})"
                    )


def _attempt_is_right(was: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    before, after = was["attempt"], now["attempt"]
    match was["state"], now["state"]:
        case "ready", "running":
            return bool(after == before + (was["kind"] == "execute"))
        case "running", "running":
            return bool(after == 1 and now["step"] != was["step"])
        case "running", ("ready" | "scheduled" | "parked") if now["step"] == was["step"]:
            return after in (before, before - 1)
        case "running", ("ready" | "scheduled"):
            return bool(after == 0)
    return bool(after == before)


def only_the_owner_records(history: History) -> Iterator[str]:
    """I4: who records a step holds its token, in this attempt; and nobody takes it away before the lease has ended."""
    by_transaction: dict[int, list[Change]] = {}
    for change in history.changes:
        if change.relation == "jobs" and change.was is not None:
            by_transaction.setdefault(change.xact, []).append(change)
    for story in history.stories.values():
        for result in story.results:
            row = result.row
            owners = [
                each.was
                for each in by_transaction.get(result.xact, ())
                if each.was is not None and each.was["run"] == story.run and each.was["step"] == row["step"]
            ]
            if not any(
                (each["state"], each["worker"], each["attempt"]) == ("running", row["worker"], row["attempt"])
                for each in owners
            ):
                held = ", ".join(map(_state, owners)) or "nobody's"
                yield (
                    f"{row['step']} of run {story.run} was recorded by worker {row['worker']} in attempt "
                    f"{row['attempt']}, when its token was {held}"
                )
        for change in story.moves:
            yield from _taken_too_early(history, change)


def _taken_too_early(history: History, change: Change) -> Iterator[str]:
    """A token that is freed at its step, by another's session than its holder's, was freed from the dead."""
    was, now = change.was, change.now
    if was is None or now is None or (was["state"], now["state"], now["step"]) != ("running", "ready", was["step"]):
        return
    beats = [each for each in history.leases.get(was["worker"], ()) if each.seq < change.seq and each.now]
    if any(each.row["backend"] == change.backend for each in beats) or now["kind"] != was["kind"]:
        return
    # The last one may still wait for its commit, for a standby say, and be seen by nobody; one that its session has
    # gone on from is surely seen.
    sure = [place for place, beat in enumerate(beats) if any(beat.backend == on.backend for on in beats[place + 1 :])]
    if not sure:
        return
    # Each one since then may be seen as well, and the last one of a worker that leaves ends its lease at once.
    ends = min(seconds_of(beat.row["lease_expires_at"]) for beat in beats[sure[-1] :])
    lease = history.times["lease"]
    if change.moment + 0.001 < ends <= change.moment + 2 * lease:
        yield (
            f"token {was['id']} was taken from worker {was['worker']} as if it were dead, "
            f"{ends - change.moment:.3f} s before its lease ended"
        )


def outputs_are_of_a_body(history: History) -> Iterator[str]:
    """I5: a step is recorded once, with what a run of it in that attempt has left."""
    for story in history.stories.values():
        left = {(body["step"], body["attempt"], body["nonce"]) for body in story.bodies if body["e"] == "end"}
        seen = Counter(each.row.get("step") for each in story.results)
        for step, count in seen.items():
            if count > 1:
                yield f"{step} of run {story.run} was recorded {count} times"
        for change in story.results:
            row = change.row
            if row["step"] in WAITS or not (row["output"] or {}).get("nonce"):
                continue
            if (row["step"], row["attempt"], row["output"]["nonce"]) not in left:
                yield f"{row['step']} of run {story.run}, attempt {row['attempt']}: no body has left what is recorded"


def steps_begin_with_what_was_recorded(history: History) -> Iterator[str]:
    """I6: a step begins after the steps before it were recorded, and is given what was recorded of them."""
    for story in history.stories.values():
        recorded = {each.row["step"]: each for each in story.results}
        for body in story.bodies:
            if body["e"] != "begin":
                continue
            for step, nonce in body["given"].items():
                known = recorded.get(step)
                if known is None:
                    yield f"{body['step']} of run {story.run} was given {step}, which was never recorded"
                    continue
                stored = (known.row["output"] or {}).get("nonce")
                if stored != nonce:
                    yield f"{body['step']} of run {story.run} was given {nonce} of {step}, recorded is {stored}"
                if known.at > history.wall(body["t"]) + 0.005:
                    yield f"{body['step']} of run {story.run} began before {step} was recorded"


def outcomes_are_a_path(history: History) -> Iterator[str]:
    """I7: what is recorded of an instance is one way through its graph, from its beginning to where it stands."""
    for story in history.stories.values():
        if not story.instance:
            continue
        graph = history.graphs[story.workflow]
        results = {each.row["step"]: (each.row["event"], each.row["targets"]) for each in story.results}
        done, _, is_at_end = follow(graph, results)
        for step in sorted(results.keys() - done):
            yield f"{step} of {story.id} (run {story.run}) is recorded, and no way leads to it"
        if is_at_end != (story.status == "completed") and story.status in ENDED:
            where = "at" if is_at_end else "not at"
            yield f"{story.id} (run {story.run}) is {story.status}; by its results it is {where} its end"


def steps_are_reached_once(history: History) -> Iterator[str]:
    """I8: each step is scheduled once in a run, a join too; once more for each time that it was taken up again."""
    for story in history.stories.values():
        reached = Counter(
            change.now["step"]
            for change in story.moves
            if change.now is not None
            and change.now["kind"] == "execute"
            and (change.was is None or change.was["step"] != change.now["step"])
        )
        for step, count in reached.items():
            if count > 1 + story.retries:
                yield f"{step} of run {story.run} was scheduled {count} times"


def effects_are_written_once(history: History) -> Iterator[str]:
    """I9: what a transactional step writes is there once if it was recorded, and not at all if it was not."""
    written = Counter((run, step, nonce) for run, step, nonce in history.effects if run)
    for (run, step, nonce), count in written.items():
        row = history.stories[run].result(step) if run in history.stories else None
        if row is None or (row["output"] or {}).get("nonce") != nonce:
            yield f"{step} of run {run} has left an effect that is not its result's"
        if count > 1:
            yield f"{step} of run {run} has left its effect {count} times"
    for story in history.stories.values():
        for change in story.results:
            row = change.row
            made = (row["output"] or {}).get("nonce", "")
            if row["step"] in ("book", "abook") and (story.run, row["step"], made) not in written:
                yield f"{row['step']} of run {story.run} is recorded, and its effect is not there"


def revisions_have_no_gap(history: History) -> Iterator[str]:
    """I10: each change of an instance moves its revision by one."""
    for story in history.stories.values():
        for change in story.instance:
            if change.was is not None and change.now is not None:
                by = change.now["revision"] - change.was["revision"]
                if by != 1:
                    yield f"the revision of {story.id} (run {story.run}) moved by {by}"


def runs_are_claimed(history: History) -> Iterator[str]:
    """I11: a step runs as often as it was claimed, at most."""
    for story in history.stories.values():
        claims = Counter(
            change.now["step"]
            for change in story.moves
            if change.now is not None
            and change.now["state"] == "running"
            and change.now["kind"] == "execute"
            and (change.was is None or change.was["state"] == "ready" or change.was["step"] != change.now["step"])
        )
        begun = Counter(body["step"] for body in story.bodies if body["e"] == "begin")
        for step, count in begun.items():
            if count > claims[step]:
                yield f"{step} of run {story.run} ran {count} times and was claimed {claims[step]} times"


def ends_are_final(history: History) -> Iterator[str]:
    """I12: an instance ends once, unless it is taken up again after a failure."""
    for story in history.stories.values():
        for change in story.instance:
            was, now = change.was, change.now
            if was is None or now is None or was["status"] not in ENDED:
                continue
            if not (was["status"] == "failed" and now["status"] == "running"):
                yield f"{story.id} (run {story.run}) was {was['status']} and became {now['status']}"


def keys_are_held_by_one(history: History) -> Iterator[str]:
    """I13: of the instances with one business key, one is active at a time."""
    lives: dict[str, list[tuple[float, float, Story]]] = {}
    for story in history.stories.values():
        if not story.instance or story.instance[0].row.get("unique_key") is None:
            continue
        key = story.instance[0].row["unique_key"]
        since: float | None = None
        for change in story.instance:
            is_active = change.now is not None and change.now["status"] not in ENDED
            if is_active and since is None:
                since = change.at
            elif not is_active and since is not None:
                lives.setdefault(key, []).append((since, change.at, story))
                since = None
    for key, spans in lives.items():
        spans.sort(key=lambda span: span[:2])
        for (_, end, first), (start, _, second) in pairwise(spans):
            if start < end:
                yield f"{key}: runs {first.run} and {second.run} were active at once"


def _state(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "gone"
    return f"{row['state']} {row['kind']} at {row['step'] or '?'} of worker {row['worker']}, attempt {row['attempt']}"
