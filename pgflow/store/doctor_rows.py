"""What the doctor reads: each class is the answer to one look at a database or its workers.

Ages and durations are seconds, of the database's clock, unless something else is said.
"""

from dataclasses import dataclass

__all__ = [
    "Adrift",
    "Connections",
    "Dead",
    "Index",
    "Late",
    "Orphans",
    "Prepared",
    "Queue",
    "Sequence",
    "Server",
    "Sight",
    "Slot",
    "Transaction",
    "Unapplied",
    "Workers",
    "Wraparound",
]


@dataclass(frozen=True, slots=True)
class Server:
    """What a server is: `version` as it says it, `number` such as 180001, whether it is a standby or read-only.

    `encoding` is that of the database.
    """

    version: str
    number: int
    standby: bool
    read_only: bool
    encoding: str


@dataclass(frozen=True, slots=True)
class Connections:
    """How many connections ordinary roles can have in all, and how many there are."""

    usable: int
    used: int


@dataclass(frozen=True, slots=True)
class Workers:
    """Live workers; those whose lease `ended` though they hold `tokens`, for how long; whether there is `work`."""

    live: int
    ended: int
    tokens: int
    ended_for: float | None
    work: bool


@dataclass(frozen=True, slots=True)
class Orphans:
    """Orphaned rows of a table, among those that were looked at: of how many runs, and the first run."""

    table: str
    runs: int
    first: int


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue with tokens that are ready or due: how many (at most 1001), and how old the oldest is."""

    name: str
    tokens: int
    age: float | None
    served: bool
    paused: bool
    orchestrates: bool


@dataclass(frozen=True, slots=True)
class Adrift:
    """Active instances without a token, the first one's run, and whether all active instances were looked at."""

    instances: int
    first: int | None
    whole: bool


@dataclass(frozen=True, slots=True)
class Unapplied:
    """Results that wait to be applied for more than a minute, the first one's run, and the oldest one's age."""

    results: int
    first: int | None
    age: float | None


@dataclass(frozen=True, slots=True)
class Late:
    """What is due for more than a minute: how many (at most 1001), and how old the oldest is."""

    count: int
    age: float | None


@dataclass(frozen=True, slots=True)
class Sight:
    """Whether a role sees other roles' sessions."""

    sees: bool
    role: str


@dataclass(frozen=True, slots=True)
class Transaction:
    """An open transaction, how old it is and how long ago its last statement began."""

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
    """A replication slot that keeps old rows; `age` counts transactions."""

    name: str
    active: bool
    age: int


@dataclass(frozen=True, slots=True)
class Dead:
    """Dead and live rows in the table of tokens, and how long ago it was vacuumed (None: never)."""

    dead: int
    live: int
    vacuumed: float | None


@dataclass(frozen=True, slots=True)
class Wraparound:
    """How many transactions and multixacts ago old rows were last frozen, and when the server would do it."""

    transactions: int
    multixacts: int
    freeze_at: int
    multixact_freeze_at: int


@dataclass(frozen=True, slots=True)
class Index:
    """An index that no query may use, and whether somebody builds it just now."""

    name: str
    table: str
    building: bool


@dataclass(frozen=True, slots=True)
class Sequence:
    """An identity column: the `highest` value in use, and the `last` one that its sequence gave out.

    `name` is None where the column has lost its sequence, `last` where this role may not read it. `maximum` is the last
    value that the sequence can give out. `repair` is the SQL that sets the sequence to the highest value.
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
        """What keeps the sequence from giving out new values, None when it can."""
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
