"""The rows that `store.doctor` reads, a class for each statement.

Ages and durations are seconds of the database's clock, unless noted otherwise.
"""

from dataclasses import dataclass

__all__ = [
    "Clock",
    "Connections",
    "DeadRows",
    "Index",
    "MissingJobs",
    "Orphans",
    "Overdue",
    "Prepared",
    "Queue",
    "Sequence",
    "Server",
    "Slot",
    "Transaction",
    "Unapplied",
    "Visibility",
    "Workers",
    "Wraparound",
]


@dataclass(frozen=True, slots=True)
class Server:
    """A server: its `version` string and `number` (180001), whether it is a standby or read-only.

    `encoding` is the database's.
    """

    version: str
    number: int
    standby: bool
    read_only: bool
    encoding: str


@dataclass(frozen=True, slots=True)
class Clock:
    """The server's `time`, in seconds since 1970, and by how many seconds pgflow's clock is `ahead` of it."""

    time: float
    ahead: float


@dataclass(frozen=True, slots=True)
class Connections:
    """How many connections ordinary roles can use in total, and how many are in use."""

    usable: int
    used: int


@dataclass(frozen=True, slots=True)
class Workers:
    """Live workers; `expired` ones that hold `jobs`, and since when; whether a job is ready or due."""

    live: int
    expired: int
    jobs: int
    expired_for: float | None
    has_work: bool


@dataclass(frozen=True, slots=True)
class Orphans:
    """Orphaned rows found in a table: of how many runs, and the first run id."""

    table: str
    runs: int
    first: int


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue with jobs that are ready or due: how many (at most 1001), and the age of the oldest.

    `paused_for` is in seconds, None for a queue that is not paused.
    """

    name: str
    jobs: int
    age: float | None
    served: bool
    paused_for: float | None
    paused_by: str | None
    orchestrates: bool


@dataclass(frozen=True, slots=True)
class MissingJobs:
    """Active instances without a job, the first run id, and whether all active instances were examined."""

    instances: int
    first: int | None
    is_complete: bool


@dataclass(frozen=True, slots=True)
class Unapplied:
    """Results that have waited to be applied for more than a minute, the first run id, and the age of the oldest."""

    results: int
    first: int | None
    age: float | None


@dataclass(frozen=True, slots=True)
class Overdue:
    """Rows that have been due for more than a minute: how many (at most 1001), and the age of the oldest."""

    count: int
    age: float | None


@dataclass(frozen=True, slots=True)
class Visibility:
    """Whether a role sees other roles' sessions."""

    complete: bool
    role: str


@dataclass(frozen=True, slots=True)
class Transaction:
    """An open transaction, its age and the age of its last statement."""

    pid: int
    application: str
    state: str
    age: float
    query_age: float


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prepared transaction."""

    name: str
    age: float


@dataclass(frozen=True, slots=True)
class Slot:
    """A replication slot that keeps dead rows; `age` counts transactions."""

    name: str
    active: bool
    age: int


@dataclass(frozen=True, slots=True)
class DeadRows:
    """Dead and live rows in the jobs table, and how long ago it was vacuumed (None: never)."""

    dead: int
    live: int
    vacuumed: float | None


@dataclass(frozen=True, slots=True)
class Wraparound:
    """The age of the oldest unfrozen row, and the ages at which autovacuum freezes it."""

    transactions: int
    multixacts: int
    freeze_at: int
    multixact_freeze_at: int


@dataclass(frozen=True, slots=True)
class Index:
    """An invalid index, and whether it is being built now."""

    name: str
    table: str
    building: bool


@dataclass(frozen=True, slots=True)
class Sequence:
    """An identity column: the `highest` value in use, and the `last` value that its sequence gave out.

    `name` is None when the column has no sequence, `last` when this role may not read it. `maximum` is the last value
    that the sequence can give out. `repair` is the SQL that sets the sequence to the highest value.
    """

    table: str
    column: str
    name: str | None
    highest: int
    last: int | None
    maximum: int | None
    repair: str

    @property
    def fault(self) -> str | None:
        """Why the sequence cannot give out a new value; None when it can."""
        if self.name is None:
            return f"{self.table}.{self.column} has no sequence, so that no row can be inserted"
        if self.last is None:
            return None
        if self.last < self.highest:
            sizes = f"max {self.column} {self.highest}, last value {self.last}"
            return f"sequence {self.name} is behind {self.table}: {sizes}"
        if self.maximum is not None and self.last >= self.maximum:
            return f"sequence {self.name} is exhausted: its last value is its maximum, {self.maximum}"
        return None
