"""Look at the work: workers and their leases, queues that nobody serves, and what is late."""

import shlex
from collections.abc import Iterator

from psycopg import sql

from pgflow.database.adapters import ADAPTERS
from pgflow.database.statement import run
from pgflow.doctor.finding import Check, Result, Target, capped, note, ok, problem, span
from pgflow.store import doctor
from pgflow.store.doctor_rows import Late

__all__ = ["CHECKS"]

START = "pgflow worker --app module:name"
LONGEST_RESCUE = 60.0  # seconds after the end of a lease, when a worker lives
OLDEST_READY = 300.0  # seconds that a token may wait in a queue that is served
PAGE = 1000  # active instances of each status to look at


def workers(patient: Target) -> Iterator[Result]:
    """Live workers, and those whose lease has ended while they held tokens."""
    found = run(patient.conn, doctor.workers(patient.schema))
    alive = f"{capped(found.live, 'worker')} {'is' if found.live == 1 else 'are'} alive"
    if found.ended:
        ended = "its lease ended" if found.ended == 1 else "the leases ended"
        when = "" if found.ended_for is None else f" {span(found.ended_for)} ago"
        held = f"{capped(found.ended, 'worker')} held {capped(found.tokens, 'running token')} when {ended}{when}"
        if not found.live:
            yield problem(f"{held}, and no worker is alive to rescue them", START)
        elif found.ended_for is None or found.ended_for < LONGEST_RESCUE:
            yield note(f"{held}; a live worker will rescue them within its --sweep, 5 s by default")
        else:
            yield problem(f"{held}, and nobody has rescued them", "see the log of the workers that are alive")
    if found.live:
        yield ok(alive)
    elif found.work:
        yield problem("no worker is alive, and work is ready", START)
    elif not found.ended:
        yield note("no worker is alive; nothing is ready for one", START)


def queues(patient: Target) -> Iterator[Result]:
    """Queues whose work does not go on, or only slowly."""
    is_well = True
    found = run(patient.conn, doctor.queues(patient.schema))
    for each in found:
        what = "signals, timers and joins: " if each.orchestrates else ""
        what = (
            f'queue "{each.name}": {what}{capped(each.tokens, "token")} ready or due, the oldest for {span(each.age)}'
        )
        if each.paused:
            is_well = False
            resumed = sql.SQL("update {} set paused_at = null where name = {}")
            mend = resumed.format(sql.Identifier(patient.schema, "queues"), sql.Literal(each.name)).as_string(ADAPTERS)
            yield note(f"{what}, and the queue is paused", mend)
        elif not each.served:
            is_well = False
            yield problem(f"{what}, and no live worker serves it", f"{START} --queue {shlex.quote(each.name + '=10')}")
        elif each.age is not None and each.age > OLDEST_READY:
            is_well = False
            yield note(what, "start more workers, or give the queue a higher limit: --queue NAME=LIMIT")
    if is_well:
        yield ok("no work waits for long" if found else "no work waits")


def adrift(patient: Target) -> Iterator[Result]:
    """Active instances that have lost their tokens."""
    found = run(patient.conn, doctor.adrift(patient.schema, PAGE))
    looked = "" if found.whole else f" (of the {PAGE} oldest in each active status)"
    if not found.instances:
        yield ok(f"every active instance has its token{looked}")
        return
    what = f"{capped(found.instances, 'active instance')}{looked} without a token, the first is run {found.first}"
    if run(patient.conn, doctor.workers(patient.schema)).live:
        yield note(f"{what}; a live worker will give them one as it sweeps")
    else:
        yield problem(what, START)


def orphans(patient: Target) -> Iterator[Result]:
    """Rows that were left when instances were deleted in SQL."""
    found = run(patient.conn, doctor.orphans(patient.schema, PAGE))
    for each in found:
        runs = "1 run that is" if each.runs == 1 else f"{each.runs} runs that are"
        yield problem(
            f"{patient.schema}.{each.table} has rows of {runs} not in {patient.schema}.instances, the first is run "
            f"{each.first}",
            "pgflow prune --orphans; delete instances with pgflow prune or app.storage.delete, not with SQL",
        )
    if not found:
        yield ok("every row that was looked at belongs to an instance")


def unapplied(patient: Target) -> Iterator[Result]:
    """Results that nobody has folded in."""
    found = run(patient.conn, doctor.unapplied(patient.schema, PAGE))
    if found.results:
        what = f"{capped(found.results, 'result')} not applied for {span(found.age)}, the first in run {found.first}"
        yield problem(what, "serve the queue of its job, see: pgflow jobs --state ready")
    else:
        yield ok("no result waits to be applied")


def overdue(patient: Target) -> Iterator[Result]:
    """Timers, retries and delayed starts that are late."""
    yield _late(patient, run(patient.conn, doctor.overdue(patient.schema)), "timer or retry", "timers and retries")


def signals(patient: Target) -> Iterator[Result]:
    """Scheduled signals that are late."""
    found = run(patient.conn, doctor.signals(patient.schema))
    yield _late(patient, found, "scheduled signal", "scheduled signals")


def _late(patient: Target, found: Late, one: str, many: str) -> Result:
    if not found.count:
        return ok(f"no {one} is overdue")
    count = "1000+" if found.count > 1000 else str(found.count)
    what = f"{count} {f'{one} is' if found.count == 1 else f'{many} are'} overdue, the oldest for {span(found.age)}"
    if run(patient.conn, doctor.workers(patient.schema)).live:
        return problem(what, "see the log of the workers that are alive")
    return problem(f"{what}, and no worker is alive", START)


CHECKS = (
    Check("workers", "only live workers run steps, fire timers and rescue what dead ones held", workers),
    Check("queues", "a queue that nobody serves stands still", queues),
    Check("adrift", "without a token an instance does not go on", adrift),
    Check("orphans", "rows without an instance take space, and workers claim their jobs in vain", orphans),
    Check("unapplied", "a join waits until the results before it are applied", unapplied),
    Check("overdue", "a token that is due stands still until a worker makes it ready", overdue),
    Check("signals", "what waits for a signal goes on when it is sent", signals),
)
