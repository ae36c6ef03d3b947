"""How workers behave: steps do not pay for others, logs and sessions are clean, memory stays small (I18 to I21)."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

from tests.torture.checker.history import History, Story, seconds_of
from tests.torture.install.audit import Change

__all__ = ["innocents_pay_nothing", "logs_are_clean", "sessions_are_clean", "workers_stay_small"]

MOST_CRASHES = 5
QUARANTINE_FROM = 2  # lost workers from which on a step is a suspect
CONNECTIONS_EACH = 3 + 20  # work, heart, ears, and transactional steps
LARGEST_RSS = 160 * 1024 * 1024
ASKED_FOR = "failpoint "  # what the harness itself has brought about
# And who waited for what, on the lines after it. Those that the fault "refusals" makes up have words of their own.
DEADLOCK = re.compile(r"^(.*)ERROR:  deadlock detected\n(?:.*DETAIL:  (.*)\n(?:\t(.*)\n)?)?", re.MULTILINE)


def innocents_pay_nothing(history: History) -> Iterator[str]:
    """I18: a step's attempts are its own failures; what kills its worker fails after five, and nobody else does."""
    for story in history.stories.values():
        for change in story.results:
            row = change.row
            own = [each for each in row["errors"] or () if not each.keys() & {"crashes", "severed"}]
            if row["attempt"] != len(own) + 1:
                where = f"{row['step']} of run {story.run}"
                yield f"{where} was recorded in attempt {row['attempt']}, with {len(own)} failures of its own"
        if not story.instance or story.status != "failed":
            continue
        if story.workflow == "Poison":
            begun = sum(body["e"] == "begin" for body in story.bodies)
            crashes = begun - sum(_is_in_doubt(history, change) for change in story.moves)
            if story.error.get("type") != "WorkerLost" or crashes > MOST_CRASHES:
                yield f"{story.id} killed {begun} workers and failed with {story.error.get('reason')}"
        elif story.error.get("type") == "WorkerLost":
            if not _was_lost_alone(history, story):
                yield f"{story.id} failed because its worker was lost, and kills none"
        elif story.workflow != "Broken":
            yield f"{story.id} failed: {story.error.get('reason')}"


def _is_in_doubt(history: History, change: Change) -> bool:
    """Whether nobody could say that a worker was lost by this step: see sql/queries/job/rescue.sql.

    A suspect may not be all that its worker held, also where that did not know it, because an answer was lost. And
    where the clock went back, a lease ends so late that it says nothing.
    """
    was, now = change.was, change.now
    if was is None or now is None or (was["state"], now["state"]) != ("running", "ready"):
        return False
    if now["crashes"] > was["crashes"]:
        return False
    beats = [each for each in history.leases.get(was["worker"], ()) if each.seq < change.seq]
    if beats and seconds_of(beats[-1].row["lease_expires_at"]) > change.moment:
        return True
    return bool(was["crashes"] >= QUARANTINE_FROM) and _had_company(history, change)


def _was_lost_alone(history: History, story: Story) -> bool:
    """Whether five workers were lost while they held a step, the last three while it was all that they held.

    That is what the engine takes for the step's doing, and it may be wrong: sql/README.md says so. Here it is, once in
    ten thousand instances.
    """
    charges = [
        each
        for token in story.tokens.values()
        for each in token
        if each.was
        and each.now
        and each.now["crashes"] > each.was["crashes"]
        and each.was["step"] == story.error["step"]
    ]
    return len(charges) == MOST_CRASHES and not any(
        each.was is not None and each.was["crashes"] >= QUARANTINE_FROM and _had_company(history, each)
        for each in charges
    )


def _had_company(history: History, change: Change) -> bool:
    """Whether a token's worker held another one, too, when the token left it."""
    return any(
        other.row["id"] != change.row["id"] and (other.xact == change.xact or other.seq > change.seq)
        for other in history.departures[(change.was or {})["worker"]]
    )


def workers_stay_small(history: History) -> Iterator[str]:
    """I19: memory and connections stay under their caps."""
    sizes: dict[int, list[int]] = defaultdict(list)
    for gauge in history.gauges:
        for pid, size in gauge["rss"].items():
            sizes[int(pid)].append(size)
        if gauge["connections"] > CONNECTIONS_EACH * max(1, len(gauge["rss"])) + 60:
            yield f"there were {gauge['connections']} connections for {len(gauge['rss'])} workers"
    for pid, seen in sizes.items():
        if max(seen) > LARGEST_RSS:
            yield f"worker process {pid} grew to {max(seen) >> 20} MB"


def logs_are_clean(history: History) -> Iterator[str]:
    """I20: no worker has met an error that nobody thought of, and nobody a deadlock."""
    for name, text in history.logs.items():
        for block in re.split(r"(?m)^(?=\d{4}-\d\d-\d\d )", text):
            if "Traceback" in block and ASKED_FOR not in block:
                last = block.strip().splitlines()[-1]
                yield f"{name}: {block.splitlines()[0][:120]} … {last[:160]}"
    for name, text in history.server_logs.items():
        for who, *cycle in DEADLOCK.findall(text):
            yield f"{name}: {who}deadlock detected: {' '.join(cycle)}"


def sessions_are_clean(history: History) -> Iterator[str]:
    """I21: a transactional step finds nothing in its session that another step has left there."""
    for body in history.bodies:
        if body["e"] == "session":
            left = "; ".join(f"{what} {name}: {value}" for what, name, value in body["left"])
            yield f"{body['step']} of run {body['run']} found in its session {left[:200]}"
