"""Find the SQL files, in a checkout or an installed package, and give their text with the schema's name put in."""

import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from pgflow.errors import ConfigError

SCHEMA = "pgflow"
CHECKOUT = Path(__file__).parents[2] / "sql"

# A qualifier: the bare name, a dot, the start of a name. That it stands in a literal makes no difference, because
# 'pgflow.jobs'::regclass must follow the schema too; 'pgflow:jobs', 'pgflow worker' and "… in pgflow." are no
# qualifiers. Nor is the pgflow of a.pgflow.b or my_pgflow.b.
QUALIFIER = re.compile(r'(?<![\w$."])pgflow\.(?=[a-z_"])')
# Nothing that could end an identifier, or the literal around it; and none of PostgreSQL's own.
SCHEMA_NAME = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,62}")


@cache
def root() -> Traversable:
    """Return the `sql/` tree: inside the package once installed, at the top of the checkout in development."""
    packaged = files("pgflow").joinpath("sql")
    return packaged if packaged.is_dir() else CHECKOUT


@cache
def load(path: str, schema: str = SCHEMA) -> str:
    """Return the text of a file below `sql/`, with every qualifier `pgflow.` replaced by that of `schema`.

    This is the one place where another schema's name enters the SQL. The text is read once in a process's life.
    Raises `ConfigError` when `schema` is no plain lower-case name, `FileNotFoundError` when there is no such file.

        load("queries/job/claim.sql", schema="orders")    # ... from "orders".jobs ...
    """
    if not SCHEMA_NAME.fullmatch(schema):
        raise ConfigError(
            f"{schema!r} cannot name a schema",
            hint="Use up to 63 lower-case letters, digits and underscores, not beginning with a digit or with pg_.",
        )
    text = root().joinpath(*path.split("/")).read_text(encoding="utf-8")
    # Quoted, because a plain name may still be a word of SQL's own, such as "user".
    return text if schema == SCHEMA else QUALIFIER.sub(f'"{schema}".', text)


def list_files(folder: str = "") -> list[str]:
    """Return the paths of all .sql files below a folder of `sql/`, in order, as `load` takes them.

    Empty when there is no such folder.

        list_files("migrations")    # ["migrations/0001_engine.sql", ...]
    """
    start = root().joinpath(*folder.split("/")) if folder else root()
    return sorted(_walk(start, folder))


def _walk(folder: Traversable, path: str) -> Iterator[str]:
    if folder.is_dir():
        for entry in folder.iterdir():
            below = f"{path}/{entry.name}" if path else entry.name
            if entry.is_dir():
                yield from _walk(entry, below)
            elif entry.name.endswith(".sql"):
                yield below
