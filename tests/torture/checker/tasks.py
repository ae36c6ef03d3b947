"""Tasks: each enqueue ends once, by the worker that held it; unique keys; hooks (I24 to I28)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from tests.torture.checker.history import ENDED, History, TaskHistory
from tests.torture.install.audit import Change

__all__ = [
    "enqueues_are_answered_truly",
    "hooks_run_once_for_each_end",
    "results_are_of_the_holder",
    "tasks_end_once",
    "unique_keys_are_free_after_the_end",
    "wanted_hooks",
]

HOOKS = {"completed": "success", "failed": "failure", "cancelled": "cancel"}  # by the status
READ_SECONDS = 0.005  # between two clocks of one machine


def enqueues_are_answered_truly(history: History) -> Iterator[str]:
    """I24: what was enqueued for certain is there once, what was not is not, and no job lacks a call."""
    made: dict[str, list[TaskHistory]] = defaultdict(list)
    for task in history.tasks.values():
        if task.token is not None:
            made[task.token].append(task)
    calls: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for call in history.calls:
        if call["op"].startswith("enqueue"):
            for token in call.get("tokens", [call["value"]]):
                calls[token].append(call)
    for token, tries in calls.items():
        jobs = {task.id for task in made[token]}
        if len(jobs) > 1:
            yield f"{tries[0]['op']} of {tries[0]['workflow']} has made {len(jobs)} jobs of one call: {sorted(jobs)}"
        yield from _answer_is_true(tries, token, jobs)
    for token in made.keys() - calls.keys():
        yield f"job {made[token][0].id} of {made[token][0].name} has no call"
    yield from _own_transactions(history, made)


def _answer_is_true(tries: Sequence[Mapping[str, Any]], token: str, jobs: set[int]) -> Iterator[str]:
    call = tries[-1]
    what = f"{call['op']} of {call['workflow']} with {token}"
    if call["r"] == "fail" and jobs:
        yield f"{what} has certainly failed, and made job {min(jobs)}"
    if call["r"] != "ok" or not call.get("kept", True):
        return
    match call["answer"]:
        case str(job):  # in SQL
            expected = {int(job)}
        case list(answers):
            answer = answers[call["tokens"].index(token)]
            expected = {answer["job"]} if answer["created"] else set()
        case answer:
            expected = {answer["job"]} if answer["created"] else set()
    if jobs != expected:
        yield f"{what} was answered with {sorted(expected) or 'an earlier job'}, and made {sorted(jobs) or 'none'}"


def _own_transactions(history: History, made: Mapping[str, list[TaskHistory]]) -> Iterator[str]:
    rows = Counter(step for run, step, _ in history.effects if not run)
    for call in history.calls:
        if call["op"] != "enqueue_in_own":
            continue
        token, jobs = call["value"], len(made.get(call["value"], ()))
        if jobs != rows[token]:
            yield f"{token} was enqueued {jobs} times, and the row of its transaction is there {rows[token]} times"
        if call["r"] == "ok" and jobs != call["kept"]:
            how = "committed" if call["kept"] else "rolled back"
            yield f"{token}: the transaction was {how}, and its task was enqueued {jobs} times"


def tasks_end_once(history: History) -> Iterator[str]:
    """I25: each job of a task ends with one result in the same transaction, and again only after a retry."""
    for task in history.tasks.values():
        where = f"job {task.id} of {task.name}"
        lives = [change for change in task.jobs if change.op != "update"]
        ends = [change for change in lives if change.op == "delete"]
        results = [change for change in task.results if change.op == "insert"]
        undone = [change for change in task.results if change.op == "delete"]  # by a retry
        if [change.op for change in lives] != ["insert", "delete"] * len(ends):
            yield f"{where} has not ended: {', '.join(change.op for change in lives)}"
        if [change.xact for change in ends] != [change.xact for change in results]:
            yield f"{where} ended {len(ends)} times, and has {len(results)} results of these transactions"
        if [change.xact for change in lives[2::2]] != [change.xact for change in undone]:
            yield f"{where} was retried {len(undone)} times, and made {len(lives[2::2])} times again"
        for change in undone:
            if (change.was or {})["status"] not in ("failed", "cancelled"):
                yield f"{where} was {(change.was or {})['status']}, and ran again"
        if task.name != "refuse_job" and task.status == "failed":
            yield f"{where} has failed: {(task.results[-1].row['error'] or {}).get('reason')}"
    for call in history.calls:
        if call["r"] != "ok" or "job" not in call:
            continue
        task = history.tasks[call["job"]]
        if call["op"] == "cancel" and task.status != "cancelled":
            yield f"job {task.id} was cancelled for certain, and is {task.status}"
        if call["op"] == "retry" and (task.status != "completed" or len(task.results) < 3):
            yield f"job {task.id} was retried for certain, and is {task.status} after {len(task.results)} changes"


def results_are_of_the_holder(history: History) -> Iterator[str]:
    """I26: the result of a task is that of an execution by the worker, and in the attempt, that held its job."""
    pids = {worker: changes[0].row["pid"] for worker, changes in history.leases.items()}
    written = Counter((-run, nonce) for run, _, nonce in history.effects if run < 0)
    for task in history.tasks.values():
        ended = {(body["attempt"], body["nonce"]): body["pid"] for body in task.bodies if body["e"] == "end"}
        held = {change.xact: change.was or {} for change in task.jobs if change.op == "delete"}
        completed = None
        for change in task.results:
            row, job = change.row, held.get(change.xact)
            if change.op != "insert" or row["status"] == "cancelled":
                continue
            where = f"job {task.id} of {task.name}, attempt {row['attempt']}"
            if job is None or (job["state"], job["worker"], job["attempt"]) != (
                "running", row["worker"], row["attempt"],
            ):  # fmt: skip
                yield f"{where}: worker {row['worker']} has recorded it, and did not hold it: {job}"
            if row["status"] != "completed":
                continue
            completed = row["output"]
            pid = ended.get((row["attempt"], completed))
            if pid is None:
                yield f"{where}: the output is from no execution in this attempt"
            elif pid != pids.get(row["worker"]):
                yield f"{where}: the output is from process {pid}, and worker {row['worker']} held it"
        if task.name == "book_job":
            mine = {nonce: count for (job_id, nonce), count in written.items() if job_id == task.id}
            if mine != ({} if completed is None else {completed: 1}):
                yield f"job {task.id} of {task.name} is {task.status} with {completed}, and has written {mine}"
        claims = sum(
            bool(change.was and change.now and (change.was["state"], change.now["state"]) == ("ready", "running"))
            for change in task.jobs
        )
        begun = sum(body["e"] == "begin" for body in task.bodies)
        if begun > claims:
            yield f"job {task.id} of {task.name} ran {begun} times, and was claimed {claims} times"


def unique_keys_are_free_after_the_end(history: History) -> Iterator[str]:
    """I27: at most one unfinished job has a unique key, and a job that has ended keeps no other from being enqueued."""
    lives: dict[str, list[tuple[float, float, int]]] = defaultdict(list)
    for task in history.tasks.values():
        for since, until, key in task.lives:
            if key is not None:
                lives[key].append((since, until, task.id))
    for key, spans in lives.items():
        spans.sort()
        for (_, end, first), (start, _, second) in pairwise(spans):
            if start < end:
                yield f"the unique key {key[:8]} had two unfinished jobs at once, {first} and {second}"
    first_tries: dict[str, float] = {}
    for call in history.calls:
        if not call["op"].startswith("enqueue") or not call.get("key"):
            continue
        since = first_tries.setdefault(call["key"], history.wall(call["t0"]))
        if call["r"] != "ok":
            continue
        answers = call["answer"] if isinstance(call["answer"], list) else [call["answer"]]
        for answer, place in zip(answers, call.get("places", [call.get("place")]), strict=True):
            yield from _holder_was_live(history, answer, place, since, history.wall(call["t1"]))


def _holder_was_live(
    history: History, answer: Mapping[str, Any], place: str | None, since: float, until: float
) -> Iterator[str]:
    """The job that an enqueue was answered with, instead of a new one, was unfinished at some time during the call."""
    task = history.tasks.get(answer["job"])
    if task is None:
        yield f"an enqueue for {place} was answered with job {answer['job']}, which does not exist"
        return
    if task.args.get("place") != place:
        yield f"an enqueue for {place} was answered with job {task.id}, which is for {task.args.get('place')}"
    if not answer["created"] and not any(
        start <= until + READ_SECONDS and end >= since - READ_SECONDS for start, end, _ in task.lives
    ):
        ended = since - max(end for _, end, _ in task.lives)
        yield f"job {task.id} had ended {ended:.3f} s before an enqueue that it kept out: its unique key was not free"


def hooks_run_once_for_each_end(history: History) -> Iterator[str]:
    """I28: each end that has a hook enqueues it once, in its own transaction; no hook is without an end."""
    made = Counter(
        (task.jobs[0].xact, _subject(task.args["end"]), task.args["end"]["status"])
        for task in history.tasks.values()
        if "end" in task.args
    )
    wanted = Counter(wanted_hooks(history))
    for (xact, subject, status), count in (wanted - made).items():
        yield f"{subject} was {status} in transaction {xact} with a hook, which was enqueued {count} times too rarely"
    for (xact, subject, status), count in (made - wanted).items():
        yield f"the hook of {subject} being {status} was enqueued {count} times too often in transaction {xact}"


def wanted_hooks(history: History) -> Iterator[tuple[int, str, str]]:
    """Yield each end that has a hook: its transaction, what ended, and how."""
    for instance in history.instances.values():
        for change in instance.changes:
            status = change.row["status"]
            if not _is_end(change):
                continue
            if HOOKS[status] in history.graphs[instance.workflow].get("hooks", {}):
                yield change.xact, f"run {instance.run}", status
    for task in history.tasks.values():
        for change in task.results:
            status = change.row["status"]
            if change.op == "insert" and HOOKS[status] in history.hooks.get(task.name, {}):
                yield change.xact, f"job {task.id}", status


def _is_end(change: Change) -> bool:
    was, now = change.was, change.now
    return now is not None and now["status"] in ENDED and (was is None or was["status"] not in ENDED)


def _subject(end: Mapping[str, Any]) -> str:
    return f"run {end['run']}" if end["kind"] == "workflow" else f"job {end['job']}"
