"""Break the engine on purpose, one defect at a time, and see it found: `python -m tests.torture.mutants`.

Each mutant changes one file in a copy of the tree. There either `python -m tests.torture` runs for half a minute, with
the faults that expose the defect, or the interleaving test of the two transactions that it breaks, or a test in
`TESTS`. A mutant that no run detects survives, and the exit code is 1. Arguments select mutants by name; all of them
take about a quarter of an hour.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.conformance.mutants import PYTEST, copy

__all__ = ["MUTANTS", "Mutant"]

SETTLE = "sql/queries/job/settle.sql"
CLAIM = "sql/queries/job/claim.sql"
FIRE = "sql/functions/schedule_fire.sql"
RESCUE = "sql/queries/job/rescue.sql"
CLAIM_LIMITED = "sql/functions/claim_limited.sql"
COUNT = (
    "            select coalesce(sum(least(j.cost, gate.concurrency)), 0) from pgflow.jobs j\n"
    "            where j.state = 'running' and j.queue = claim_limited.queue and j.key is not null\n        ) - ("
)
DECIDE = "pgflow/worker/decide.py"
LENT = "pgflow/worker/transactional/session.py"
TESTS = (
    *("tests/store/test_interleavings.py", "tests/store/test_task_interleavings.py", "tests/store/test_lock_order.py"),
    "tests/torture/test_wakeups.py",
    *("tests/worker/test_misuse.py", "tests/worker/test_reset.py", "tests/worker/test_database_faults.py"),
    *("tests/worker/test_fork.py", "tests/torture/test_limits.py"),
    *("tests/unit/test_firing.py", "tests/worker/test_schedules.py", "tests/worker/test_schedules_year.py"),
)
LIMIT = 400  # seconds for one mutant


@dataclass(frozen=True, slots=True)
class Mutant:
    """A seeded defect: `after` replaces `before` in the file at `path`; `by` must detect it.

    `by` is the options of `python -m tests.torture`, or the name of a test in one of `TESTS`. `more` are further
    replacements in the file.
    """

    name: str
    defect: str
    path: str
    before: str
    after: str
    by: Sequence[str] | str
    more: Sequence[tuple[str, str]] = ()

    def apply(self, text: str) -> str:
        """Return the file's text with the defect in it."""
        for before, after in ((self.before, self.after), *self.more):
            assert text.count(before) == 1, f"{self.name}: {before!r} is not there once"
            text = text.replace(before, after)
        return text


def only(*faults: str, minutes: float = 0.5, rate: float = 6) -> list[str]:
    """Return options for the faults whose names contain one of these."""
    chosen = [word for fault in faults for word in ("--only", fault)]
    return ["--minutes", str(minutes), "--rate", str(rate), *chosen]


MUTANTS = (
    Mutant(
        "no fence", "a worker's write is not fenced", SETTLE,
        "where nullif(j.state = 'running' and j.worker = %(worker)s::bigint and j.attempt = d.attempt "
        "and j.step = d.step and j.kind = d.kind, false) is not null\n        and (select count(*) from held) >= 0",
        "where (select count(*) from held) >= 0",
        "zombie_and_successor",  # torture needs luck: the zombie has to come while its successor runs the step
    ),
    Mutant(
        "state only", "the fence does not compare the owner of the job", SETTLE,
        "where nullif(j.state = 'running' and j.worker = %(worker)s::bigint and j.attempt = d.attempt "
        "and j.step = d.step and j.kind = d.kind, false) is not null\n        and (select count(*) from held) >= 0",
        "where j.state || '' = 'running' and (select count(*) from held) >= 0",
        "zombie_and_successor",
    ),
    Mutant(
        "task without a fence", "a worker records a task that another one holds", SETTLE,
        "where nullif(j.state = 'running' and j.worker = %(worker)s::bigint and j.attempt = f.attempt "
        "and j.kind = 'task', false) is not null\n        and (select count(*) from held) >= 0  -- as above",
        "where (select count(*) from held) >= 0",
        only("stop a worker beyond its lease", rate=12),
    ),
    Mutant(
        "immortal key", "a unique key outlives its job", "sql/functions/enqueue.sql",
        "period := make_interval(secs => (uniqueness ->> 'period')::double precision);",
        "period := make_interval(secs => coalesce((uniqueness ->> 'period')::double precision, 60));",
        only("kill a worker"),
    ),
    Mutant(
        "lost hook", "a task that is repeated after an error ends without its hook", SETTLE,
        "    where f.hook\n",
        "    where f.hook and j.attempt = 1\n",
        only("kill a worker"),
    ),
    Mutant(
        "late attempt", "an attempt is not counted with its claim", CLAIM,
        "attempt = j.attempt + (j.kind in ('execute', 'task'))::integer",
        "attempt = j.attempt",
        only("kill a worker"),
    ),
    Mutant(
        "split commit", "what a step writes is committed before its result is", LENT,
        "        ending, *_, settled = await arun_all(self.line, [*step.preparing(schema), statement])\n",
        "        ending, *_ = await arun_all(self.line, step.preparing(schema))\n"
        "        await self.line.execute('commit; begin')\n"
        "        (settled,) = await arun_all(self.line, [statement])\n",
        only("kill at transaction.settled", "end sessions: step"),
    ),
    Mutant(
        "no reset", "a step's session is not reset for the next", LENT,
        "        return f\"{verb}; {RESET}{DEALLOCATE if has_prepared else ''}\"\n",
        "        return verb\n",
        "does_not_reach_the_next",
    ),
    Mutant(
        "no session check", "a step's session is not checked", "pgflow/worker/transactional/runner.py",
        "if fault is not None and not (",
        "if False and not (",
        "costs_one_attempt",
    ),
    Mutant(
        "any transaction", "a settle goes into whichever transaction is open", LENT,
        "= ending.mark == self._mark\n",
        "= True\n",
        "ends_its_transaction",
    ),
    Mutant(
        "duplicate advance", "each of several completions schedules the next step", DECIDE,
        "[command for command in commands if isinstance(command, Execute)]",
        "[Execute(key, None) for key in sorted(decision.state.active)]",
        only("kill a worker"),
    ),
    Mutant(
        "unguarded rescue", "jobs of live workers are rescued, too", RESCUE,
        "        and not exists (select from pgflow.workers w where w.id = any (array[j.worker]) and "
        "pgflow.is_leased(w.lease_expires_at, w.lease))\n",
        "",
        only("kill a worker"),
    ),
    Mutant(
        "no rescue", "a dead worker's jobs are never rescued", RESCUE,
        "w.id = any (array[j.worker]) and pgflow.is_leased(w.lease_expires_at, w.lease))",
        "w.id = any (array[j.worker]))",
        only("kill a worker"),
    ),
    Mutant(
        "gate without a lock", "several workers claim from a limited queue at once", CLAIM_LIMITED,
        "where q.name = claim_limited.queue for no key update skip locked;",
        "where q.name = claim_limited.queue;",
        "no_limit_is_exceeded",
    ),
    Mutant(
        "own jobs only", "a worker counts only the jobs that it runs itself", CLAIM_LIMITED,
        "where j.state = 'running' and j.queue = claim_limited.queue and j.key is not null\n        ) - (",
        "where j.state = 'running' and j.queue = claim_limited.queue and j.key is not null "
        "and j.worker = claim_limited.worker\n        ) - (",
        "no_limit_is_exceeded",
    ),
    Mutant(
        "count before the gate", "what runs is counted before the gate is locked", CLAIM_LIMITED,
        "    last_key text collate \"C\" := '';\n",
        "    last_key text collate \"C\" := '';\n"
        "    early constant bigint := (select sum(j.cost) from pgflow.jobs j where j.state = 'running' "
        "and j.queue = claim_limited.queue and j.key is not null);\n"
        "    pause constant text := pg_sleep(0.002)::text;\n",
        "no_limit_is_exceeded",
        [(COUNT, "            select coalesce(early, 0)\n        ) - (")],
    ),
    Mutant(
        "leaking place", "a rescue forgets jobs of limited queues, which keep their places", RESCUE,
        "    where j.state = 'running'\n        and not exists (select from pgflow.workers w where w.id = any",
        "    where j.state = 'running' and j.key is null\n"
        "        and not exists (select from pgflow.workers w where w.id = any",
        "no_limit_is_exceeded",
    ),
    Mutant(
        "places of the dead", "jobs of workers without a lease count no more before they are rescued", CLAIM_LIMITED,
        COUNT,
        COUNT.replace(
            "\n        ) - (",
            "\n                and exists (select from pgflow.workers w where w.id = j.worker "
            "and w.lease_expires_at > moment)\n        ) - (",
        ),
        "four_workers_keep_all_limits",
    ),
    Mutant(
        "free start", "a rate forgets what has started", CLAIM_LIMITED,
        "tat = case when gate.rate is null then q.tat else",
        "tat = case when true then q.tat else",
        "rates_hold_in_every_window",
    ),
    Mutant(
        "timer without run", "timers outlive the run that they belong to", "sql/functions/end_instance.sql",
        "delete from pgflow.jobs j where j.run = end_instance.run;",
        "delete from pgflow.jobs j where j.run = end_instance.run and j.state <> 'parked';",
        only("kill a worker", rate=12),
    ),
    Mutant(
        "unlocked id", "workflows of overlapping scopes start one id without locking it", "sql/functions/start.sql",
        "perform pgflow.lock_business_ids(array(select definition.unique_key",
        "perform cardinality(array(select definition.unique_key",
        "starts_of_two_scopes",
    ),
    Mutant(
        "blind start", "a start does not look for instances of wider scopes", "sql/functions/start.sql",
        "            holder := pgflow.excluding_run(id, workflow, own_key);\n",
        "            holder := null;\n",
        "starts_of_two_scopes",
    ),
    Mutant(
        "early timer", "timers ring before their time", "sql/queries/job/stage.sql",
        "j.run_at <= pgflow.now()\n",
        "j.run_at <= pgflow.now() + interval '100 milliseconds'\n",
        only("kill a worker"),
    ),
    Mutant(
        "lost wake-up", "a decision that met another one is not made again", SETTLE,
        "pgflow.now() + interval '25 milliseconds'",
        "pgflow.now() + interval '1 day'",
        only("kill a worker", rate=12),
    ),
    Mutant(
        "lost signal", "a signal does not disturb a step that is about to wait", "sql/functions/resume.sql",
        "set revision = i.revision + 1, status = case when waiting.id is null",
        "set revision = i.revision, status = case when waiting.id is null",
        "resume_and_park",
    ),
    Mutant(
        "discarded result", "a failed route discards the result of its step", SETTLE,
        "where not r.stored\n",
        "where not r.stored and r.applied\n",
        "retry_twice_after_a_route",
    ),
    Mutant(
        "lost choice", "a route that is called again leaves no record of its choice", SETTLE,
        "set applied = true,\n        targets = case when r.targets is null then s.targets "
        "else array(select jsonb_array_elements_text(r.targets::jsonb)) end\n",
        "set applied = true\n",
        "retried_route_and_sibling",
    ),
    Mutant(
        "inherited checkpoint", "a step reads the checkpoint of the step before it", SETTLE,
        "checkpoint = case when j.step = '' then j.checkpoint -> o.next_step end",
        "checkpoint = j.checkpoint",
        only("kill a worker"),
    ),
    Mutant(
        "stale join", "a join is decided on stale results", SETTLE,
        "and (g.revision is null or i.revision = g.revision)",
        "",
        "siblings",
    ),
    Mutant(
        "unordered locks", "cancel locks the jobs before their instance", "sql/functions/cancel.sql",
        "begin\n    select i.id, i.workflow, i.status into instance",
        "begin\n    perform from pgflow.jobs j where j.run = cancel_run.run for update;\n"
        "    select i.id, i.workflow, i.status into instance",
        "behind_it and cancel",
    ),
    Mutant(
        "stale run", "a worker that runs again uses what its last run has closed", "pgflow/worker/supervisor.py",
        "            if self._has_run:\n                self._assemble()\n",
        "",
        only("drain a worker that runs again"),
    ),
    Mutant(
        "fires twice", "a decision about a schedule is carried out although another worker has", FIRE,
        "where s.name = firing.name and s.revision = firing.revision and s.paused_at is null",
        "where s.name = firing.name and s.paused_at is null",
        "fires_exactly_the_expected",
    ),
    Mutant(
        "forgotten instant", "an instant is handled although its run is not started", "pgflow/core/engine/firing.py",
        "            starts.append(instant)\n",
        "            starts.append(instant) if len(due) == 1 or not is_newest else None\n",
        "which_missed_instants",
    ),
    Mutant(
        "skipped hour", "a time that the clock skips does not fire", "pgflow/core/definition/timing.py",
        "    return _first_change(zone, before, instant) or instant\n",
        "    return before\n",
        "fires_exactly_the_expected",
    ),
    Mutant(
        "uncounted crashes", "the loss of a worker does not count", RESCUE,
        "crashes = j.crashes + c.more,",
        "crashes = j.crashes,",
        only("a step that kills its worker"),
    ),
    Mutant(
        "burnt attempts", "a job loses an attempt to another job's crash", RESCUE,
        "attempt = j.attempt - (j.kind = 'task' or j.kind = 'execute' and not c.is_last)::integer,",
        "attempt = j.attempt,",
        only("kill a worker", "kill all"),
    ),
    Mutant(
        "no poll", "a worker looks for work only when it is woken", "pgflow/worker/chores/peek.py",
        "return is_due_unknown or (",
        "return False and (",
        "whose_wake_up_is_lost",
    ),
    Mutant(
        "first every time", "a call that is made again with its key is done again", "sql/functions/request.sql",
        "    if not found then\n        return false;\n    end if;\n    perform set_config",
        "    perform set_config",
        only("reply lost"),
    ),
    Mutant(
        "unclaimed key", "a start of one instance does not claim its key", "sql/functions/start.sql",
        "        if start_many.key is not null then\n            insert into pgflow.requests",
        "        if start_many.key is null then\n            insert into pgflow.requests",
        only("reply lost"),
    ),
    Mutant(
        "no reconcile", "a commit whose answer was lost is not reconciled", "sql/queries/job/reconcile.sql",
        "and j.id <> all (%(held)b::bigint[])",
        "and j.id <> all (%(held)b::bigint[]) and false",
        only("reply lost", "fail at claimer.sent"),
    ),
    Mutant(
        "blamed step", "a sequence that is behind its table fails the step", "pgflow/database/db_errors.py",
        "if isinstance(error, InvalidPayload):",
        "if isinstance(error, InvalidPayload | SequenceError):",
        "a_sequence_behind_its_table_fails",
    ),
    Mutant(
        "no pid check", "a fork that runs no hooks of Python is not noticed", "pgflow/process.py",
        "    if _this.pid != os.getpid():\n        _enter_child()\n    return _this\n",
        "    return _this\n",
        "without_pythons_hooks",
    ),
    Mutant(
        "shared sessions", "a forked child keeps its parent's sessions", "pgflow/database/fork_safety.py",
        "    conns = list(_opened)\n",
        "    conns: list[Any] = []\n",
        "the_parents_sessions_survive",
    ),
)  # fmt: skip


def find(mutant: Mutant) -> str | None:
    """Run a mutant; returns how it was detected, None when it survives."""
    with tempfile.TemporaryDirectory(prefix="pgflow-mutant-") as folder:
        tree = copy(Path(folder) / "tree")
        path = tree / mutant.path
        path.write_text(mutant.apply(path.read_text()))
        environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
        if isinstance(mutant.by, str):
            tests = [*PYTEST, *TESTS, "-k", mutant.by]
            done = _run(tests, tree, environment)
            failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
            return failed[0] if failed else None
        options = [*mutant.by, "--seed", "1", "--json", "--folder", f"{folder}/run"]
        torture = [sys.executable, "-m", "tests.torture", *options]
        done = _run(torture, tree, environment)
        assert done.returncode in (0, 1, 2), done.stdout + done.stderr
        verdict = json.loads(done.stdout)
        if verdict["violations"]:
            first = verdict["violations"][0]
            return f"{first['invariant']}: {first['message']}"
        return None if verdict["drained"] is not None else "not all instances ended"


def _run(command: list[str], tree: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        capture_output=True,
        check=False,
        cwd=tree,
        env=environment,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=LIMIT,
    )


def main(names: list[str]) -> int:
    """Run these mutants, by default all, and print the result of each."""
    unknown = set(names) - {mutant.name for mutant in MUTANTS}
    if unknown:
        print(f"no such mutants: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    chosen = [mutant for mutant in MUTANTS if not names or mutant.name in names]
    survivors = 0
    for mutant in chosen:
        noticed = find(mutant)
        survivors += noticed is None
        print(f"{mutant.name:20} {'SURVIVES' if noticed is None else 'found: ' + noticed[:150]}", flush=True)
    print(f"{len(chosen)} mutants, {survivors} of them not found" if survivors else f"{len(chosen)} mutants, all found")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
