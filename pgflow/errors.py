"""Every error that pgflow raises on purpose: one root, a stable code, an exit code, and a hint at the next step.

    PgflowError                                     exit code 1: any other failure
    ├── ConfigError                                 2: a wrong option, argument or setting
    │   ├── BadDsn
    │   ├── BadQueue
    │   └── BadApp
    ├── DatabaseError                               3: the database cannot be reached or used
    │   ├── Unreachable
    │   │   └── TooManyConnections
    │   ├── PoolerDetected
    │   ├── StatementTimeout
    │   ├── SequenceError
    │   ├── RowSecurityError
    │   └── OutcomeUnknown
    ├── SchemaError                                 4: this code cannot work on the schema in the database
    │   ├── SchemaMissing
    │   ├── SchemaOutdated
    │   ├── SchemaForeign
    │   └── SchemaTooNew
    ├── NotFound (a LookupError)                    5: a name or id does not exist
    │   ├── UnknownWorkflow
    │   ├── UnknownTask
    │   ├── UnknownStep
    │   ├── InstanceNotFound
    │   ├── JobNotFound
    │   ├── UnknownQueue
    │   ├── UnknownSchedule
    │   └── NotAttached
    ├── Invalid (a ValueError)                      6: a definition, an input or a value is refused
    │   ├── DefinitionError
    │   ├── InvalidInput
    │   ├── InvalidPayload
    │   ├── InvalidValue
    │   │   └── InvalidFilter
    │   ├── UnencryptedSecret
    │   ├── DecryptionUnavailable
    │   ├── PayloadUnavailable
    │   ├── UndeclaredEvent
    │   ├── UnknownOption (a TypeError)
    │   ├── UnsupportedAction
    │   └── RouteError
    ├── NoResult                                    1: a job has no result
    │   ├── TaskFailed
    │   ├── TaskCancelled
    │   └── StillRunning (a TimeoutError)
    └── Conflict                                    7: the current state does not allow the call
        ├── AlreadyRunning
        ├── AlreadyEnqueued
        ├── AlreadyStarted
        ├── AlreadyDone
        ├── KeyReused
        ├── NotActive
        ├── NotRetryable
        ├── AmbiguousSignal
        ├── AmbiguousId
        ├── GraphChanged
        ├── ScheduleConflict
        ├── NotBound
        ├── LimitReached
        ├── QueueBusy
        └── AlreadyAttached

The class in parentheses is a second base, so that code can catch the error as Python would name it.
"""

from collections.abc import Iterable
from typing import ClassVar, NamedTuple

__all__ = [
    "AlreadyAttached",
    "AlreadyDone",
    "AlreadyEnqueued",
    "AlreadyRunning",
    "AlreadyStarted",
    "AmbiguousId",
    "AmbiguousSignal",
    "BadApp",
    "BadDsn",
    "BadQueue",
    "ConfigError",
    "Conflict",
    "DatabaseError",
    "DecryptionUnavailable",
    "DefinitionError",
    "GraphChanged",
    "InstanceNotFound",
    "Invalid",
    "InvalidFilter",
    "InvalidInput",
    "InvalidPayload",
    "InvalidValue",
    "JobNotFound",
    "KeyReused",
    "LimitReached",
    "NoResult",
    "NotActive",
    "NotAttached",
    "NotBound",
    "NotFound",
    "NotRetryable",
    "OutcomeUnknown",
    "PayloadUnavailable",
    "PgflowError",
    "PoolerDetected",
    "QueueBusy",
    "RouteError",
    "RowSecurityError",
    "ScheduleConflict",
    "SchemaError",
    "SchemaForeign",
    "SchemaMissing",
    "SchemaOutdated",
    "SchemaTooNew",
    "SequenceError",
    "StatementTimeout",
    "StillRunning",
    "TaskCancelled",
    "TaskFailed",
    "TooManyConnections",
    "UndeclaredEvent",
    "UnencryptedSecret",
    "UnknownOption",
    "UnknownQueue",
    "UnknownSchedule",
    "UnknownStep",
    "UnknownTask",
    "UnknownWorkflow",
    "Unreachable",
    "UnsupportedAction",
]


class PgflowError(Exception):
    """The root of every error that pgflow raises on purpose.

    `code` is stable and meant for programs. `exit_code` is the exit status of the command line. `hint` is the next
    command or the fix, or None; a traceback shows it below the message.

        try:
            OrderFlow.start("abc123", order)
        except PgflowError as error:
            print(error.code, error, error.hint)    # already-running OrderFlow 'orderid::abc123' is … Wait until …
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1
    hint: str | None

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint
        if hint:
            self.add_note(hint)


class ConfigError(PgflowError):
    """An option, an argument or a setting is wrong."""

    code = "bad-config"
    exit_code = 2


class BadDsn(ConfigError):
    """The connection string cannot be parsed."""

    code = "bad-dsn"


class BadQueue(ConfigError):
    """A queue has an invalid name or concurrency."""

    code = "bad-queue"


class BadApp(ConfigError):
    """The application given as module:attribute cannot be loaded."""

    code = "bad-app"


class DatabaseError(PgflowError):
    """The database cannot be reached, or does not work as pgflow needs it."""

    code = "database-error"
    exit_code = 3


class Unreachable(DatabaseError):
    """No connection to the database can be opened."""

    code = "unreachable"


class TooManyConnections(Unreachable):
    """The connection limit of the server, the database or the role is reached."""

    code = "too-many-connections"


class PoolerDetected(DatabaseError):
    """The connection goes through a pooler, such as PgBouncer, and the app does not declare one.

    A pooler moves server sessions between clients, so pgflow must not keep state in a session. Declare the pooler:

        app = Pgflow("postgresql://pooler.example:6432/shop", workflows, pooler=True)
    """

    code = "pooler-detected"


class StatementTimeout(DatabaseError):
    """PostgreSQL cancelled the statement of a call, by statement_timeout or pg_cancel_backend; nothing was written."""

    code = "statement-timeout"


class SequenceError(DatabaseError):
    """A sequence of pgflow's tables cannot give a new value: it is behind its table, exhausted or missing.

    A sequence falls behind when rows are copied without it: by logical replication, `COPY` or `pg_dump --data-only`.
    The call changed nothing. The hint is the SQL that repairs the sequence; workers pause until it has run.
    """

    code = "sequence-error"


class RowSecurityError(DatabaseError):
    """Row-level security hides rows of pgflow's tables from the role, or refuses its writes.

    `alter table … enable row level security` switches it on, often from an event trigger; after `force row level
    security` it applies to the table's owner too. Nothing was changed. The hint is the SQL that lets the role see all
    rows.
    """

    code = "row-security"


class OutcomeUnknown(DatabaseError):
    """The connection was lost between sending a call and receiving its answer: the call may have been committed or not.

    Repeat the call with `idempotency_key` within a day: it is carried out if it was not, and returns the first answer
    if it was.

        try:
            OrderFlow.start("abc123", order)
        except OutcomeUnknown as error:
            OrderFlow.start("abc123", order, idempotency_key=error.idempotency_key)
    """

    code = "outcome-unknown"
    idempotency_key: str

    def __init__(self, message: str, *, hint: str | None = None, idempotency_key: str = "") -> None:
        super().__init__(message, hint=hint)
        self.idempotency_key = idempotency_key


class SchemaError(PgflowError):
    """This version of pgflow cannot work on the schema in the database."""

    code = "schema-error"
    exit_code = 4


class SchemaMissing(SchemaError):
    """pgflow's schema does not exist in the database."""

    code = "schema-missing"


class SchemaOutdated(SchemaError):
    """The schema lacks migrations that this version of pgflow needs."""

    code = "schema-outdated"


class SchemaForeign(SchemaError):
    """The schema contains tables that pgflow did not create."""

    code = "schema-foreign"


class SchemaTooNew(SchemaError):
    """A newer pgflow has migrated the schema in a way that this version cannot work with."""

    code = "schema-too-new"


class NotFound(PgflowError, LookupError):
    """A name or an id does not exist."""

    code = "not-found"
    exit_code = 5


class UnknownWorkflow(NotFound):
    """The app has no workflow of that name, or not in that version."""

    code = "unknown-workflow"


class UnknownTask(NotFound):
    """The app has no task of that name."""

    code = "unknown-task"


class UnknownStep(NotFound):
    """The workflow has no step with that key, or the step has no output yet."""

    code = "unknown-step"


class InstanceNotFound(NotFound):
    """No instance has that id."""

    code = "instance-not-found"


class JobNotFound(NotFound):
    """No job has that id, or it is one of another task."""

    code = "job-not-found"


class UnknownQueue(NotFound):
    """No queue or limit has that name: none has settings, a job, a worker or a definition."""

    code = "unknown-queue"


class UnknownSchedule(NotFound):
    """No schedule has that name."""

    code = "unknown-schedule"


class NotAttached(NotFound):
    """No telemetry handler with that id is attached."""

    code = "not-attached"


class Invalid(PgflowError, ValueError):
    """A definition, an input or a value is refused."""

    code = "invalid"
    exit_code = 6


class DefinitionError(Invalid):
    """A workflow or a step is defined in a way that cannot run; raised at import, where the class is created.

    `problems` lists everything that is wrong with the definition; the message is the first of them.
    """

    code = "definition-error"
    problems: tuple[str, ...]

    def __init__(self, message: str, *, hint: str | None = None, problems: Iterable[str] = ()) -> None:
        super().__init__(message, hint=hint)
        self.problems = tuple(problems) or (message,)


class InvalidInput(Invalid):
    """An input does not fit the workflow's input type."""

    code = "invalid-input"


class InvalidPayload(Invalid):
    """A value cannot be stored as JSON or is too large, or a stored value cannot be read."""

    code = "invalid-payload"


class InvalidValue(Invalid):
    """A business value, an id, a duration or another plain argument is out of range or malformed."""

    code = "invalid-value"


class FilterFault(NamedTuple):
    """One thing that is wrong in a filter, from the character `start` up to `end`, counted from 0."""

    start: int
    end: int
    message: str
    hint: str | None = None


class InvalidFilter(InvalidValue):
    """A filter text cannot be read: an unknown key, a value that the key does not take, or a quote that is not closed.

    `text` is the filter, `faults` is all that is wrong in it, each a `FilterFault` with its position.

        try:
            app.find("statee:failed")
        except InvalidFilter as error:
            print(error, error.faults[0].start)    # column 1: there is no key 'statee' 0
    """

    code = "invalid-filter"

    def __init__(self, text: str, faults: Iterable[FilterFault]) -> None:
        self.text = text
        self.faults = tuple(faults)
        hints = dict.fromkeys(each.hint for each in self.faults if each.hint)
        super().__init__(
            "; ".join(f"column {each.start + 1}: {each.message}" for each in self.faults), hint=" ".join(hints) or None
        )


class UnencryptedSecret(Invalid):
    """A secret, such as pydantic's `SecretStr`, would be stored in plain.

    The app has no codec, or the value is stored where the codec does not encrypt: in metadata, tags or configuration.
    """

    code = "unencrypted-secret"


class DecryptionUnavailable(Invalid):
    """A stored value is encrypted, and this process cannot decrypt it: it has no codec, or not that key."""

    code = "decryption-unavailable"


class PayloadUnavailable(Invalid):
    """A value is in a payload store, and this process cannot reach it now.

    The app has no store, the object is missing, or the store refuses the call.
    """

    code = "payload-unavailable"


class UndeclaredEvent(Invalid):
    """A step returned, or a signal would produce, an event that the step does not declare."""

    code = "undeclared-event"


class UnknownOption(Invalid, TypeError):
    """A call was given an option or a filter that does not exist."""

    code = "unknown-option"


class UnsupportedAction(Invalid):
    """A connector does not support the action. Raised by your connectors, see `pgflow.Connector`."""

    code = "unsupported-action"


class RouteError(Invalid):
    """A route raised, or chose a target that it does not declare."""

    code = "route-error"


class NoResult(PgflowError):
    """A job has no result: it failed, was cancelled, or has not ended yet. `job` is its id."""

    code = "no-result"
    job: int | None

    def __init__(self, message: str, *, hint: str | None = None, job: int | None = None) -> None:
        super().__init__(message, hint=hint)
        self.job = job


class TaskFailed(NoResult):
    """The task failed in all of its attempts; the message has the reason of the last one."""

    code = "task-failed"


class TaskCancelled(NoResult):
    """The task was cancelled."""

    code = "task-cancelled"


class StillRunning(NoResult, TimeoutError):
    """The task had not ended within the timeout. It goes on."""

    code = "still-running"


class Conflict(PgflowError):
    """The current state does not allow the call."""

    code = "conflict"
    exit_code = 7


class AlreadyRunning(Conflict):
    """An active instance already has this business key; `run` is its run id."""

    code = "already-running"
    run: int | None

    def __init__(self, message: str, *, hint: str | None = None, run: int | None = None) -> None:
        super().__init__(message, hint=hint)
        self.run = run


class AlreadyEnqueued(Conflict):
    """A job with the same unique key exists; `job` is its id, None if the enqueue skips."""

    code = "already-enqueued"
    job: int | None

    def __init__(self, message: str, *, hint: str | None = None, job: int | None = None) -> None:
        super().__init__(message, hint=hint)
        self.job = job


class AlreadyStarted(Conflict):
    """The job is running, so it can be neither moved nor deleted."""

    code = "already-started"


class AlreadyDone(Conflict):
    """A call with this idempotency key was already carried out, by a concurrent caller."""

    code = "already-done"


class KeyReused(Conflict):
    """The idempotency key was used before, for a different call."""

    code = "key-reused"


class NotActive(Conflict):
    """The instance is finished, so it can be neither resumed nor cancelled."""

    code = "not-active"


class NotRetryable(Conflict):
    """The instance has not failed, so there is nothing to retry."""

    code = "not-retryable"


class AmbiguousSignal(Conflict):
    """Several steps wait for this signal, and the call does not name one."""

    code = "ambiguous-signal"


class AmbiguousId(Conflict):
    """Several workflows have instances with this business id, and the call does not name one."""

    code = "ambiguous-id"


class GraphChanged(Conflict):
    """The workflow's graph, unique key or scope differs from the stored definition of the same version."""

    code = "graph-changed"


class ScheduleConflict(Conflict):
    """There is a schedule of that name, or an app declares it, or it was changed at the same time."""

    code = "schedule-conflict"


class NotBound(Conflict):
    """The workflow class is not bound to an app, or to several."""

    code = "not-bound"


class LimitReached(Conflict):
    """No place of a limit became free within the timeout."""

    code = "limit-reached"


class QueueBusy(Conflict):
    """Jobs of a queue still ran when the time to drain it had passed; the queue is paused."""

    code = "queue-busy"


class AlreadyAttached(Conflict):
    """A telemetry handler with that id is already attached."""

    code = "already-attached"
