"""Check the work: workers and their leases, queues without a worker, overdue and orphaned rows."""

import shlex
from collections.abc import Iterator

from pgflow.database.statement import run
from pgflow.doctor.finding import COUNT_LIMIT, Check, Result, Target, capped, duration, note, ok, problem
from pgflow.store import doctor, schedule
from pgflow.store.doctor_rows import Overdue

__all__ = ["CHECKS"]

START = "pgflow worker --app module:name"
LONGEST_RESCUE = 60.0  # seconds after the end of a lease, while a worker is alive
OLDEST_READY = 300.0  # seconds that a job may wait in a queue that has a worker
PAGE = 1000  # active instances of each status to examine


def workers(target: Target) -> Iterator[Result]:
    """Live workers, and workers whose lease expired while they held jobs."""
    found = run(target.conn, doctor.workers(target.schema))
    alive = f"{capped(found.live, 'worker')} {'is' if found.live == 1 else 'are'} alive"
    if found.expired:
        expired = "its lease expired" if found.expired == 1 else "the leases expired"
        when = "" if found.expired_for is None else f" {duration(found.expired_for)} ago"
        held = f"{capped(found.expired, 'worker')} held {capped(found.jobs, 'running job')} when {expired}{when}"
        if not found.live:
            yield problem(f"{held}, and no worker is alive to rescue them", START)
        elif found.expired_for is None or found.expired_for < LONGEST_RESCUE:
            yield note(f"{held}; a live worker will rescue them within its --sweep, 5 s by default")
        else:
            yield problem(f"{held}, and no worker has rescued them", "read the logs of the live workers")
    if found.live:
        yield ok(alive)
    elif found.has_work:
        yield problem("no worker is alive, and work is ready", START)
    elif not found.expired:
        yield note("no worker is alive; no work is ready", START)


def queues(target: Target) -> Iterator[Result]:
    """Queues whose jobs wait too long."""
    is_healthy = True
    found = run(target.conn, doctor.queues(target.schema))
    for each in found:
        kind = "signals, timers and joins: " if each.orchestrates else ""
        what = (
            f'queue "{each.name}": {kind}{capped(each.jobs, "job")} ready or due, the oldest for {duration(each.age)}'
        )
        if each.paused_for is not None:
            is_healthy = False
            since = f"{duration(each.paused_for)}, by {each.paused_by or 'an unknown role'}"
            yield note(f"{what}, and the queue is paused for {since}", f"pgflow queue resume {shlex.quote(each.name)}")
        elif not each.served:
            is_healthy = False
            yield problem(f"{what}, and no live worker serves it", f"{START} --queue {shlex.quote(each.name + '=10')}")
        elif each.age is not None and each.age > OLDEST_READY:
            is_healthy = False
            yield note(what, "start more workers, or give the queue a higher limit: --queue NAME=LIMIT")
    if is_healthy:
        yield ok("no work waits for long" if found else "no work waits")


def missing_jobs(target: Target) -> Iterator[Result]:
    """Active instances that have no job."""
    found = run(target.conn, doctor.missing_jobs(target.schema, PAGE))
    scope = "" if found.is_complete else f" (of the {PAGE} oldest in each active status)"
    if not found.instances:
        yield ok(f"every active instance has a job{scope}")
        return
    what = f"{capped(found.instances, 'active instance')}{scope} without a job, the first is run {found.first}"
    if run(target.conn, doctor.workers(target.schema)).live:
        yield note(f"{what}; a live worker will repair them within its --sweep")
    else:
        yield problem(what, START)


def orphans(target: Target) -> Iterator[Result]:
    """Rows left over from instances that were deleted in SQL."""
    found = run(target.conn, doctor.orphans(target.schema, PAGE))
    for each in found:
        runs = "1 run that is" if each.runs == 1 else f"{each.runs} runs that are"
        yield problem(
            f"{target.schema}.{each.table} has rows of {runs} not in {target.schema}.instances, the first is run "
            f"{each.first}",
            "pgflow prune --orphans; delete instances with pgflow prune or app.storage.delete, not with SQL",
        )
    if not found:
        yield ok("no orphaned row was found")


def unapplied(target: Target) -> Iterator[Result]:
    """Results that no advance job has applied."""
    found = run(target.conn, doctor.unapplied(target.schema, PAGE))
    if found.results:
        age = duration(found.age)
        what = f"{capped(found.results, 'result')} not applied for {age}, the first in run {found.first}"
        yield problem(what, "serve the queue of its job, see: pgflow jobs --state ready")
    else:
        yield ok("no result waits to be applied")


def overdue(target: Target) -> Iterator[Result]:
    """Timers, retries and delayed starts that are overdue."""
    found = run(target.conn, doctor.overdue(target.schema))
    yield _overdue(target, found, "timer or retry", "timers and retries")


def signals(target: Target) -> Iterator[Result]:
    """Scheduled signals that are overdue."""
    found = run(target.conn, doctor.signals(target.schema))
    yield _overdue(target, found, "scheduled signal", "scheduled signals")


def schedules(target: Target) -> Iterator[Result]:
    """Schedules that no worker fires, that the code no longer declares, or whose last start was refused."""
    is_healthy = True
    found = run(target.conn, schedule.list(target.schema))
    for each in found:
        named = f'schedule "{each.name}"'
        remove = f"pgflow schedule remove {shlex.quote(each.name)}"
        if each.state == "undeclared":
            is_healthy = False
            yield note(f"{named} is no longer declared by the app {each.declared_by}", remove)
        elif each.state == "overdue":
            is_healthy = False
            what = f"{named} is overdue: no live worker knows {each.target}"
            yield problem(what + ("" if each.declared_by is None else f" and declares it ({each.declared_by})"), START)
        if each.last_error is not None:
            is_healthy = False
            reason = " ".join(str(each.last_error["reason"]).split())
            yield problem(f"{named}: the last start was refused: {reason}", "correct it, or remove it: " + remove)
    if is_healthy:
        yield ok("no schedule is overdue" if found else "there are no schedules")


def _overdue(target: Target, found: Overdue, one: str, many: str) -> Result:
    if not found.count:
        return ok(f"no {one} is overdue")
    count = f"{COUNT_LIMIT}+" if found.count > COUNT_LIMIT else str(found.count)
    noun = f"{one} is" if found.count == 1 else f"{many} are"
    what = f"{count} {noun} overdue, the oldest for {duration(found.age)}"
    if run(target.conn, doctor.workers(target.schema)).live:
        return problem(what, "read the logs of the live workers")
    return problem(f"{what}, and no worker is alive", START)


CHECKS = (
    Check("workers", "only live workers run steps, fire timers and rescue the jobs of dead workers", workers),
    Check("queues", "a queue without a worker makes no progress", queues),
    Check("missing-jobs", "without a job an instance makes no progress", missing_jobs),
    Check("orphans", "rows without an instance take space, and workers claim their jobs for nothing", orphans),
    Check("unapplied", "a join waits until the results before it are applied", unapplied),
    Check("overdue", "a job that is due does not run until a worker makes it ready", overdue),
    Check("schedules", "an instant that no worker takes starts nothing", schedules),
    Check("signals", "a wait for a signal ends when the signal is sent", signals),
)
