"""Every error that pgflow raises on purpose: one root, a stable code, an exit code, and what to do next.

    PgflowError                                     exit code 1: it failed
    ├── ConfigError                                 2: a wrong option, argument or setting
    │   ├── BadDsn
    │   ├── BadQueue
    │   └── BadApp
    ├── DatabaseError                               3: the database does not answer as it should
    │   ├── Unreachable
    │   │   └── TooManyConnections
    │   ├── PoolerDetected
    │   ├── StatementTimeout
    │   ├── SequenceError
    │   ├── RowSecurityError
    │   └── OutcomeUnknown
    ├── SchemaError                                 4: the schema is not one this code can work on
    │   ├── SchemaMissing
    │   ├── SchemaOutdated
    │   ├── SchemaForeign
    │   └── SchemaTooNew
    ├── NotFound (a LookupError)                    5: nothing of that name
    │   ├── UnknownWorkflow
    │   ├── UnknownStep
    │   ├── InstanceNotFound
    │   └── NotAttached
    ├── Invalid (a ValueError)                      6: a definition, an input or a value that is refused
    │   ├── DefinitionError
    │   ├── InvalidInput
    │   ├── InvalidPayload
    │   ├── InvalidValue
    │   ├── UnencryptedSecret
    │   ├── DecryptionUnavailable
    │   ├── UndeclaredEvent
    │   ├── UnknownOption (a TypeError)
    │   ├── UnsupportedAction
    │   └── RouteError
    └── Conflict                                    7: not as things stand
        ├── AlreadyRunning
        ├── AlreadyDone
        ├── KeyReused
        ├── NotActive
        ├── NotRetryable
        ├── AmbiguousSignal
        ├── AmbiguousId
        ├── GraphChanged
        ├── NotBound
        └── AlreadyAttached

Drawing the tree at the top of the file is a habit of httpx and psycopg.
"""

from collections.abc import Iterable
from typing import ClassVar

__all__ = [
    "AlreadyAttached",
    "AlreadyDone",
    "AlreadyRunning",
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
    "InvalidInput",
    "InvalidPayload",
    "InvalidValue",
    "KeyReused",
    "NotActive",
    "NotAttached",
    "NotBound",
    "NotFound",
    "NotRetryable",
    "OutcomeUnknown",
    "PgflowError",
    "PoolerDetected",
    "RouteError",
    "RowSecurityError",
    "SchemaError",
    "SchemaForeign",
    "SchemaMissing",
    "SchemaOutdated",
    "SchemaTooNew",
    "SequenceError",
    "StatementTimeout",
    "TooManyConnections",
    "UndeclaredEvent",
    "UnencryptedSecret",
    "UnknownOption",
    "UnknownStep",
    "UnknownWorkflow",
    "Unreachable",
    "UnsupportedAction",
]


class PgflowError(Exception):
    """The root of every error that pgflow raises on purpose.

    `code` is stable and made for programs, `exit_code` is what the command ends with, `hint` is the next command or
    the mend, if there is one; a traceback shows it below the message.

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
    """The connection string cannot be read."""

    code = "bad-dsn"


class BadQueue(ConfigError):
    """A queue has a name or a concurrency that no queue can have."""

    code = "bad-queue"


class BadApp(ConfigError):
    """The application given as module:attribute cannot be loaded."""

    code = "bad-app"


class DatabaseError(PgflowError):
    """The database does not answer as it should."""

    code = "database-error"
    exit_code = 3


class Unreachable(DatabaseError):
    """No connection to the database can be made."""

    code = "unreachable"


class TooManyConnections(Unreachable):
    """The server, or this role or database on it, allows no further connection."""

    code = "too-many-connections"


class PoolerDetected(DatabaseError):
    """A connection pooler, such as PgBouncer, stands before PostgreSQL, and nobody has said so.

    It hands sessions from one client to another, so that nothing may be left in them. Say so, and nothing is:

        app = Pgflow("postgresql://pooler.example:6432/shop", workflows, pooler=True)
    """

    code = "pooler-in-between"


class StatementTimeout(DatabaseError):
    """PostgreSQL canceled the statement of a call, at its statement_timeout or by hand; nothing of it was written."""

    code = "statement-timeout"


class SequenceError(DatabaseError):
    """A sequence of pgflow's tables gives out no new value: it is behind its table, exhausted or missing.

    A sequence falls behind where rows are copied without it: by logical replication, `COPY`, `pg_dump --data-only`. The
    call changed nothing. The hint is the SQL that repairs the sequence; workers wait until it has been run.
    """

    code = "sequence-error"


class RowSecurityError(DatabaseError):
    """Row-level security hides rows of pgflow's tables from the role that reads them, or refuses its writes.

    It is switched on by `alter table … enable row level security`, often in an event trigger, and holds for a table's
    owner after `force row level security`. Nothing was changed. The hint is the SQL that lets the role see all rows.
    """

    code = "row-security"


class OutcomeUnknown(DatabaseError):
    """A call was sent, and the connection was lost before its answer came: it may have been carried out or not.

    Call again with `idempotency_key`, within a day: then it is carried out if it was not, and told what it came to.

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
    """The schema in the database is not one this code can work on."""

    code = "schema-error"
    exit_code = 4


class SchemaMissing(SchemaError):
    """The database holds no pgflow yet."""

    code = "schema-missing"


class SchemaOutdated(SchemaError):
    """The schema lacks migrations that this code needs."""

    code = "schema-outdated"


class SchemaForeign(SchemaError):
    """The schema holds somebody else's tables."""

    code = "schema-foreign"


class SchemaTooNew(SchemaError):
    """A newer pgflow has changed the schema into what this code cannot understand."""

    code = "schema-too-new"


class NotFound(PgflowError, LookupError):
    """There is nothing of that name."""

    code = "not-found"
    exit_code = 5


class UnknownWorkflow(NotFound):
    """No workflow of that name, or not in that version, is registered."""

    code = "unknown-workflow"


class UnknownStep(NotFound):
    """The workflow has no such step, or the step has no output yet."""

    code = "unknown-step"


class InstanceNotFound(NotFound):
    """No instance has that id."""

    code = "instance-not-found"


class NotAttached(NotFound):
    """No telemetry handler with that id is attached."""

    code = "not-attached"


class Invalid(PgflowError, ValueError):
    """A definition, an input or a value is refused."""

    code = "invalid"
    exit_code = 6


class DefinitionError(Invalid):
    """A workflow or a step is defined in a way that could not run; raised at import, where the class is made.

    The message is the first of `problems`, which are all that was found wrong.
    """

    code = "definition-error"
    problems: tuple[str, ...]

    def __init__(self, message: str, *, hint: str | None = None, problems: Iterable[str] = ()) -> None:
        super().__init__(message, hint=hint)
        self.problems = tuple(problems) or (message,)


class InvalidInput(Invalid):
    """An input does not fit the workflow's input model."""

    code = "invalid-input"


class InvalidPayload(Invalid):
    """A value cannot be stored as JSON, or is too large; or stored text cannot be read."""

    code = "invalid-payload"


class InvalidValue(Invalid):
    """A business value, an id or another plain value breaks its rule."""

    code = "invalid-value"


class UnencryptedSecret(Invalid):
    """A secret, such as pydantic's `SecretStr`, would be stored in plain: there is no codec, or it goes beside it."""

    code = "plain-secret"


class DecryptionUnavailable(Invalid):
    """A stored value is sealed, and there is no codec here, or not the key, that opens it."""

    code = "sealed"


class UndeclaredEvent(Invalid):
    """A step or a signal brings an event that the step does not declare."""

    code = "undeclared-event"


class UnknownOption(Invalid, TypeError):
    """A call was given an option or a filter that does not exist."""

    code = "unknown-option"


class UnsupportedAction(Invalid):
    """A connector has no such action; raised by connectors, see `pgflow.Connector`."""

    code = "unsupported-action"


class RouteError(Invalid):
    """A route raised, or chose what it had not declared."""

    code = "route-error"


class Conflict(PgflowError):
    """It cannot be done as things stand."""

    code = "conflict"
    exit_code = 7


class AlreadyRunning(Conflict):
    """An active instance has this business key already."""

    code = "already-running"


class AlreadyDone(Conflict):
    """A call with this idempotency key has been carried out, by somebody who was faster."""

    code = "already-done"


class KeyReused(Conflict):
    """The idempotency key was used for another call."""

    code = "key-reused"


class NotActive(Conflict):
    """The instance is finished, so it can be neither resumed nor cancelled."""

    code = "not-active"


class NotRetryable(Conflict):
    """The instance has not failed, so there is nothing to retry."""

    code = "not-retryable"


class AmbiguousSignal(Conflict):
    """Several steps wait for this signal, and none was named."""

    code = "ambiguous-signal"


class AmbiguousId(Conflict):
    """Several workflows have instances with this business id, and none was named."""

    code = "ambiguous-id"


class GraphChanged(Conflict):
    """The workflow's graph, unique key or scope differs from what is stored under the same version."""

    code = "graph-changed"


class NotBound(Conflict):
    """The workflow belongs to no app, or to several."""

    code = "not-bound"


class AlreadyAttached(Conflict):
    """A telemetry handler with that id is attached already."""

    code = "already-attached"
