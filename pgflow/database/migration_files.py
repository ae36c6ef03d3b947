"""Read the migrations and SQL functions that this version of pgflow ships, in the order in which they apply."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import PurePosixPath

from pgflow.database import files
from pgflow.database.files import SCHEMA
from pgflow.errors import SchemaError

__all__ = ["FUNCTIONS", "Functions", "Migration", "functions", "in_order", "migrations", "relations"]

FUNCTIONS = 0  # the version under which the table `migrations` records the checksum of the functions
FILE_NAME = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
HEADER = re.compile(r"^-- pgflow: (.+?)\s*$", re.MULTILINE)
ALTERED = re.compile(r"^alter table (?:only )?pgflow\.(\w+)", re.MULTILINE)
CREATED = re.compile(r"^create table (?:if not exists )?pgflow\.(\w+)", re.MULTILINE)
RELATION = re.compile(r"^create (?:table|or replace view) (?:if not exists )?pgflow\.(\w+)", re.MULTILINE)
HEAD = re.compile(r"^create or replace function pgflow\.(?P<name>\w+)\(.*?\bas \$", re.MULTILINE | re.DOTALL)
CLOSED = re.compile(r"^revoke all on function pgflow\.(\w+)\(", re.MULTILINE)
PINNED = "set search_path = pg_catalog, pg_temp"
BREAKING = "breaking"
NO_TRANSACTION = "no transaction"


@dataclass(frozen=True, slots=True)
class Migration:
    """A file `sql/migrations/NNNN_noun.sql`, written for the schema `pgflow`.

    A header `-- pgflow: breaking` declares that an older pgflow cannot run on the result. `-- pgflow: no transaction`
    declares that its statements, such as `create index concurrently`, run one by one outside a transaction and may run
    twice; each must end at the end of a line. A migration cannot have both: a breaking one is applied as a whole or not
    at all, so that older workers can resume if it fails. `alters` are the existing tables that it alters.
    """

    version: int
    name: str
    path: str
    checksum: str
    breaking: bool = False
    transactional: bool = True
    alters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Functions:
    """The files of `sql/functions/`, functions and views, all of them `create or replace`, and one checksum over them.

    `create or replace` cannot change a function's arguments or result, nor a view's columns except by adding some, and
    does not drop a removed one. A migration must do that, and drop a view that blocks a change to its tables. A release
    that changes functions must ship a migration, even an empty one: its version distinguishes an old pgflow on a newer
    schema from a new pgflow on an older one.

    Function bodies name the schema, and renaming the schema does not change them, so the checksum covers the schema's
    name. `definers` are the names of the `security definer` functions, `pinned` of those with their own `search_path`,
    `closed` of those that PUBLIC may not call.
    """

    paths: tuple[str, ...]
    checksum: str
    definers: frozenset[str]
    pinned: frozenset[str]
    closed: frozenset[str]


@cache
def migrations() -> tuple[Migration, ...]:
    """Return the migrations in order.

    Raises `SchemaError` if one is missing or misnamed: the installation is broken.
    """
    return in_order([(path, files.load(path)) for path in files.list_files("migrations")])


@cache
def functions(schema: str = SCHEMA) -> Functions:
    """Return the functions for `schema`, in the order of their file names."""
    paths = tuple(files.list_files("functions"))
    text = "".join(files.load(path) for path in paths)
    heads = list(HEAD.finditer(text))
    return Functions(
        paths,
        _sha256("".join(_unix(files.load(path, schema)) for path in paths)),
        definers=frozenset(head["name"] for head in heads if "security definer" in head[0]),
        pinned=frozenset(head["name"] for head in heads if PINNED in head[0]),
        closed=frozenset(CLOSED.findall(text)),
    )


@cache
def relations() -> frozenset[str]:
    """Return the names of all tables and views that the files of this version create."""
    paths = ["queries/migration/create_table.sql", *files.list_files("migrations"), *files.list_files("functions")]
    return frozenset(name for path in paths for name in RELATION.findall(files.load(path)))


def in_order(texts: Sequence[tuple[str, str]]) -> tuple[Migration, ...]:
    """Return the migrations of these (path, text) pairs in order. Raises `SchemaError` unless they number 1, 2, 3, …

    in_order([("migrations/0001_engine.sql", "create table …")])
    """
    found = sorted((_migration(path, text) for path, text in texts), key=lambda each: (each.version, each.path))
    for expected, each in enumerate(found, start=1):
        if each.version != expected:
            raise SchemaError(f"migration {expected:04} is missing or duplicated: found {each.path} instead")
    return tuple(found)


def _migration(path: str, text: str) -> Migration:
    match = FILE_NAME.fullmatch(PurePosixPath(path).name)
    if match is None:
        raise SchemaError(f"{path} is not a valid name of a migration", hint="Name it NNNN_noun.sql.")
    headers = HEADER.findall(text)
    unknown = set(headers) - {BREAKING, NO_TRANSACTION}
    if unknown:
        raise SchemaError(
            f"{path} has an unknown header: {min(unknown)}", hint=f"Use one of: {BREAKING}, {NO_TRANSACTION}."
        )
    if {BREAKING, NO_TRANSACTION} <= set(headers):
        raise SchemaError(f"{path} is breaking and without a transaction", hint="Split it into two migrations.")
    return Migration(
        version=int(match[1]),
        name=match[2],
        path=path,
        checksum=_sha256(_unix(text)),
        breaking=BREAKING in headers,
        transactional=NO_TRANSACTION not in headers,
        alters=tuple(dict.fromkeys(name for name in ALTERED.findall(text) if name not in CREATED.findall(text))),
    )


def _unix(text: str) -> str:
    """Return the text with Unix line ends; a checkout on Windows may have others."""
    return text.replace("\r\n", "\n")


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
