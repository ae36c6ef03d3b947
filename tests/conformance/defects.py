"""The defects that the tests of group R detect, each as a change of one file that reintroduces it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MUTANTS", "Mutant"]

SETTLE = "sql/queries/job/settle.sql"
CLAIM = "sql/queries/job/claim.sql"
RESUME = "sql/functions/resume.sql"
CANCEL = "sql/functions/cancel.sql"
END = "sql/functions/end_instance.sql"
START = "sql/functions/start.sql"
ENGINE_TABLES = "sql/migrations/0001_engine.sql"
DECIDE = "pgflow/worker/decide.py"


@dataclass(frozen=True, slots=True)
class Mutant:
    """Replacing `before` with `after` in the file at `path` introduces `defect`, and a test of `item` has to fail."""

    item: str
    defect: str
    path: str
    before: str
    after: str

    @property
    def test(self) -> str:
        """The prefix of the tests that have to detect it."""
        return f"test_{self.item.lower()}_"

    def apply(self, text: str) -> str:
        """Return the file's text with the defect."""
        assert text.count(self.before) == 1, f"{self.item} {self.defect}: {self.before!r} is not there once"
        return text.replace(self.before, self.after)


MUTANTS = (
    Mutant(
        "R1", "a result that could not be applied wakes no worker", SETTLE,
        "state = case o.kind when 'advance' then 'scheduled' else 'ready' end,",
        "state = case o.kind when 'advance' then 'scheduled' else 'parked' end,",
    ),
    Mutant(
        "R1", "a wake-up that meets a concurrent change counts as done", SETTLE,
        "(select x.id is not null and (not d.guarded or c.run is not null)) as v (is_written)",
        "(select x.id is not null and (not d.guarded or d.kind = 'advance' or c.run is not null)) as v (is_written)",
    ),
    Mutant(
        "R2", "a write that meets a locked row is dropped as if written", "pgflow/worker/settler.py",
        "            self._outcomes.append(outcome)\n            return\n",
        "            return\n",
    ),
    Mutant(
        "R3", "each advance enqueues every active step again", DECIDE,
        "[command for command in commands if isinstance(command, Execute)]",
        "[Execute(key, None) for key in sorted(decision.state.active)]",
    ),
    Mutant(
        "R4", "a worker's write is not fenced", SETTLE,
        "where nullif(j.state = 'running' and j.worker = %(worker)s::bigint and j.attempt = d.attempt "
        "and j.step = d.step and j.kind = d.kind, false) is not null\n        and (select count(*) from held) >= 0",
        "where (select count(*) from held) >= 0",
    ),
    Mutant(
        "R4", "results are unique only until they are applied", ENGINE_TABLES,
        "    primary key (run, step)\n",
        "    exclude using btree (run with =, step with =) where (not applied)\n",
    ),
    Mutant(
        "R4", "a completed step completes again", "pgflow/core/engine/machine.py",
        "case Completed(step, name, targets, by_timer):\n            if step not in state.active:\n",
        "case Completed(step, name, targets, by_timer):\n            if step not in {*state.active, *state.done}:\n",
    ),
    Mutant(
        "R5", "a step without attempts left is retried forever", "pgflow/worker/outcome.py",
        "and not (self.retry and self.job.attempt < self.job.max_attempts)",
        "and not self.retry",
    ),
    Mutant(
        "R5", "the loss of a worker does not count", "sql/queries/job/rescue.sql",
        "crashes = j.crashes + c.more,",
        "crashes = j.crashes,",
    ),
    Mutant(
        "R5", "a failure leaves the jobs of siblings behind", SETTLE,
        "select j.id from pgflow.jobs j where j.run = x.run offset 0",
        "select o.id from outcome o where o.run = x.run offset 0",
    ),
    Mutant(
        "R6", "results are looked up by key, across all runs", CLAIM,
        "from pgflow.step_results r where r.run = i.run\n",
        "from pgflow.step_results r where r.run in (select o.run from pgflow.instances o where o.id = i.id)\n",
    ),
    Mutant(
        "R6", "a failed run keeps its key forever", ENGINE_TABLES,
        "on pgflow.instances (unique_key) where status in ('pending', 'running', 'waiting');",
        "on pgflow.instances (unique_key) where status in ('pending', 'running', 'waiting', 'failed');",
    ),
    Mutant(
        "R7", "timers outlive their run", END,
        "delete from pgflow.jobs j where j.run = end_instance.run;",
        "delete from pgflow.jobs j where j.run = end_instance.run and j.state <> 'parked';",
    ),
    Mutant(
        "R7", "signals are looked up by key, across all runs", CLAIM,
        "from pgflow.signals s where s.run = i.run and s.consumed_at is null\n",
        "from pgflow.signals s join pgflow.instances o on o.run = s.run where o.id = i.id and s.consumed_at is null\n",
    ),
    Mutant(
        "R8", "a signal goes to any step that is active", RESUME,
        "where j.run = resume_run.run and j.state = 'parked' and j.awaits ? resume_run.event and (",
        "where j.run = resume_run.run and (",
    ),
    Mutant(
        "R9", "a signal before its wait is lost", DECIDE,
        "    for signal in instance.signals:\n",
        "    for signal in instance.signals[:0]:\n",
    ),
    Mutant(
        "R9", "a signal does not conflict with a step that is about to wait", RESUME,
        "set revision = i.revision + 1, status = case when waiting.id is null",
        "set revision = i.revision, status = case when waiting.id is null",
    ),
    Mutant(
        "R10", "the uniqueness of a key is checked before the insert", START,
        "when 'workflow' then 'w ' || workflow || ' ' || id\n",
        "when 'workflow' then coalesce((select i.unique_key from pgflow.instances i where i.id = start_many.id and "
        "i.status in ('pending', 'running', 'waiting') limit 1), 'w ' || id || pg_current_xact_id()::text)\n",
    ),
    Mutant(
        "R11", "a running step does not notice a cancel", END,
        "delete from pgflow.jobs j where j.run = end_instance.run;",
        "delete from pgflow.jobs j where j.run = end_instance.run and j.state <> 'running';",
    ),
    Mutant(
        "R11", "cancel reads without a lock", CANCEL,
        "from pgflow.instances i where i.run = cancel_run.run for no key update;",
        "from pgflow.instances i where i.run = cancel_run.run;",
    ),
    Mutant(
        "R12", "only steps of dead workers are rescued, not wake-ups", "sql/queries/job/rescue.sql",
        "    where j.state = 'running'\n        and not exists",
        "    where j.state = 'running' and j.kind <> 'advance'\n        and not exists",
    ),
    Mutant(
        "R12", "a dead worker with jobs is never checked again", "sql/queries/job/rescue.sql",
        "where w.id = any (array[j.worker]) and pgflow.is_leased(w.lease_expires_at, w.lease))",
        "where w.id = any (array[j.worker]))",
    ),
    Mutant(
        "R13", "invalid data fails the whole batch", "pgflow/worker/held_jobs.py",
        "            except BaseException as error:  # from the codec's code; nothing is awaited here\n"
        "                reason = f\"stored",
        "            except KeyError as error:\n                reason = f\"stored",
    ),
    Mutant(
        "R14", "a refused result is released as if it were stored", "pgflow/worker/turns/claimer.py",
        "await self._single.settle(conn, self._unconfirmed)",
        "self._unconfirmed = []",
    ),
    Mutant(
        "R15", "a fan-out writes only the jobs that it keeps itself", SETTLE,
        "    where not c.fails\n    returning",
        "    where not c.fails and k.kept\n    returning",
    ),
    Mutant(
        "R15", "an instance is stored without its job", START,
        "        if created then\n            insert into pgflow.jobs",
        "        if created and due <= instant then\n            null;\n        elsif created then\n"
        "            insert into pgflow.jobs",
    ),
    Mutant(
        "R16", "signals are serialized by advisory locks", "sql/functions/admit_signal.sql",
        "begin\n    if fault is not null",
        "begin\n    perform pg_advisory_xact_lock(hashtext('signal')); if fault is not null",
    ),
    Mutant(
        "R17", "late results still have jobs after a failure", SETTLE,
        "select j.id from pgflow.jobs j where j.run = x.run offset 0",
        "select j.id from pgflow.jobs j where j.run = x.run and j.state <> 'running' offset 0",
    ),
    Mutant(
        "R17", "an ended instance changes again", "pgflow/core/engine/machine.py",
        "    if state.status not in ACTIVE:\n",
        "    if not ACTIVE:\n",
    ),
    Mutant(
        "R18", "results are ordered by their time", "sql/queries/instance/get.sql",
        "'worker', r.worker) order by r.seq)",
        "'worker', r.worker) order by r.finished_at, r.step)",
    ),
    Mutant(
        "R19", "workers emit no events", "pgflow/worker/settler.py",
        "            if handlers_by_event:\n                report.settled",
        "            if not handlers_by_event:\n                report.settled",
    ),
    Mutant(
        "R19", "the attempts of a failure are not stored", DECIDE,
        '"attempts": job.errors[-KEPT_ERRORS:]}',
        '"attempts": []}',
    ),
    Mutant(
        "R20", "nothing is enqueued while a sibling waits", DECIDE,
        "[command for command in commands if isinstance(command, Execute)]",
        "[command for command in commands if isinstance(command, Execute) and not decision.state.waiting]",
    ),
)  # fmt: skip
