"""Find the SQL files, in a checkout or an installed package, and load them for a schema."""

import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from pgflow.errors import ConfigError

SCHEMA = "pgflow"
CHECKOUT = Path(__file__).parents[2] / "sql"

# A qualifier: the bare name, a dot, the start of a name; in a literal, too, because 'pgflow.jobs'::regclass must follow
# the schema. Not 'pgflow:jobs', 'pgflow worker' or "… in pgflow.", nor the pgflow in a.pgflow.b or my_pgflow.b.
QUALIFIER = re.compile(r'(?<![\w$."])pgflow\.(?=[a-z_"])')
# No character that could end an identifier or the literal around it, and none of PostgreSQL's own schemas.
SCHEMA_NAME = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,62}")


@cache
def root() -> Traversable:
    """Return the `sql/` tree: inside the package once installed, at the top of the checkout in development."""
    packaged = files("pgflow").joinpath("sql")
    return packaged if packaged.is_dir() else CHECKOUT


@cache
def load(path: str, schema: str = SCHEMA) -> str:
    """Return the text of a file below `sql/`, with every qualifier `pgflow.` replaced by `schema`.

    This is the only place where another schema's name enters the SQL. Each file is read once per process. Raises
    `ConfigError` unless `schema` is a plain lower-case name, `FileNotFoundError` if the file does not exist.

        load("queries/job/claim.sql", schema="orders")    # ... from "orders".jobs ...
    """
    if not SCHEMA_NAME.fullmatch(schema):
        raise ConfigError(
            f"{schema!r} is not a valid schema name",
            hint="Use up to 63 lower-case letters, digits and underscores, not starting with a digit or with pg_.",
        )
    text = root().joinpath(*path.split("/")).read_text(encoding="utf-8")
    # Quoted, because a plain name may be an SQL keyword, such as "user".
    return text if schema == SCHEMA else QUALIFIER.sub(f'"{schema}".', text)


def list_files(folder: str = "") -> list[str]:
    """Return the paths of all .sql files below a folder of `sql/`, sorted, as arguments of `load`.

    Empty if the folder does not exist.

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
