"""Turn each command about tasks into SQL: a statement to read with, or a write and its notifications."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Any

from pgflow.client import commands
from pgflow.client.addressing import call_name, checked_key
from pgflow.client.enqueue_request import EnqueueRequest, check_queue
from pgflow.client.start_request import check_moment, priority_of
from pgflow.client.statements import Write
from pgflow.core.definition.task import TaskDefinition
from pgflow.core.models.task import Enqueued, TaskInstance
from pgflow.core.models.task_codec import args_location, decrypt_task, output_location
from pgflow.core.values.payload import encode
from pgflow.core.values.query_args import check_text, is_integer, refuse
from pgflow.database.statement import Statement
from pgflow.errors import InvalidValue, JobNotFound, StillRunning
from pgflow.payloads.policy import DEFAULT, PayloadPolicy, StoredObject
from pgflow.store import task as tasks
from pgflow.store.notification import CheckCancels, QueueReady
from pgflow.telemetry import task_events
from pgflow.telemetry.task_events import TaskRef

__all__ = ["TaskStatements"]

MAX_JOB_ID = 2**63 - 1


@dataclass(frozen=True, slots=True)
class TaskStatements:
    """Makes the SQL of each command about tasks, for one schema; `policy` stores arguments and outputs."""

    schema: str
    policy: PayloadPolicy = DEFAULT

    # -- writes

    def enqueue(self, command: commands.Enqueue) -> Write[list[Enqueued]]:
        """Enqueue a task once for each of its arguments."""
        task, request = command.task, EnqueueRequest.of(command)
        partition_keys = task.partition_keys(request.args)  # here, because the stored arguments may be encrypted
        args: Sequence[str] = request.args
        objects: tuple[StoredObject, ...] = ()
        if self.policy.codec is not None or self.policy.store is not None:
            closed = [self.policy.close(each, args_location(task.name)) for each in request.args]
            args = [text for text, _ in closed]
            objects = tuple(stored for _, stored in closed if stored is not None)

        # Not the arguments themselves: the name is stored in plain.
        digest = sha256("\n".join(request.args).encode()).hexdigest() if self.policy.codec is None else ""
        name = call_name("enqueue", task.name, digest)

        def statement(notify: bool, key: str | None = None) -> Statement[list[Enqueued]]:
            return tasks.enqueue(
                self.schema,
                task=task.name,
                args=args,
                at=request.at,
                delay=request.delay,
                queue=request.queue,
                priority=request.priority,
                max_attempts=request.max_attempts,
                tags=request.tags,
                metadata=request.metadata,
                expires_in=request.expires_in,
                notify=notify,
                unique=command.unique,
                partition_keys=partition_keys,
                key=key,
                call=None if key is None else name,
            )

        def report(enqueued: list[Enqueued], in_transaction: bool) -> None:
            task_events.task_enqueue(task.name, [each.id for each in enqueued], in_transaction=in_transaction)

        # A worker makes ready what starts later; there is nothing to wake workers for now.
        is_due = request.at is None and request.delay is None
        ready = frozenset({QueueReady(request.queue or task.queue)}) if is_due else frozenset[QueueReady]()
        claiming = partial(statement, False)
        decode = tasks.decode_enqueued
        return Write(name, statement, decode, request.key, ready, objects, emit=report, claiming=claiming)

    def cancel(self, command: commands.CancelTask) -> Write[None]:
        """Cancel a task."""
        number, name, reason = _checked_id(command.id), _name(command.task), check_text("reason", command.reason)

        def statement(notify: bool) -> Statement[None]:
            return tasks.cancel(self.schema, id=number, task=name, reason=reason, notify=notify)

        def report(_: None, in_transaction: bool) -> None:
            task_events.task_cancel(TaskRef(number, name), reason=reason, in_transaction=in_transaction)

        key, call = checked_key(command.idempotency_key), call_name("cancel job", str(number))
        return Write(call, statement, _no_answer, key, frozenset({CheckCancels()}), emit=report)

    def retry(self, command: commands.RetryTask) -> Write[None]:
        """Run a task once more, or now. The queue that it is in is known in the database only, so SQL notifies."""
        number, name = _checked_id(command.id), _name(command.task)

        def statement(notify: bool) -> Statement[None]:
            return tasks.retry(self.schema, id=number, task=name, notify=True)

        def report(_: None, in_transaction: bool) -> None:
            task_events.task_retry(TaskRef(number, name), in_transaction=in_transaction)

        return Write(
            call_name("retry job", str(number)),
            statement,
            _no_answer,
            checked_key(command.idempotency_key),
            emit=report,
        )

    def update(self, command: commands.UpdateTask) -> Write[None]:
        """Move a task to another queue, priority or time."""
        number, name = _checked_id(command.id), _name(command.task)
        check_moment(command.at, command.delay)
        check_queue(command.queue)
        priority = priority_of(command.priority)

        def statement(notify: bool) -> Statement[None]:
            return tasks.update(
                self.schema,
                id=number,
                task=name,
                queue=command.queue,
                priority=priority,
                at=command.at,
                delay=command.delay,
                notify=True,  # as in retry
            )

        return Write(call_name("update job", str(number)), statement, _no_answer, checked_key(command.idempotency_key))

    def complete(self, command: commands.CompleteTask) -> Write[None]:
        """Complete a task that waits for an operator."""
        number, task, policy = _checked_id(command.id), command.task, self.policy
        if task is None:
            if policy.codec is not None or policy.store is not None:
                hint = f"Name the task: app.job({number}, send_receipt).complete(…)."
                raise InvalidValue(f"the output of job {number} depends on its task", hint=hint)
            text, stored = encode(command.output, what="output", limit=policy.limit), None
        else:
            written = task.output.write(command.output, reveal=policy.reveal, limit=policy.limit)
            text, stored = policy.close(written, output_location(task.name, number))

        def statement(notify: bool) -> Statement[None]:
            return tasks.complete(self.schema, id=number, task=_name(task), output=text, notify=notify)

        key, call = checked_key(command.idempotency_key), call_name("complete job", str(number))
        return Write(call, statement, _no_answer, key, objects=() if stored is None else (stored,))

    def fail(self, command: commands.FailTask) -> Write[None]:
        """Fail a task that waits for an operator."""
        number, name, reason = _checked_id(command.id), _name(command.task), check_text("reason", command.reason)

        def statement(notify: bool) -> Statement[None]:
            return tasks.fail(self.schema, id=number, task=name, reason=reason, notify=notify)

        call = call_name("fail job", str(number))
        return Write(call, statement, _no_answer, checked_key(command.idempotency_key))

    def delete(self, command: commands.DeleteTask) -> Write[None]:
        """Delete a task that does not run."""
        number, name = _checked_id(command.id), _name(command.task)

        def statement(notify: bool) -> Statement[None]:
            return tasks.delete(self.schema, id=number, task=name)

        return Write(call_name("delete job", str(number)), statement, _no_answer, checked_key(command.idempotency_key))

    # -- waiting

    def checked_id(self, command: commands.AwaitTask) -> int:
        """Return the id of the job to wait for. Raises `InvalidValue`."""
        return _checked_id(command.id)

    def ended(self, command: commands.AwaitTask, found: TaskInstance | None) -> TaskInstance:
        """Return the task that has ended. Raises `JobNotFound`."""
        return decrypt_task(self.policy.codec, _only(command.id, _name(command.task), [] if found is None else [found]))

    def still_running(self, command: commands.AwaitTask) -> StillRunning:
        """Return the error for a task that has not ended within the timeout."""
        of = "" if command.task is None else f" ({command.task.name})"
        after = "" if command.timeout is None else f" after {command.timeout.total_seconds():g} s"
        hint = "It continues: wait for it again."
        return StillRunning(f"job {command.id}{of} has not ended{after}", hint=hint, job=command.id)

    # -- reads

    def get(self, command: commands.GetTask) -> Statement[TaskInstance]:
        """Read one execution of a task."""
        number, name = _checked_id(command.id), _name(command.task)
        return self._decrypted(tasks.get(self.schema, [number])).then(partial(_only, number, name))

    def found(self, ids: Iterable[int]) -> Statement[list[TaskInstance]]:
        """Read executions by their ids."""
        return self._decrypted(tasks.get(self.schema, ids))

    def page(self, command: commands.ListTasks) -> Statement[list[TaskInstance]]:
        """Read a page of executions."""
        return self._decrypted(tasks.list(self.schema, command.filters, task=_name(command.task)))

    def _decrypted(self, found: Statement[list[TaskInstance]]) -> Statement[list[TaskInstance]]:
        return found.then(lambda each: [decrypt_task(self.policy.codec, one) for one in each])


def _only(number: int, name: str | None, found: Iterable[TaskInstance]) -> TaskInstance:
    """Return the task that was read. Raises `JobNotFound`."""
    for each in found:
        if name in (None, each.task):
            return each
    of = "a task" if name is None else f"the task {name}"
    raise JobNotFound(f"there is no job {number} of {of}", hint="List them: pgflow job list")


def _name(task: TaskDefinition | None) -> str | None:
    return None if task is None else task.name


def _checked_id(given: Any) -> int:
    if not is_integer(given, 0, MAX_JOB_ID):
        refuse("id", given, "it must be the id of a job")
    return int(given)


def _no_answer(answer: Any) -> None:
    return None
